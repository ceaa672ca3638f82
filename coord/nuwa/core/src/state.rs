//! One command's view of the store: shows what it changed itself, and gives all of it up as one batch. A command that is
//! refused drops it, and nothing happened.

use std::collections::BTreeMap;

use coord_kv::{Batch, Family, Overlay, Pair, Range, Read};
use nuwa_model::proto::{Entry, Event, EventKind, LockHolder};
use nuwa_model::refusal::Limit;
use nuwa_model::{Path, Refusal};
use prost::Message;

use crate::error::{Failure, Outcome, corrupt};
use crate::keys::{self, ClaimKind};
use crate::quotas::Before;
use crate::records::{EntryRecord, LockRecord, Meta, SessionRecord};

/// Entries one command may touch, so that applying it stays short.
pub(crate) const TOUCHED_MAX: u64 = 4096;
/// Bytes of the values it touches; and as many of what it only looks at.
const TOUCHED_BYTES_MAX: u64 = 8 << 20;
/// Records with values that are read at a time: 16 MiB, if all are as large as they can be.
pub(crate) const PAGE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct State<'a> {
    over: Overlay<'a>,
    before: Meta,
    pub(crate) meta: Meta,
    now_nanos: u64,
    events: Vec<Event>,
    touched: u64,
    touched_bytes: u64,
    looked_at_bytes: u64,
    /// Taken numbers that its sequential names passed one by one.
    pub(crate) passed: u32,
    /// It must be done, however much it touches, and whatever quotas say.
    pub(crate) is_forced: bool,
    /// What quotas that were charged had used before.
    pub(crate) charged: BTreeMap<Path, Before>,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) batch: Batch,
    pub(crate) revision: u64,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn decode<T: Message + Default>(what: &'static str, record: &[u8]) -> coord_kv::Result<T> {
    T::decode(record).map_err(|_| corrupt(what))
}

pub(crate) fn read_meta(read: &dyn Read) -> coord_kv::Result<Meta> {
    match read.get(keys::META, keys::META_KEY)? {
        Some(record) => decode("the record of everything", &record),
        None => Ok(Meta { next_session: 1, history_first: 1, ..Meta::default() }),
    }
}

pub(crate) fn read_entry(read: &dyn Read, path: &Path) -> coord_kv::Result<Option<EntryRecord>> {
    match read.get(keys::ENTRIES, &keys::entry(path))? {
        Some(record) => decode("an entry", &record).map(Some),
        // It exists always, though nothing was written to it yet.
        None => Ok(path.is_root().then(|| EntryRecord { version: 1, ..EntryRecord::default() })),
    }
}

pub(crate) fn read_lock(read: &dyn Read, path: &Path) -> coord_kv::Result<LockRecord> {
    match read.get(keys::LOCKS, keys::path(path))? {
        Some(record) => decode("a lock", &record),
        None => Ok(LockRecord::default()),
    }
}

pub(crate) fn read_session(read: &dyn Read, session: u64) -> coord_kv::Result<Option<SessionRecord>> {
    let record = read.get(keys::SESSIONS, &keys::session(session))?;
    record.map(|record| decode("a session", &record)).transpose()
}

/// As clients see it.
pub(crate) fn shown(path: &Path, record: EntryRecord) -> Entry {
    let EntryRecord { value, version, created, modified, owner, modified_unix_nanos, .. } = record;
    Entry { path: path.to_string(), value, version, created, modified, owner, modified_unix_nanos }
}

impl<'a> State<'a> {
    /// `now_nanos`: since 1970.
    pub(crate) fn new(read: &'a dyn Read, now_nanos: u64) -> coord_kv::Result<Self> {
        let meta = read_meta(read)?;
        Ok(Self {
            over: Overlay::new(read),
            before: meta,
            meta,
            now_nanos,
            events: Vec::new(),
            touched: 0,
            touched_bytes: 0,
            looked_at_bytes: 0,
            passed: 0,
            is_forced: false,
            charged: BTreeMap::new(),
        })
    }

    /// All changes, to be written together.
    pub(crate) fn finish(mut self) -> Outcome<Finished> {
        if !self.is_forced {
            self.check_quotas()?;
        }
        if !self.events.is_empty() {
            let revision = self.revision();
            self.meta.revision = revision;
            self.keep_events()?;
        }
        if self.meta != self.before {
            self.over.put(keys::META, keys::META_KEY, self.meta.encode_to_vec());
        }
        Ok(Finished { batch: self.over.into_batch(), revision: self.meta.revision, events: self.events })
    }

    /// Of this command, if it changes anything.
    pub(crate) fn revision(&self) -> u64 {
        self.before.revision + 1
    }

    pub(crate) const fn now_nanos(&self) -> u64 {
        self.now_nanos
    }

    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    // ---- the store ----

    pub(crate) fn read(&self) -> &dyn Read {
        &self.over
    }

