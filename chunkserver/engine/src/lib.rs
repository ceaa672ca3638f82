//! Pangu chunkserver: the chunk engine of one disk.

mod buffer;
mod engine;
mod error;
mod io;
mod types;

pub use buffer::{BufferPool, PoolBuf};
pub use engine::Engine;
pub use error::{Damage, EngineError, Failure, HexKey, IoError, OpenError};
pub use io::FileId;
pub use types::{
    ChunkContents, ChunkMeta, EngineConfig, FormatOptions, IoKind, Piece, PunchOp, ReadOut, Usage, WriteOp,
    WriterWindow, Written,
};
