//! Pangu client: a file system without a kernel.
//!
//! Read in this order: [`op`] (what is asked and answered), [`FileSystem`] (who answers), `rooted` (which directory is its root), [`meta`] and [`chunks`] (what
//! it stands on), then `inode` (what is known of a file here), `write` (written data on its way), `read`, `shape`
//! (truncate, extend, holes), [`events`] (what happens in directories), `open`, `fence` (who may still write), `attr`, `namespace`, `directory`. The rules they keep together are in
//! `fs/docs/client.md`.

mod attr;
mod bare;
pub mod chunks;
mod client;
mod config;
mod directory;
mod error;
pub mod events;
mod fence;
mod filesystem;
mod handle;
mod inode;
mod inode_table;
mod known;
pub mod meta;
mod namespace;
pub mod op;
mod open;
mod read;
mod rooted;
mod shape;
mod stripe;
mod write;

pub use config::{ClientConfig, ConnectError, MEMORY_MIN_BYTES};
pub use error::Errno;
pub use events::{DirectoryEvents, Notice};
pub use filesystem::{FileSystem, Usage};
pub use kuafu::Address;
pub use op::{
    Caller, DirEntry, Entry, FileAttr, Flock, HandleId, Op, OpReply, OpResult, OpenMode, PollAgain, SetAttr,
    SetTime, StatFs,
};
pub use rooted::Rooted;
