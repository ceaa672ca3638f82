//! What callers of the kit can be told.

use std::path::PathBuf;
use std::sync::Arc;

use coord_kv::KvError;
use coord_kv_rocks::OpenError as StoreOpenError;

use crate::config::ConfigError;
use crate::log::LogError;
use crate::snapshot::SnapshotError;

/// The member that leads, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub id: u64,
    pub address: String,
}

/// Why a command got no reply. Unless it says so, the command may still be applied later: retry it under the same
/// session and sequence number.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    #[error("this member does not lead{}", leader_text(leader.as_ref()))]
    NotLeader { leader: Option<Leader> },
    /// The session is unknown: it expired or was never registered. Nothing was applied.
    #[error("the session of the command is not known any more")]
    SessionExpired,
    /// The session acknowledged this reply already, so it is gone. Nothing was applied now.
    #[error("the reply of command {seq} was acknowledged and dropped")]
    ReplyGone { seq: u64 },
    #[error("the command did not commit before its deadline")]
    Timeout,
    /// Nothing was applied.
    #[error("{waiting} proposals are waiting already")]
    Busy { waiting: usize },
    /// Nothing was applied.
    #[error("the command has {bytes} bytes, {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("another leader's snapshot came in between: whether the command was applied is not known here")]
    Superseded,
    #[error("this member has stopped")]
    Stopped,
}

impl ProposeError {
    /// Whether the same command, under the same session and number, may succeed on this or another member.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Timeout | Self::Busy { .. } | Self::Superseded | Self::Stopped => {
                true
            }
            Self::SessionExpired | Self::ReplyGone { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// Why a read could not be shown to be current.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this member does not lead{}", leader_text(leader.as_ref()))]
    NotLeader { leader: Option<Leader> },
    #[error("no majority confirmed the leader before the deadline")]
    Timeout,
    #[error("this member has stopped")]
    Stopped,
}

impl ReadError {
    /// Whether asking again, here or at the leader, may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Timeout | Self::Stopped => true,
        }
    }
}

fn leader_text(leader: Option<&Leader>) -> String {
    leader.map_or_else(
        || "; no leader is known".to_owned(),
        |leader| format!("; member {} at {} does", leader.id, leader.address),
    )
}

/// Why a member could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the settings are wrong")]
    Config(#[from] ConfigError),
    #[error("open the log")]
    Log(#[from] LogError),
    #[error("open the state's store")]
    Store(#[from] StoreOpenError),
    #[error("read the state's store")]
    Kv(#[from] KvError),
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("the data under {} belongs to member {found}, this is member {wanted}", path.display())]
    WrongMember { path: PathBuf, found: u64, wanted: u64 },
    #[error("the state machine's family name {name} is one of the kit's own")]
    ReservedFamily { name: &'static str },
    #[error("open the snapshots")]
    Snapshot(#[from] SnapshotError),
    #[error("start the Raft core")]
    Core(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why a change of the members failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this member does not lead{}", leader_text(leader.as_ref()))]
    NotLeader { leader: Option<Leader> },
    #[error("the cluster has members already")]
    AlreadyInitialized,
    #[error("another change of the members is in progress")]
    InProgress,
    #[error("the change is not possible: {reason}")]
    Refused { reason: String },
    #[error("the change did not commit before its deadline")]
    Timeout,
    #[error("this member has stopped")]
    Stopped,
}

impl MembershipError {
    /// Whether asking again, here or at the leader, may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::InProgress | Self::Timeout | Self::Stopped => true,
            Self::AlreadyInitialized | Self::Refused { .. } => false,
        }
    }
}
