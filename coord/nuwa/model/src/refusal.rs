//! Why a command was not carried out. Nothing of it was.

use std::fmt;

use crate::VALUE_MAX_BYTES;
use crate::path::{PATH_MAX_BYTES, Path, PathError};
use crate::proto;

/// See the variants; each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{:?} is no path: {error}", cut(path))]
    BadPath { path: String, error: PathError },
    #[error("{0} does not exist")]
    NotFound(Path),
    #[error("the directory {0} does not exist: make it first, or ask for missing parents to be made")]
    ParentNotFound(Path),
    #[error("{0} exists already")]
    Exists(Path),
    #[error("{0} is a file: a directory of that name cannot be there, too")]
    NotADirectory(Path),
    #[error("{0} is a directory: a file of that name cannot be there, too")]
    IsADirectory(Path),
    #[error("{0} is not empty: delete what is in it first, or the whole subtree")]
    NotEmpty(Path),
    #[error(
        "the value for {path} has {bytes} bytes, at most {VALUE_MAX_BYTES} are possible: keep it in a file system, and its name here"
    )]
    ValueTooLarge { path: Path, bytes: usize },
    #[error("one command would touch too much at {path}, at most {limit}: do it in pieces")]
    TooMuch { path: Path, limit: Limit },
    #[error(
        "counting what is below {directory} would hold up everybody, at most {limit} are counted at once: set quotas on directories in it first, which count as one entry each, or set it while there is less"
    )]
    TooMuchToCount { directory: Path, limit: Limit },
    #[error(
        "the answer to this command would have more than {bytes_max} bytes: do it in pieces, and get large values by reads"
    )]
    AnswerTooLarge { bytes_max: u64 },
    #[error(
        "the lock of {path} has {claims_max} claims, of those who hold it and who wait, and takes no more: try again when some are gone"
    )]
    TooManyClaims { path: Path, claims_max: u64 },
    #[error("the quota of {directory} is {limit}: delete something below it, or have it raised")]
    Quota { directory: Path, limit: Limit },
    #[error("session {0} is over: open another")]
    SessionOver(u64),
    #[error("{0} is locked by another session, or waited for")]
    Locked(Path),
    #[error("the lock of {0} is neither held nor waited for by this owner")]
    NotHeld(Path),
    #[error("bad request: {0}")]
    Invalid(&'static str),
    #[error(
        "the tree is being restored from a snapshot: wait until it is whole, or restore it again if that was broken off"
    )]
    Restoring,
}

/// What there may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Entries(u64),
    Bytes(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(count) => write!(f, "{count} entries"),
            Self::Bytes(count) => write!(f, "{count} bytes"),
        }
    }
}

impl Refusal {
    #[must_use]
    pub const fn code(&self) -> proto::RefusalCode {
        use proto::RefusalCode as Code;
        match self {
            Self::BadPath { .. } => Code::BadPath,
            Self::NotFound(_) => Code::NotFound,
            Self::ParentNotFound(_) => Code::ParentNotFound,
            Self::Exists(_) => Code::Exists,
            Self::NotADirectory(_) => Code::NotADirectory,
            Self::IsADirectory(_) => Code::IsADirectory,
            Self::NotEmpty(_) => Code::NotEmpty,
            Self::ValueTooLarge { .. } => Code::ValueTooLarge,
            Self::TooMuch { .. }
            | Self::TooMuchToCount { .. }
            | Self::AnswerTooLarge { .. }
            | Self::TooManyClaims { .. } => Code::TooMuch,
            Self::Quota { .. } => Code::Quota,
            Self::SessionOver(_) => Code::SessionOver,
            Self::Locked(_) => Code::Locked,
            Self::NotHeld(_) => Code::NotHeld,
            Self::Invalid(_) => Code::Invalid,
            Self::Restoring => Code::Restoring,
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::BadPath { path, .. } => cut(path),
            Self::NotFound(path)
            | Self::ParentNotFound(path)
            | Self::Exists(path)
            | Self::NotADirectory(path)
            | Self::IsADirectory(path)
            | Self::NotEmpty(path)
            | Self::ValueTooLarge { path, .. }
            | Self::TooMuch { path, .. }
            | Self::TooMuchToCount { directory: path, .. }
            | Self::TooManyClaims { path, .. }
            | Self::Locked(path)
            | Self::NotHeld(path)
            | Self::Quota { directory: path, .. } => path.as_str(),
            Self::AnswerTooLarge { .. } | Self::SessionOver(_) | Self::Invalid(_) | Self::Restoring => "",
        }
    }
}

/// As much of it as a path can have: what is no path may be as long as a message, and a refusal must go into one.
fn cut(given: &str) -> &str {
    &given[..given.floor_char_boundary(PATH_MAX_BYTES)]
}

impl From<&Refusal> for proto::Refusal {
    fn from(refusal: &Refusal) -> Self {
        Self { code: refusal.code().into(), path: refusal.path().to_owned(), message: refusal.to_string() }
    }
}
