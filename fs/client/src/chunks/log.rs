//! Why files had errors: the last ones, for people. Bounded; the oldest goes.

use std::collections::VecDeque;
use std::time::SystemTime;

use coord_types::ChunkKey;
use parking_lot::Mutex;

/// Records kept: a screen or two. A disk that dies makes thousands alike, and the newest say all.
const RECORDS_MAX: usize = 128;

/// One error.
#[derive(Clone, Debug)]
pub struct ErrorRecord {
    pub when: SystemTime,
    pub chunk: ChunkKey,
    /// What was tried, at which members, and what each said.
    pub what: String,
}

/// The last errors.
#[derive(Debug, Default)]
pub struct ErrorLog {
    records: Mutex<VecDeque<ErrorRecord>>,
}

impl ErrorLog {
    pub(crate) fn add(&self, chunk: ChunkKey, what: String) {
        tracing::error!(?chunk, what, "data error");
        let mut records = self.records.lock();
        if records.len() == RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(ErrorRecord { when: SystemTime::now(), chunk, what });
    }

    /// Oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<ErrorRecord> {
        self.records.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, GroupId};

    use super::*;

    #[test]
    fn keeps_the_newest() {
        let log = ErrorLog::default();
        for index in 0..200 {
            log.add(ChunkKey::new(GroupId(1), DataId(1), index), String::new());
        }
        let records = log.records();
        assert_eq!(records.len(), RECORDS_MAX);
        assert_eq!(records.last().map(|record| record.chunk.chunk.index), Some(199));
    }
}
