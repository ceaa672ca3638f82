//! Written data of one file that was not sent yet: a sorted list of ranges, each with its bytes.
//!
//! Invariants:
//! - segments do not overlap, do not touch within a piece, and do not cross a piece (1 MiB, aligned in the file);
//! - a segment's bytes are all written ones: what is sent is what was asked for, never a gap between;
//! - a block's checksum is computed when all of the block is written in one go, right after the copy while the bytes
//!   are in the nearest cache, and otherwise when the segment is sealed: once a write in both cases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coord_types::{BLOCK_SIZE, WRITE_SIZE_MAX};

use super::memory::{Buffer, Memory, Reservation};

/// Bytes of a piece: what one write to a chunkserver carries at most.
pub(crate) const PIECE: u64 = WRITE_SIZE_MAX as u64;
const BLOCK: u64 = BLOCK_SIZE as u64;

/// A segment that reached the end of its piece is sent at once if it is at least this long: a stream that did not
/// begin at a piece. Shorter ones are rather a random write that happens to end there.
const STREAM_MIN: u64 = 256 << 10;
/// What a segment grows to when it outgrows the blocks of its first write; then to a whole piece. Two steps keep small
/// files small and cost a stream of small writes one extra copy of a sixteenth of its bytes.
const GROWN: usize = 64 << 10;

/// A contiguous range of written bytes.
#[derive(Debug)]
pub(crate) struct Segment {
    start: u64,
    end_exclusive: u64,
    /// File offset of the buffer's first byte: `start` rounded down to a block.
    base: u64,
    buffer: Buffer,
    /// Of each block of the buffer.
    crcs: Vec<u32>,
    /// Which of `crcs` are known: the whole block was written in one go.
    known: [u64; 4],
    /// The oldest write in here.
    first_seq: u64,
}

/// A segment that changes no more.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) start: u64,
    pub(crate) data: Bytes,
    /// crc32c of each piece `data` is cut into at block boundaries.
    pub(crate) block_crcs: Vec<u32>,
    pub(crate) first_seq: u64,
}

/// All segments of a file.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    segments: BTreeMap<u64, Segment>,
    /// Segments to be sent as soon as nothing overlapping is in flight.
    ready: BTreeSet<u64>,
    /// (oldest write, start) of every segment.
    ages: BTreeSet<(u64, u64)>,
    bytes: u64,
}

const fn piece_of(offset: u64) -> u64 {
    offset / PIECE * PIECE
}

/// Cuts a range at the ends of pieces.
fn pieces(offset: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let start = at;
            at = (piece_of(at) + PIECE).min(end);
            (start, at)
        })
    })
}

/// How a write to one piece is taken in.
enum Plan {
    /// Into the segment at this key, as it is.
    Into(u64),
    /// Into a new buffer of this capacity over [start, end), which swallows the segments at `merged`.
    New { start: u64, end: u64, capacity: usize, merged: Vec<u64> },
}

