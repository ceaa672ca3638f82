//! RocksDB behind [`coord_kv::Kv`]; the only crate that links RocksDB.
//!
//! Called by the raft kit (state machine) and the chunk engine (metadata). Beyond what [`Kv`] asks, it keeps:
//! - each family is opened with its own options (bloom filter, prefix, lz4): opening them by name alone would lose
//!   the filters, and a look-up of an absent key costs ten times as much;
//! - memory is bounded: one block cache (indexes and filters included) and one write buffer for all families;
//! - in a store whose log is elsewhere, all families are flushed at one point of the order of writes, so that what
//!   survives of writes around the log is a prefix;
//! - the directory of a store does not vanish in a power cut with what was synced in it ([`create_dir_durably`]);
//! - in a store with its own log, that log is recycled, so that a synced write overwrites blocks the file already has, and needs no commit of the
//!   file system's journal (139 us against 204 us measured).

mod dirs;
mod open;
mod store;

pub use dirs::create_dir_durably;
pub use open::{LogUse, OpenError, RocksOptions};
pub use store::RocksKv;