    pub(crate) fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        self.over.scan(family, range, limit)
    }

    pub(crate) fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, record: &impl Message) {
        self.over.put(family, key, record.encode_to_vec());
    }

    pub(crate) fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.over.delete(family, key);
    }

    pub(crate) fn delete_range(&mut self, family: Family, range: Range) {
        self.over.delete_range(family, range);
    }

    // ---- entries ----

    pub(crate) fn entry(&self, path: &Path) -> Outcome<Option<EntryRecord>> {
        Ok(read_entry(self.read(), path)?)
    }

    /// Everything below a directory, children after their directories; refused if one command may not touch as many.
    pub(crate) fn subtree(&self, directory: &Path) -> Outcome<Vec<(Path, EntryRecord)>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut rest = keys::below(directory);
        loop {
            let page = self.scan(keys::ENTRIES, &rest, PAGE)?;
            for (key, record) in &page {
                let path = keys::entry_path(key).ok_or_else(|| corrupt("the key of an entry"))?;
                let record: EntryRecord = decode("an entry", record)?;
                bytes += record.value.len() as u64;
                found.push((path, record));
            }
            if found.len() as u64 > TOUCHED_MAX {
                return Err(too_much(directory, Limit::Entries(TOUCHED_MAX)));
            }
            if bytes > TOUCHED_BYTES_MAX {
                return Err(too_much(directory, Limit::Bytes(TOUCHED_BYTES_MAX)));
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => rest = rest.after(key),
                Some(_) | None => return Ok(found),
            }
        }
    }

    /// Whether there is nothing below a directory.
    pub(crate) fn is_empty(&self, directory: &Path) -> Outcome<bool> {
        Ok(self.scan(keys::ENTRIES, &keys::below(directory), 1)?.is_empty())
    }

    /// Writes an entry as it is at this command's revision, and tells of it.
    pub(crate) fn set(&mut self, path: &Path, mut record: EntryRecord) -> Outcome<Entry> {
        self.touch(path, record.value.len())?;
        record.modified = self.revision();
        record.modified_unix_nanos = self.now_nanos;
        self.note_number(path)?;
        self.put(keys::ENTRIES, keys::entry(path), &record);
        if record.owner != 0 {
            self.over.put(keys::CLAIMS, keys::claim(record.owner, ClaimKind::File, path), Vec::new());
        }
        let entry = shown(path, record);
        self.tell(EventKind::Put, entry.clone(), None);
        Ok(entry)
    }

    /// Takes an entry away, and tells of it. Whoever calls has looked after what depends on it.
    pub(crate) fn unset(&mut self, path: &Path, record: EntryRecord) -> Outcome<()> {
        self.touch(path, record.value.len())?;
        self.delete(keys::ENTRIES, keys::entry(path));
        if record.owner != 0 {
            self.delete(keys::CLAIMS, keys::claim(record.owner, ClaimKind::File, path));
        }
        self.tell(
            EventKind::Deleted,
            shown(path, EntryRecord { value: bytes::Bytes::new(), ..record }),
            None,
        );
        Ok(())
    }

    pub(crate) fn touch(&mut self, path: &Path, value_bytes: usize) -> Outcome<()> {
        self.touched += 1;
        self.touched_bytes += value_bytes as u64;
        if self.is_forced {
            return Ok(());
        }
        if self.touched > TOUCHED_MAX {
            return Err(too_much(path, Limit::Entries(TOUCHED_MAX)));
        }
        // One value may always be, however large.
        if self.touched > 1 && self.touched_bytes > TOUCHED_BYTES_MAX {
            return Err(too_much(path, Limit::Bytes(TOUCHED_BYTES_MAX)));
        }
        Ok(())
    }

    /// Counts what was read to be compared, replaced, or changed a little: every member reads it.
    pub(crate) fn look_at(&mut self, path: &Path, bytes: usize) -> Outcome<()> {
        self.looked_at_bytes += bytes as u64;
        if !self.is_forced && self.looked_at_bytes > TOUCHED_BYTES_MAX {
            return Err(too_much(path, Limit::Bytes(TOUCHED_BYTES_MAX)));
        }
        Ok(())
    }

    /// Whether it touched so much that the rest is better left to another command.
    pub(crate) fn has_done_enough(&self) -> bool {
        self.touched >= TOUCHED_MAX / 4
            || self.touched_bytes.max(self.looked_at_bytes) >= TOUCHED_BYTES_MAX / 2
    }

    // ---- events ----

    /// A lock that goes over counts as an entry, so that no command tells of more than it may touch.
    pub(crate) fn tell_lock(&mut self, kind: EventKind, path: &Path, holder: LockHolder) -> Outcome<()> {
        self.touch(path, 0)?;
        self.tell(kind, Entry { path: path.to_string(), ..Entry::default() }, Some(holder));
        Ok(())
    }

    fn tell(&mut self, kind: EventKind, entry: Entry, holder: Option<LockHolder>) {
        let number = u32::try_from(self.events.len()).expect("a command touches few entries");
        let revision = self.revision();
        self.events.push(Event { revision, number, kind: kind.into(), entry: Some(entry), holder });
    }

    /// The session, if it is open.
    pub(crate) fn session(&self, session: u64) -> Outcome<SessionRecord> {
        match read_session(self.read(), session)? {
            Some(record) if !record.ending => Ok(record),
            Some(_) | None => Err(Refusal::SessionOver(session).into()),
        }
    }
}

fn too_much(path: &Path, limit: Limit) -> Failure {
    Refusal::TooMuch { path: path.clone(), limit }.into()
}
