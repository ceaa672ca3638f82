//! Which disk blocks are free. One bit a block in memory; nothing of it is on disk: the extent pages are the truth,
//! and opening a disk marks every block they name (see docs/disk-format.md for why).
//!
//! Preferences, in order: a run freed lately (its blocks were written before, so a small synced write to them needs
//! no commit of the file system's journal, measured 101 us against 200 us), for small requests a block written in
//! advance, a run that holds the whole request, and only then scattered pieces.
//!
//! Invariants: a block is used, free, or pooled (written in advance); `free + pooled + used` is what the segments
//! hold. Lists of lately freed runs are hints, checked against the bits when taken.

use std::collections::VecDeque;

/// Requests up to this many blocks are small: what the engine writes at the same time as its journal record.
pub(crate) const SMALL_BLOCKS: u32 = 16;
/// Hints kept per kind; beyond them the bits alone know.
const RECENT_MAX: usize = 4096;
/// Hints looked at for a fit before a look at the bits.
const RECENT_LOOK: usize = 16;

/// Disk blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) len: u32,
}

impl Run {
    /// The block after the last.
    #[must_use]
    pub(crate) const fn end(self) -> u64 {
        self.start + self.len as u64
    }
}

/// Adds a block to a list of runs, joining it to the last if it follows.
pub(crate) fn push_block(runs: &mut Vec<Run>, block: u64) {
    match runs.last_mut() {
        Some(run) if run.end() == block => run.len += 1,
        _ => runs.push(Run { start: block, len: 1 }),
    }
}

#[derive(Debug)]
pub(crate) struct Allocator {
    segment_blocks: u32,
    segments: Vec<Segment>,
    free: u64,
    /// Written in advance, for small requests. Their bits are set.
    pool: Vec<Run>,
    pooled: u64,
    recent_small: VecDeque<Run>,
    recent_large: VecDeque<Run>,
    /// Where the next search begins, (segment, block), for large and small requests.
    large_cursor: (usize, u32),
    small_cursor: (usize, u32),
}

#[derive(Debug)]
struct Segment {
    /// Bit set: used.
    bits: Vec<u64>,
    blocks: u32,
    free: u32,
    /// No free run in it is longer.
    longest: u32,
}

impl Allocator {
    pub(crate) fn new(segment_blocks: u32) -> Self {
        Self {
            segment_blocks,
            segments: Vec::new(),
            free: 0,
            pool: Vec::new(),
            pooled: 0,
            recent_small: VecDeque::new(),
            recent_large: VecDeque::new(),
            large_cursor: (0, 0),
            small_cursor: (0, 0),
        }
    }

    /// Adds the next segment, all free.
    pub(crate) fn add_segment(&mut self, blocks: u32) {
        assert!(blocks <= self.segment_blocks, "a segment is longer than the disk's segments are");
        self.segments.push(Segment::new(blocks));
        self.free += u64::from(blocks);
    }

    pub(crate) fn segments(&self) -> u32 {
        u32::try_from(self.segments.len()).expect("a disk has at most 512 segments")
    }

    /// Blocks that nothing uses, those written in advance included.
    pub(crate) fn free_blocks(&self) -> u64 {
        self.free + self.pooled
    }

    /// Blocks written in advance.
    pub(crate) fn pooled_blocks(&self) -> u64 {
        self.pooled
    }

