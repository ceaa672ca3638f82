//! Ids, epochs, units and layouts that every part of the platform shares.
//!
//! Read in this order: [`ids`] (what things are called), [`epoch`] (what orders them), [`units`] (sizes and
//! their limits), [`layout`] (where a file's bytes live), [`window`] (what a chunk remembers of its writers), [`fence`] (who may still write). Nothing here does IO.

pub mod epoch;
pub mod fence;
pub mod ids;
pub mod layout;
pub mod units;
pub mod window;

pub use epoch::{Epoch, Version};
pub use fence::Fence;
pub use ids::{ChunkId, ChunkKey, DataId, DiskId, GroupId, InodeId, ServerId, SessionId, Stamp};
pub use layout::{ChunkSlice, Layout, LayoutError};
pub use units::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE_DEFAULT, WRITE_SIZE_MAX};
pub use window::{WriterWindow, note_stamp};
