//! The invariants of the store, as `coord/nuwa/docs/tree.md` numbers them. For tests, and for a look at a copy.

use std::collections::{BTreeMap, BTreeSet};

use coord_kv::{Family, KvError, Range, Read};
use nuwa_model::Path;
use nuwa_model::proto::{Entry, Event, EventKind};

use crate::keys::{self, ClaimKind};
use crate::locks::is_next_due;
use crate::query::{self, Page};
use crate::quotas::Use;
use crate::records::{EntryRecord, LockRecord, QuotaRecord, SessionRecord};
use crate::sequence::number_of;
use crate::state::{decode, read_entry, shown};

struct Store {
    entries: BTreeMap<Path, EntryRecord>,
    locks: BTreeMap<Path, LockRecord>,
    sessions: BTreeMap<u64, SessionRecord>,
    claims: BTreeSet<Vec<u8>>,
}

fn all<K: Ord, V>(
    read: &dyn Read,
    family: Family,
    one: impl Fn(&[u8], &[u8]) -> Option<(K, V)>,
) -> Result<BTreeMap<K, V>, KvError> {
    let pairs = read.scan(family, &Range::prefix(&[]), usize::MAX)?;
    let records = pairs.iter().map(|(key, record)| one(key, record));
    records.collect::<Option<_>>().ok_or_else(|| crate::error::corrupt("a record or its key"))
}

/// What is wrong; nothing, as it should be.
///
/// # Errors
/// The store failed.
pub fn check(read: &dyn Read) -> Result<Vec<String>, KvError> {
    let session_key = |key: &[u8]| Some(u64::from_be_bytes(key.try_into().ok()?));
    let store = Store {
        entries: all(read, keys::ENTRIES, |key, record| {
            Some((keys::entry_path(key)?, decode("an entry", record).ok()?))
        })?,
        locks: all(read, keys::LOCKS, |key, record| {
            Some((keys::split_path(key)?, decode("a lock", record).ok()?))
        })?,
        sessions: all(read, keys::SESSIONS, |key, record| {
            Some((session_key(key)?, decode("a session", record).ok()?))
        })?,
        claims: all(read, keys::CLAIMS, |key, _| Some((key.to_vec(), ())))?.into_keys().collect(),
    };
    let mut wrong = Vec::new();
    store.check_tree(&mut wrong);
    store.check_claims(&mut wrong);
    store.check_locks(&mut wrong);
    store.check_numbers(read, &mut wrong)?;
    store.check_quotas(read, &mut wrong)?;
    check_history(read, &mut wrong)?;
    Ok(wrong)
}

impl Store {
    fn has(&self, path: &Path) -> bool {
        path.is_root() || self.entries.contains_key(path)
    }

    fn check_tree(&self, wrong: &mut Vec<String>) {
        for (path, record) in &self.entries {
            if let Some(parent) = path.parent()
                && !self.has(&parent)
            {
                wrong.push(format!("1: {path} is in no directory"));
            }
            let twin = path.other_kind().and_then(|other| Path::new(other).ok());
            if !path.is_directory() && twin.is_some_and(|other| self.has(&other)) {
                wrong.push(format!("1: {path} is a file and a directory"));
            }
            if path.is_directory() && !(record.value.is_empty() && record.owner == 0) {
                wrong.push(format!("1: the directory {path} has a value or an owner"));
            }
        }
    }

    fn check_claims(&self, wrong: &mut Vec<String>) {
        let owned = self.entries.iter().filter(|(_, record)| record.owner != 0);
        let owned = owned.map(|(path, record)| (record.owner, ClaimKind::File, path));
        let locked = self.locks.iter().flat_map(|(path, lock)| {
            let claims = lock.holders.iter().chain(&lock.waiters);
            claims.map(move |claim| (claim.session, ClaimKind::Lock, path))
        });
        let mut wanted = BTreeSet::new();
        for (session, kind, path) in owned.chain(locked) {
            wanted.insert(keys::claim(session, kind, path));
            if !self.sessions.contains_key(&session) {
                wrong.push(format!("2: {path} belongs to session {session}, which is over"));
            }
        }
        if wanted != self.claims {
            let odd: Vec<_> =
                wanted.symmetric_difference(&self.claims).map(|key| keys::split_claim(key)).collect();
            wrong.push(format!("2: claims are missing, or of nothing: {odd:?}"));
        }
    }

    fn check_locks(&self, wrong: &mut Vec<String>) {
        for (path, lock) in &self.locks {
            let exclusive = lock.holders.iter().filter(|claim| !claim.shared).count();
            if !self.entries.contains_key(path) {
                wrong.push(format!("3: the locked {path} does not exist"));
            }
            if exclusive > 1 || (exclusive == 1 && lock.holders.len() > 1) {
                wrong.push(format!("3: {path} is held exclusively, and by others"));
            }
            if lock.holders.is_empty() || is_next_due(lock) {
                wrong.push(format!("3: {path} is waited for, and could be had"));
            }
        }
    }