    pub(crate) fn total_blocks(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.blocks)).sum()
    }

    /// Marks a block that a record names. `Err`: there is no such block, or it is used already.
    pub(crate) fn mark_used(&mut self, block: u64) -> Result<(), MarkError> {
        let Some((segment, at)) = self.place(block) else { return Err(MarkError::OutOfDisk) };
        let segment = &mut self.segments[segment];
        if segment.is_used(at) {
            return Err(MarkError::Used);
        }
        segment.set(at, 1, true);
        self.free -= 1;
        Ok(())
    }

    /// `blocks` blocks as one run, if there is one.
    pub(crate) fn allocate_run(&mut self, blocks: u32) -> Option<Run> {
        let small = blocks <= SMALL_BLOCKS;
        self.take_recent(blocks, small)
            .or_else(|| if small { self.take_pooled(blocks) } else { None })
            .or_else(|| self.search(blocks, small))
    }

    /// `blocks` blocks as few runs as can be found without looking at everything; `None` if there are not as many.
    pub(crate) fn allocate_scattered(&mut self, blocks: u32) -> Option<Vec<Run>> {
        if u64::from(blocks) > self.free_blocks() {
            return None;
        }
        if u64::from(blocks) > self.free {
            self.drop_pool();
        }
        let mut runs = Vec::new();
        let mut missing = blocks;
        let mut size = blocks;
        while missing > 0 {
            if let Some(run) = self.search(size.min(missing), false) {
                missing -= run.len;
                runs.push(run);
            } else {
                assert!(size > 1, "free blocks are counted but no bit is clear");
                size = size.div_ceil(2);
            }
        }
        Some(runs)
    }

    /// The run may reach over segments: what was freed together is one run wherever it lies.
    pub(crate) fn free(&mut self, run: Run) {
        let left = u64::from(self.segment_blocks) - run.start % u64::from(self.segment_blocks);
        if left < u64::from(run.len) {
            let first = Run { start: run.start, len: left as u32 };
            self.free_within(first);
            return self.free(Run { start: first.end(), len: run.len - first.len });
        }
        self.free_within(run);
    }

    fn free_within(&mut self, run: Run) {
        self.clear(run);
        let recent = if run.len <= SMALL_BLOCKS { &mut self.recent_small } else { &mut self.recent_large };
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(run);
    }

    /// A free run to be written in advance; its blocks are used until [`pool`](Self::pool) or [`free`](Self::free).
    pub(crate) fn take_for_pool(&mut self, blocks: u32) -> Option<Run> {
        self.search(blocks, true)
    }

    /// Puts a run from [`take_for_pool`](Self::take_for_pool), now written, at the disposal of small requests.
    pub(crate) fn pool(&mut self, run: Run) {
        self.pooled += u64::from(run.len);
        self.pool.push(run);
    }

    /// Blocks of small runs freed lately: about what small requests can take without a block never written.
    pub(crate) fn recent_small(&self) -> usize {
        self.recent_small.len()
    }

    fn drop_pool(&mut self) {
        for run in std::mem::take(&mut self.pool) {
            self.pooled -= u64::from(run.len);
            self.clear(run);
        }
    }

    fn clear(&mut self, run: Run) {
        let (segment, at) = self.place(run.start).expect("a run being freed was allocated here");
        self.segments[segment].set(at, run.len, false);
        self.free += u64::from(run.len);
    }

    fn place(&self, block: u64) -> Option<(usize, u32)> {
        let segment = usize::try_from(block / u64::from(self.segment_blocks)).ok()?;
        let at = u32::try_from(block % u64::from(self.segment_blocks)).ok()?;
        (at < self.segments.get(segment)?.blocks).then_some((segment, at))
    }

    fn take_recent(&mut self, blocks: u32, small: bool) -> Option<Run> {
        let segment_blocks = u64::from(self.segment_blocks);
        let recent = if small { &mut self.recent_small } else { &mut self.recent_large };
        let from = recent.len().saturating_sub(RECENT_LOOK);
        for at in (from..recent.len()).rev() {
            let run = recent[at];
            let segment = &mut self.segments[(run.start / segment_blocks) as usize];
            let within = (run.start % segment_blocks) as u32;
            if !segment.is_free(within, run.len) {
                recent.remove(at);
            } else if run.len >= blocks {
                if run.len == blocks {
                    recent.remove(at);
                } else {
                    recent[at] = Run { start: run.start + u64::from(blocks), len: run.len - blocks };
                }
                segment.set(within, blocks, true);
                self.free -= u64::from(blocks);
                return Some(Run { start: run.start, len: blocks });
            }
        }
        None
    }

    fn take_pooled(&mut self, blocks: u32) -> Option<Run> {
        let run = self.pool.last_mut()?;
        if run.len < blocks {
            return None;
        }
        let taken = Run { start: run.start, len: blocks };
        *run = Run { start: run.start + u64::from(blocks), len: run.len - blocks };
        if run.len == 0 {
            self.pool.pop();
        }
        self.pooled -= u64::from(blocks);
        Some(taken)
    }

    fn search(&mut self, blocks: u32, small: bool) -> Option<Run> {
        let cursor = if small { self.small_cursor } else { self.large_cursor };
        let count = self.segments.len();
        // The cursor's segment is looked at twice: behind the cursor first, all of it last.
        for step in 0..=count {
            let at = (cursor.0 + step) % count.max(1);
            let segment = self.segments.get_mut(at)?;
            if segment.free < blocks || segment.longest < blocks {
                continue;
            }
            let from = if step == 0 { cursor.1 } else { 0 };
            let Some(found) = segment.find(from, blocks) else {
                if from == 0 {
                    segment.longest = blocks - 1;
                }
                continue;
            };
            segment.set(found, blocks, true);
            self.free -= u64::from(blocks);
            *(if small { &mut self.small_cursor } else { &mut self.large_cursor }) = (at, found + blocks);
            return Some(Run {
                start: at as u64 * u64::from(self.segment_blocks) + u64::from(found),
                len: blocks,
            });
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkError {
    OutOfDisk,
    Used,
}

impl Segment {
    fn new(blocks: u32) -> Self {
        Self { bits: vec![0; blocks.div_ceil(64) as usize], blocks, free: blocks, longest: blocks }
    }

    fn is_used(&self, at: u32) -> bool {
        (self.bits[(at / 64) as usize] >> (at % 64)) & 1 == 1
    }

    fn is_free(&self, at: u32, len: u32) -> bool {
        at + len <= self.blocks && self.next(at, true).is_none_or(|used| used >= at + len)
    }

    /// The first block at or after `at` that is used (or free).
    fn next(&self, at: u32, used: bool) -> Option<u32> {
        let mut word = (at / 64) as usize;
        let mut mask = u64::MAX << (at % 64);
        while word < self.bits.len() {
            let bits = if used { self.bits[word] } else { !self.bits[word] } & mask;
            if bits != 0 {
                let found = word as u32 * 64 + bits.trailing_zeros();
                return (found < self.blocks).then_some(found);
            }
            mask = u64::MAX;
            word += 1;
        }
        None
    }

    /// The first free run of `len` blocks that begins at or after `from`.
    fn find(&self, from: u32, len: u32) -> Option<u32> {
        let mut at = from;
        while at + len <= self.blocks {
            let start = self.next(at, false)?;
            let end = self.next(start, true).unwrap_or(self.blocks);
            if end - start >= len {
                return Some(start);
            }
            at = end;
        }
        None
    }

    fn set(&mut self, at: u32, len: u32, used: bool) {
        for block in at..at + len {
            let bit = 1 << (block % 64);
            let word = &mut self.bits[(block / 64) as usize];
            assert!((*word & bit != 0) != used, "a block is taken or freed twice");
            *word ^= bit;
        }
        if used {
            self.free -= len;
        } else {
            self.free += len;
            self.longest = self.blocks;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_are_whole_while_they_can_be() {
        let mut alloc = Allocator::new(1024);
        alloc.add_segment(1024);
        alloc.add_segment(512);
        let runs: Vec<_> = (0..6).map(|_| alloc.allocate_run(256).unwrap()).collect();
        assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        assert_eq!((alloc.free_blocks(), alloc.allocate_run(1)), (0, None));
        alloc.free(runs[2]);
        assert_eq!(alloc.allocate_run(256), Some(runs[2]), "what was freed lately goes first");
    }

    #[test]
    fn small_requests_take_what_was_written_before() {
        let mut alloc = Allocator::new(1024);
        alloc.add_segment(1024);
        let ahead = alloc.take_for_pool(64).unwrap();
        alloc.pool(ahead);
        assert_eq!(alloc.free_blocks(), 1024);
        let first = alloc.allocate_run(1).unwrap();
        assert_eq!(first.start, ahead.start);
        assert!(alloc.allocate_run(100).unwrap().start >= ahead.end());
        alloc.free(first);
        assert_eq!(alloc.allocate_run(1), Some(first));
        let left = u32::try_from(alloc.free_blocks()).unwrap();
        let rest = alloc.allocate_scattered(left).expect("the pool is given up when space is short");
        assert_eq!(rest.iter().map(|run| run.len).sum::<u32>(), left);
    }

    #[test]
    fn a_run_over_two_segments_is_freed_in_both() {
        let mut alloc = Allocator::new(64);
        alloc.add_segment(64);
        alloc.add_segment(64);
        alloc.allocate_scattered(128).unwrap();
        alloc.free(Run { start: 60, len: 10 });
        assert_eq!(alloc.free_blocks(), 10);
        let mut runs = [alloc.allocate_run(6).unwrap(), alloc.allocate_run(4).unwrap()];
        runs.sort_by_key(|run| run.start);
        assert_eq!(runs, [Run { start: 60, len: 4 }, Run { start: 64, len: 6 }]);
    }

    #[test]
    fn a_block_named_twice_is_found() {
        let mut alloc = Allocator::new(64);
        alloc.add_segment(64);
        assert_eq!(alloc.mark_used(5), Ok(()));
        assert_eq!(alloc.mark_used(5), Err(MarkError::Used));
        assert_eq!(alloc.mark_used(64), Err(MarkError::OutOfDisk));
    }

    proptest! {
        #[test]
        fn no_block_is_handed_out_twice_and_none_is_lost(ops in proptest::collection::vec((0_u8..4, 1_u32..70, any::<prop::sample::Index>()), 1..200)) {
            let mut alloc = Allocator::new(300);
            alloc.add_segment(300);
            alloc.add_segment(130);
            let mut held: Vec<Run> = Vec::new();
            let mut model = std::collections::BTreeSet::new();
            for (kind, blocks, which) in ops {
                let got = match kind {
                    0 => alloc.allocate_run(blocks).into_iter().collect(),
                    1 => alloc.allocate_scattered(blocks).unwrap_or_default(),
                    2 => {
                        if let Some(run) = alloc.take_for_pool(blocks.min(8)) {
                            alloc.pool(run);
                        }
                        Vec::new()
                    }
                    _ => {
                        if !held.is_empty() {
                            let run = held.swap_remove(which.index(held.len()));
                            (run.start..run.end()).for_each(|block| assert!(model.remove(&block)));
                            alloc.free(run);
                        }
                        Vec::new()
                    }
                };
                for run in &got {
                    for block in run.start..run.end() {
                        prop_assert!(model.insert(block), "block {} handed out twice", block);
                    }
                }
                held.extend(got);
                prop_assert_eq!(alloc.free_blocks(), 430 - model.len() as u64);
            }
        }
    }
}
