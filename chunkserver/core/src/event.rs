//! The vocabulary: what the server tells a [`Replica`](crate::Replica), and what the replica asks of the server.
//!
//! `C` is the content of a write (its bytes, range and checksums). The core never looks into it; it must be cheap to
//! clone, because one clone goes to each member.

use coord_types::{ChunkKey, DiskId, Epoch, Fence, Stamp, Version};

/// Names a caller that waits for an answer. Chosen by the server, never used twice within a process.
pub type Token = u64;

/// A group as the table shows it to one of its members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub epoch: Epoch,
    /// The members that take part in writes; the first is the primary.
    pub serving: Vec<MemberInfo>,
    /// The members that are being filled.
    pub syncing: Vec<MemberInfo>,
    /// Fewer take part in writes than must have a write before it is acknowledged: none is.
    pub short: bool,
}

/// A member as the table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberInfo {
    pub disk: DiskId,
    /// Of the process that runs the disk; grows with each start. 0: not known.
    pub incarnation: u64,
}

/// A client's write or punch, at the primary. Of a fence record: a raise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write<C> {
    pub token: Token,
    pub key: ChunkKey,
    pub epoch: Epoch,
    pub stamp: Option<Stamp>,
    /// What it is written under; a raise: what it raises to.
    pub fence: Fence,
    pub content: C,
}

/// A write the primary ordered, at a secondary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replicate<C> {
    pub token: Token,
    pub epoch: Epoch,
    pub activation: u64,
    pub key: ChunkKey,
    pub previous: Version,
    pub version: Version,
    pub stamp: Option<Stamp>,
    pub content: C,
}

/// A page of another member's list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// Ascending.
    pub chunks: Vec<(ChunkKey, Version)>,
    /// Nothing follows.
    pub end: bool,
    /// Of the process that answered.
    pub incarnation: u64,
}

/// A part of this member's own list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Ascending.
    pub chunks: Vec<(ChunkKey, Version)>,
    /// More chunks follow within the range that was asked for.
    pub truncated: bool,
}

/// A write that is committed, or a message that did what it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub version: Version,
    pub allocated_delta_bytes: i64,
}

/// Why this member's disk did not do a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    Full,
    /// The chunk's data here is damaged.
    Damaged,
    /// The data did not have the checksums that came with it.
    Checksum,
    /// The request does not fit the chunk, by a mistake of the client.
    Invalid,
    /// The disk failed.
    Disk,
    /// The chunk's version is not the one before this write, or a write before this one failed.
    Conflict,
}

/// Why a caller does not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member promised something newer (or never heard of the epoch asked for).
    Stale {
        epoch: Epoch,
        activation: u64,
    },
    NotPrimary,
    /// The data's fence is this, above the write's.
    Fenced {
        fence: Fence,
    },
    NotCommitted,
    /// Not activated since the start of the process.
    NotServing,
    Busy,
    Fault(Fault),
}

/// Why a message to another member failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerError {
    /// It promised something newer.
    Stale { epoch: Epoch, activation: u64 },
    /// Anything else: away, late, full, a failed disk.
    Failed,
    /// Nothing is wrong with the member: this disk cannot read the chunk it should install there.
    SourceDamaged,
}

