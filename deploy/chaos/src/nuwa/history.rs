//! The history, read from its first revision on when all is over, and everything else laid beside it: what was acknowledged, what was
//! read, what watchers were told, and the tree as it is.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use nuwa_api::proto::{Event, EventKind};
use nuwa_api::{NuwaClient, Place, Watched};

use super::book::{Book, Change, Kind, Looked, Stale, Told};
use super::sequences::{self, Given};
use super::tree::{Leaf, Tree};
use super::value::number;
use super::watchers::{LISTEN, Log};

/// All of it is read within this.
const READ: Duration = Duration::from_secs(120);

/// What happened, with what its value stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) place: (u64, u32),
    pub(crate) kind: EventKind,
    pub(crate) path: String,
    /// Number that the value stands for, and the version.
    pub(crate) cell: (u64, u64),
    /// The session the file lives with.
    pub(crate) owner: u64,
    /// Of a lock: the claim, and the fence.
    pub(crate) claim: (u64, u64),
    pub(crate) digest: u64,
}

/// All that an event says, in one number.
pub(crate) fn digest(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    (event.revision, event.number, event.kind).hash(&mut hasher);
    if let Some(entry) = &event.entry {
        (&entry.path, &entry.value[..], entry.version, entry.created, entry.modified).hash(&mut hasher);
        (entry.owner, entry.modified_unix_nanos).hash(&mut hasher);
    }
    if let Some(holder) = &event.holder {
        (holder.session, holder.owner, holder.shared, holder.fence).hash(&mut hasher);
    }
    hasher.finish()
}

impl Happened {
    fn of(event: &Event) -> Result<Self, String> {
        let entry = event.entry.clone().unwrap_or_default();
        let value = number(&entry.value).map_err(|wrong| format!("revision {}: {wrong}", event.revision))?;
        Ok(Self {
            place: (event.revision, event.number),
            kind: event.kind(),
            cell: (value, entry.version),
            owner: entry.owner,
            claim: event.holder.map_or((0, 0), |holder| (holder.owner, holder.fence)),
            digest: digest(event),
            path: entry.path,
        })
    }
}

/// A file: from which revision on it had which number and version; both 0 while it is not there.
type Life = Vec<(u64, (u64, u64))>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Happened>,
}

impl History {
    /// Reads it, up to a revision.
    pub(crate) async fn read(client: &NuwaClient, newest: u64) -> Result<Self, String> {
        let mut watcher = client.watch("/", Place::after(0));
        let mut events = Vec::new();
        let deadline = Instant::now() + READ;
        while watcher.place().revision <= newest {
            if deadline < Instant::now() {
                return Err(format!(
                    "the history was not read within {READ:?}: it came to {:?}",
                    watcher.place()
                ));
            }
            match tokio::time::timeout(LISTEN, watcher.next()).await {
                Ok(Ok(Watched::Event(event))) => events.push(Happened::of(&event)?),
                Ok(Ok(Watched::HistoryLost { first })) => {
                    return Err(format!("history before {first} is lost"));
                }
                Ok(Err(error)) => return Err(error.to_string()),
                // Nothing more: the place says how far that is known.
                Err(_) => {}
            }
        }
        Ok(Self { events })
    }

