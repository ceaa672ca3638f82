//! Writes that are gathered over a store, shown to reads before they reach it.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::{Batch, Change, Family, Pair, Range, Read, Result};

/// Writes over `base`: reads show them. What is gathered goes to a store, or to an overlay below, as one batch.
pub struct Overlay<'a> {
    base: &'a dyn Read,
    families: BTreeMap<Family, Writes>,
}

#[derive(Debug, Default)]
struct Writes {
    /// Newest value of each key; `None` is a deletion. Wins over `deleted`.
    keys: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Ranges deleted before anything in `keys` was written.
    deleted: Vec<Range>,
}

impl std::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("families", &self.families.len()).finish_non_exhaustive()
    }
}

impl<'a> Overlay<'a> {
    /// Nothing over `base`.
    #[must_use]
    pub fn new(base: &'a dyn Read) -> Self {
        Self { base, families: BTreeMap::new() }
    }

    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.families.entry(family).or_default().keys.insert(key.into(), Some(value.into()));
    }

    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.families.entry(family).or_default().keys.insert(key.into(), None);
    }

    pub fn delete_range(&mut self, family: Family, range: Range) {
        let writes = self.families.entry(family).or_default();
        writes.keys.retain(|key, _| !range.contains(key));
        writes.deleted.push(range);
    }

    /// Applies all of a batch, in order.
    pub fn apply(&mut self, batch: Batch) {
        for change in batch.into_changes() {
            match change {
                Change::Put { family, key, value } => self.put(family, key, value),
                Change::Delete { family, key } => self.delete(family, key),
                Change::DeleteRange { family, range } => self.delete_range(family, range),
            }
        }
    }

    /// The writes as one batch.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::new();
        for (family, writes) in self.families {
            for range in writes.deleted {
                batch.delete_range(family, range);
            }
            for (key, value) in writes.keys {
                match value {
                    Some(value) => batch.put(family, key, value),
                    None => batch.delete(family, key),
                }
            }
        }
        batch
    }
}

impl Read for Overlay<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(writes) = self.families.get(&family) else { return self.base.get(family, key) };
        if let Some(value) = writes.keys.get(key) {
            return Ok(value.clone());
        }
        if writes.deleted.iter().any(|range| range.contains(key)) {
            return Ok(None);
        }
        self.base.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        let Some(writes) = self.families.get(&family) else { return self.base.scan(family, range, limit) };
        writes.scan(self.base, family, range, limit)
    }
}

impl Writes {
    /// Merges the base, page by page, with what is written here.
    fn scan(&self, base: &dyn Read, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        let mut out = Vec::new();
        let mut rest = range.clone();
        while out.len() < limit {
            let page_limit = limit - out.len();
            let page = base.scan(family, &rest, page_limit)?;
            let last_page = page.len() < page_limit;
            // Keys up to the page's last one are settled by this page and the writes together.
            let upto = if last_page { None } else { page.last().map(|(key, _)| key.clone()) };
            out.extend(self.merge(page, &rest, upto.as_deref()));
            match upto {
                Some(key) => rest = rest.after(&key),
                None => break,
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// `page` and the written keys of `range` up to `upto` (inclusive; `None`: to its end), in order.
    fn merge(&self, page: Vec<Pair>, range: &Range, upto: Option<&[u8]>) -> Vec<Pair> {
        let end = match (upto, &range.end_exclusive) {
            (Some(key), _) => Bound::Included(key),
            (None, Some(end)) => Bound::Excluded(end.as_slice()),
            (None, None) => Bound::Unbounded,
        };
        let start = range.start.as_slice();
        let empty = matches!(end, Bound::Excluded(end) | Bound::Included(end) if end < start)
            || matches!(end, Bound::Excluded(end) if end == start);
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = page
            .into_iter()
            .filter(|(key, _)| !self.deleted.iter().any(|deleted| deleted.contains(key)))
            .collect();
        if !empty {
            for (key, value) in self.keys.range::<[u8], _>((Bound::Included(start), end)) {
                match value {
                    Some(value) => merged.insert(key.clone(), value.clone()),
                    None => merged.remove(key),
                };
            }
        }
        merged.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Durability, Kv, MemKv};

    const FAMILIES: [Family; 2] = [Family(0), Family(1)];

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0..4_u8, 0..4)
    }

    fn range() -> impl Strategy<Value = Range> {
        (key(), proptest::option::of(key())).prop_map(|(start, end_exclusive)| Range { start, end_exclusive })
    }

    fn change() -> impl Strategy<Value = Change> {
        let family = (0..2_u8).prop_map(Family);
        prop_oneof![
            4 => (family.clone(), key(), any::<u8>())
                .prop_map(|(family, key, value)| Change::Put { family, key, value: vec![value] }),
            2 => (family.clone(), key()).prop_map(|(family, key)| Change::Delete { family, key }),
            1 => (family, range()).prop_map(|(family, range)| Change::DeleteRange { family, range }),
        ]
    }

    fn batch(changes: Vec<Change>) -> Batch {
        let mut batch = Batch::new();
        for change in changes {
            match change {
                Change::Put { family, key, value } => batch.put(family, key, value),
                Change::Delete { family, key } => batch.delete(family, key),
                Change::DeleteRange { family, range } => batch.delete_range(family, range),
            }
        }
        batch
    }

    proptest! {
        #[test]
        fn it_shows_what_the_store_will_hold(
            base in proptest::collection::vec(change(), 0..30), changes in proptest::collection::vec(change(), 0..30),
            scanned in range(), limit in 0..12_usize,
        ) {
            let (under, wanted) = (MemKv::new(), MemKv::new());
            for kv in [&under, &wanted] {
                kv.write(batch(base.clone()), Durability::Synced).unwrap();
            }
            wanted.write(batch(changes.clone()), Durability::Synced).unwrap();
            let mut overlay = Overlay::new(&under);
            overlay.apply(batch(changes));
            let everything = Range::prefix(b"");
            for family in FAMILIES {
                for range in [&scanned, &everything] {
                    prop_assert_eq!(overlay.scan(family, range, limit).unwrap(), wanted.scan(family, range, limit).unwrap());
                }
                for (key, value) in wanted.scan(family, &everything, 1000).unwrap() {
                    prop_assert_eq!(overlay.get(family, &key).unwrap(), Some(value));
                }
                prop_assert_eq!(
                    overlay.get(family, &scanned.start).unwrap(), wanted.get(family, &scanned.start).unwrap()
                );
            }
            let out = overlay.into_batch();
            under.write(out, Durability::Synced).unwrap();
            for family in FAMILIES {
                prop_assert_eq!(
                    under.scan(family, &everything, 1000).unwrap(), wanted.scan(family, &everything, 1000).unwrap()
                );
            }
        }
    }
}