impl Dirty {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Written bytes in here.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest write in here.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.ages.first().map(|(seq, _)| *seq)
    }

    /// Segments that touch [start, end), the touching at the edges counted, all of one piece.
    fn touching(&self, start: u64, end: u64) -> impl Iterator<Item = &Segment> {
        self.segments
            .range(..=end)
            .rev()
            .map(|(_, segment)| segment)
            .take_while(move |segment| segment.start >= piece_of(start))
            .filter(move |segment| {
                segment.end_exclusive >= start && piece_of(segment.start) == piece_of(start)
            })
    }

    fn plan(&self, start: u64, end: u64) -> Plan {
        let touched: Vec<&Segment> = self.touching(start, end).collect();
        if let [segment] = touched[..]
            && start >= segment.start
            && end <= segment.base + segment.buffer.capacity_bytes() as u64
        {
            return Plan::Into(segment.start);
        }
        let union_start = touched.iter().map(|segment| segment.start).min().unwrap_or(start).min(start);
        let union_end = touched.iter().map(|segment| segment.end_exclusive).max().unwrap_or(end).max(end);
        let base = union_start / BLOCK * BLOCK;
        let needed = usize::try_from((union_end - base).next_multiple_of(BLOCK)).expect("at most a piece");
        let room = usize::try_from(piece_of(union_start) + PIECE - base).expect("at most a piece");
        let capacity = match (touched.is_empty(), needed <= GROWN) {
            (true, true) => needed,
            (false, true) => GROWN.min(room),
            (_, false) => room,
        };
        let merged = touched.iter().map(|segment| segment.start).collect();
        Plan::New { start: union_start, end: union_end, capacity, merged }
    }

    /// Memory that writing [offset, offset + len) takes.
    pub(crate) fn cost(&self, offset: u64, len: usize) -> usize {
        pieces(offset, offset + len as u64)
            .map(|(start, end)| match self.plan(start, end) {
                Plan::Into(_) => 0,
                Plan::New { capacity, .. } => capacity,
            })
            .sum()
    }

    /// Takes in a write. `reservation` covers [`cost`](Self::cost).
    pub(crate) fn write(
        &mut self,
        (offset, seq): (u64, u64),
        data: &[u8],
        memory: &Arc<Memory>,
        reservation: &mut Reservation,
    ) {
        for (start, end) in pieces(offset, offset + data.len() as u64) {
            let from = usize::try_from(start - offset).expect("within the data");
            let to = usize::try_from(end - offset).expect("within the data");
            let part = &data[from..to];
            match self.plan(start, end) {
                Plan::Into(key) => {
                    let segment = self.segments.get_mut(&key).expect("planned from the map");
                    self.bytes += end.saturating_sub(segment.end_exclusive);
                    segment.end_exclusive = segment.end_exclusive.max(end);
                    segment.put(start, part);
                    if segment.is_full() {
                        self.ready.insert(key);
                    }
                }
                Plan::New { start: union_start, end: union_end, capacity, merged } => {
                    let mut segment = Segment {
                        start: union_start,
                        end_exclusive: union_end,
                        base: union_start / BLOCK * BLOCK,
                        buffer: reservation.allocate(memory, capacity),
                        crcs: vec![0; capacity / BLOCK_SIZE],
                        known: [0; 4],
                        first_seq: seq,
                    };
                    let mut ready = segment.is_full();
                    for key in merged {
                        ready |= self.ready.contains(&key);
                        let old = self.remove(key).expect("planned from the map");
                        segment.take_over(&old);
                    }
                    segment.put(start, part);
                    self.insert(segment, ready);
                }
            }
        }
    }

    fn insert(&mut self, segment: Segment, ready: bool) {
        self.bytes += segment.len();
        self.ages.insert((segment.first_seq, segment.start));
        if ready {
            self.ready.insert(segment.start);
        }
        self.segments.insert(segment.start, segment);
    }

    fn remove(&mut self, key: u64) -> Option<Segment> {
        let segment = self.segments.remove(&key)?;
        self.ready.remove(&key);
        self.ages.remove(&(segment.first_seq, key));
        self.bytes -= segment.len();
        Some(segment)
    }

    /// Forgets everything from `size` on.
    pub(crate) fn truncate(&mut self, size: u64) {
        while let Some((&key, _)) = self.segments.last_key_value()
            && key >= size
        {
            self.remove(key);
        }
        if let Some(mut last) = self.segments.last_entry() {
            let last = last.get_mut();
            let cut = last.end_exclusive.saturating_sub(size);
            self.bytes -= cut;
            last.end_exclusive -= cut;
            // Its last block is no longer whole.
            if cut > 0 && !size.is_multiple_of(BLOCK) {
                last.set_known(last.position(size) / BLOCK_SIZE, false);
            }
        }
    }

    /// The first segment that ends after `offset`, if it begins before `end`.
    pub(crate) fn next_in(&self, offset: u64, end: u64) -> Option<&Segment> {
        if let Some((_, before)) = self.segments.range(..=offset).next_back()
            && before.end_exclusive > offset
            && offset < end
        {
            return Some(before);
        }
        self.segments.range(offset..end).next().map(|(_, segment)| segment)
    }

    /// Where the last segment ends.
    pub(crate) fn end(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(_, segment)| segment.end_exclusive)
    }

    /// Asks for all segments that hold anything of [start, end) to be sent.
    pub(crate) fn hurry(&mut self, start: u64, end: u64) {
        // The only segment that can begin before `start` and reach into the range is the last one before it.
        let first =
            self.segments.range(..=start).next_back().filter(|(_, segment)| segment.end_exclusive > start);
        self.ready.extend(first.map(|(key, _)| *key));
        if start < end {
            self.ready.extend(self.segments.range(start..end).map(|(key, _)| *key));
        }
    }

    /// Takes out the first segment that is ready to be sent and that `free` lets go.
    pub(crate) fn take_ready(&mut self, free: impl Fn(u64, u64) -> bool) -> Option<Sealed> {
        let key = *self.ready.iter().find(|key| free(**key, self.segments[*key].end_exclusive))?;
        Some(self.remove(key).expect("ready segments are segments").seal())
    }

    /// Whether anything is ready to be sent.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl Segment {
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    pub(crate) const fn end_exclusive(&self) -> u64 {
        self.end_exclusive
    }

    const fn len(&self) -> u64 {
        self.end_exclusive - self.start
    }

    /// Nothing more is to be expected: the piece is full, or a stream has passed its end.
    const fn is_full(&self) -> bool {
        self.end_exclusive.is_multiple_of(PIECE)
            && (self.start.is_multiple_of(PIECE) || self.len() >= STREAM_MIN)
    }

    /// The bytes of [start, end), which must lie inside.
    pub(crate) fn slice(&self, start: u64, end: u64) -> &[u8] {
        &self.buffer.as_ref()[self.position(start)..self.position(end)]
    }

    fn position(&self, offset: u64) -> usize {
        usize::try_from(offset - self.base).expect("within a piece")
    }

    const fn is_known(&self, block: usize) -> bool {
        self.known[block / 64] & (1 << (block % 64)) != 0
    }

    const fn set_known(&mut self, block: usize, known: bool) {
        let bit = 1 << (block % 64);
        if known {
            self.known[block / 64] |= bit;
        } else {
            self.known[block / 64] &= !bit;
        }
    }

    /// Copies bytes in, block by block, and sums up those that are whole.
    fn put(&mut self, offset: u64, mut data: &[u8]) {
        let mut at = self.position(offset);
        while !data.is_empty() {
            let len = (BLOCK_SIZE - at % BLOCK_SIZE).min(data.len());
            let (head, rest) = data.split_at(len);
            let target = &mut self.buffer.as_mut_slice()[at..at + len];
            target.copy_from_slice(head);
            let whole = len == BLOCK_SIZE;
            if whole {
                self.crcs[at / BLOCK_SIZE] = crc32c::crc32c(target);
            }
            self.set_known(at / BLOCK_SIZE, whole);
            at += len;
            data = rest;
        }
    }

    /// Takes over an older segment that lies inside this one.
    fn take_over(&mut self, old: &Self) {
        let (from, to) = (self.position(old.start), self.position(old.end_exclusive));
        self.buffer.as_mut_slice()[from..to].copy_from_slice(old.slice(old.start, old.end_exclusive));
        let shift = usize::try_from(old.base - self.base).expect("within a piece") / BLOCK_SIZE;
        // Not those beyond its end: a truncate leaves what was known of them.
        for block in 0..old.position(old.end_exclusive).div_ceil(BLOCK_SIZE) {
            if old.is_known(block) {
                self.crcs[block + shift] = old.crcs[block];
                self.set_known(block + shift, true);
            }
        }
        self.first_seq = self.first_seq.min(old.first_seq);
    }

    fn seal(self) -> Sealed {
        let (from, to) = (self.position(self.start), self.position(self.end_exclusive));
        let bytes = self.buffer.as_ref();
        let mut block_crcs = Vec::with_capacity(to.div_ceil(BLOCK_SIZE));
        let mut at = from;
        while at < to {
            let block = at / BLOCK_SIZE;
            let end = ((block + 1) * BLOCK_SIZE).min(to);
            let whole = end - at == BLOCK_SIZE;
            block_crcs.push(if whole && self.is_known(block) {
                self.crcs[block]
            } else {
                crc32c::crc32c(&bytes[at..end])
            });
            at = end;
        }
        let (start, first_seq) = (self.start, self.first_seq);
        Sealed { start, data: Bytes::from_owner(self.buffer).slice(from..to), block_crcs, first_seq }
    }
}

impl Sealed {
    pub(crate) fn end_exclusive(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

#[cfg(test)]
mod tests;
