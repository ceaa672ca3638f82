//! The domain types of the chunk service. What is built by [`crate::convert`] from a message has been validated:
//! sizes are within their bounds, ranges within the chunk, checksums one for each block.

use bytes::Bytes;
use coord_types::{ChunkKey, Epoch, Fence, Stamp, Version};

/// One write, without its bytes: these travel as the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: ChunkKey,
    /// The group's epoch as the sender knows it.
    pub epoch: Epoch,
    pub offset_bytes: u32,
    /// crc32c of each piece the payload is cut into at block boundaries of the chunk.
    pub block_crcs: Vec<u32>,
    pub stamp: Option<Stamp>,
    pub chunk_size_bytes: u32,
    /// What the file was opened under.
    pub fence: Fence,
}

/// Makes a range zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punch {
    pub key: ChunkKey,
    pub epoch: Epoch,
    pub offset_bytes: u32,
    pub len_bytes: u32,
    pub stamp: Option<Stamp>,
    pub chunk_size_bytes: u32,
    pub fence: Fence,
}

/// Refuses what is written to a file's data under a lower fence, from now on, in one of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaiseFence {
    /// The group's fence record of the data.
    pub record: ChunkKey,
    pub epoch: Epoch,
    /// Not [`Fence::NONE`].
    pub fence: Fence,
}

/// Asks for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub key: ChunkKey,
    pub epoch: Epoch,
    pub offset_bytes: u32,
    pub len_bytes: u32,
}

/// Asks which parts of a chunk hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    pub key: ChunkKey,
    pub epoch: Epoch,
}

/// A write or punch that is durable on every serving member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub version: Version,
    /// How much more (or less) space the chunk takes on each member. 0 for a retry of what was done before.
    pub allocated_delta_bytes: i64,
}

/// What a read gave: whole blocks that cover the range, or a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadData {
    pub version: Version,
    /// Chunk offset of `data`'s first byte: the asked offset rounded down to a block.
    pub data_offset_bytes: u32,
    /// Empty if the whole range is a hole.
    pub data: Bytes,
    /// crc32c of each block of `data`.
    pub block_crcs: Vec<u32>,
    pub hole: bool,
}