    /// Counted anew, from the entries alone.
    fn check_quotas(&self, read: &dyn Read, wrong: &mut Vec<String>) -> Result<(), KvError> {
        let records: BTreeMap<Path, QuotaRecord> = all(read, keys::QUOTAS, |key, record| {
            Some((keys::split_path(key)?, decode("a quota", record).ok()?))
        })?;
        if records.len() as u64 != query::meta(read)?.quotas {
            wrong.push("5: the quotas are miscounted".to_owned());
        }
        for (directory, record) in records {
            let below = self.entries.iter().filter(|(path, _)| path.is_below(&directory));
            let used = below.fold(Use::default(), |used, (path, record)| used + Use::of(path, record));
            if used != Use::of_quota(&record) {
                wrong.push(format!("5: the quota of {directory} says {record:?}, there are {used:?}"));
            }
        }
        Ok(())
    }

    fn check_numbers(&self, read: &dyn Read, wrong: &mut Vec<String>) -> Result<(), KvError> {
        for path in self.entries.keys() {
            let Some((parent, number)) =
                path.parent().zip(path.split().and_then(|(_, name)| number_of(name)))
            else {
                continue;
            };
            let record = read_entry(read, &parent)?.unwrap_or_default();
            if number >= record.sequence.max(record.numbered) {
                wrong.push(format!("7: {parent} does not know of the number of {path}"));
            }
        }
        Ok(())
    }
}

fn check_history(read: &dyn Read, wrong: &mut Vec<String>) -> Result<(), KvError> {
    let meta = query::meta(read)?;
    let Page::Events(events) = query::events(read, (meta.history_first, 0), usize::MAX)? else {
        wrong.push("4: what history says is kept is not".to_owned());
        return Ok(());
    };
    let bytes = read.scan(keys::HISTORY, &Range::prefix(&[]), usize::MAX)?;
    let bytes = bytes.iter().map(|(_, record)| record.len() as u64);
    if (bytes.len() as u64, bytes.sum::<u64>()) != (meta.history_events, meta.history_bytes) {
        wrong.push("4: the events are miscounted".to_owned());
    }
    let mut at = (meta.history_first, 0);
    for event in &events {
        let now = (event.revision, event.number);
        if now != at && now != (at.0 + 1, 0) {
            wrong.push(format!("4: {now:?} follows where {at:?} is due"));
        }
        at = (now.0, now.1 + 1);
    }
    if !events.is_empty() && at.0 != meta.revision {
        wrong.push(format!("4: history ends at {}, not at {}", at.0, meta.revision));
    }
    check_fences(&events, wrong);
    // What is restored has no history.
    if meta.history_first == 1 && meta.restoring.is_none() {
        check_replay(read, &events, wrong)?;
    }
    Ok(())
}

fn check_fences(events: &[Event], wrong: &mut Vec<String>) {
    let mut fences = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind() == EventKind::Locked) {
        let (Some(entry), Some(holder)) = (&event.entry, &event.holder) else {
            wrong.push(format!("4: {event:?} says not who"));
            continue;
        };
        let last = fences.insert(&entry.path, holder.fence).unwrap_or(0);
        if holder.fence < last || (!holder.shared && holder.fence == last) || holder.fence != event.revision {
            wrong.push(format!("4: fence {} of {} follows {last}", holder.fence, entry.path));
        }
    }
}

fn check_replay(read: &dyn Read, events: &[Event], wrong: &mut Vec<String>) -> Result<(), KvError> {
    let mut tree: BTreeMap<&str, &Entry> = BTreeMap::new();
    for event in events {
        let Some(entry) = &event.entry else { continue };
        match event.kind() {
            EventKind::Put => drop(tree.insert(&entry.path, entry)),
            EventKind::Deleted => drop(tree.remove(entry.path.as_str())),
            EventKind::Locked | EventKind::Unlocked | EventKind::Unspecified => {}
        }
    }
    let entries: BTreeMap<Path, EntryRecord> = all(read, keys::ENTRIES, |key, record| {
        Some((keys::entry_path(key)?, decode("an entry", record).ok()?))
    })?;
    let found: Vec<Entry> = entries
        .into_iter()
        .filter(|(path, _)| !path.is_root())
        .map(|(path, record)| shown(&path, record))
        .collect();
    if !found.iter().eq(tree.into_values()) {
        wrong.push("6: history does not lead to the tree".to_owned());
    }
    Ok(())
}
