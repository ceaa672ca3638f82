//! Who watches which directories here, and the events they wait for.
//!
//! The ring has every event whether or not anybody watches ([`Ring`]); a watcher is a set of directories and the number of its last
//! request. Nothing of it outlives the process or follows a change of leader: who is not known is told so, and says again what it
//! watches (`master/docs/events.md`).
//!
//! Invariants: who waits is woken by the next event of its directories, and by nothing else but a later request of the same watcher
//! and a new state; the sets are what the requests say that were obeyed, in their order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::{InodeId, SessionId};
use master_api::model::{DirectoryEvent, Errno, Position};
use master_core::events::{Change, Ring};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Bounds of what is kept for watchers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) watchers: usize,
    pub(crate) watchers_per_session: usize,
    /// Of all watchers.
    pub(crate) directories: usize,
    pub(crate) directories_per_watcher: usize,
    /// Who asked nothing for this long is forgotten when there is no room.
    pub(crate) idle: Duration,
}

/// About 40 MiB when all is used.
const BOUNDS: Bounds = Bounds {
    watchers: 1024,
    watchers_per_session: 64,
    directories: 1 << 19,
    directories_per_watcher: 1 << 16,
    idle: Duration::from_secs(60),
};
/// Events of one answer: with the longest names 300 KiB.
pub(crate) const ANSWER_EVENTS_MAX: usize = 1024;
/// Events looked at before others get the lock: the thread that applies waits for it.
const SCAN_MAX: usize = 4096;

/// One of a session's watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) session: SessionId,
    pub(crate) watcher: u64,
}

/// What a request says of a watcher's directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update<'a> {
    pub(crate) sequence: u64,
    /// 0: what it watched before is forgotten.
    pub(crate) acknowledged: u64,
    pub(crate) add: &'a [InodeId],
    pub(crate) remove: &'a [InodeId],
}

/// Why a request is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The set is not the one the request goes on from.
    Unknown,
    /// A later request of the watcher was obeyed.
    Overtaken,
    /// The session has as many watchers as one may have.
    TooMany,
    /// There are as many watchers as there may be.
    Full,
}

/// What there is for a watcher.
pub(crate) enum Look {
    /// Everything up to `next` is told by these.
    Found { events: Vec<DirectoryEvent>, next: Position },
    /// Nothing up to `next`, but there is more to be looked at.
    More { next: Position },
    /// Nothing at all. To be looked again once this says so.
    Wait { next: Position, woken: OwnedNotified },
    /// What came behind the place is not known any more.
    Lost { next: Position },
    /// Nothing is known: [`Hub::stored`] first.
    Blank,
}

#[derive(Debug)]
struct Watcher {
    sequence: u64,
    directories: HashSet<InodeId>,
    heard: Instant,
    /// Wakes its request that waits.
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    ring: Ring,
    watchers: HashMap<Key, Watcher>,
    /// Who watches a directory; nobody is in no entry.
    interest: HashMap<InodeId, Vec<Key>>,
    /// Of all watchers together.
    directories: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    bounds: Bounds,
    inner: Mutex<Inner>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(BOUNDS)
    }
}

