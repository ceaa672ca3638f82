//! What happens in directories, and what a watcher asks and is told (`master/docs/events.md`).

use std::collections::BTreeMap;
use std::time::Duration;

use coord_types::InodeId;

use crate::{Errno, Name};

/// Directories added and removed by one request, at most.
pub const WATCH_CHANGES_MAX: usize = 1024;

/// What happened in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A name came to be.
    Created,
    /// A name went; or what it meant was replaced by a rename, which is told next.
    Removed,
    /// A name went to become another one, here or in another directory: [`MovedTo`](Self::MovedTo) of the same log entry and inode.
    MovedFrom,
    /// A name came to be by a rename.
    MovedTo,
    /// The data or size of a file with a name here changed, durably.
    Written,
    /// Owner, permissions, times, extended attributes or fence of something with a name here were set.
    Attributes,
    /// The directory itself was removed; nothing more happens in it.
    Gone,
}

/// A place in the log between two events, and so what was told: everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Of the log entry.
    pub index: u64,
    /// Of the event within the entry, from 0; `u32::MAX`: behind all of them.
    pub number: u32,
}

impl Position {
    /// Behind everything an entry of the log did.
    #[must_use]
    pub const fn end_of(index: u64) -> Self {
        Self { index, number: u32::MAX }
    }
}

/// A position, and of which log: where a watcher goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventPlace {
    /// The cluster epoch: after a restoration from an older copy, indexes of the log mean something else.
    pub epoch: u64,
    pub position: Position,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEvent {
    pub position: Position,
    pub directory: InodeId,
    pub kind: EventKind,
    /// What it happened to.
    pub ino: InodeId,
    /// Of the entry. `None` where the inode alone is known: with `Written`, `Attributes` and `Gone`.
    pub name: Option<Name>,
}

/// What a watcher asks. The numbers are those of `WatchRequest` in `master.proto`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Which of the session's sets of directories.
    pub watcher: u64,
    /// Counts the watcher's requests, from 1.
    pub sequence: u64,
    /// The last request that was answered; 0: to begin, with no directories.
    pub acknowledged: u64,
    pub add: Vec<InodeId>,
    pub remove: Vec<InodeId>,
    /// `None`: from now on.
    pub after: Option<EventPlace>,
    /// Longest wait for an event.
    pub wait: Duration,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The master does not have the set of directories: it is to be told all of it.
    Unknown,
    /// What happened.
    Told {
        /// Anything may have happened before `next`.
        lost: bool,
        next: EventPlace,
        events: Vec<DirectoryEvent>,
        /// Directories of which nothing is told, and why.
        refused: BTreeMap<InodeId, Errno>,
    },
}
