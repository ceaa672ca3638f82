//! What a record of a snapshot looks like: checked by whoever reads one from a file, and again by the state machine.

use crate::path::{Path, PathError};
use crate::proto::SnapshotRecord;
use crate::{Refusal, VALUE_MAX_BYTES};

/// Of one page or block.
pub const RECORDS_MAX: usize = 1000;
/// The same, of paths and values; one record may be larger.
pub const BYTES_MAX: usize = 1 << 20;

/// Why no tree has such a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{path:?} is no path: {error}")]
    Path { path: String, error: PathError },
    #[error("{path} has a value of {bytes} bytes, at most {VALUE_MAX_BYTES} are possible")]
    ValueTooLarge { path: Path, bytes: usize },
    #[error("the directory {0} has a value, or another version than 1")]
    NotADirectory(Path),
    #[error("the file {0} has the version 0, or what only a directory has")]
    NotAFile(Path),
    #[error("{0} was made or changed at a revision that cannot be")]
    Revision(Path),
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Path { path, error } => Self::BadPath { path, error },
            RecordError::ValueTooLarge { path, bytes } => Self::ValueTooLarge { path, bytes },
            RecordError::NotADirectory(_) | RecordError::NotAFile(_) | RecordError::Revision(_) => {
                Self::Invalid("the snapshot has an entry that no tree has")
            }
        }
    }
}

/// The path of a record that a tree can have at its revision `newest`.
///
/// # Errors
/// [`RecordError`].
pub fn check_record(record: &SnapshotRecord, newest: u64) -> Result<Path, RecordError> {
    let path = Path::new(record.path.as_str())
        .map_err(|error| RecordError::Path { path: record.path.clone(), error })?;
    if record.value.len() > VALUE_MAX_BYTES {
        return Err(RecordError::ValueTooLarge { path, bytes: record.value.len() });
    }
    if path.is_directory() {
        if !record.value.is_empty() || record.version != 1 {
            return Err(RecordError::NotADirectory(path));
        }
    } else if record.version == 0
        || (record.sequence, record.quota_entries_max, record.quota_bytes_max) != (0, 0, 0)
    {
        return Err(RecordError::NotAFile(path));
    }
    // The root alone was made by nobody.
    let is_made = record.created > 0 || path.is_root();
    if is_made && record.created <= record.modified && record.modified <= newest {
        Ok(path)
    } else {
        Err(RecordError::Revision(path))
    }
}

/// Paths and values together.
#[must_use]
pub fn size(records: &[SnapshotRecord]) -> usize {
    records.iter().map(|record| record.path.len() + record.value.len()).sum()
}

/// Whether they are more than one page or block has.
#[must_use]
pub fn is_too_much(records: &[SnapshotRecord]) -> bool {
    records.len() > RECORDS_MAX || (records.len() > 1 && size(records) > BYTES_MAX)
}
