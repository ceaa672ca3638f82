//! A batch: changes that become visible and durable together.

use crate::{Family, Range};

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    Put { family: Family, key: Vec<u8>, value: Vec<u8> },
    Delete { family: Family, key: Vec<u8> },
    DeleteRange { family: Family, range: Range },
}

/// Changes in order; a later one wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put { family, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.changes.push(Change::Delete { family, key: key.into() });
    }

    /// Deletes every key of `range`. A range without an end reaches to the family's last key.
    pub fn delete_range(&mut self, family: Family, range: Range) {
        self.changes.push(Change::DeleteRange { family, range });
    }

    /// Adds all of `other` after what is here.
    pub fn append(&mut self, mut other: Self) {
        self.changes.append(&mut other.changes);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}
