//! The disk as the engine sees it: a journal and segments, read and written in whole blocks. Three implementations:
//! [`Uring`](uring::Uring) (the real one), [`SyncIo`](sync::SyncIo) (where the kernel refuses io_uring) and
//! [`SimDisk`](sim::SimDisk) (a disk model that loses power, for tests).
//!
//! What every implementation keeps:
//! - a [`WriteMode::Durable`] write that completed survives a power cut; others may be lost or torn at 512-byte sectors
//!   until [`Io::sync`] of their file completed;
//! - operations in flight at the same time are not ordered;
//! - dropping a [`Completion`] does not cancel the operation: its memory is kept until the disk is done with it.

pub(crate) mod files;
pub mod sim;
pub(crate) mod sync;
pub(crate) mod uring;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::buffer::PoolBuf;
use crate::error::IoError;

/// A file of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    Journal,
    Segment(u32),
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("the journal"),
            Self::Segment(index) => write!(f, "segment {index}"),
        }
    }
}

/// When a write survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Once [`Io::sync`] of the file completed.
    Cached,
    /// Once it completed.
    Durable,
}

/// One operation.
#[derive(Debug)]
pub enum Op {
    /// Fills the target.
    Read(ReadTarget),
    /// `data` is whole blocks at a block-aligned address.
    Write { data: Bytes, mode: WriteMode },
    /// Makes all completed writes to the file durable.
    Sync,
}

impl Op {
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Self::Read(target) => target.len,
            Self::Write { data, .. } => data.len(),
            Self::Sync => 0,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write { .. } => "write",
            Self::Sync => "sync",
        }
    }
}

/// A disk.
pub trait Io: Send + Sync + fmt::Debug + 'static {
    /// Starts an operation at once, on the calling thread.
    fn submit(&self, file: FileId, offset_bytes: u64, op: Op) -> Completion;

    /// Makes segment `index`, `len_bytes` long, durably. It may hold anything.
    fn create_segment(&self, index: u32, len_bytes: u64) -> Completion;

    /// The segments there are, with their lengths, ascending.
    fn segments(&self) -> Vec<(u32, u64)>;

    /// Length of the journal.
    ///
    /// # Errors
    /// If the file cannot be asked.
    fn journal_len_bytes(&self) -> Result<u64, IoError>;

    /// Waits for what is in flight and lets go of the directory.
    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    receiver: oneshot::Receiver<Result<(), IoError>>,
}

/// What completes a [`Completion`].
pub type Completer = oneshot::Sender<Result<(), IoError>>;

impl Completion {
    #[must_use]
    pub fn new() -> (Completer, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self { receiver })
    }
}

impl Future for Completion {
    type Output = Result<(), IoError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|received| {
            received.unwrap_or_else(|_| {
                Err(IoError {
                    operation: "finish",
                    file: FileId::Journal,
                    offset_bytes: 0,
                    len_bytes: 0,
                    source: Arc::new(std::io::Error::other(
                        "the disk was closed with this operation in flight",
                    )),
                })
            })
        })
    }
}

/// A buffer that several reads fill at the same time.
#[derive(Debug)]
pub struct ReadBuffer {
    buf: Arc<PoolBuf>,
}

/// The part of a [`ReadBuffer`] one read fills. Parts of one buffer do not overlap.
#[derive(Debug)]
pub struct ReadTarget {
    start: NonNull<u8>,
    len: usize,
    _keep: Arc<PoolBuf>,
}

// SAFETY: a target is the only access to its part of the buffer, which it keeps alive.
unsafe impl Send for ReadTarget {}
// SAFETY: shared references reveal only the address.
unsafe impl Sync for ReadTarget {}

impl ReadBuffer {
    /// Cuts `parts` out of `buf`.
    ///
    /// # Panics
    /// If they are not ascending, disjoint and inside.
    pub fn new(mut buf: PoolBuf, parts: &[Range<usize>]) -> (Self, Vec<ReadTarget>) {
        let mut end = 0;
        for part in parts {
            assert!(part.start >= end && part.end >= part.start && part.end <= buf.len(), "parts overlap");
            end = part.end;
        }
        let base = NonNull::new(buf.as_mut_ptr()).expect("a buffer has an address");
        let buf = Arc::new(buf);
        let targets = parts
            .iter()
            .map(|part| {
                // SAFETY: the part lies in the buffer, checked above.
                let start = unsafe { base.add(part.start) };
                ReadTarget { start, len: part.len(), _keep: buf.clone() }
            })
            .collect();
        (Self { buf }, targets)
    }

    /// The buffer back, if all reads into it are done.
    #[must_use]
    pub fn finish(self) -> Option<PoolBuf> {
        Arc::into_inner(self.buf)
    }
}

impl ReadTarget {
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the part is initialised memory kept alive by `_keep`; nobody else reads or writes it before the
        // buffer is finished, which needs this target gone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

pub(crate) fn io_error(file: FileId, offset_bytes: u64, op: &Op, source: std::io::Error) -> IoError {
    IoError { operation: op.name(), file, offset_bytes, len_bytes: op.len_bytes(), source: Arc::new(source) }
}