impl Hub {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, inner: Mutex::default() }
    }

    /// A command of this log entry was applied; the store does not have it yet.
    pub(crate) fn applied(&self, index: u64, changes: &[Change]) {
        self.inner.lock().ring.applied(index, changes);
    }

    /// What was applied is in the store.
    pub(crate) fn publish(&self) {
        let mut inner = self.inner.lock();
        let Inner { ring, watchers, interest, .. } = &mut *inner;
        let changed = ring.publish();
        if interest.is_empty() {
            return;
        }
        for directory in changed {
            for key in interest.get(&directory).into_iter().flatten() {
                if let Some(watcher) = watchers.get(key) {
                    watcher.wake.notify_waiters();
                }
            }
        }
    }

    /// The state was replaced.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.ring.forget();
        inner.watchers.values().for_each(|watcher| watcher.wake.notify_waiters());
    }

    /// The store has everything up to this entry of the log.
    pub(crate) fn stored(&self, index: u64) {
        self.inner.lock().ring.stored(index);
    }

    /// Watchers, and directories of all of them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.watchers.len(), inner.directories)
    }

    /// The session is over.
    pub(crate) fn forget_session(&self, session: SessionId) {
        self.inner.lock().drop_watchers(|key, _| key.session == session);
    }

    /// Obeys a request. Gives the directories for which there is no room.
    ///
    /// # Errors
    /// Nothing of it was done.
    pub(crate) fn update(
        &self,
        key: Key,
        update: Update<'_>,
        now: Instant,
    ) -> Result<Vec<(InodeId, Errno)>, Refusal> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let known = inner.watchers.get(&key).map(|watcher| watcher.sequence);
        if known.is_some_and(|known| known > update.sequence) {
            return Err(Refusal::Overtaken);
        }
        if update.acknowledged == 0 {
            inner.drop_watchers(|other, _| *other == key);
            inner.make_room(key.session, self.bounds, now)?;
        } else if known.is_none_or(|known| known < update.acknowledged) {
            return Err(Refusal::Unknown);
        }
        let watcher = inner.watchers.entry(key).or_insert_with(|| Watcher {
            sequence: 0,
            directories: HashSet::new(),
            heard: now,
            wake: Arc::default(),
        });
        (watcher.sequence, watcher.heard) = (update.sequence, now);
        // The one that waits answers nobody any more.
        watcher.wake.notify_waiters();
        for directory in update.remove {
            if watcher.directories.remove(directory) {
                inner.directories -= 1;
                lose_interest(&mut inner.interest, *directory, key);
            }
        }
        let mut refused = Vec::new();
        for directory in update.add {
            if watcher.directories.contains(directory) {
                continue;
            }
            if watcher.directories.len() >= self.bounds.directories_per_watcher
                || inner.directories >= self.bounds.directories
            {
                refused.push((*directory, Errno::ENOSPC));
                continue;
            }
            watcher.directories.insert(*directory);
            inner.directories += 1;
            inner.interest.entry(*directory).or_default().push(key);
        }
        Ok(refused)
    }

    /// What there is behind a place, for the request `sequence`; without a place: nothing, from now on.
    ///
    /// # Errors
    /// The watcher is gone, or has a later request.
    pub(crate) fn look(&self, key: Key, sequence: u64, after: Option<Position>) -> Result<Look, Refusal> {
        let inner = self.inner.lock();
        let watcher = inner.watchers.get(&key).ok_or(Refusal::Unknown)?;
        if watcher.sequence != sequence {
            return Err(Refusal::Overtaken);
        }
        let Some(newest) = inner.ring.newest() else { return Ok(Look::Blank) };
        let Some(after) = after else { return Ok(Look::Found { events: Vec::new(), next: newest }) };
        let Some(behind) = inner.ring.behind(after) else { return Ok(Look::Lost { next: newest }) };
        let (mut events, mut next) = (Vec::new(), after);
        for (looked_at, stored) in behind.enumerate() {
            if events.len() >= ANSWER_EVENTS_MAX || looked_at >= SCAN_MAX {
                return Ok(if events.is_empty() {
                    Look::More { next }
                } else {
                    Look::Found { events, next }
                });
            }
            next = stored.position();
            if watcher.directories.contains(&stored.directory()) {
                events.push(stored.event());
            }
        }
        // Behind what is no event, too: so that an idle watcher does not fall out of the ring.
        let next = next.max(newest);
        if events.is_empty() {
            return Ok(Look::Wait { next, woken: Arc::clone(&watcher.wake).notified_owned() });
        }
        Ok(Look::Found { events, next })
    }
}

impl Inner {
    /// For one more watcher of a session.
    fn make_room(&mut self, session: SessionId, bounds: Bounds, now: Instant) -> Result<(), Refusal> {
        let of_session = |inner: &Self| inner.watchers.keys().filter(|key| key.session == session).count();
        if of_session(self) >= bounds.watchers_per_session || self.watchers.len() >= bounds.watchers {
            self.drop_watchers(|_, watcher| now.saturating_duration_since(watcher.heard) >= bounds.idle);
        }
        if of_session(self) >= bounds.watchers_per_session {
            return Err(Refusal::TooMany);
        }
        if self.watchers.len() >= bounds.watchers {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn drop_watchers(&mut self, mut which: impl FnMut(&Key, &Watcher) -> bool) {
        let Self { watchers, interest, directories, .. } = self;
        watchers.retain(|key, watcher| {
            let goes = which(key, watcher);
            if goes {
                *directories -= watcher.directories.len();
                watcher.directories.iter().for_each(|directory| lose_interest(interest, *directory, *key));
                watcher.wake.notify_waiters();
            }
            !goes
        });
    }
}

fn lose_interest(interest: &mut HashMap<InodeId, Vec<Key>>, directory: InodeId, key: Key) {
    if let Some(keys) = interest.get_mut(&directory) {
        keys.retain(|other| *other != key);
        if keys.is_empty() {
            interest.remove(&directory);
        }
    }
}

#[cfg(test)]
mod tests;
