//! Mistakes put into the adapters of the model, to see that the check notices: no product code knows of them.

/// A mistake of a kind that this protocol invites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The primary takes a write for durable at another member when it is sent.
    AcknowledgeEarly,
    /// A disk confirms writes it has not synced.
    Unsynced,
    /// A disk confirms a promise it has not made durable.
    ForgetPromise,
    /// The windows stored with a chunk are not looked at.
    ForgetStamp,
    /// The fence stored with the data is not looked at.
    ForgetFence,
    /// A raise does not wait for what is in flight under lower fences.
    RaiseAtOnce,
    /// The master takes a member for serving before the epoch in which it joined was activated.
    SettleEarly,
    /// A member that joins is put first.
    JoiningLeads,
    /// The master takes a member out and does not wait for the end of its lease.
    LeaseNotWaitedFor,
    /// A server answers reads without looking at its lease.
    NoLease,
    /// A read asks for leave when it is done instead of before.
    LateReadPermit,
    /// A version is told as committed when it is sent.
    CommitEarly,
    /// A difference counts as removed when the chunk is sent.
    EqualiseEarly,
    /// What is read for a syncing member is sent before it is committed.
    FillUncommitted,
    /// A member takes a write for the activation it follows, whichever it was sent in.
    WriteOfAnyActivation,
    /// A member takes a chunk for the attempt it follows, whichever it was sent in.
    InstallOfAnyActivation,
    /// A member takes Activate for the attempt it follows, whichever it was sent in.
    ActivateOfAnyActivation,
    /// A message may outlive the process it was sent to.
    MessagesOutliveProcesses,
    /// The back-off after an attempt that failed never ends.
    ForgetRetry,
}
