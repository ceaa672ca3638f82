//! Sizes, and how they bound each other.

/// Bytes of a block: the unit of allocation, of checksums and of O_DIRECT.
pub const BLOCK_SIZE: usize = 4096;

/// Bytes of a chunk unless a file's layout says otherwise.
pub const CHUNK_SIZE_DEFAULT: u32 = 8 << 20;

/// Blocks in a chunk of the default size.
pub const BLOCKS_PER_CHUNK: u32 = CHUNK_SIZE_DEFAULT / BLOCK_SIZE as u32;

/// The most one write or read carries: what FUSE gives in one request without a changed sysctl.
pub const WRITE_SIZE_MAX: usize = 1 << 20;

const _: () = assert!((CHUNK_SIZE_DEFAULT as usize).is_multiple_of(WRITE_SIZE_MAX));
const _: () = assert!(WRITE_SIZE_MAX.is_multiple_of(BLOCK_SIZE));
