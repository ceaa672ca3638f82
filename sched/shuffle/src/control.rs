//! What the caller may ask of a running instance, and how much memory it may have.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// How large blocks are: what the mount reads and writes cheaply.
pub const BLOCK_BYTES: usize = 1 << 20;

/// How much an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records and their entries (map) or read buffers (reduce), in bytes. Beside it an instance needs about 12 blocks.
    pub memory_bytes: usize,
    /// How large reads and writes are, in bytes; [`BLOCK_BYTES`] but for tests.
    pub block_bytes: usize,
    /// How many threads sort. Reading and writing have their own.
    pub sort_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, block_bytes: BLOCK_BYTES, sort_threads: 1 }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<()> {
        if self.block_bytes == 0 || self.sort_threads == 0 {
            return Err(Error::Settings("block_bytes and sort_threads must be at least 1"));
        }
        Ok(())
    }
}

/// How the caller follows and stops an instance. Share it by reference between its threads.
pub struct Control<'a> {
    cancel: &'a AtomicBool,
    report: &'a (dyn Fn(u64, u64) + Sync),
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("done_bytes", &self.done_bytes)
            .field("total_bytes", &self.total_bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> Control<'a> {
    /// Once `cancel` is true the instance ends with [`Error::Cancelled`] within a block of data or 50 ms. `report`
    /// gets (bytes done, bytes in all) of the input about once a block, from any thread.
    pub fn new(cancel: &'a AtomicBool, report: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        Self { cancel, report, done_bytes: AtomicU64::new(0), total_bytes: AtomicU64::new(0) }
    }

    pub(crate) fn expect(&self, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) -> Result<()> {
        let done = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.report)(done, self.total_bytes.load(Ordering::Relaxed).max(done));
        self.check()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}
