//! How much of the store one call reads at a time, and in all.
//!
//! A member has one thread, which is also its Raft's: whoever reads for long holds everybody up. The store gives pairs by
//! number, always with their values, which nobody knows the sizes of before. So a call reads few at first, and more as long as
//! they are small. It never reads more than [`BYTES_MAX`] and one portion, and then says how far it came.

/// What one call reads before it answers with what it found.
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// Of the first portion: its values may have 1 MiB each.
const FIRST: usize = 4;
/// Of a portion: 16 MiB, if it is met by large values behind small ones.
pub(crate) const PORTION_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Portions {
    bytes_left: usize,
    next: usize,
}

impl Portions {
    pub(crate) const fn new() -> Self {
        Self { bytes_left: BYTES_MAX, next: FIRST }
    }

    /// How many to read next; `None`: enough was read.
    pub(crate) fn next(&self) -> Option<usize> {
        (self.bytes_left > 0).then_some(self.next)
    }

    /// So many were read, of so many bytes.
    pub(crate) fn read(&mut self, count: usize, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        let as_large = self.bytes_left / (bytes / count.max(1)).max(1);
        self.next = as_large.clamp(1, PORTION_MAX.min(2 * self.next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many portions of values of one size a call reads, and how many values.
    fn portions(bytes: usize) -> (usize, usize) {
        let (mut portions, mut read, mut values) = (Portions::new(), 0, 0);
        while let Some(count) = portions.next().filter(|_| read < 1000) {
            portions.read(count, count * bytes);
            values += count;
            read += 1;
        }
        (read, values)
    }

    #[test]
    fn small_values_come_many_at_a_time_and_large_ones_few() {
        assert_eq!(portions(1 << 20), (1, 4));
        assert_eq!(portions(300 << 10), (4, 4 + 8 + 1 + 1));
        assert_eq!(portions(0), (1000, 4 + 8 + 998 * PORTION_MAX));
    }

    #[test]
    fn a_large_value_behind_small_ones_makes_the_next_portion_small() {
        let mut portions = Portions::new();
        for expected in [4, 8, 16, 16] {
            assert_eq!(portions.next(), Some(expected));
            portions.read(expected, expected);
        }
        portions.read(16, 3 << 20);
        assert_eq!(portions.next(), Some(5));
        portions.read(5, 1 << 20);
        assert_eq!(portions.next(), None);
    }
}
