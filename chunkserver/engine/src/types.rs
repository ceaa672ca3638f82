//! What goes into the engine and comes out of it. Nothing here does IO.
//!
//! All offsets and lengths are bytes within one chunk; "block" always means [`BLOCK_SIZE`].

use std::sync::Arc;

use bytes::Bytes;
use coord_types::{BLOCK_SIZE, ChunkKey, Stamp, Version, WriterWindow};

use crate::buffer::BufferPool;
use crate::error::EngineError;

/// One ordered write.
#[derive(Clone, Debug)]
pub struct WriteOp {
    pub key: ChunkKey,
    /// The chunk's version before this write ([`Version::NONE`] for a chunk nobody wrote). Writes already accepted
    /// but not yet durable count: the next one may be handed in before they are done.
    pub expect: Version,
    pub version: Version,
    pub offset_bytes: u32,
    /// At least one byte. Not copied if it begins on a block of the chunk, is whole blocks long and lies at a
    /// 4 KiB-aligned address, as a [`PoolBuf`](crate::PoolBuf) does.
    pub data: Bytes,
    /// crc32c of each piece `data` is cut into at the chunk's block boundaries.
    pub block_crcs: Vec<u32>,
    pub stamp: Option<Stamp>,
    pub chunk_size_bytes: u32,
}

/// One ordered punch: the range reads as zeros afterwards, whole blocks of it are freed.
#[derive(Clone, Debug)]
pub struct PunchOp {
    pub key: ChunkKey,
    pub expect: Version,
    pub version: Version,
    pub offset_bytes: u32,
    pub len_bytes: u32,
    pub stamp: Option<Stamp>,
    pub chunk_size_bytes: u32,
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How much more (or less) space the chunk takes now.
    pub allocated_delta_bytes: i64,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadOut {
    /// [`Version::NONE`] if there is no such chunk.
    pub version: Version,
    /// Chunk offset of `data`'s first byte: the request's offset rounded down to a block.
    pub payload_offset_bytes: u32,
    /// Whole blocks that cover the range, verified; empty if `hole`.
    pub data: Bytes,
    /// crc32c of each block of `data`, as the writer gave it.
    pub block_crcs: Vec<u32>,
    /// Nothing of the range was ever written (or all of it was punched): zeros, and no data.
    pub hole: bool,
}

/// What the engine knows of a chunk without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    pub version: Version,
    /// Most recent writer first.
    pub windows: Vec<WriterWindow>,
    pub allocated_bytes: u64,
    pub chunk_size_bytes: u32,
}

/// A whole chunk, to be put in place of whatever is there.
#[derive(Clone, Debug)]
pub struct ChunkContents {
    pub version: Version,
    pub windows: Vec<WriterWindow>,
    pub chunk_size_bytes: u32,
    /// Ascending, not overlapping; what they leave out is a hole.
    pub pieces: Vec<Piece>,
}

/// A piece of a chunk: begins on a block, is whole blocks long, and its blocks have the checksums that come with it.
#[derive(Clone, Debug)]
pub struct Piece {
    offset_bytes: u32,
    data: Bytes,
    block_crcs: Vec<u32>,
}

impl Piece {
    /// Checks it. That reads all of the data, so it is done best as soon as the data is there, while it is in the
    /// processor's cache.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] or [`EngineError::PayloadChecksum`], which name `key`.
    pub fn new(
        key: ChunkKey,
        offset_bytes: u32,
        data: Bytes,
        block_crcs: Vec<u32>,
    ) -> Result<Self, EngineError> {
        if !(offset_bytes as usize).is_multiple_of(BLOCK_SIZE) || !data.len().is_multiple_of(BLOCK_SIZE) {
            return Err(EngineError::Invalid { key, reason: "a piece is not whole blocks" });
        }
        if block_crcs.len() != data.len() / BLOCK_SIZE {
            return Err(EngineError::Invalid { key, reason: "a piece has not as many checksums as blocks" });
        }
        for (at, (block, crc)) in data.chunks_exact(BLOCK_SIZE).zip(&block_crcs).enumerate() {
            if crc32c::crc32c(block) != *crc {
                return Err(EngineError::PayloadChecksum { key, piece: at });
            }
        }
        Ok(Self { offset_bytes, data, block_crcs })
    }

    #[must_use]
    pub fn offset_bytes(&self) -> u32 {
        self.offset_bytes
    }

    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Offset of the first byte behind it.
    #[must_use]
    pub fn end_bytes(&self) -> usize {
        self.offset_bytes as usize + self.data.len()
    }

    pub(crate) fn into_parts(self) -> (u32, Bytes, Vec<u32>) {
        (self.offset_bytes, self.data, self.block_crcs)
    }
}

/// Space on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of data the disk may hold, the reserve included. Lower than what it was formatted for while the file
    /// system below has no room for more segments.
    pub capacity_bytes: u64,
    /// Held by chunks, or by writes in flight.
    pub used_bytes: u64,
    /// Kept back from ordinary writes, so that punches and overwrites go on when the disk is full.
    pub reserve_bytes: u64,
}

impl Usage {
    /// What ordinary writes may still take.
    #[must_use]
    pub const fn available_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes).saturating_sub(self.reserve_bytes)
    }
}

/// Counters since the disk was opened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Journal frames written.
    pub frames: u64,
    /// Updates applied; per frame: how well updates gather.
    pub updates: u64,
    /// Updates whose data was written at the same time as their frame.
    pub early: u64,
    /// Times the metadata store was flushed so that the journal could go on.
    pub checkpoints: u64,
    /// Blocks written in advance.
    pub blocks_ahead: u64,
    /// Reads of data that the medium did not give back.
    pub unreadable: u64,
}

/// How to lay out a new disk.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Bytes of data to hold; rounded down to whole blocks. At least [`FormatOptions::CAPACITY_MIN_BYTES`].
    pub capacity_bytes: u64,
    pub uuid: [u8; 16],
    /// Size of a segment file; `None`: 256 MiB, or more if that would make over 512 of them.
    pub segment_bytes: Option<u64>,
    /// Size of the journal; `None`: 64 MiB, or an eighth of the capacity if that is less (at least 1 MiB).
    pub journal_bytes: Option<u64>,
}

impl FormatOptions {
    pub const CAPACITY_MIN_BYTES: u64 = 1 << 20;

    /// The default layout with a fresh random uuid.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, uuid: rand::random(), segment_bytes: None, journal_bytes: None }
    }
}

/// How to reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoKind {
    /// io_uring; if the kernel refuses it, plain system calls on the runtime's blocking threads, with a warning.
    #[default]
    Auto,
    Uring,
    Sync,
}

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where read data and unaligned writes live. Share one between the engines and the RPC server of a process.
    pub pool: Arc<BufferPool>,
    /// Bound on cached extent pages and chunk records, in bytes. Default 32 MiB.
    pub cache_bytes: usize,
    /// RocksDB's block cache, in bytes. Default 32 MiB.
    pub kv_cache_bytes: usize,
    pub io: IoKind,
}

impl EngineConfig {
    #[must_use]
    pub fn new(pool: Arc<BufferPool>) -> Self {
        Self { pool, cache_bytes: 32 << 20, kv_cache_bytes: 32 << 20, io: IoKind::Auto }
    }
}
