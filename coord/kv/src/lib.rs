//! An ordered key-value store of several families: the trait, the batch, [`Overlay`], which shows what a batch will
//! change, and [`MemKv`], a store in memory that can lose power.
//!
//! Called by the raft kit, the master's core and the chunk engine, which never see RocksDB: `coord-kv-rocks` puts
//! it behind [`Kv`]. What every implementation keeps:
//! - a batch is applied whole or not at all, also after a crash;
//! - batches become durable in the order they were written: what survives a crash is a prefix;
//! - after a [`Durability::Synced`] write returned, it and all before it survive any crash.

mod batch;
mod mem;
mod overlay;

pub use batch::{Batch, Change};
pub use mem::MemKv;
pub use overlay::Overlay;

/// A family by its place in the list the store was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub u8);

/// How a family is kept.
#[derive(Clone, Copy, Debug)]
pub struct FamilySpec {
    pub name: &'static str,
    /// Point look-ups of absent keys are common: keep bloom filters.
    pub bloom: bool,
    /// Length of the key prefix scans stay within, if they do.
    pub prefix_len_bytes: Option<usize>,
}

/// When a write survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Synced,
    /// With the next synced write, or earlier.
    Logged,
    /// With the next [`Kv::flush`], or earlier: the write goes around the store's own log, because a log elsewhere
    /// (the Raft log) holds it. Families of one batch become durable together.
    Unlogged,
}

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("{operation} in the key-value store at {path}: {reason}")]
    Io { operation: &'static str, path: String, reason: String },
    #[error("the key-value store at {path} is damaged: {reason}; run the offline verify on it")]
    Corrupt { path: String, reason: String },
}

/// Result of store calls.
pub type Result<T> = std::result::Result<T, KvError>;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A range of keys: from `start` (inclusive) to `end_exclusive`, or to the end of the family.
#[derive(Clone, Debug)]
pub struct Range {
    pub start: Vec<u8>,
    pub end_exclusive: Option<Vec<u8>>,
}

impl Range {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start: prefix.to_vec(), end_exclusive: Some(end) };
            }
        }
        Self { start: prefix.to_vec(), end_exclusive: None }
    }

    /// The same range without what lies at or before `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut start = key.to_vec();
        start.push(0);
        self.start = self.start.max(start);
        self
    }

    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end_exclusive.as_deref().is_none_or(|end| key < end)
    }
}

/// Reads. Split from [`Kv`] because pure cores read through overlays that are not stores.
pub trait Read: Send + Sync {
    /// # Errors
    /// [`KvError`] if the store failed; an absent key is `Ok(None)`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// At most `limit` pairs of `range` in key order.
    ///
    /// # Errors
    /// [`KvError`] if the store failed.
    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>>;
}

/// A store.
pub trait Kv: Read {
    /// # Errors
    /// [`KvError`] if the store failed; then nothing of the batch is visible, and whether it will be after a restart
    /// is unknown.
    fn write(&self, batch: Batch, durability: Durability) -> Result<()>;

    /// Makes all that was written durable, every family at one point of the order.
    ///
    /// # Errors
    /// [`KvError`] if the store failed.
    fn flush(&self) -> Result<()>;
}
