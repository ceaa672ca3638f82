//! Which records can follow each other. Looked at before writing and after reading, so that nothing that is no tree is ever proposed.

use std::collections::HashSet;

use nuwa_model::Path;
use nuwa_model::proto::SnapshotRecord;
use nuwa_model::snapshot::{check_record, is_too_much};

use super::error::BlockFault;

/// The records that came so far.
#[derive(Debug)]
pub(super) struct Order {
    /// Of the snapshot: no record is newer.
    revision: u64,
    last: Option<Path>,
    /// Bounded by the directories there are.
    directories: HashSet<String>,
    /// Files of the last record's directory whose names its name begins with: each may be the name of a directory to come.
    prefixes: Vec<String>,
}

impl Order {
    pub(super) fn new(revision: u64) -> Self {
        Self { revision, last: None, directories: HashSet::new(), prefixes: Vec::new() }
    }

    pub(super) fn check(&mut self, records: &[SnapshotRecord]) -> Result<(), BlockFault> {
        if is_too_much(records) {
            return Err(BlockFault::TooMuch);
        }
        records.iter().try_for_each(|record| self.check_one(record))
    }

    fn check_one(&mut self, record: &SnapshotRecord) -> Result<(), BlockFault> {
        let path = check_record(record, self.revision)?;
        match (&self.last, path.parent()) {
            (None, None) => {}
            (None, Some(_)) => return Err(BlockFault::NoRoot),
            (Some(last), Some(parent)) if last.split() < path.split() => {
                if !self.directories.contains(parent.as_str()) {
                    return Err(BlockFault::NoDirectory { path: record.path.clone() });
                }
            }
            (Some(_), _) => return Err(BlockFault::Order { path: record.path.clone() }),
        }
        // In one directory a name's prefixes come right before it, one after the other.
        while self.prefixes.pop_if(|file| !path.as_str().starts_with(file.as_str())).is_some() {}
        if path.is_directory() {
            if path.other_kind().is_some_and(|file| self.prefixes.contains(&file)) {
                return Err(BlockFault::BothKinds { path: record.path.clone() });
            }
            self.directories.insert(record.path.clone());
        } else {
            self.prefixes.push(record.path.clone());
        }
        self.last = Some(path);
        Ok(())
    }
}
