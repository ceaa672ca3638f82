//! A set with room for so many; the oldest goes first. What the caches of what was verified are made of.
//!
//! First in, first out, and not the longest unused: a look-up then changes nothing, and what falls out is verified again.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Invariant: `order` has each element of `set` once, the oldest first; both have at most `capacity`.
#[derive(Debug)]
pub(crate) struct BoundedSet<T> {
    set: HashSet<T>,
    order: VecDeque<T>,
    capacity: usize,
}

impl<T: Hash + Eq + Clone> BoundedSet<T> {
    /// Room for at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { set: HashSet::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, wanted: &Q) -> Option<&T>
    where
        T: Borrow<Q>,
    {
        self.set.get(wanted)
    }

    pub(crate) fn insert(&mut self, element: T) {
        if !self.set.insert(element.clone()) {
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        self.order.push_back(element);
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
        self.order.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut set = BoundedSet::new(2);
        for element in [1, 2, 1, 3] {
            set.insert(element);
            assert!(set.len() <= 2);
        }
        assert_eq!([1, 2, 3].map(|element| set.get(&element).is_some()), [false, true, true]);
        assert_eq!(set.set.len(), set.order.len());
    }

    #[test]
    fn there_is_room_for_one() {
        let mut set = BoundedSet::new(0);
        set.insert(1);
        set.insert(2);
        assert_eq!(set.get(&2), Some(&2));
        assert_eq!(set.len(), 1);
    }
}
