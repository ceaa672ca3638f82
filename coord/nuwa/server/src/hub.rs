//! Events for who watches: the newest ones in memory, and a table of who waits for what.
//!
//! Events come in two steps: [`applied`](Hub::applied) when their command was, [`publish`](Hub::publish) when the store has
//! what it changed. Nobody sees one before: a watcher that is told of a change finds it when it reads.
//!
//! Invariants: the ring holds every event from its first revision on up to the newest; whoever waits for a path is woken by the next
//! event of that path, or below it, and by nothing else (but a new snapshot).

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use nuwa_api::proto::Event;
use nuwa_api::{Path, Place};
use parking_lot::Mutex;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};
use zhongkui_access::revoked::FOLDER;

/// Of the ring. Who is farther behind reads from the store.
const RING_EVENTS_MAX: usize = 32_768;
const RING_BYTES_MAX: usize = 16 << 20;
/// What an event takes beyond its path and value.
const EVENT_BYTES: usize = 200;
/// Of one answer; one event may be larger.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct Inner {
    /// Applied, and not yet in the store.
    applied: Vec<Event>,
    /// The tree was replaced, as of this revision, before what is in `applied`; the store does not have it yet.
    replaced: Option<u64>,
    ring: VecDeque<Event>,
    ring_bytes: usize,
    /// All events from this revision on are in the ring; `None`: not known what there was before the next.
    first: Option<u64>,
    /// Who waits, by the path they watch: how many, and what wakes them all.
    waiting: HashMap<String, (usize, Arc<Notify>)>,
    waiters: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// The newest revision in the store; 0 if it is not known yet.
    published: watch::Sender<u64>,
    /// Something in the folder of what was taken back may have changed. For the one task that follows it.
    folder: Notify,
}

/// What there is for a watcher.
pub(crate) enum Look {
    /// Events, or at least a later place.
    Found { events: Vec<Event>, next: Place },
    /// Nothing yet: everything before this place is none of its business. To be looked again once the ticket says so.
    Wait { next: Place, ticket: Ticket },
    /// It is behind the ring: to be read from the store.
    Older,
    /// Nothing is known: [`Hub::prime`] first.
    Unknown,
}

/// A place in the table of who waits; given up when dropped.
pub(crate) struct Ticket {
    hub: Arc<Hub>,
    path: String,
    woken: Pin<Box<OwnedNotified>>,
}

impl Ticket {
    /// There may be something now.
    pub(crate) async fn woken(&mut self) {
        self.woken.as_mut().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        inner.waiters -= 1;
        if let Some((count, _)) = inner.waiting.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                inner.waiting.remove(&self.path);
            }
        }
    }
}

