//! A watcher without its master: what it watches, what the master knows of that, and from where on it is to be told. Pure.
//!
//! Invariants:
//! - the place moves only by an answer to a request after which the master had all directories: so nothing between two places
//!   is missed, however often masters change, answers are lost or requests are given up;
//! - a change of what is watched is told again until a request with it was answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coord_types::InodeId;
use master_api::model::event::WATCH_CHANGES_MAX;
use master_api::model::{DirectoryEvent, EventKind, EventPlace, Watch, Watched};

use super::Notice;
use crate::Errno;

/// See the module.
#[derive(Debug)]
pub(super) struct Tracker {
    watcher: u64,
    /// Of the last request.
    sequence: u64,
    /// The last request that was answered; 0: the master knows nothing of us.
    acknowledged: u64,
    place: Option<EventPlace>,
    watched: BTreeSet<InodeId>,
    /// What the master does not know (for certain) yet: added, or removed.
    pending: BTreeMap<InodeId, bool>,
    notices: VecDeque<Notice>,
}

impl Tracker {
    pub(super) fn new(watcher: u64) -> Self {
        Self {
            watcher,
            sequence: 0,
            acknowledged: 0,
            place: None,
            watched: BTreeSet::new(),
            pending: BTreeMap::new(),
            notices: VecDeque::new(),
        }
    }

    /// It is known from where on events are told.
    pub(super) const fn has_begun(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    pub(super) fn add(&mut self, directory: InodeId) {
        if self.watched.insert(directory) {
            self.pending.insert(directory, true);
        }
    }

    pub(super) fn remove(&mut self, directory: InodeId) {
        if self.watched.remove(&directory) {
            self.pending.insert(directory, false);
        }
    }

    /// What is to be told before anything is asked.
    pub(super) fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The next request.
    pub(super) fn request(&mut self, wait: Duration) -> Watch {
        self.sequence += 1;
        let told = self.pending.iter().take(WATCH_CHANGES_MAX);
        let (add, remove): (Vec<_>, Vec<_>) = told.partition(|(_, added)| **added);
        let inos = |changes: Vec<(&InodeId, &bool)>| changes.into_iter().map(|(ino, _)| *ino).collect();
        let is_all = self.pending.len() <= WATCH_CHANGES_MAX;
        Watch {
            watcher: self.watcher,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            add: inos(add),
            remove: inos(remove),
            after: self.place,
            wait: if is_all { wait } else { Duration::ZERO },
        }
    }

    /// The answer to a request; what was added or removed since it was made stays to be told.
    pub(super) fn answered(&mut self, request: &Watch, answer: Watched) {
        let Watched::Told { lost, next, events, refused } = answer else {
            self.acknowledged = 0;
            self.pending = self.watched.iter().map(|directory| (*directory, true)).collect();
            return;
        };
        self.acknowledged = request.sequence;
        for (changes, added) in [(&request.add, true), (&request.remove, false)] {
            for directory in changes {
                if self.pending.get(directory) == Some(&added) {
                    self.pending.remove(directory);
                }
            }
        }
        // From then on the master had all directories, but those that it refused.
        let is_whole = self.pending.is_empty();
        if lost || is_whole || self.place.is_none() {
            self.place = Some(next);
        }
        if lost {
            self.notices.push_back(Notice::Lost);
        } else if is_whole {
            self.tell(events);
        }
        self.refuse(refused);
    }

    fn refuse(&mut self, refused: BTreeMap<InodeId, master_api::Errno>) {
        let ours: BTreeMap<InodeId, Errno> = refused
            .into_iter()
            .filter(|(directory, _)| self.watched.contains(directory))
            .map(|(directory, errno)| (directory, errno.into()))
            .collect();
        if !ours.is_empty() {
            ours.keys().for_each(|directory| self.remove(*directory));
            self.notices.push_back(Notice::Refused(ours));
        }
    }

    fn tell(&mut self, events: Vec<DirectoryEvent>) {
        let mut changed: BTreeMap<InodeId, Vec<DirectoryEvent>> = BTreeMap::new();
        for event in events {
            if !self.watched.contains(&event.directory) {
                continue;
            }
            if event.kind == EventKind::Gone {
                self.remove(event.directory);
            }
            changed.entry(event.directory).or_default().push(event);
        }
        if !changed.is_empty() {
            self.notices.push_back(Notice::Changed(changed));
        }
    }
}

#[cfg(test)]
mod tests;
