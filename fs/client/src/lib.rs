//! Pangu client: a file system without a kernel.
//!
//! Read in this order: [`op`] (what is asked and answered), [`FileSystem`] (who answers).

mod config;
mod error;
mod filesystem;
pub mod op;

pub use config::{Address, ClientConfig};
pub use error::Errno;
pub use filesystem::FileSystem;
pub use op::{
    Caller, DirEntry, Entry, FileAttr, HandleId, Op, OpReply, OpResult, OpenMode, SetAttr, SetTime, StatFs,
};

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no master is named: give at least one address")]
    NoMasters,
    #[error("a memory budget of {0} bytes is too small: give at least 8 MiB")]
    Memory(u64),
}
