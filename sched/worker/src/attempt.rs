//! The name of one try at one instance, and what it reads.

use std::fmt;
use std::path::{Path, PathBuf};

use sched_api::proto;

/// One try at one instance of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The task's number in its job.
    pub task: u32,
    /// The instance's number in its task.
    pub instance: u32,
    /// Counts the tries.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.task, self.instance, self.number)
    }
}

impl From<proto::AttemptId> for Attempt {
    fn from(id: proto::AttemptId) -> Self {
        Self { task: id.task, instance: id.instance, number: id.attempt }
    }
}

impl From<Attempt> for proto::AttemptId {
    fn from(attempt: Attempt) -> Self {
        Self { task: attempt.task, instance: attempt.instance, attempt: attempt.number }
    }
}

/// Part of a file, by its path relative to the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub path: String,
    pub offset: u64,
    pub len: u64,
}

impl Piece {
    /// The file's full path.
    #[must_use]
    pub fn path_in(&self, mount: &Path) -> PathBuf {
        mount.join(self.path.trim_start_matches('/'))
    }
}

impl From<proto::Piece> for Piece {
    fn from(piece: proto::Piece) -> Self {
        Self { path: piece.path, offset: piece.offset, len: piece.len }
    }
}
