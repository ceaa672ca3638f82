//! Bugs that are put back on purpose, to see that the simulator notices. All of them sit in the adapters of this crate: no
//! product code knows of them.

use clap::ValueEnum;

/// A mistake of a kind that this protocol invites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// The master takes a silent server out after a tenth of the lease it granted.
    LeaseWait,
    /// A server answers reads without looking at its lease.
    NoLease,
    /// A disk confirms writes it has not synced.
    Unsynced,
    /// A disk makes the record of a write durable before its data.
    RecordFirst,
    /// A primary does not look whether it has seen a write's stamp.
    ForgetStamp,
    /// A primary says that an epoch is active before all members were compared: a joining member counts as serving.
    SettleEarly,
    /// The primary answers when its own disk has the write.
    AckEarly,
    /// Heartbeats are not numbered: one that comes late gives back a lease that was granted since.
    LateHeartbeat,
    /// The master takes a slow disk out of use without calling its server's lease back.
    SlowLease,
}