/// What a replica asks of the server. Each effect that names an answer is answered by exactly one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// Make this epoch durable for the group, then [`promised`](crate::Replica::promised).
    Promise { epoch: Epoch },
    /// Write on this member's disk if the chunk is at `previous`, then [`applied`](crate::Replica::applied).
    Apply { key: ChunkKey, previous: Version, version: Version, stamp: Option<Stamp>, content: C },
    /// Send to a member, then [`replicated`](crate::Replica::replicated).
    Replicate {
        peer: DiskId,
        epoch: Epoch,
        activation: u64,
        key: ChunkKey,
        previous: Version,
        version: Version,
        stamp: Option<Stamp>,
        content: C,
    },
    /// Tell the other serving members, soon. Not answered.
    Committed { key: ChunkKey, version: Version },
    /// Answer the caller that waits under this token. Not answered.
    Answer { token: Token, result: Result<Done, Refusal> },
    /// Send, then [`prepared`](crate::Replica::prepared). `after`: `None` asks for the promise alone,
    /// `Some(None)` for the first page. `fill`: the member is syncing.
    Prepare { peer: DiskId, epoch: Epoch, activation: u64, after: Option<Option<ChunkKey>>, fill: bool },
    /// Make the chunk at the member what it is here (or gone, if it is gone here), then
    /// [`equalised`](crate::Replica::equalised).
    Equalise { peer: DiskId, epoch: Epoch, activation: u64, key: ChunkKey },
    /// Send, then [`activated`](crate::Replica::activated).
    Activate { peer: DiskId, epoch: Epoch, activation: u64 },
    /// Call [`retry`](crate::Replica::retry) after a back-off that grows with `attempt`.
    Retry { activation: u64, attempt: u32 },
    /// Make the chunk at a syncing member what it is here, read at one moment, when what was read is committed (see
    /// [`read`](crate::Replica::read)); then [`filled`](crate::Replica::filled).
    Fill { peer: DiskId, epoch: Epoch, activation: u64, key: ChunkKey },
    /// Send a committed write to a syncing member, then [`forwarded`](crate::Replica::forwarded).
    Forward {
        peer: DiskId,
        epoch: Epoch,
        activation: u64,
        key: ChunkKey,
        previous: Version,
        version: Version,
        stamp: Option<Stamp>,
        content: C,
    },
    /// A syncing member is level: tell the master. Not answered; [`level`](crate::Replica::level) says the same.
    Level { peer: DiskId, epoch: Epoch },
    /// Call [`retry_fill`](crate::Replica::retry_fill) after a back-off that grows with `attempt`.
    RetryFill { peer: DiskId, activation: u64, attempt: u32 },
    /// Another member is at a newer epoch: fetch the table. Not answered.
    Outdated { epoch: Epoch },
}

/// What the core may look up on its disk at any moment. What is found is durable.
pub trait Store {
    /// The chunk's version; [`Version::NONE`] if there is none.
    ///
    /// # Errors
    /// [`Fault`] if the disk failed.
    fn version(&self, key: ChunkKey) -> Result<Version, Fault>;

    /// Whether the chunk's writer windows have seen the stamp.
    ///
    /// # Errors
    /// [`Fault`] if the disk failed.
    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault>;

    /// The fence a record holds; [`Fence::NONE`] if there is none. Asked for every write of a client.
    ///
    /// # Errors
    /// [`Fault`] if the disk failed.
    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault>;

    /// The group's chunks after `after`, up to and with `upto` if there is one, ascending, at most a bounded number.
    ///
    /// # Errors
    /// [`Fault`] if the disk failed.
    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault>;
}

/// What every event may use: the disk's state, and a place for effects. The server reuses the vector.
#[derive(Debug)]
pub struct Io<'a, S, C> {
    pub store: &'a S,
    pub effects: &'a mut Vec<Effect<C>>,
}

impl<S, C> Io<'_, S, C> {
    pub(crate) fn emit(&mut self, effect: Effect<C>) {
        self.effects.push(effect);
    }

    pub(crate) fn answer(&mut self, token: Token, result: Result<Done, Refusal>) {
        self.effects.push(Effect::Answer { token, result });
    }
}

/// Bounds of a replica's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Writes of one chunk handed to the disk before the first is durable. 1 if the disk cannot keep their order.
    pub local_depth: usize,
    /// Writes in flight in a group; beyond, `BUSY`. Each may hold 1 MiB.
    pub in_flight_max: usize,
    /// Writes that wait for an activation; beyond, `BUSY`.
    pub queue_max: usize,
    /// Writes a secondary holds back because an earlier one has not arrived.
    pub early_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A client has at most 32 writes to a chunk in flight, and a stream is spread over several groups.
        Self { local_depth: 32, in_flight_max: 256, queue_max: 256, early_max: 256 }
    }
}
