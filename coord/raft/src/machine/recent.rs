//! The state's store, with the values that command after command reads and writes kept in memory: the clock, the
//! session's record, a counter, the directory that is being filled. A point read of RocksDB costs 2-3 µs, a command makes
//! half a dozen, and every member makes them.
//!
//! Invariant: a value kept here is the store's. Only the apply path takes values in, and only the apply path writes; it does
//! one thing at a time. So nothing is written between its reading a value and its taking it in. Other readers look here, too, but
//! take nothing in.
//!
//! Of the replies of sessions, which every command asks for and hardly one finds, it is kept where they end.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use coord_kv::{Batch, Change, Durability, Family, Kv, Pair, Range, Read, Result};
use coord_kv_rocks::RocksKv;
use coord_types::SessionId;
use parking_lot::Mutex;

use crate::keys;

/// Values in each of the two generations. What was not read since the last change of generations goes with the next.
const VALUES_MAX: usize = 2048;
/// Longer values stay in RocksDB's own cache.
const VALUE_LEN_MAX: usize = 512;

/// Sessions whose replies' end is kept. One that is not kept costs a scan that finds nothing.
const ENDS_MAX: usize = 65_536;

/// A store and its recent values.
#[derive(Debug)]
pub(crate) struct Store {
    rocks: RocksKv,
    /// Its keys are a session and a number (`keys::reply_key`).
    replies: Family,
    recent: Mutex<Recent>,
}

/// The store as the apply path reads it.
pub(crate) struct ForApply<'a>(pub(crate) &'a Store);

type Values = BTreeMap<Family, HashMap<Vec<u8>, Vec<u8>>>;

#[derive(Debug, Default)]
struct Recent {
    young: Values,
    /// Values in `young`, those deleted since included.
    young_len: usize,
    old: Values,
    /// By session: no reply of this number or a greater one is stored.
    ends: HashMap<u64, u64>,
}

impl Recent {
    fn get(&mut self, family: Family, key: &[u8]) -> Option<Vec<u8>> {
        if let Some(value) = self.young.get(&family).and_then(|values| values.get(key)) {
            return Some(value.clone());
        }
        let (key, value) = self.old.get_mut(&family)?.remove_entry(key)?;
        self.insert(family, key, value.clone());
        Some(value)
    }

    fn insert(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        if self.young_len >= VALUES_MAX {
            self.age();
        }
        self.young_len += 1;
        self.young.entry(family).or_default().insert(key, value);
    }

    fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_len = 0;
    }

    /// Whether it is known that there is no such reply.
    fn is_behind_all(&self, key: &[u8]) -> bool {
        let end = |session| self.ends.get(&session).copied();
        keys::split_reply_key(key)
            .is_some_and(|(session, number)| end(session).is_some_and(|end| number >= end))
    }

    fn set_end(&mut self, session: u64, end: u64) {
        if self.ends.len() >= ENDS_MAX {
            self.ends.clear();
        }
        self.ends.insert(session, end);
    }

    /// What is known is changed as the store will be.
    fn write(&mut self, changes: &[Change], replies: Family) {
        if !self.ends.is_empty() {
            for change in changes {
                if let Change::Put { family, key, .. } = change
                    && *family == replies
                    && let Some((session, number)) = keys::split_reply_key(key)
                    && let Some(end) = self.ends.get_mut(&session)
                {
                    match number.checked_add(1) {
                        Some(behind) => *end = behind.max(*end),
                        None => drop(self.ends.remove(&session)),
                    }
                }
            }
        }
        for values in [&mut self.young, &mut self.old] {
            for change in changes {
                let (Change::Put { family, .. }
                | Change::Delete { family, .. }
                | Change::DeleteRange { family, .. }) = change;
                let Some(values) = values.get_mut(family) else { continue };
                match change {
                    Change::Put { key, value, .. } if value.len() <= VALUE_LEN_MAX => {
                        if let Some(known) = values.get_mut(key) {
                            known.clone_from(value);
                        }
                    }
                    Change::Put { key, .. } | Change::Delete { key, .. } => {
                        values.remove(key);
                    }
                    Change::DeleteRange { range, .. } => values.retain(|key, _| !range.contains(key)),
                }
            }
        }
    }
}

