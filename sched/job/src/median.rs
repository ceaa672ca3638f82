//! The median of many durations in little memory: eight buckets for each doubling, so it is right to about 6 %.

const BUCKETS: usize = 8 * 35;

#[derive(Clone, Debug)]
pub(crate) struct Durations {
    counts: Vec<u32>,
    total: u64,
}

impl Durations {
    pub(crate) fn new() -> Durations {
        Durations { counts: Vec::new(), total: 0 }
    }

    pub(crate) fn add(&mut self, ms: u64, times: u32) {
        if self.counts.is_empty() {
            // Only tasks that finished something pay for the buckets.
            self.counts = vec![0; BUCKETS];
        }
        let count = &mut self.counts[bucket(ms)];
        *count = count.saturating_add(times);
        self.total += u64::from(times);
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// In milliseconds; `None` if nothing was added.
    pub(crate) fn median_ms(&self) -> Option<u64> {
        let mut left = self.total.div_ceil(2);
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = u64::from(*count);
            if count >= left && count > 0 {
                return Some(middle(bucket));
            }
            left -= count.min(left);
        }
        None
    }
}

fn bucket(ms: u64) -> usize {
    if ms < 8 {
        return ms as usize;
    }
    let doubling = ms.ilog2() as usize;
    ((doubling - 2) * 8 + (ms >> (doubling - 3) & 7) as usize).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let width = 1_u64 << (bucket / 8 - 1);
    (8 + bucket as u64 % 8) * width + width / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_near_the_true_median(mut all in prop::collection::vec(0_u64..100_000_000, 1..200)) {
            let mut durations = Durations::new();
            for ms in &all {
                durations.add(*ms, 1);
            }
            all.sort_unstable();
            let exact = all[(all.len() - 1) / 2];
            let found = durations.median_ms().unwrap();
            prop_assert!(found.abs_diff(exact) * 100 <= exact * 7, "{found} is not near {exact}");
        }
    }

    #[test]
    fn of_nothing_there_is_none_and_of_the_longest_there_is_one() {
        let mut durations = Durations::new();
        assert_eq!(durations.median_ms(), None);
        durations.add(u64::MAX, 3);
        assert!(durations.median_ms().unwrap() > 1 << 35);
    }
}