    /// It has no gap: every revision from 1 on, and every number of each.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let mut wanted = (1, 0);
        let mut wrong = Vec::new();
        for event in &self.events {
            let next_revision = (wanted.0 + 1, 0);
            if event.place != wanted && (event.place != next_revision || wanted.1 == 0) {
                wrong.push(format!("after an event before {wanted:?} comes {:?}", event.place));
            }
            wanted = (event.place.0, event.place.1 + 1);
        }
        wrong
    }

    /// What each revision did to files, as callers know it beforehand: not the directories that were made with a file, nor what
    /// went with a session, nor the files that locks are of.
    fn shapes(&self) -> BTreeMap<u64, Vec<Told>> {
        let mut shapes: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
        for Happened { place, kind, path, cell, owner, .. } in &self.events {
            let stem = sequences::split(path).map_or(path.as_str(), |(stem, _)| stem);
            let told = match kind {
                EventKind::Put if cell.0 > 0 => Told::put(stem, cell.0),
                EventKind::Deleted if *owner == 0 && !path.ends_with('/') => Told::deleted(stem),
                EventKind::Put
                | EventKind::Deleted
                | EventKind::Locked
                | EventKind::Unlocked
                | EventKind::Unspecified => continue,
            };
            shapes.entry(place.0).or_default().push(told);
        }
        for shape in shapes.values_mut() {
            // What is moved is known to whoever made it only.
            if shape.iter().any(|told| told.kind == Kind::Deleted) {
                shape.iter_mut().for_each(|told| told.number = 0);
            }
        }
        shapes
    }

    /// Whom the lock was granted to: the fence of each claim.
    pub(crate) fn grants(&self) -> BTreeMap<u64, u64> {
        let locked = self.events.iter().filter(|event| event.kind == EventKind::Locked);
        locked.map(|event| event.claim).collect()
    }

    /// Each acknowledged change is there once, with its revision; and nothing is there that nobody asked for.
    pub(crate) fn reconcile(&self, changes: &[Change]) -> Reconciled {
        let mut shapes = self.shapes();
        let mut wrong = Vec::new();
        let mut taken: HashMap<u64, &Change> = HashMap::new();
        let mut unknown: HashMap<&[Told], usize> = HashMap::new();
        for change in changes {
            if change.returned_ns.is_none() {
                *unknown.entry(&change.told).or_default() += 1;
            } else if let Some(other) = taken.insert(change.revision, change) {
                wrong.push(format!(
                    "two changes were told revision {}: {change:?}, {other:?}",
                    change.revision
                ));
            } else {
                match shapes.remove(&change.revision) {
                    Some(shape) if shape == change.told => {}
                    found => wrong.push(format!("acknowledged: {change:?}; in the history: {found:?}")),
                }
            }
        }
        let mut unclaimed: HashMap<Vec<Told>, Vec<u64>> = HashMap::new();
        for (revision, shape) in shapes {
            unclaimed.entry(shape).or_default().push(revision);
        }
        for (shape, revisions) in &unclaimed {
            let asked = unknown.get(shape.as_slice()).copied().unwrap_or(0);
            if revisions.len() > asked {
                wrong.push(format!(
                    "asked for {asked} times without an answer, and done at {revisions:?}: {shape:?}"
                ));
            }
        }
        Reconciled { wrong, unclaimed }
    }

    /// Grants and returns of locks: what was acknowledged is there, and each grant once, each return after it.
    pub(crate) fn locks(&self, books: &[Book]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut granted: HashMap<u64, u64> = HashMap::new();
        let mut returned: HashMap<u64, u64> = HashMap::new();
        for Happened { place, kind, path, claim: (claim, fence), .. } in &self.events {
            let again = match kind {
                EventKind::Locked => {
                    if place.0 != *fence {
                        wrong.push(format!("{path}: granted at {place:?} with fence {fence}"));
                    }
                    granted.insert(*claim, *fence)
                }
                EventKind::Unlocked => {
                    if granted.get(claim) != Some(fence) {
                        wrong.push(format!(
                            "{path}: claim {claim} is given back at {place:?} and was not held"
                        ));
                    }
                    returned.insert(*claim, place.0)
                }
                EventKind::Put | EventKind::Deleted | EventKind::Unspecified => None,
            };
            if again.is_some() {
                wrong.push(format!("{path}: claim {claim}: {kind:?} a second time at {place:?}"));
            }
        }
        for book in books {
            for (claim, fence) in &book.grants {
                if granted.get(claim) != Some(fence) {
                    wrong.push(format!(
                        "claim {claim} was told fence {fence}, in the history: {:?}",
                        granted.get(claim)
                    ));
                }
            }
            let lost = book.returned.iter().filter(|claim| !returned.contains_key(claim));
            wrong.extend(
                lost.map(|claim| format!("claim {claim} was given back, and the history does not say so")),
            );
        }
        let kept = granted.keys().filter(|claim| !returned.contains_key(claim));
        wrong.extend(kept.map(|claim| format!("claim {claim} is still held when every session is over")));
        wrong
    }

    /// Sequential names: in each directory every number once, in order, as the history has them.
    pub(crate) fn sequences(&self, given: &[Given]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut next: HashMap<&str, u64> = HashMap::new();
        for event in self.events.iter().filter(|event| event.kind == EventKind::Put) {
            if let Some((stem, digits)) = sequences::split(&event.path) {
                let wanted = next.entry(stem).or_default();
                if digits != *wanted {
                    wrong.push(format!("{} at {:?}, and {wanted} is the next", event.path, event.place));
                }
                *wanted = digits + 1;
            }
        }
        let mut times: BTreeMap<usize, Vec<Timed>> = BTreeMap::new();
        for Given { object, span, number } in given {
            let timed = Timed {
                called_ns: span.called_ns,
                returned_ns: span.returned_ns,
                number: *number,
                changes: true,
            };
            times.entry(*object).or_default().push(timed);
        }
        for (object, timed) in times {
            wrong.extend(out_of_order(timed).into_iter().map(|what| format!("names of {object}: {what}")));
        }
        wrong
    }

    /// What a file was from which revision on.
    fn lives(&self) -> HashMap<&str, Life> {
        let mut lives: HashMap<&str, Life> = HashMap::new();
        for Happened { place, kind, path, cell, .. } in &self.events {
            let cell = match kind {
                EventKind::Put => *cell,
                EventKind::Deleted => (0, 0),
                EventKind::Locked | EventKind::Unlocked | EventKind::Unspecified => continue,
            };
            lives.entry(path).or_default().push((place.0, cell));
        }
        lives
    }

    /// No stale read showed anything older than its client had seen, or anything that never was.
    pub(crate) fn stale(&self, reads: &[Stale]) -> Vec<String> {
        let lives = self.lives();
        let judge = |read: &&Stale| {
            let life = lives.get(read.path.as_str()).map(Vec::as_slice).unwrap_or_default();
            let until = life.partition_point(|(revision, _)| *revision <= read.revision);
            let then = until.checked_sub(1).map_or((0, 0), |last| life[last].1);
            let later = life[until..].iter().any(|(_, cell)| *cell == read.found);
            read.revision < read.seen || (then != read.found && !later)
        };
        reads.iter().filter(judge).map(|read| format!("{read:?}")).collect()
    }

    /// What a watcher was told is what happened, from where it began.
    pub(crate) fn watched(&self, log: &Log) -> Vec<String> {
        let Log { name, path, from, seen, wrong, .. } = log;
        let mut wrong: Vec<String> = wrong.iter().map(|what| format!("{name}: {what}")).collect();
        let is_watched =
            |event: &&Happened| event.place >= (from.revision, from.number) && event.path.starts_with(path);
        let mut expected =
            self.events.iter().filter(is_watched).map(|event| (event.place.0, event.place.1, event.digest));
        for (index, told) in seen.iter().enumerate() {
            let due = expected.next();
            if due.as_ref() != Some(told) {
                wrong.push(format!("{name}: event {index} is {told:?}, and {due:?} was due"));
                return wrong;
            }
        }
        if let Some(missing) = expected.next() {
            wrong.push(format!("{name}: ended before {missing:?}, after {} events", seen.len()));
        }
        wrong
    }

    /// The tree that is left when all of it has happened.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for Happened { place, kind, path, cell, owner, .. } in &self.events {
            match kind {
                EventKind::Put => {
                    let leaf = Leaf { cell: *cell, modified: place.0, owner: *owner };
                    tree.insert(path.clone(), leaf);
                }
                EventKind::Deleted => {
                    tree.remove(path);
                }
                EventKind::Locked | EventKind::Unlocked | EventKind::Unspecified => {}
            }
        }
        tree
    }
}

