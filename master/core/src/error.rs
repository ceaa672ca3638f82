//! Why an operation did not happen: the file system's answer, or a store that failed.

use coord_kv::KvError;
use master_model::Errno;

/// Of one operation.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// An answer like any other: deterministic, and remembered for retries.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The store failed or holds nonsense. A replica that meets this must stop: the others would go on without it.
    #[error(transparent)]
    Store(#[from] KvError),
}

/// Result of an operation.
pub type OpResult<T> = Result<T, OpError>;

/// A record that cannot be read.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> OpError {
    OpError::Store(KvError::Corrupt { path: "the master's state".to_owned(), reason: what.to_string() })
}
