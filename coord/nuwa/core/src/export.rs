//! A snapshot's records, read from a store that nobody changes any more (`coord/nuwa/docs/snapshot.md`, "Export").

use coord_kv::{KvError, Range, Read};
use nuwa_model::Path;
use nuwa_model::proto::{SnapshotHeader, SnapshotRecord};
use nuwa_model::snapshot::{BYTES_MAX, RECORDS_MAX};

use crate::error::corrupt;
use crate::keys;
use crate::query;
use crate::records::EntryRecord;
use crate::state::{decode, read_entry, read_meta};

/// Entries one page looks at: sessions may own all of them.
const LOOKED_AT_MAX: usize = 4096;
/// Entries that are read at a time, with their values.
const SCAN: usize = 64;

/// A page of a snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub records: Vec<SnapshotRecord>,
    /// The last entry that was looked at, if there may be more behind it.
    pub next_after: Option<Path>,
}

/// What the snapshot is of. When it is made, and of which cluster, is not known here.
///
/// # Errors
/// The store failed.
pub fn header(read: &dyn Read) -> Result<SnapshotHeader, KvError> {
    let meta = read_meta(read)?;
    Ok(SnapshotHeader {
        revision: meta.revision,
        next_session: meta.next_session,
        history_events_max: meta.history_events_max,
        history_bytes_max: meta.history_bytes_max,
        made_unix_nanos: 0,
        cluster: String::new(),
    })
}

/// The records behind a path, in the order of the store's keys; `None`: from the root's on.
///
/// # Errors
/// The store failed.
pub fn page(read: &dyn Read, after: Option<&Path>) -> Result<Page, KvError> {
    let mut filling =
        Filling { read, has_quotas: read_meta(read)?.quotas > 0, records: Vec::new(), bytes: 0 };
    let mut behind = match after {
        Some(path) => path.clone(),
        None => {
            // It exists, whether something was written to it or not.
            let root = Path::root();
            let record = read_entry(read, &root)?.unwrap_or_default();
            filling.add(&root, record)?;
            root
        }
    };
    let mut looked_at = 0;
    loop {
        let range = Range::prefix(&[]).after(&keys::entry(&behind));
        let pairs = read.scan(keys::ENTRIES, &range, SCAN)?;
        for (key, record) in &pairs {
            let path = keys::entry_path(key).ok_or_else(|| corrupt("the key of an entry"))?;
            let record: EntryRecord = decode("an entry", record)?;
            if record.owner == 0 && !filling.add(&path, record)? {
                return Ok(Page { records: filling.records, next_after: Some(behind) });
            }
            behind = path;
        }
        looked_at += pairs.len();
        if pairs.len() < SCAN {
            return Ok(Page { records: filling.records, next_after: None });
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(Page { records: filling.records, next_after: Some(behind) });
        }
    }
}

/// A page that is being filled.
struct Filling<'a> {
    read: &'a dyn Read,
    has_quotas: bool,
    records: Vec<SnapshotRecord>,
    bytes: usize,
}

impl Filling<'_> {
    /// False: it does not go into this page any more.
    fn add(&mut self, path: &Path, record: EntryRecord) -> Result<bool, KvError> {
        let bytes = path.as_str().len() + record.value.len();
        let is_full = self.records.len() >= RECORDS_MAX || self.bytes + bytes > BYTES_MAX;
        if is_full && !self.records.is_empty() {
            return Ok(false);
        }
        let quota =
            if self.has_quotas && path.is_directory() { query::quota(self.read, path)? } else { None };
        let quota = quota.unwrap_or_default();
        let EntryRecord { value, version, created, modified, modified_unix_nanos, sequence, .. } = record;
        self.records.push(SnapshotRecord {
            path: path.to_string(),
            value,
            version,
            created,
            modified,
            modified_unix_nanos,
            sequence,
            quota_entries_max: quota.entries_max,
            quota_bytes_max: quota.bytes_max,
        });
        self.bytes += bytes;
        Ok(true)
    }
}