/// What came of laying changes beside the history.
#[derive(Debug)]
pub(crate) struct Reconciled {
    pub(crate) wrong: Vec<String>,
    /// Revisions that nobody was told of, by what they did.
    unclaimed: HashMap<Vec<Told>, Vec<u64>>,
}

impl Reconciled {
    /// A change whose outcome its caller does not know may have been made.
    pub(crate) fn may_have_happened(&self, change: &Change) -> bool {
        change.returned_ns.is_some() || self.unclaimed.contains_key(&change.told)
    }
}

/// Something that ascends, and when it was asked for and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) called_ns: u64,
    pub(crate) returned_ns: u64,
    pub(crate) number: u64,
    /// It is greater than all that was told before it was asked for; otherwise it may be the same as one.
    pub(crate) changes: bool,
}

/// Revisions ascend as time does: of changes, and of current reads.
pub(crate) fn revisions_out_of_order(changes: &[Change], looked: &[Looked]) -> Vec<String> {
    let changes = changes.iter().filter_map(|change| {
        let returned_ns = change.returned_ns?;
        Some(Timed { called_ns: change.called_ns, returned_ns, number: change.revision, changes: true })
    });
    let looks = looked.iter().map(|Looked { span, revision }| Timed {
        called_ns: span.called_ns,
        returned_ns: span.returned_ns,
        number: *revision,
        changes: false,
    });
    out_of_order(changes.chain(looks).collect())
}

fn out_of_order(mut by_call: Vec<Timed>) -> Vec<String> {
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|timed| timed.called_ns);
    by_return.sort_by_key(|timed| timed.returned_ns);
    let mut told = by_return.into_iter().peekable();
    let mut newest: Option<Timed> = None;
    let mut wrong = Vec::new();
    for asked in by_call {
        while let Some(before) = told.next_if(|before| before.returned_ns < asked.called_ns) {
            if newest.is_none_or(|newest| newest.number < before.number) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest
            && asked.number < newest.number + u64::from(asked.changes)
        {
            wrong.push(format!("{asked:?} after {newest:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests;
