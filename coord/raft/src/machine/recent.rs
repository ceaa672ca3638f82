//! The state's store, with the values that command after command reads and writes kept in memory: the clock, the
//! session's record, a counter, the directory that is being filled. A point read of RocksDB costs 2-3 µs, a command makes
//! half a dozen, and every member makes them.
//!
//! Invariant: a value kept here is the store's. Only the apply path takes values in, and only the apply path writes; it does
//! one thing at a time. So nothing is written between its reading a value and its taking it in. Other readers look here, too, but
//! take nothing in.

use std::collections::HashMap;
use std::ops::Deref;

use coord_kv::{Batch, Change, Durability, Family, Kv, Pair, Range, Read, Result};
use coord_kv_rocks::RocksKv;
use parking_lot::Mutex;

/// Values in each of the two generations. What was not read since the last change of generations goes with the next.
const VALUES_MAX: usize = 2048;
/// Longer values stay in RocksDB's own cache.
const VALUE_LEN_MAX: usize = 512;

/// A store and its recent values.
#[derive(Debug)]
pub(crate) struct Store {
    rocks: RocksKv,
    recent: Mutex<Recent>,
}

/// The store as the apply path reads it.
pub(crate) struct ForApply<'a>(pub(crate) &'a Store);

type Values = HashMap<Family, HashMap<Vec<u8>, Vec<u8>>>;

#[derive(Debug, Default)]
struct Recent {
    young: Values,
    /// Values in `young`, those deleted since included.
    young_len: usize,
    old: Values,
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

    /// What is known is changed as the store will be.
    fn write(&mut self, changes: &[Change]) {
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
    pub(crate) fn new(rocks: RocksKv) -> Self {
        Self { rocks, recent: Mutex::default() }
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
        recent.write(batch.changes());
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
        if let Some(value) = self.0.recent.lock().get(family, key) {
            return Ok(Some(value));
        }
        let value = self.0.rocks.get(family, key)?;
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

    const FAMILIES: [FamilySpec; 2] = [
        FamilySpec { name: "a", bloom: false, prefix_len_bytes: None },
        FamilySpec { name: "b", bloom: true, prefix_len_bytes: None },
    ];

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
        let (family, key) = (0..2_u8, 0..3_u8);
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
            let store = Store::new(RocksKv::open(dir.path(), &FAMILIES, &RocksOptions::default()).unwrap());
            for (n, step) in steps.into_iter().enumerate() {
                let mut batch = Batch::new();
                match step {
                    Step::Read(family, key) => {
                        let family = Family(family);
                        let held = store.rocks.get(family, &[key]).unwrap();
                        prop_assert_eq!(&Store::get(&store, family, &[key]).unwrap(), &held);
                        prop_assert_eq!(&ForApply(&store).get(family, &[key]).unwrap(), &held);
                    }
                    Step::Put(family, key, len) => {
                        batch.put(Family(family), [key], vec![u8::try_from(n).unwrap(); len]);
                    }
                    Step::Delete(family, key) => batch.delete(Family(family), [key]),
                    Step::DeleteRange(family, from, to) => {
                        let range = Range { start: vec![from.min(to)], end_exclusive: Some(vec![from.max(to)]) };
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
        let store = Store::new(RocksKv::open(dir.path(), &FAMILIES, &RocksOptions::default()).unwrap());
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
}
