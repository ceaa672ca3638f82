//! Finds a node with room without looking at all nodes.
//!
//! A binary tree over the nodes' available vectors; an inner node holds the largest amount in each dimension below it.
//! A request descends only where it might fit. The maxima of different dimensions may come from different nodes, so a
//! descent can be in vain; the worst case is all nodes, and the scheduler remembers sizes for which that happened.
//! Sorted lists by one dimension were rejected: a node that has cpu but no memory stays at their top.

use crate::ids::Slot;
use crate::resources::Resources;

#[derive(Debug)]
pub(crate) struct FreeTree {
    /// Leaves in use.
    len: usize,
    /// A power of two; leaf `i` is at `width + i`, the parent of `k` is `k / 2`, the root is 1.
    width: usize,
    tree: Vec<Resources>,
}

impl FreeTree {
    pub(crate) fn new() -> Self {
        Self { len: 0, width: 1, tree: vec![Resources::ZERO; 2] }
    }

    pub(crate) fn get(&self, slot: Slot) -> Resources {
        if slot.0 < self.len { self.tree[self.width + slot.0] } else { Resources::ZERO }
    }

    pub(crate) fn set(&mut self, slot: Slot, available: Resources) {
        if slot.0 >= self.len {
            self.grow(slot.0 + 1);
        }
        let mut at = self.width + slot.0;
        self.tree[at] = available;
        while at > 1 {
            at /= 2;
            let most = self.tree[2 * at].each_max(&self.tree[2 * at + 1]);
            if self.tree[at] == most {
                break;
            }
            self.tree[at] = most;
        }
    }

    fn grow(&mut self, len: usize) {
        if len > self.width {
            let leaves: Vec<Resources> = self.tree[self.width..self.width + self.len].to_vec();
            self.width = len.next_power_of_two();
            self.tree = vec![Resources::ZERO; 2 * self.width];
            self.tree[self.width..self.width + leaves.len()].copy_from_slice(&leaves);
            for at in (1..self.width).rev() {
                self.tree[at] = self.tree[2 * at].each_max(&self.tree[2 * at + 1]);
            }
        }
        self.len = len;
    }

    /// The first node at or behind `start`, around the end, with room for `wanted` that `accept` takes.
    pub(crate) fn find(
        &self,
        start: Slot,
        wanted: &Resources,
        accept: &mut impl FnMut(Slot) -> bool,
    ) -> Option<Slot> {
        let start = start.0.min(self.len);
        self.search(1, 0, self.width, start, self.len, wanted, accept)
            .or_else(|| self.search(1, 0, self.width, 0, start, wanted, accept))
    }

    /// Below `at`, which covers `low..low + span`, among the leaves `from..to`.
    #[allow(clippy::too_many_arguments, reason = "a recursion over plain numbers; a struct would hide them")]
    fn search(
        &self,
        at: usize,
        low: usize,
        span: usize,
        from: usize,
        to: usize,
        wanted: &Resources,
        accept: &mut impl FnMut(Slot) -> bool,
    ) -> Option<Slot> {
        if low >= to || low + span <= from || !wanted.fits_in(&self.tree[at]) {
            return None;
        }
        if span == 1 {
            return accept(Slot(low)).then_some(Slot(low));
        }
        let half = span / 2;
        self.search(2 * at, low, half, from, to, wanted, accept)
            .or_else(|| self.search(2 * at + 1, low + half, half, from, to, wanted, accept))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            sets in prop::collection::vec((0usize..40, 0u64..8, 0u64..8), 1..80),
            start in 0usize..45,
            cpu in 1u64..8,
            memory in 0u64..8,
            skip in 0usize..40,
        ) {
            let mut tree = FreeTree::new();
            let mut plain = vec![Resources::ZERO; 40];
            let mut len = 0;
            for (slot, cpu, memory) in sets {
                tree.set(Slot(slot), Resources::new(cpu, memory, 0));
                plain[slot] = Resources::new(cpu, memory, 0);
                len = len.max(slot + 1);
            }
            let wanted = Resources::new(cpu, memory, 0);
            let start = start.min(len);
            let expected = (start..len).chain(0..start).find(|slot| wanted.fits_in(&plain[*slot]) && *slot != skip);
            let found = tree.find(Slot(start), &wanted, &mut |slot| slot.0 != skip);
            prop_assert_eq!(found.map(|slot| slot.0), expected);
        }
    }
}
