//! What the log holds, in memory: where each entry is, the newest entries themselves, the place of the next record.
//! Pure: no file is touched here; [`crate::log::writer`] carries out the writes this plans.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;

use crate::log::record::{
    Place, RECORD_HEADER_LEN, RecordType, SEGMENT_HEADER_LEN, SegmentHeader, encode_header, entry_payload,
    padded_len,
};
use crate::types::{Entry, LogId, Membership};

const SEAL_LEN: u32 = 56;
const PADDING: [u8; 8] = [0; 8];

/// Where an entry's record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) log_id: LogId,
    pub(crate) sequence: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// One write to one segment.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) sequence: u64,
    pub(crate) offset: u32,
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) len: u32,
}

/// What is to be done next to the files.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) writes: Vec<Write>,
    /// Segments to retire once the writes are durable.
    pub(crate) retire: Vec<u64>,
    /// Everything up to this submission is in `writes`.
    pub(crate) submission: u64,
}

/// Place of the next record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) sequence: u64,
    pub(crate) offset: u32,
    pub(crate) size: u32,
    /// crc of the last record.
    pub(crate) chain: u32,
    /// The segment's header is written or planned.
    pub(crate) begun: bool,
}

/// A membership in the log, or the one the state machine started with.
#[derive(Clone, Debug)]
pub(crate) struct MembershipAt {
    pub(crate) index: Option<u64>,
    pub(crate) membership: Arc<Membership>,
}

#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) node_id: u64,
    segment_bytes: u32,
    tail_bytes_max: usize,
    pub(crate) purged: Option<LogId>,
    /// Entries `positions.front().index ..=`, without gap.
    pub(crate) positions: VecDeque<Position>,
    /// The newest entries; the last of them is the last of `positions`.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    pub(crate) end: End,
    /// The highest index a segment holds, for all segments there are. Segments without entries hold 0.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// In order of index; the last is the effective one. Empty: not known.
    memberships: Vec<MembershipAt>,
    pending: Pending,
    /// The newest place known to be durable.
    durable: (u64, u32),
}

impl LogState {
    /// A log without entries whose first segment will be `sequence`.
    pub(crate) fn new(node_id: u64, segment_bytes: u64, tail_bytes_max: usize, sequence: u64) -> Self {
        let size = u32::try_from(segment_bytes).unwrap_or(u32::MAX);
        Self {
            node_id,
            segment_bytes: size,
            tail_bytes_max,
            purged: None,
            positions: VecDeque::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            end: End { sequence, offset: 0, size, chain: 0, begun: false },
            segments: BTreeMap::new(),
            memberships: Vec::new(),
            pending: Pending::default(),
            durable: (sequence, 0),
        }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.positions.back().map(|position| position.log_id).or(self.purged)
    }

    /// Index of the first entry there is, or would be.
    pub(crate) fn first_index(&self) -> u64 {
        match self.positions.front() {
            Some(position) => position.log_id.index,
            None => self.purged.map_or(0, |purged| purged.index + 1),
        }
    }

    pub(crate) fn position(&self, index: u64) -> Option<Position> {
        let at = usize::try_from(index.checked_sub(self.first_index())?).ok()?;
        self.positions.get(at).copied()
    }

    /// Whether an entry's record is durable, as far as is known. An entry there is not counts as durable.
    pub(crate) fn is_durable(&self, index: u64) -> bool {
        self.position(index).is_none_or(|at| (at.sequence, at.offset + at.len) <= self.durable)
    }

    /// An entry that is in memory.
    pub(crate) fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.tail.front()?.log_id.index;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Number of the newest submission: how many records were planned.
    pub(crate) fn submitted(&self) -> u64 {
        self.pending.submission
    }

    /// The newest membership in the log, or before it.
    pub(crate) fn effective_membership(&self) -> Option<&Arc<Membership>> {
        self.memberships.last().map(|at| &at.membership)
    }

    /// The membership of the state machine, of before the log's entries or of a snapshot.
    pub(crate) fn set_base_membership(&mut self, index: Option<u64>, membership: Membership) {
        self.memberships.retain(|at| at.index > index);
        self.memberships.insert(0, MembershipAt { index, membership: Arc::new(membership) });
    }

