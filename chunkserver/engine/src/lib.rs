//! Pangu chunkserver: the chunk engine of one disk. Keeps chunks (sparse arrays of 4 KiB blocks with a version),
//! copy-on-write, checksummed, atomic per write; called by the chunkserver, one engine per disk.
//!
//! Read in this order: docs/disk-format.md (what is on the disk, and why it survives a power cut), [`types`] (what
//! goes in and out), [`engine`] (the public face), `core` (one write from start to end: `core/write.rs`,
//! `core/line.rs`, `core/commit.rs`), `recovery` (opening), then the parts: `journal` and `update` (frames and what is in them),
//! `records` and `index` (metadata), `alloc` (free space), [`io`] (the disk), `buffer`, `verify`.

mod alloc;
pub mod aside;
mod buffer;
mod cache;
mod core;
mod engine;
mod error;
mod index;
pub mod io;
mod journal;
mod latency;
mod records;
mod recovery;
mod superblock;
mod types;
mod update;
mod verify;

pub use coord_kv_rocks::create_dir_durably;

pub use buffer::{BufferPool, PoolBuf};
pub use engine::{Engine, verify};
pub use error::{Damage, EngineError, Failure, HexKey, IoError, OpenError};
pub use io::FileId;
pub use recovery::Parts;
pub use superblock::Geometry;
pub use types::{
    ChunkContents, ChunkMeta, EngineConfig, FormatOptions, IoKind, Piece, PunchOp, ReadOut, Stats, Usage,
    WriteOp, Written,
};
pub use verify::{Problem, VerifyProgress, VerifyReport, verify_parts};
