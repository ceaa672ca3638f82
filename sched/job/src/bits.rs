//! A set of the numbers below a fixed length: one bit each, plus a 64th for finding the first member without a search.

/// `levels[0]` has a bit a number; a bit of `levels[k + 1]` says whether a word of `levels[k]` has any. The last level is one
/// word, so the first member is found in `log64(len)` steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    levels: Vec<Vec<u64>>,
    len: u32,
    ones: u32,
}

impl Bits {
    pub(crate) fn empty(len: u32) -> Bits {
        let mut levels = Vec::new();
        let mut words = len.div_ceil(64).max(1) as usize;
        loop {
            levels.push(vec![0; words]);
            if words == 1 {
                return Bits { levels, len, ones: 0 };
            }
            words = words.div_ceil(64);
        }
    }

    pub(crate) fn full(len: u32) -> Bits {
        let mut bits = Bits::empty(len);
        let mut ones = len as usize;
        for level in &mut bits.levels {
            let whole = ones / 64;
            level[..whole].fill(u64::MAX);
            if !ones.is_multiple_of(64) {
                level[whole] = (1 << (ones % 64)) - 1;
            }
            ones = ones.div_ceil(64);
        }
        bits.ones = len;
        bits
    }

    pub(crate) fn ones(&self) -> u32 {
        self.ones
    }

    pub(crate) fn contains(&self, n: u32) -> bool {
        n < self.len && self.levels[0][n as usize / 64] >> (n % 64) & 1 == 1
    }

    /// False if it was a member, or can not be one.
    pub(crate) fn insert(&mut self, n: u32) -> bool {
        if n >= self.len || self.contains(n) {
            return false;
        }
        let mut at = n as usize;
        for level in &mut self.levels {
            level[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
        self.ones += 1;
        true
    }

    /// False if it was no member.
    pub(crate) fn remove(&mut self, n: u32) -> bool {
        if !self.contains(n) {
            return false;
        }
        let mut at = n as usize;
        for level in &mut self.levels {
            level[at / 64] &= !(1 << (at % 64));
            if level[at / 64] != 0 {
                break;
            }
            at /= 64;
        }
        self.ones -= 1;
        true
    }

    pub(crate) fn first(&self) -> Option<u32> {
        let mut at = 0_u32;
        for level in self.levels.iter().rev() {
            let word = level[at as usize];
            if word == 0 {
                return None;
            }
            at = at * 64 + word.trailing_zeros();
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(len in 1_u32..9_000, filled: bool, ops in prop::collection::vec((any::<bool>(), 0_u32..9_001), 0..300)) {
            let mut bits = if filled { Bits::full(len) } else { Bits::empty(len) };
            let mut model: BTreeSet<u32> = if filled { (0..len).collect() } else { BTreeSet::new() };
            for (insert, n) in ops {
                if insert {
                    prop_assert_eq!(bits.insert(n), n < len && model.insert(n));
                } else {
                    prop_assert_eq!(bits.remove(n), model.remove(&n));
                }
                prop_assert_eq!(bits.first(), model.first().copied());
                prop_assert_eq!(bits.ones() as usize, model.len());
            }
            for n in 0..len {
                prop_assert_eq!(bits.contains(n), model.contains(&n));
            }
        }

        #[test]
        fn empties_in_order(len in 0_u32..5_000) {
            let mut bits = Bits::full(len);
            for n in 0..len {
                prop_assert_eq!(bits.first(), Some(n));
                bits.remove(n);
            }
            prop_assert_eq!(bits, Bits::empty(len));
        }
    }
}
