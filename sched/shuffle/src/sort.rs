//! Sorting entries: one pass into many buckets by prefix, then each bucket by comparison, buckets spread over threads.
//!
//! The pass makes buckets small enough for a cache, which is where a comparison sort is fast; it works on the range
//! of prefixes that occur, so text with its few distinct bytes spreads too.

use std::cmp::Ordering;
use std::sync::{Mutex, PoisonError};

use crate::record::RecordSpec;

/// One record in an arena. 16 bytes, so that four of them share a cache line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// The first 8 bytes of its key.
    pub(crate) prefix: u64,
    /// Where the record begins in the arena.
    pub(crate) offset: u32,
    /// How long it is, with its `\n`.
    pub(crate) len: u32,
}

impl Entry {
    #[inline]
    pub(crate) fn record<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.offset as usize..][..self.len as usize]
    }
}

const BUCKET_BITS: u32 = 11;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// Below this many entries everything is in a cache anyway.
const SMALL: usize = 8 << 10;

/// Sorts each of `parts` by key, equal keys by their place in the arena.
pub(crate) fn sort(parts: &mut [Vec<Entry>], arena: &[u8], spec: &RecordSpec, threads: usize) {
    let mut buckets: Vec<&mut [Entry]> = Vec::new();
    for part in parts {
        spread(part, &mut buckets);
    }
    if threads <= 1 || buckets.len() <= 1 {
        buckets.into_iter().for_each(|bucket| sort_bucket(bucket, arena, spec));
        return;
    }
    let queue = Mutex::new(buckets);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(bucket) = next else { return };
                    sort_bucket(bucket, arena, spec);
                }
            });
        }
    });
}

/// Puts entries into buckets by prefix, in place, and adds the buckets in their order.
fn spread<'a>(mut entries: &'a mut [Entry], buckets: &mut Vec<&'a mut [Entry]>) {
    let (mut low, mut high) = (u64::MAX, 0);
    for entry in entries.iter() {
        low = low.min(entry.prefix);
        high = high.max(entry.prefix);
    }
    if entries.len() < SMALL || low == high {
        buckets.push(entries);
        return;
    }
    let shift = (64 - (high - low).leading_zeros()).saturating_sub(BUCKET_BITS);
    let bucket_of = |entry: &Entry| ((entry.prefix - low) >> shift) as usize;
    let mut counts = [0_u32; BUCKETS];
    for entry in entries.iter() {
        counts[bucket_of(entry)] += 1;
    }
    let (mut next, mut ends) = ([0_u32; BUCKETS], [0_u32; BUCKETS]);
    let mut sum = 0;
    for (bucket, count) in counts.iter().enumerate() {
        next[bucket] = sum;
        sum += count;
        ends[bucket] = sum;
    }
    // Each swap puts one entry where it belongs; the loop looks at a place until what belongs there is there.
    for bucket in 0..BUCKETS {
        while next[bucket] < ends[bucket] {
            let at = next[bucket] as usize;
            let mut entry = entries[at];
            loop {
                let home = bucket_of(&entry);
                if home == bucket {
                    break;
                }
                std::mem::swap(&mut entry, &mut entries[next[home] as usize]);
                next[home] += 1;
            }
            entries[at] = entry;
            next[bucket] += 1;
        }
    }
    for count in counts.into_iter().filter(|count| *count > 0) {
        let (bucket, rest) = entries.split_at_mut(count as usize);
        buckets.push(bucket);
        entries = rest;
    }
}

fn sort_bucket(bucket: &mut [Entry], arena: &[u8], spec: &RecordSpec) {
    bucket.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| compare_rest(a, b, arena, spec)));
}

/// The order of two entries with the same prefix.
fn compare_rest(a: &Entry, b: &Entry, arena: &[u8], spec: &RecordSpec) -> Ordering {
    spec.compare(a.record(arena), b.record(arena)).then(a.offset.cmp(&b.offset))
}