impl Hub {
    /// A command was applied; the store does not have it yet.
    pub(crate) fn applied(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.inner.lock().applied.extend(events);
        }
    }

    /// A command replaced the whole tree; the store does not have it yet. The new one has no history up to this revision.
    pub(crate) fn replaced(&self, revision: u64) {
        let mut inner = self.inner.lock();
        inner.applied.clear();
        inner.replaced = Some(revision);
    }

    /// What was applied is in the store.
    pub(crate) fn publish(&self) {
        let mut is_of_folder = false;
        let revision = {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            let replaced = inner.replaced.take();
            is_of_folder |= replaced.is_some();
            if let Some(revision) = replaced {
                inner.begin_anew(Some(revision + 1));
            }
            let last = inner.applied.last().map(|event| event.revision);
            let Some(revision) = last.or(replaced) else { return };
            if let Some(first) = inner.applied.first() {
                inner.first.get_or_insert(first.revision);
            }
            for event in inner.applied.drain(..) {
                is_of_folder |= path_of(&event).starts_with(FOLDER);
                if !inner.waiting.is_empty() {
                    for path in watched_by(path_of(&event)) {
                        if let Some((_, waiters)) = inner.waiting.get(path) {
                            waiters.notify_waiters();
                        }
                    }
                }
                inner.ring_bytes += size(&event);
                inner.ring.push_back(event);
            }
            inner.make_room();
            revision
        };
        self.published.send_replace(revision);
        if is_of_folder {
            self.folder.notify_one();
        }
    }

    /// The state was replaced: nothing is known of what came before the next event.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.applied.clear();
        inner.replaced = None;
        inner.begin_anew(None);
        drop(inner);
        self.published.send_replace(0);
        self.folder.notify_one();
    }

    /// Something in the folder of what was taken back may have changed since this was asked before; the store has it.
    pub(crate) async fn folder_changed(&self) {
        self.folder.notified().await;
    }

    /// The store was read, and is at this revision.
    pub(crate) fn prime(&self, revision: u64) {
        let mut inner = self.inner.lock();
        if inner.first.is_none() {
            inner.first = Some(revision + 1);
            drop(inner);
            self.published.send_if_modified(|known| {
                let newer = *known < revision;
                *known = (*known).max(revision);
                newer
            });
        }
    }

    /// The newest revision in the store; `None` if it is not known.
    pub(crate) fn revision(&self) -> Option<u64> {
        let revision = *self.published.borrow();
        (revision > 0 || self.inner.lock().first.is_some()).then_some(revision)
    }

    /// Shows the newest revision in the store.
    pub(crate) fn watch_revision(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// How many wait.
    pub(crate) fn waiters(&self) -> u64 {
        self.inner.lock().waiters
    }

    /// Events of a path from a place on, at most so many.
    pub(crate) fn look(self: &Arc<Self>, path: &Path, from: Place, events_max: usize) -> Look {
        let mut inner = self.inner.lock();
        let Some(first) = inner.first else { return Look::Unknown };
        let newest = inner.ring.back().map_or(first - 1, |event| event.revision);
        if from == Place::NOW {
            return Look::Found { events: Vec::new(), next: Place::after(newest) };
        }
        if from.revision < first {
            return Look::Older;
        }
        let start = inner.ring.partition_point(|event| place_of(event) < from);
        let mut found = Found::new(events_max);
        for event in inner.ring.range(start..) {
            if is_watched(path, event) && !found.add(event.clone()) {
                return Look::Found { events: found.events, next: place_of(event) };
            }
        }
        let next = from.max(Place::after(newest));
        if !found.events.is_empty() {
            return Look::Found { events: found.events, next };
        }
        inner.waiters += 1;
        let waiting = inner.waiting.entry(path.as_str().to_owned()).or_default();
        waiting.0 += 1;
        // It hears of what comes from here on, polled or not.
        let woken = Box::pin(Arc::clone(&waiting.1).notified_owned());
        let ticket = Ticket { hub: Arc::clone(self), path: path.as_str().to_owned(), woken };
        Look::Wait { next, ticket }
    }
}

impl Inner {
    /// The ring's events are of another tree. Whoever waits is to look again.
    fn begin_anew(&mut self, first: Option<u64>) {
        self.first = first;
        self.ring.clear();
        self.ring_bytes = 0;
        for (_, waiters) in self.waiting.values() {
            waiters.notify_waiters();
        }
    }

    /// Drops the oldest events, whole revisions of them.
    fn make_room(&mut self) {
        while self.ring.len() > RING_EVENTS_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(oldest) = self.ring.front().map(|event| event.revision) else { return };
            while let Some(event) = self.ring.pop_front_if(|event| event.revision == oldest) {
                self.ring_bytes -= size(&event);
            }
            self.first = Some(oldest + 1);
        }
    }
}

/// Events of one answer.
pub(crate) struct Found {
    pub(crate) events: Vec<Event>,
    events_max: usize,
    bytes: usize,
}

impl Found {
    pub(crate) fn new(events_max: usize) -> Self {
        Self { events: Vec::new(), events_max, bytes: 0 }
    }

    /// False: it does not go into this answer any more.
    pub(crate) fn add(&mut self, event: Event) -> bool {
        let bytes = size(&event);
        let full = self.events.len() >= self.events_max || self.bytes + bytes > ANSWER_BYTES_MAX;
        if full && !self.events.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.events.push(event);
        true
    }
}

pub(crate) fn place_of(event: &Event) -> Place {
    Place { revision: event.revision, number: event.number }
}

fn path_of(event: &Event) -> &str {
    event.entry.as_ref().map_or("", |entry| &entry.path)
}

/// Whether whoever watches `path` is to be told.
pub(crate) fn is_watched(path: &Path, event: &Event) -> bool {
    let changed = path_of(event);
    if path.is_directory() { changed.starts_with(path.as_str()) } else { changed == path.as_str() }
}

/// What it takes in memory, about.
pub(crate) fn size(event: &Event) -> usize {
    event.entry.as_ref().map_or(0, |entry| entry.path.len() + entry.value.len()) + EVENT_BYTES
}

/// Paths whose watchers are told of a change of `path`: itself, and every directory above it.
fn watched_by(path: &str) -> impl Iterator<Item = &str> {
    let directories = path.match_indices('/').map(|(at, _)| &path[..=at]);
    let file = (!path.ends_with('/')).then_some(path);
    directories.chain(file)
}

#[cfg(test)]
mod tests;