impl Store {
    pub(crate) fn new(rocks: RocksKv, replies: Family) -> Self {
        Self { rocks, replies, recent: Mutex::default() }
    }

    /// There is no reply under this key: perhaps none of the session behind it either.
    fn learn_end(&self, key: &[u8]) -> Result<()> {
        let Some((session, number)) = keys::split_reply_key(key) else { return Ok(()) };
        if self.recent.lock().ends.contains_key(&session) {
            return Ok(());
        }
        let behind = Range { start: key.to_vec(), ..keys::replies_of(SessionId(session)) };
        if self.rocks.scan(self.replies, &behind, 1)?.is_empty() {
            self.recent.lock().set_end(session, number);
        }
        Ok(())
    }
}

impl Deref for Store {
    type Target = RocksKv;

    fn deref(&self) -> &RocksKv {
        &self.rocks
    }
}

impl Read for Store {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.recent.lock().get(family, key) {
            Some(value) => Ok(Some(value)),
            None => self.rocks.get(family, key),
        }
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        self.rocks.scan(family, range, limit)
    }
}

impl Kv for Store {
    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        // Held over both: who has seen one new value must not find another one still old.
        let mut recent = self.recent.lock();
        recent.write(batch.changes(), self.replies);
        let written = self.rocks.write(batch, durability);
        if written.is_err() {
            // Whether it happened is not known.
            *recent = Recent::default();
        }
        written
    }

    fn flush(&self) -> Result<()> {
        self.rocks.flush()
    }
}

impl Read for ForApply<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        {
            let mut recent = self.0.recent.lock();
            if family == self.0.replies && recent.is_behind_all(key) {
                return Ok(None);
            }
            if let Some(value) = recent.get(family, key) {
                return Ok(Some(value));
            }
        }
        let value = self.0.rocks.get(family, key)?;
        if value.is_none() && family == self.0.replies {
            self.0.learn_end(key)?;
        }
        if let Some(value) = value.as_ref().filter(|value| value.len() <= VALUE_LEN_MAX) {
            self.0.recent.lock().insert(family, key.to_vec(), value.clone());
        }
        Ok(value)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        self.0.rocks.scan(family, range, limit)
    }
}

#[cfg(test)]
mod tests {
    use coord_kv::FamilySpec;
    use coord_kv_rocks::RocksOptions;
    use proptest::prelude::*;

    use super::*;

