//! The data of files as the client needs it: a trait, and the chunkservers behind it ([`ReplicatedChunks`]).
//!
//! What an implementation keeps:
//! - a write or punch that returned is durable on every serving member (I1) and applied once (I5);
//! - none is applied under a lower fence than one that was raised;
//! - a server that is away is waited for: calls end with data, with "no space", or because every copy is damaged;
//! - a future may be polled on any thread (the runtime's handle is entered).
//!
//! What its caller keeps: two writes or punches of overlapping ranges are never in flight together.

mod hedge;
mod log;
mod members;
mod replicated;
mod stamps;
mod tokens;

use bytes::Bytes;
use coord_types::{ChunkKey, Fence};
use futures::future::BoxFuture;

pub use log::{ErrorLog, ErrorRecord};
pub use members::{ClusterMembers, Members};
pub use replicated::{ReplicatedChunks, RetryPauses};
pub(crate) use tokens::Files;

use crate::Errno;

/// One write, within one chunk and at most [`coord_types::WRITE_SIZE_MAX`] long.
#[derive(Clone, Debug)]
pub struct ChunkWrite {
    pub key: ChunkKey,
    pub offset_bytes: u32,
    pub data: Bytes,
    /// crc32c of each piece `data` is cut into at block boundaries of the chunk.
    pub block_crcs: Vec<u32>,
    pub chunk_size_bytes: u32,
    /// What the file was opened under.
    pub fence: Fence,
}

/// A range of one chunk that becomes zero.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPunch {
    pub key: ChunkKey,
    pub offset_bytes: u32,
    pub len_bytes: u32,
    pub chunk_size_bytes: u32,
    pub fence: Fence,
}

/// A range of one chunk, at most [`coord_types::WRITE_SIZE_MAX`] long.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRead {
    pub key: ChunkKey,
    pub offset_bytes: u32,
    pub len_bytes: u32,
}

/// Why data could not be written or read, now and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    #[error("the disks of a group are full")]
    NoSpace,
    /// It will be for ever: whoever opened the file before that writes it no more.
    #[error("the file was fenced at {0} since it was opened")]
    Fenced(Fence),
    #[error("every copy is damaged")]
    Damaged,
    #[error("there is no right to these data")]
    Denied,
    #[error("the chunkservers refused")]
    Refused,
}

impl From<DataError> for Errno {
    fn from(error: DataError) -> Self {
        match error {
            DataError::NoSpace => Self::ENOSPC,
            DataError::Fenced(_) => Self::ESTALE,
            DataError::Denied => Self::EACCES,
            DataError::Damaged | DataError::Refused => Self::EIO,
        }
    }
}

/// The data of all files.
pub trait Chunks: Send + Sync + 'static {
    /// Returns how much more (or less) space the chunk takes.
    fn write(&self, write: ChunkWrite) -> BoxFuture<'_, Result<i64, DataError>>;

    /// Returns how much more (or less) space the chunk takes.
    fn punch(&self, punch: ChunkPunch) -> BoxFuture<'_, Result<i64, DataError>>;

    /// Raises the fence that a group has for a file's data. When this returns, nothing lower will be applied there.
    fn raise_fence(&self, record: ChunkKey, fence: Fence) -> BoxFuture<'_, Result<(), DataError>>;

    /// The bytes of the range, or `None` if all of it is a hole.
    fn read(&self, read: ChunkRead) -> BoxFuture<'_, Result<Option<Bytes>, DataError>>;

    /// The parts of a chunk that hold data: (offset, length), ascending.
    fn map(&self, key: ChunkKey) -> BoxFuture<'_, Result<Vec<(u32, u32)>, DataError>>;
}
