//! A map with a bound in bytes: two generations. When the young one has grown to half the bound, the old one is
//! thrown away and the young one becomes old; what is looked up in the old one moves to the young. That is nearly
//! least-recently-used at the price of a hash map.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    /// A cache that holds at most `bound_bytes` if an entry takes `entry_bytes` (what the map adds is counted here).
    pub(crate) fn new(bound_bytes: usize, entry_bytes: usize) -> Self {
        let with_map = entry_bytes + size_of::<K>() + 16;
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: (bound_bytes / with_map / 2).max(1),
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::<u64, u64>::new(100 * (8 + 8 + 16), 8);
        for key in 0..1000 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0));
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert_eq!(cache.get(&1), None);
        cache.insert(0, 7);
        assert_eq!(cache.get(&0), Some(7));
    }
}
