//! A store in memory that can lose power, for tests and simulations.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;

use crate::{Batch, Change, Durability, Family, Kv, Pair, Range, Read, Result};

type Families = BTreeMap<Family, BTreeMap<Vec<u8>, Vec<u8>>>;

/// [`Kv`] in memory. [`crash`](Self::crash) throws away a suffix of what was not made durable.
#[derive(Debug, Default)]
pub struct MemKv {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    current: Families,
    durable: Families,
    /// Written, not yet durable, in order.
    pending: Vec<Batch>,
}

impl MemKv {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches that a crash may still lose.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.inner.lock().pending.len()
    }

    /// Power fails: the first `kept` pending batches happen to have reached the medium, the rest are gone.
    pub fn crash(&self, kept: usize) {
        let mut inner = self.inner.lock();
        let pending = std::mem::take(&mut inner.pending);
        for batch in pending.into_iter().take(kept) {
            apply(&mut inner.durable, batch);
        }
        inner.current = inner.durable.clone();
    }
}

fn apply(families: &mut Families, batch: Batch) {
    for change in batch.into_changes() {
        match change {
            Change::Put { family, key, value } => {
                families.entry(family).or_default().insert(key, value);
            }
            Change::Delete { family, key } => {
                families.entry(family).or_default().remove(&key);
            }
            Change::DeleteRange { family, range } => {
                families.entry(family).or_default().retain(|key, _| !range.contains(key));
            }
        }
    }
}

impl Read for MemKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.lock().current.get(&family).and_then(|keys| keys.get(key)).cloned())
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        let inner = self.inner.lock();
        let Some(keys) = inner.current.get(&family) else { return Ok(Vec::new()) };
        if range.end_exclusive.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(Vec::new());
        }
        let end = range.end_exclusive.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
        Ok(keys
            .range((Bound::Included(range.start.clone()), end))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

impl Kv for MemKv {
    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        let mut inner = self.inner.lock();
        apply(&mut inner.current, batch.clone());
        inner.pending.push(batch);
        if durability == Durability::Synced {
            inner.settle();
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.inner.lock().settle();
        Ok(())
    }
}

impl Inner {
    fn settle(&mut self) {
        for batch in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family(0);

    fn put(key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(FAMILY, key, b"v".as_slice());
        batch
    }

    #[test]
    fn a_crash_keeps_a_prefix_and_all_that_was_synced() {
        let kv = MemKv::new();
        kv.write(put(b"a"), Durability::Logged).unwrap();
        kv.write(put(b"b"), Durability::Synced).unwrap();
        kv.write(put(b"c"), Durability::Logged).unwrap();
        kv.write(put(b"d"), Durability::Logged).unwrap();
        kv.crash(1);
        let keys: Vec<_> =
            kv.scan(FAMILY, &Range::prefix(b""), 9).unwrap().into_iter().map(|p| p.0).collect();
        assert_eq!(keys, [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_prefix_range_ends_where_the_prefix_does() {
        assert_eq!(Range::prefix(&[1, 255]).end_exclusive, Some(vec![2]));
        assert_eq!(Range::prefix(&[255]).end_exclusive, None);
        assert!(Range::prefix(&[1]).contains(&[1, 255, 255]));
        assert!(!Range::prefix(&[1]).after(&[1, 4]).contains(&[1, 4]));
    }
}