    /// Plans the records of `entries`. Gives the number to wait for.
    ///
    /// # Panics
    /// If an entry does not follow the one before: openraft guarantees it, and a gap on disk would be loss.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> u64 {
        for entry in entries {
            if !self.positions.is_empty() {
                let expected = self.positions.back().expect("not empty").log_id.index + 1;
                assert_eq!(entry.log_id.index, expected, "an entry must follow the last one of the log");
            }
            let (kind, payload) = entry_payload(&entry);
            let (sequence, offset, len) = self.plan_record(kind, entry.log_id, &payload);
            self.remember(Position { log_id: entry.log_id, sequence, offset, len }, entry);
        }
        self.pending.submission
    }

    /// Plans that entries from `index` on are void.
    pub(crate) fn truncate(&mut self, id: LogId) -> u64 {
        self.plan_record(RecordType::Truncate, id, &Bytes::new());
        self.forget_from(id.index);
        self.pending.submission
    }

    /// Plans that entries up to `upto` (inclusive) are gone, and what becomes free.
    pub(crate) fn purge(&mut self, upto: LogId) -> u64 {
        let holds_some = self.positions.front().is_some_and(|first| first.log_id.index <= upto.index);
        if holds_some || self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.plan_record(RecordType::Purge, upto, &Bytes::new());
            self.forget_upto(upto);
            while let Some((&sequence, &highest)) = self.segments.first_key_value() {
                if sequence >= self.end.sequence || highest > upto.index {
                    break;
                }
                self.segments.pop_first();
                self.pending.retire.push(sequence);
            }
        }
        self.pending.submission
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.writes.is_empty() || !self.pending.retire.is_empty()
    }

    /// What is to be done to the files since the last call; `None` if nothing.
    pub(crate) fn take_pending(&mut self) -> Option<Pending> {
        if !self.has_pending() {
            return None;
        }
        let submission = self.pending.submission;
        Some(std::mem::replace(&mut self.pending, Pending { submission, ..Pending::default() }))
    }

    /// All of that was done.
    pub(crate) fn made_durable(&mut self, pending: &Pending) {
        if let Some(write) = pending.writes.last() {
            self.durable = (write.sequence, write.offset + write.len);
        }
        self.trim_tail();
    }

    /// Takes in a record a restart found, or the plan of a new one.
    pub(crate) fn remember(&mut self, position: Position, entry: Entry) {
        if let EntryPayload::Membership(membership) = &entry.payload {
            self.memberships.push(MembershipAt {
                index: Some(position.log_id.index),
                membership: Arc::new(membership.clone()),
            });
        }
        let highest = self.segments.entry(position.sequence).or_default();
        *highest = (*highest).max(position.log_id.index);
        self.tail_bytes += position.len as usize;
        self.positions.push_back(position);
        self.tail.push_back(entry);
        self.trim_tail();
    }

    pub(crate) fn forget_from(&mut self, index: u64) {
        while self.positions.back().is_some_and(|position| position.log_id.index >= index) {
            self.positions.pop_back();
        }
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= index) {
            self.tail.pop_back();
        }
        self.recount_tail();
        self.memberships.retain(|at| at.index.is_none_or(|at| at < index));
    }

    pub(crate) fn forget_upto(&mut self, upto: LogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        while self.positions.front().is_some_and(|position| position.log_id.index <= upto.index) {
            self.positions.pop_front();
        }
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.tail.pop_front();
        }
        self.recount_tail();
        // The newest membership stays known when its entry goes.
        while self.memberships.len() > 1 && self.memberships[1].index.is_some_and(|index| index <= upto.index)
        {
            self.memberships.remove(0);
        }
    }

    fn recount_tail(&mut self) {
        let cached = self.positions.iter().rev().take(self.tail.len());
        self.tail_bytes = cached.map(|position| position.len as usize).sum();
    }

    /// Entries leave memory oldest first, and only when they can be read back.
    fn trim_tail(&mut self) {
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            let oldest = self.positions[self.positions.len() - self.tail.len()];
            if (oldest.sequence, oldest.offset + oldest.len) > self.durable {
                break;
            }
            self.tail.pop_front();
            self.tail_bytes -= oldest.len as usize;
        }
    }

    /// What a restart found is durable (it was synced before it was read).
    pub(crate) fn recovered_upto(&mut self, end: End) {
        self.end = end;
        self.durable = (end.sequence, end.offset);
        self.trim_tail();
    }

    /// Everything parsed so far may leave memory while a restart still reads.
    pub(crate) fn recovering(&mut self, sequence: u64, offset: u32) {
        self.durable = (sequence, offset);
    }

    fn plan_record(&mut self, kind: RecordType, log_id: LogId, payload: &Bytes) -> (u64, u32, u32) {
        let len = u32::try_from(padded_len(payload.len())).expect("entries are smaller than a segment");
        if !self.end.begun {
            self.begin_segment();
        } else if self.end.offset + len + SEAL_LEN > self.end.size {
            self.push_record(RecordType::Seal, LogId::default(), &Bytes::new(), SEAL_LEN);
            self.end = End {
                sequence: self.end.sequence + 1,
                offset: 0,
                size: self.segment_bytes,
                begun: false,
                ..self.end
            };
            self.begin_segment();
        }
        assert!(
            self.end.offset + len + SEAL_LEN <= self.end.size,
            "an entry of {len} bytes does not fit a segment; the settings were checked against it"
        );
        let at = (self.end.sequence, self.end.offset, len);
        self.push_record(kind, log_id, payload, len);
        at
    }

    fn begin_segment(&mut self) {
        let header = SegmentHeader {
            sequence: self.end.sequence,
            size: u64::from(self.end.size),
            node_id: self.node_id,
            chain: self.end.chain,
            purged: self.purged,
        };
        self.push_bytes(header.encode().into());
        self.segments.insert(self.end.sequence, 0);
        self.end.begun = true;
        debug_assert_eq!(u64::from(self.end.offset), SEGMENT_HEADER_LEN);
    }

    fn push_record(&mut self, kind: RecordType, log_id: LogId, payload: &Bytes, len: u32) {
        let durable_offset = if self.durable.0 == self.end.sequence { self.durable.1 } else { 0 };
        let place = Place { sequence: self.end.sequence, previous: self.end.chain, durable_offset };
        let (header, crc) = encode_header(kind, log_id, payload, place);
        self.push_bytes(Bytes::copy_from_slice(&header));
        if !payload.is_empty() {
            self.push_bytes(payload.clone());
        }
        let padding = len as usize - RECORD_HEADER_LEN - payload.len();
        if padding > 0 {
            self.push_bytes(Bytes::from_static(&PADDING[..padding]));
        }
        self.end.chain = crc;
        self.pending.submission += 1;
    }

    fn push_bytes(&mut self, bytes: Bytes) {
        let len = u32::try_from(bytes.len()).expect("pieces are smaller than a segment");
        match self.pending.writes.last_mut() {
            Some(last) if last.sequence == self.end.sequence => {
                last.len += len;
                last.pieces.push(bytes);
            }
            _ => self.pending.writes.push(Write {
                sequence: self.end.sequence,
                offset: self.end.offset,
                len,
                pieces: vec![bytes],
            }),
        }
        self.end.offset += len;
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::EntryData;

    fn entry(index: u64, len: usize) -> Entry {
        let data = EntryData { bytes: vec![7; len].into(), waiters: None };
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
        Entry { log_id, payload: EntryPayload::Normal(data) }
    }

    #[test]
    fn entries_stay_in_memory_until_they_can_be_read_back() {
        let mut state = LogState::new(1, 64 << 10, 1500, 1);
        state.append((0..5).map(|index| entry(index, 1000)));
        assert!((0..5).all(|index| state.cached(index).is_some() && !state.is_durable(index)));
        let pending = state.take_pending().unwrap();
        state.append([entry(5, 1000)]);
        state.made_durable(&pending);
        let cached: Vec<_> = (0..6).filter(|index| state.cached(*index).is_some()).collect();
        assert_eq!(cached, [5]);
        assert!((0..5).all(|index| state.is_durable(index)) && !state.is_durable(5));
        assert!(state.is_durable(6), "there is no such entry");
    }
}