    const FAMILIES: [FamilySpec; 3] = [
        FamilySpec { name: "a", bloom: false, prefix_len_bytes: None },
        FamilySpec { name: "b", bloom: true, prefix_len_bytes: None },
        FamilySpec { name: "replies", bloom: true, prefix_len_bytes: None },
    ];
    const REPLIES: Family = Family(2);

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::new(RocksKv::open(dir.path(), &FAMILIES, &RocksOptions::default()).unwrap(), REPLIES)
    }

    /// Of replies: of two sessions, from 0 and up to the greatest number.
    fn key(family: u8, key: u8) -> Vec<u8> {
        let number = if key < 4 { u64::from(key / 2) } else { u64::MAX };
        match Family(family) {
            REPLIES => keys::reply_key(SessionId(u64::from(key % 2)), number).to_vec(),
            _ => vec![key],
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u8, u8),
        Put(u8, u8, usize),
        Delete(u8, u8),
        DeleteRange(u8, u8, u8),
        /// Makes all that is young old.
        Age,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (family, key) = (0..3_u8, 0..6_u8);
        prop_oneof![
            4 => (family.clone(), key.clone()).prop_map(|(family, key)| Step::Read(family, key)),
            4 => (family.clone(), key.clone(), prop_oneof![0..4_usize, VALUE_LEN_MAX - 1..VALUE_LEN_MAX + 2])
                .prop_map(|(family, key, len)| Step::Put(family, key, len)),
            2 => (family.clone(), key.clone()).prop_map(|(family, key)| Step::Delete(family, key)),
            1 => (family, key.clone(), key).prop_map(|(family, from, to)| Step::DeleteRange(family, from, to)),
            1 => Just(Step::Age),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reads_give_what_the_store_holds(steps in prop::collection::vec(step(), 1..60)) {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            for (n, step) in steps.into_iter().enumerate() {
                let mut batch = Batch::new();
                match step {
                    Step::Read(family, number) => {
                        let (family, key) = (Family(family), key(family, number));
                        let held = store.rocks.get(family, &key).unwrap();
                        prop_assert_eq!(&Store::get(&store, family, &key).unwrap(), &held);
                        prop_assert_eq!(&ForApply(&store).get(family, &key).unwrap(), &held);
                    }
                    Step::Put(family, number, len) => {
                        batch.put(Family(family), key(family, number), vec![u8::try_from(n).unwrap(); len]);
                    }
                    Step::Delete(family, number) => batch.delete(Family(family), key(family, number)),
                    Step::DeleteRange(family, from, to) => {
                        let (from, to) = (key(family, from), key(family, to));
                        let (start, end) = if from <= to { (from, to) } else { (to, from) };
                        let range = Range { start, end_exclusive: Some(end) };
                        batch.delete_range(Family(family), range);
                    }
                    Step::Age => store.recent.lock().age(),
                }
                store.write(batch, Durability::Unlogged).unwrap();
            }
        }
    }

    #[test]
    fn what_is_read_stays_and_what_is_not_read_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let mut batch = Batch::new();
        for key in 0..u16::try_from(3 * VALUES_MAX).unwrap() {
            batch.put(Family(0), key.to_be_bytes(), b"v".as_slice());
        }
        store.write(batch, Durability::Unlogged).unwrap();
        assert!(store.recent.lock().young.is_empty(), "a write takes nothing in");
        for key in 0..u16::try_from(3 * VALUES_MAX).unwrap() {
            ForApply(&store).get(Family(0), &0_u16.to_be_bytes()).unwrap();
            ForApply(&store).get(Family(0), &key.to_be_bytes()).unwrap();
        }
        let mut recent = store.recent.lock();
        for generation in [&recent.young, &recent.old] {
            assert!(generation.values().map(HashMap::len).sum::<usize>() <= VALUES_MAX);
        }
        assert!(recent.get(Family(0), &0_u16.to_be_bytes()).is_some());
        assert!(recent.get(Family(0), &1_u16.to_be_bytes()).is_none());
    }

    #[test]
    fn whether_a_new_command_was_answered_is_not_asked_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let is_known = |session, number| {
            let key = keys::reply_key(SessionId(session), number);
            store.recent.lock().is_behind_all(&key)
        };
        let read = |session, number| {
            ForApply(&store).get(REPLIES, &keys::reply_key(SessionId(session), number)).unwrap()
        };
        let write = |session, number| {
            let mut batch = Batch::new();
            batch.put(REPLIES, keys::reply_key(SessionId(session), number), b"r".as_slice());
            store.write(batch, Durability::Unlogged).unwrap();
        };
        write(1, 7);
        assert_eq!(read(1, 5), None);
        assert!(!is_known(1, 5), "there is one behind it");
        assert_eq!(read(1, 8), None);
        assert!(is_known(1, 8) && !is_known(1, 7) && !is_known(2, 8));
        write(1, 8);
        assert!(is_known(1, 9) && !is_known(1, 8));
        assert_eq!(read(1, 8).as_deref(), Some(b"r".as_slice()));
        for session in 10..10 + u64::try_from(ENDS_MAX).unwrap() {
            store.recent.lock().set_end(session, 1);
        }
        assert!(store.recent.lock().ends.len() <= ENDS_MAX);
    }
}
