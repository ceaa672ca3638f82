//! The engine's public face.

use std::path::Path;
use std::sync::Arc;

use coord_types::{ChunkKey, DataId, GroupId, Stamp, Version};

use crate::error::{EngineError, Failure, OpenError};
use crate::types::{
    ChunkContents, ChunkMeta, EngineConfig, FormatOptions, PunchOp, ReadOut, Usage, WriteOp, Written,
};

/// One disk. Cheap to clone; all clones are the same disk.
#[derive(Clone, Debug)]
pub struct Engine {
    failure: Arc<Failure>,
}

impl Engine {
    /// Lays out a new disk in the empty (or absent) directory `dir`. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn format(dir: &Path, _options: &FormatOptions) -> Result<(), OpenError> {
        Err(OpenError::NotEmpty { path: dir.to_owned() })
    }

    /// Opens the disk in `dir`: repairs what a crash left and finds the free space. Must run in a tokio runtime
    /// with IO enabled; that runtime then drives the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(dir: &Path, _config: EngineConfig) -> Result<Self, OpenError> {
        Err(OpenError::NotFormatted { path: dir.to_owned() })
    }

    fn refuse<T>(&self) -> Result<T, EngineError> {
        Err(EngineError::Failed(self.failure.clone()))
    }

    /// Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn write(&self, _op: WriteOp) -> Result<Written, EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub async fn punch(&self, _op: PunchOp) -> Result<Written, EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub async fn read(
        &self,
        _key: ChunkKey,
        _offset_bytes: u32,
        _len_bytes: u32,
    ) -> Result<ReadOut, EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub fn stat(&self, _key: ChunkKey) -> Result<Option<ChunkMeta>, EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub fn seen(&self, _key: ChunkKey, _stamp: Stamp) -> Result<bool, EngineError> {
        self.refuse()
    }

    /// Which parts of a chunk hold data: (offset, length) in bytes, ascending, not touching one another.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn map(&self, _key: ChunkKey) -> Result<Vec<(u32, u32)>, EngineError> {
        self.refuse()
    }

    /// Chunks of a group in key order, from the first after `after`.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn list(
        &self,
        _group: GroupId,
        _after: Option<ChunkKey>,
        _limit: usize,
    ) -> Result<Vec<(ChunkKey, Version)>, EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub async fn install(&self, _key: ChunkKey, _contents: ChunkContents) -> Result<(), EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub async fn remove(&self, _key: ChunkKey) -> Result<(), EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub async fn delete_data(&self, _items: &[(GroupId, DataId)]) -> Result<(), EngineError> {
        self.refuse()
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { capacity_bytes: 0, used_bytes: 0, reserve_bytes: 0 }
    }

    #[must_use]
    pub fn disk_uuid(&self) -> [u8; 16] {
        [0; 16]
    }

    /// Chunks on the disk.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        0
    }

    /// Why the disk is out, if it is.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Failure>> {
        Some(self.failure.clone())
    }

    /// Keeps a small named record. Durable on return.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn put_setting(&self, _name: &str, _value: &[u8]) -> Result<(), EngineError> {
        self.refuse()
    }

    /// # Errors
    /// See [`EngineError`].
    pub fn get_setting(&self, _name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        self.refuse()
    }

    /// Waits for what is in flight, makes metadata durable and releases the directory. Later calls are refused.
    pub async fn close(&self) {}
}
