//! Who talks to whom, and what they say: the messages of `chunk.proto` and `master.proto`, as the types that both ends use.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chunkserver_api::{ChunkError, Read, ReadData, Write, Written};
use chunkserver_core::{Page, Refusal};
use coord_types::{ChunkKey, DiskId, Epoch, GroupId, ServerId, Stamp, Version};
use master_model::{Table, proto};
use tokio::sync::oneshot;

use crate::disk::{Content, Rec};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Master(usize),
    Server(usize),
    Client(usize),
}

/// Commits a member is told of.
pub(crate) type News = Vec<(ChunkKey, Version)>;

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Replicate {
        disk: DiskId,
        at: (Epoch, u64),
        key: ChunkKey,
        previous: Version,
        version: Version,
        stamp: Option<Stamp>,
        content: Content,
        committed: News,
    },
    Prepare {
        disk: DiskId,
        group: GroupId,
        at: (Epoch, u64),
        after: Option<Option<ChunkKey>>,
        fill: bool,
    },
    Install {
        disk: DiskId,
        at: (Epoch, u64),
        key: ChunkKey,
        rec: Option<Arc<Rec>>,
    },
    Activate {
        disk: DiskId,
        group: GroupId,
        at: (Epoch, u64),
    },
    Commit {
        disk: DiskId,
        committed: News,
    },
    Join {
        disk: DiskId,
        incarnation: u64,
    },
    Confirm {
        disk: DiskId,
        group: GroupId,
        epoch: Epoch,
    },
    Write {
        write: Write,
        data: Bytes,
    },
    Read {
        read: Read,
    },
    Register(proto::RegisterServerRequest),
    Heartbeat(proto::HeartbeatRequest),
    GetTable(proto::GetTableRequest),
    Report(ServerId),
    Goodbye {
        server: ServerId,
        incarnation: u64,
    },
    MayDrop {
        disk: DiskId,
        group: GroupId,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    Page(Page),
    Written(Written),
    Data(ReadData),
    Registered { server: ServerId, disk: DiskId },
    Beat { leased: bool, register_again: bool, version: u64, table: Option<Arc<Table>> },
    Table(Option<Arc<Table>>),
    MayDrop(bool),
}

/// Why a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused(Refusal),
    NotLeader(Option<usize>),
    Unavailable,
    Deadline,
}

pub(crate) type Answer = Result<Reply, Failure>;

/// What a caller does with the answer.
#[derive(Debug)]
pub(crate) enum About {
    Replicate {
        group: GroupId,
        peer: DiskId,
        activation: u64,
        at: (ChunkKey, Version),
    },
    Forward {
        group: GroupId,
        peer: DiskId,
        activation: u64,
        key: ChunkKey,
    },
    Prepare {
        group: GroupId,
        peer: DiskId,
        activation: u64,
    },
    Equalise {
        group: GroupId,
        peer: DiskId,
        activation: u64,
        key: ChunkKey,
    },
    Fill {
        group: GroupId,
        peer: DiskId,
        activation: u64,
        at: (ChunkKey, Version),
    },
    Activate {
        group: GroupId,
        peer: DiskId,
        activation: u64,
    },
    /// One of the members a read without a lease asks.
    Confirm {
        read: u64,
        peer: DiskId,
    },
    Register,
    Heartbeat {
        sent: Instant,
    },
    Follow,
    MayDrop {
        group: GroupId,
    },
    Goodbye,
    ClientCall(oneshot::Sender<Result<Reply, ChunkError>>),
    ClientFollow,
    /// Nobody waits for it.
    Nothing,
}

impl About {
    /// The disk that was asked.
    pub(crate) const fn peer(&self) -> Option<DiskId> {
        match self {
            Self::Replicate { peer, .. }
            | Self::Forward { peer, .. }
            | Self::Prepare { peer, .. }
            | Self::Equalise { peer, .. }
            | Self::Fill { peer, .. }
            | Self::Activate { peer, .. }
            | Self::Confirm { peer, .. } => Some(*peer),
            Self::Register
            | Self::Heartbeat { .. }
            | Self::Follow
            | Self::MayDrop { .. }
            | Self::Goodbye
            | Self::ClientCall(_)
            | Self::ClientFollow
            | Self::Nothing => None,
        }
    }
}

/// What a client hears; `chunkserver_server::service` and `ChunkError::from(Status)` say the same in two steps.
pub(crate) fn chunk_error(failure: Failure) -> ChunkError {
    use chunkserver_core::Fault;
    let unavailable = |message: &str| ChunkError::Unavailable { message: message.to_owned() };
    match failure {
        Failure::Refused(Refusal::Stale { epoch, .. }) => ChunkError::Stale { epoch },
        Failure::Refused(Refusal::NotPrimary) => ChunkError::NotPrimary,
        Failure::Refused(Refusal::Fenced { fence }) => ChunkError::Fenced { fence },
        Failure::Refused(Refusal::NotCommitted) => ChunkError::NotCommitted,
        Failure::Refused(Refusal::NotServing) => unavailable("the group is being prepared"),
        Failure::Refused(Refusal::Busy) => {
            ChunkError::Busy { retry_after: std::time::Duration::from_millis(20) }
        }
        Failure::Refused(Refusal::Fault(Fault::Full)) => ChunkError::NoSpace { message: String::new() },
        Failure::Refused(Refusal::Fault(Fault::Damaged | Fault::Checksum)) => {
            ChunkError::Damaged { message: String::new() }
        }
        Failure::Refused(Refusal::Fault(Fault::Invalid)) => {
            ChunkError::Refused { code: kuafu::Code::InvalidArgument, message: String::new() }
        }
        Failure::Refused(Refusal::Fault(Fault::Disk)) => unavailable("the disk failed"),
        Failure::Refused(Refusal::Fault(Fault::Conflict)) => {
            unavailable("the chunk is being brought to one state")
        }
        Failure::NotLeader(_) | Failure::Unavailable => unavailable("away"),
        Failure::Deadline => ChunkError::Deadline,
    }
}
