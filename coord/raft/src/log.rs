//! The Raft log: preallocated segment files, written by one thread with group commit. Format and crash argument:
//! docs/log-format.md; why an append may count before it is durable: docs/decisions/2026-11-22-parallel-leader-flush.md.
//!
//! Read in this order: [`record`] (bytes of a record and of a segment's header), [`files`] (segment files are made,
//! named, reused), [`recovery`] (what a restart finds), [`writer`] (the thread, durability), [`store`] (openraft's
//! storage traits), [`vote`] (the vote file).
//!
//! Lock order: `Writer::io`, then `Shared::state`, then `Durability`.

pub(crate) mod files;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod state;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod vote;
pub(crate) mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use store::{LogOptions, LogStore};

/// What can go wrong with the log's files.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("{operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("{} is damaged at offset {offset}: {reason}; remove this member's data and add it to the cluster again", path.display())]
    Corrupt { path: PathBuf, offset: u64, reason: &'static str },
    #[error("{} belongs to member {found}, this is member {wanted}", path.display())]
    WrongMember { path: PathBuf, found: u64, wanted: u64 },
    #[error("the log failed before and takes nothing more: {reason}")]
    Failed { reason: Arc<str> },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.to_path_buf(), source: Arc::new(source) }
    }
}
