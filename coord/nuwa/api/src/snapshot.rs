//! Snapshots of the tree: taken from a cluster, kept in a file, put into another cluster.
//!
//! Read in this order: `coord/nuwa/docs/snapshot.md` (the file's bytes, and what is promised), [`error`] (what can be wrong with
//! a file), `order` (which records a tree can have), [`writer`], [`reader`], [`export`] (out of a cluster), [`restore`] (into one).

pub mod error;
pub mod export;
mod order;
pub mod reader;
pub mod restore;
pub mod writer;

#[cfg(test)]
mod tests;

use nuwa_model::proto::{SnapshotHeader, SnapshotRecord};

pub use error::{BlockFault, SnapshotError};
pub use export::{Export, ExportError, save};
pub use reader::{Reader, verify};
pub use restore::{RestoreError, Restored, abandon, restore};
pub use writer::Writer;

const MAGIC: &[u8; 8] = b"NUWASNAP";
const VERSION: u32 = 1;
/// Magic, version, and the crc of both.
const START_LEN: usize = 16;
/// Length and crc.
const BLOCK_HEAD_LEN: usize = 8;
/// Of a block's message: a page of 1 MiB, or one record of a little more, with all that is said of a thousand records.
const BLOCK_LEN_MAX: usize = 2 << 20;

/// What a snapshot has in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub header: SnapshotHeader,
    /// Without the root.
    pub directories: u64,
    pub files: u64,
    /// Directories with a quota.
    pub quotas: u64,
    pub value_bytes: u64,
    /// Of the file so far.
    pub file_bytes: u64,
    /// The root's included.
    pub records: u64,
    /// Of the last block, and so of all before it.
    pub crc: u32,
}

impl Contents {
    fn count(&mut self, records: &[SnapshotRecord]) {
        for record in records {
            if record.path.ends_with('/') {
                self.directories += u64::from(record.path.len() > 1);
                self.quotas += u64::from((record.quota_entries_max, record.quota_bytes_max) != (0, 0));
            } else {
                self.files += 1;
                self.value_bytes += record.value.len() as u64;
            }
        }
        self.records += records.len() as u64;
    }
}

/// The crc of a block, or of the bytes before the first one.
fn crc(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}
