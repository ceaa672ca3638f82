//! The log under crashes, damage and random use.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, RaftLogReader};
use proptest::prelude::*;

use crate::lease::Lease;
use crate::log::files::{SegmentFile, SegmentFiles};
use crate::log::record::{
    Place, Record, RecordType, SEGMENT_HEADER_LEN, SegmentHeader, encode_header, padded_len,
};
use crate::log::recovery::recover;
use crate::log::state::LogState;
use crate::log::vote::VoteFile;
use crate::log::writer::Writer;
use crate::log::{LogError, LogOptions, LogStore};
use crate::types::{Entry, EntryData, LogId, Membership, Vote};

const NODE: u64 = 3;
const SEGMENT: u64 = 16 << 10;
const TAIL: usize = 4 << 10;

fn open(dir: &Path) -> Result<LogStore, LogError> {
    let options = LogOptions { node_id: NODE, segment_bytes: SEGMENT, spare_segments: 2, tail_bytes: TAIL };
    LogStore::open(dir, options, Arc::new(Lease::new(NODE, Duration::from_secs(1))))
}

fn recovered(dir: &Path) -> Result<LogState, LogError> {
    let files = SegmentFiles::open(dir, SEGMENT, 2)?;
    recover(&files, NODE, SEGMENT, 1 << 20).map(|found| found.0)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, NODE), index)
}

fn entry(term: u64, index: u64, bytes: &[u8]) -> Entry {
    let data = EntryData { bytes: bytes.to_vec().into(), waiters: None };
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(data) }
}

fn bytes_of(entry: &Entry) -> Vec<u8> {
    match &entry.payload {
        EntryPayload::Normal(data) => data.bytes.to_vec(),
        EntryPayload::Blank | EntryPayload::Membership(_) => panic!("only normal entries were written"),
    }
}

fn append(store: &LogStore, entries: Vec<Entry>) {
    let submission = store.submit(entries);
    block_on(store.durable(submission)).unwrap();
}

fn contents(store: &LogStore) -> Vec<(LogId, Vec<u8>)> {
    let entries = block_on(store.clone().try_get_log_entries(..)).unwrap();
    entries.iter().map(|entry| (entry.log_id, bytes_of(entry))).collect()
}

fn contents_of(state: &LogState) -> Vec<(LogId, Vec<u8>)> {
    let ids = state.positions.iter().map(|position| position.log_id);
    ids.map(|id| (id, bytes_of(state.cached(id.index).expect("the tail holds all")))).collect()
}

/// What a crash leaves: the files as they are, in another directory.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

fn segment(dir: &Path, sequence: u64) -> std::path::PathBuf {
    dir.join(format!("seg-{sequence:016x}.log"))
}

#[test]
fn of_a_torn_write_a_restart_finds_a_prefix_and_all_that_was_durable_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let durable: Vec<_> = (0..4).map(|i| entry(1, i, format!("durable {i}").as_bytes())).collect();
    for entry in &durable {
        append(&store, vec![entry.clone()]);
    }
    let before = copy(dir.path());
    let torn: Vec<_> =
        (4..7).map(|i| entry(1, i, format!("torn {i} {}", "x".repeat(9)).as_bytes())).collect();
    append(&store, torn.clone());
    let old = std::fs::read(segment(before.path(), 1)).unwrap();
    let new = std::fs::read(segment(dir.path(), 1)).unwrap();
    let start = (0..old.len()).find(|&i| old[i] != new[i]).unwrap();
    let end = (0..old.len()).rfind(|&i| old[i] != new[i]).unwrap() + 1;
    assert!(end - start > 200, "the write is there");
    let all: Vec<_> = durable.iter().chain(&torn).map(|entry| (entry.log_id, bytes_of(entry))).collect();
    for cut in start..=end {
        for front in [true, false] {
            let mut bytes = old.clone();
            let arrived = if front { start..cut } else { cut..end };
            bytes[arrived.clone()].copy_from_slice(&new[arrived]);
            let crashed = copy(before.path());
            std::fs::write(segment(crashed.path(), 1), &bytes).unwrap();
            let found = contents_of(&recovered(crashed.path()).unwrap());
            assert!(found.len() >= durable.len(), "cut at {cut}: {} entries", found.len());
            assert_eq!(found, all[..found.len()], "cut at {cut}");
            if bytes == new {
                assert_eq!(found.len(), all.len());
            }
            if cut % 8 == 0 {
                // What is written next is followed by nothing of the torn write.
                let store = open(crashed.path()).unwrap();
                let index = found.len() as u64;
                append(&store, vec![entry(2, index, b"next")]);
                drop(store);
                let after = contents_of(&recovered(crashed.path()).unwrap());
                assert_eq!(after.len(), found.len() + 1, "cut at {cut}");
                assert_eq!(after[found.len()], (log_id(2, index), b"next".to_vec()));
            }
        }
    }
}

/// A write of exactly the torn one's first record leaves its second record right behind: it must not count.
#[test]
fn a_whole_record_of_a_torn_write_does_not_follow_what_overwrote_its_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, vec![entry(1, 0, b"durable")]);
    append(&store, vec![entry(1, 1, b"first"), entry(1, 2, b"second")]);
    drop(store);
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let first = usize::try_from(SEGMENT_HEADER_LEN).unwrap() + padded_len(b"durable".len());
    bytes[first + 8] ^= 0xff;
    assert!(
        Record::decode(&bytes[first + padded_len(b"first".len())..]).is_some(),
        "the second one is whole"
    );
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(contents(&store).len(), 1);
    append(&store, vec![entry(2, 1, b"other")]);
    drop(store);
    let found = contents_of(&recovered(dir.path()).unwrap());
    assert_eq!(found.last().unwrap(), &(log_id(2, 1), b"other".to_vec()));
}

#[test]
fn damage_of_what_was_durable_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let one = padded_len(10);
    for i in 0..5 {
        append(&store, vec![entry(1, i, b"0123456789")]);
    }
    drop(store);
    let intact = std::fs::read(segment(dir.path(), 1)).unwrap();
    let start = usize::try_from(SEGMENT_HEADER_LEN).unwrap();
    for at in start..start + 4 * one {
        let padding = (at - start) % one >= 66;
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        let damaged = copy(dir.path());
        std::fs::write(segment(damaged.path(), 1), &bytes).unwrap();
        match recovered(damaged.path()) {
            Err(LogError::Corrupt { offset, .. }) => assert!(offset <= at as u64 && !padding),
            other => assert!(padding, "byte {at}: {:?}", other.map(|state| state.positions.len())),
        }
    }
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for i in 0..30 {
        append(&store, vec![entry(1, i, &[7; 2000])]);
    }
    drop(store);
    let count = SegmentFiles::open(dir.path(), SEGMENT, 2).unwrap().sequences().unwrap().len();
    assert!(count >= 4, "{count} segments");
    let missing = copy(dir.path());
    std::fs::remove_file(segment(missing.path(), 2)).unwrap();
    assert!(matches!(recovered(missing.path()), Err(LogError::Corrupt { .. })));
    // Records of a sealed segment that are gone were durable: the next segment is begun.
    let cut = copy(dir.path());
    let mut bytes = std::fs::read(segment(cut.path(), 1)).unwrap();
    bytes[8 << 10..].fill(0);
    std::fs::write(segment(cut.path(), 1), bytes).unwrap();
    assert!(matches!(recovered(cut.path()), Err(LogError::Corrupt { .. })));
    let files = SegmentFiles::open(dir.path(), SEGMENT, 2).unwrap();
    let foreign = recover(&files, NODE + 1, SEGMENT, TAIL).map(|found| found.0.positions.len());
    assert!(matches!(foreign, Err(LogError::WrongMember { found: NODE, .. })), "{foreign:?}");
}

/// A log whose first segment cannot be written.
pub(crate) fn broken(dir: &Path) -> LogStore {
    let files = SegmentFiles::open(dir, SEGMENT, 2).unwrap();
    let path = files.path(1);
    files.prepare(1).unwrap();
    let unwritable = SegmentFile::unwritable(1, path).unwrap();
    let state = LogState::new(NODE, SEGMENT, TAIL, 1);
    let writer = Writer::start(Arc::new(files), state, Some(unwritable)).unwrap();
    let lease = Arc::new(Lease::new(NODE, Duration::from_secs(1)));
    LogStore::on(writer, VoteFile::open(dir, NODE).unwrap(), lease)
}

#[test]
fn a_write_that_fails_is_never_reported_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = broken(dir.path());
    // All that fits the segment and the first of the next, which could be written.
    let submission = store.submit((0..6).map(|i| entry(1, i, &[7; 2000])).collect());
    let waited = block_on(store.durable(submission));
    assert!(matches!(waited, Err(LogError::Failed { .. })), "{waited:?}");
    assert!(block_on(store.failed()).contains("seg-0000000000000001"));
    let later = store.submit(vec![entry(1, 6, b"lost too")]);
    store.close();
    assert!(block_on(store.durable(later)).is_err(), "a log that failed takes nothing more");
    assert!(block_on(store.entry_durable(6)).is_err());
}

#[test]
fn an_append_to_a_log_that_fails_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = broken(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The only voter counts its own copy alone: it waits for it.
    let lost = runtime.block_on(store.blocking_append([entry(1, 0, b"lost")]));
    assert!(lost.is_err());
    let members = [1, 2, NODE].map(|id| (id, BasicNode::default()));
    store.set_base_membership(None, Membership::from(BTreeMap::from(members)));
    let later = runtime.block_on(store.blocking_append([entry(1, 1, b"lost too")]));
    assert!(later.is_err(), "one of several does not wait, but the log is known to have failed");
}

/// While a segment is begun the next one is prepared. What a crash leaves of the write that begins it was told to nobody.
#[test]
fn a_torn_first_write_of_a_segment_leaves_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for i in 0..5 {
        append(&store, vec![entry(1, i, &[7; 2000])]);
    }
    append(&store, (5..8).map(|i| entry(1, i, &[8; 2000])).collect());
    drop(store);
    let begun = std::fs::read(segment(dir.path(), 2)).unwrap();
    assert!(segment(dir.path(), 3).exists(), "the next one is prepared");
    let whole = contents_of(&recovered(dir.path()).unwrap());
    let header = usize::try_from(SEGMENT_HEADER_LEN).unwrap();
    // (where zeros are found instead of what was written, entries that are left)
    let second = header + padded_len(2000);
    for (lost, left) in
        [(0..begun.len(), 5), (0..header, 5), (header..header + 100, 5), (second + 100..begun.len(), 6)]
    {
        let crashed = copy(dir.path());
        let mut bytes = begun.clone();
        bytes[lost.clone()].fill(0);
        std::fs::write(segment(crashed.path(), 2), bytes).unwrap();
        assert_eq!(contents_of(&recovered(crashed.path()).unwrap()), whole[..left], "without {lost:?}");
        let store = open(crashed.path()).unwrap();
        append(&store, (left as u64..20).map(|i| entry(2, i, &[9; 2000])).collect());
        drop(store);
        let after = contents_of(&recovered(crashed.path()).unwrap());
        assert_eq!((&after[..left], after.len()), (&whole[..left], 20));
    }
}

#[test]
fn a_damaged_header_of_a_segment_in_use_is_no_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for i in 0..17 {
        append(&store, vec![entry(1, i, &[7; 2000])]);
    }
    drop(store);
    for (sequence, last) in [(1, 4), (2, 4), (3, 4), (4, 5), (4, 4)] {
        for at in [0, 8, 16, 24, 40, 44, 72] {
            let damaged = copy(dir.path());
            for beyond in last + 1..=5 {
                let _ = std::fs::remove_file(segment(damaged.path(), beyond));
            }
            let mut bytes = std::fs::read(segment(damaged.path(), sequence)).unwrap();
            bytes[at] ^= 1;
            std::fs::write(segment(damaged.path(), sequence), bytes).unwrap();
            let found = recovered(damaged.path()).map(|state| state.positions.len());
            assert!(matches!(found, Err(LogError::Corrupt { .. })), "byte {at} of {sequence}: {found:?}");
        }
    }
    // Of a segment written at once no record says that anything was durable; the one behind it does by being begun.
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, (0..8).map(|i| entry(1, i, &[7; 2000])).collect());
    drop(store);
    let mut bytes = std::fs::read(segment(dir.path(), 1)).unwrap();
    bytes[40] ^= 1;
    std::fs::write(segment(dir.path(), 1), bytes).unwrap();
    let found = recovered(dir.path()).map(|state| state.positions.len());
    assert!(matches!(found, Err(LogError::Corrupt { .. })), "{found:?}");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (dir, byte) in dirs.iter().zip([1, 2]) {
        let store = open(dir.path()).unwrap();
        append(&store, (0..8).map(|i| entry(1, i, &[byte; 2000])).collect());
    }
    std::fs::copy(segment(dirs[1].path(), 2), segment(dirs[0].path(), 2)).unwrap();
    assert!(matches!(recovered(dirs[0].path()), Err(LogError::Corrupt { .. })));
}

#[test]
fn damage_in_the_middle_of_a_write_is_told_by_what_was_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, (0..4).map(|i| entry(1, i, b"0123456789")).collect());
    append(&store, vec![entry(1, 4, b"0123456789")]);
    drop(store);
    let mut bytes = std::fs::read(segment(dir.path(), 1)).unwrap();
    bytes[usize::try_from(SEGMENT_HEADER_LEN).unwrap() + padded_len(10) + 60] ^= 1;
    std::fs::write(segment(dir.path(), 1), bytes).unwrap();
    assert!(matches!(recovered(dir.path()), Err(LogError::Corrupt { .. })));
}

#[test]
fn gaps_between_entries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, vec![entry(1, 0, b"first")]);
    drop(store);
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let start = usize::try_from(SEGMENT_HEADER_LEN).unwrap();
    let first = Record::decode(&bytes[start..]).unwrap();
    let place = Place { sequence: 1, previous: first.crc, durable_offset: 0 };
    let at = start + first.len();
    let (header, _) = encode_header(RecordType::Normal, log_id(1, 2), b"third", place);
    bytes[at..at + header.len()].copy_from_slice(&header);
    bytes[at + header.len()..at + header.len() + 5].copy_from_slice(b"third");
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(recovered(dir.path()), Err(LogError::Corrupt { .. })));

    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    block_on(store.clone().purge(log_id(1, 3))).unwrap();
    append(&store, vec![entry(1, 5, b"4 is missing")]);
    drop(store);
    assert!(matches!(recovered(dir.path()), Err(LogError::Corrupt { .. })));
}

#[test]
fn a_segment_that_was_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, vec![entry(1, 0, b"x"), entry(1, 1, &[7; 6000])]);
    drop(store);
    let path = segment(dir.path(), 1);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for len in [SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN + 4096, SEGMENT + 4096] {
        file.set_len(len).unwrap();
        let found = recovered(dir.path()).map(|state| state.positions.len());
        assert!(matches!(found, Err(LogError::Corrupt { .. })), "{len} bytes long: {found:?}");
    }
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, (0..30).map(|i| entry(1, i, &[7; 2000])).collect());
    drop(store);
    let all = SegmentFiles::open(dir.path(), SEGMENT, 2).unwrap().sequences().unwrap();
    assert!(all.len() >= 4, "{all:?}");
    for missing in [2, 3] {
        let crashed = copy(dir.path());
        std::fs::remove_file(segment(crashed.path(), missing)).unwrap();
        let Err(LogError::Corrupt { path, reason, .. }) = recovered(crashed.path()) else {
            panic!("segment {missing} is missing");
        };
        assert_eq!((path, reason), (segment(crashed.path(), missing), "the segment is missing"));
    }
}

/// Segments before it are deleted, so a segment says itself what was purged before it.
#[test]
fn what_a_segment_says_was_purged_before_it_stays_purged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, (0..6).map(|i| entry(1, i, &[7; 1000])).collect());
    block_on(store.clone().purge(log_id(1, 4))).unwrap();
    append(&store, (6..20).map(|i| entry(1, i, &[7; 2000])).collect());
    drop(store);
    let begun = std::fs::read(segment(dir.path(), 2)).unwrap();
    assert_eq!(SegmentHeader::decode(&begun).unwrap().purged, Some(log_id(1, 4)));

    // The header speaks of entries that are in the segment, too.
    let header = SegmentHeader { purged: Some(log_id(1, 5)), ..SegmentHeader::decode(&begun).unwrap() };
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = SegmentHeader { sequence: 1, ..header }.encode();
    let mut previous = header.chain;
    for index in 4..8 {
        let place = Place { sequence: 1, previous, durable_offset: 0 };
        let (record, crc) = encode_header(RecordType::Normal, log_id(1, index), b"payload!", place);
        bytes.extend([record.as_slice(), b"payload!"].concat());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        previous = crc;
    }
    bytes.resize(usize::try_from(SEGMENT).unwrap(), 0);
    std::fs::write(segment(dir.path(), 1), bytes).unwrap();
    let state = recovered(dir.path()).unwrap();
    assert_eq!((state.purged, state.first_index()), (Some(log_id(1, 5)), 6));
    assert_eq!(contents_of(&state).len(), 2);
}

/// A reused file holds the records of its former life, and one of them may happen to follow.
#[test]
fn a_record_of_another_segment_is_not_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, vec![entry(1, 0, b"first")]);
    drop(store);
    let path = segment(dir.path(), 1);
    let bytes = std::fs::read(&path).unwrap();
    let start = usize::try_from(SEGMENT_HEADER_LEN).unwrap();
    let first = Record::decode(&bytes[start..]).unwrap();
    let at = start + first.len();
    for (sequence, taken) in [(2, 1), (1, 2)] {
        let place = Place { sequence, previous: first.crc, durable_offset: 0 };
        let (header, _) = encode_header(RecordType::Normal, log_id(1, 1), b"second", place);
        let record = [header.as_slice(), b"second"].concat();
        let mut with = bytes.clone();
        with[at..at + record.len()].copy_from_slice(&record);
        std::fs::write(&path, &with).unwrap();
        assert_eq!(recovered(dir.path()).unwrap().positions.len(), taken, "a record of segment {sequence}");
    }
}

#[test]
fn a_prepared_segment_of_another_size_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(segment(dir.path(), 1), [0; 100]).unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, vec![entry(1, 0, b"x")]);
    drop(store);
    assert_eq!(contents_of(&recovered(dir.path()).unwrap()), [(log_id(1, 0), b"x".to_vec())]);
}

/// An entry that is read back from its segment is the one that was asked for.
#[test]
fn a_record_of_another_entry_is_not_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    append(&store, (0..5).map(|i| entry(1, i, &[7; 2000])).collect());
    let read = || block_on(store.clone().try_get_log_entries(0..1)).map_err(drop);
    assert_eq!(bytes_of(&read().unwrap()[0]), [7; 2000]);
    let place = Place { sequence: 1, previous: 0, durable_offset: 0 };
    let payload = [8; 2000];
    let (header, _) = encode_header(RecordType::Normal, log_id(9, 0), &payload, place);
    let file = std::fs::File::options().write(true).open(segment(dir.path(), 1)).unwrap();
    file.write_all_at(&[header.as_slice(), &payload].concat(), SEGMENT_HEADER_LEN).unwrap();
    assert!(read().is_err());
}

#[test]
fn an_entry_is_sent_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { node_id: NODE, segment_bytes: 16 << 20, spare_segments: 0, tail_bytes: TAIL };
    let lease = Arc::new(Lease::new(NODE, Duration::from_secs(1)));
    let store = LogStore::open(dir.path(), options, lease).unwrap();
    append(&store, vec![entry(1, 0, &[7; 5 << 20]), entry(1, 1, b"next")]);
    let sent = block_on(store.clone().limited_get_log_entries(0, 2)).unwrap();
    assert_eq!(sent.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_vote_ends_the_lease_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let lease = Arc::new(Lease::new(NODE, Duration::from_secs(1)));
    let options = LogOptions { node_id: NODE, segment_bytes: SEGMENT, spare_segments: 0, tail_bytes: TAIL };
    let mut store = LogStore::open(dir.path(), options, lease.clone()).unwrap();
    let members = Membership::from(BTreeMap::from([(1, BasicNode::default()), (NODE, BasicNode::default())]));
    let vote = Vote::new_committed(4, NODE);
    block_on(store.save_vote(&vote)).unwrap();
    let now = std::time::Instant::now();
    lease.answered(&vote, 1, now);
    assert!(lease.holder(now, &members).is_some());
    block_on(store.save_vote(&Vote::new(5, 1))).unwrap();
    lease.answered(&vote, 1, now);
    assert_eq!(lease.holder(now, &members), None);
}

#[test]
fn a_leader_that_lost_its_tail_does_not_lead_the_same_term_again() {
    let dir = tempfile::tempdir().unwrap();
    for (saved, found) in [
        (Vote::new_committed(4, NODE), Vote::new(4, NODE)),
        (Vote::new(5, NODE), Vote::new(5, NODE)),
        (Vote::new_committed(6, NODE + 1), Vote::new_committed(6, NODE + 1)),
    ] {
        block_on(open(dir.path()).unwrap().save_vote(&saved)).unwrap();
        assert_eq!(block_on(open(dir.path()).unwrap().read_vote()).unwrap(), Some(found));
    }
}

#[test]
fn the_effective_membership_follows_the_log() {
    let members = |ids: &[u64]| -> Membership {
        Membership::from(ids.iter().map(|id| (*id, BasicNode::default())).collect::<BTreeMap<_, _>>())
    };
    let change = |index, ids: &[u64]| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Membership(members(ids)),
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let voters =
        |store: &LogStore| store.effective_membership().map(|found| found.voter_ids().collect::<Vec<_>>());
    assert_eq!(voters(&store), None, "nothing is known");
    store.set_base_membership(None, members(&[1]));
    append(&store, vec![change(0, &[1, 2]), entry(1, 1, b"x"), change(2, &[1, 2, 3])]);
    assert_eq!(voters(&store), Some(vec![1, 2, 3]));
    block_on(store.clone().truncate(log_id(1, 2))).unwrap();
    assert_eq!(voters(&store), Some(vec![1, 2]));
    block_on(store.clone().purge(log_id(1, 1))).unwrap();
    assert_eq!(voters(&store), Some(vec![1, 2]), "its entry is gone, it counts");
    drop(store);
    let store = open(dir.path()).unwrap();
    store.set_base_membership(Some(0), members(&[1, 2]));
    assert_eq!(voters(&store), Some(vec![1, 2]));
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Truncate(u64),
    Purge(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(0..3000_usize, 1..5).prop_map(Step::Append),
        1 => (0..6_u64).prop_map(Step::Truncate),
        1 => (0..8_u64).prop_map(Step::Purge),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_log_is_what_a_simple_list_is(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        let mut model: BTreeMap<u64, (LogId, Vec<u8>)> = BTreeMap::new();
        let (mut next, mut term, mut purged) = (0_u64, 1, None);
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let entries: Vec<_> = sizes.iter().zip(next..).map(|(size, index)| {
                        entry(term, index, &vec![u8::try_from(index % 256).unwrap(); *size])
                    }).collect();
                    model.extend(entries.iter().map(|entry| (entry.log_id.index, (entry.log_id, bytes_of(entry)))));
                    next += entries.len() as u64;
                    append(&store, entries);
                }
                Step::Truncate(back) => {
                    let from = next.saturating_sub(back).max(purged.map_or(0, |id: LogId| id.index + 1));
                    if from < next {
                        block_on(store.truncate(model[&from].0)).unwrap();
                        model.split_off(&from);
                        (next, term) = (from, term + 1);
                    }
                }
                Step::Purge(ahead) => {
                    let first = model.keys().next().copied();
                    if let Some((_, (id, _))) = first.and_then(|first| model.range(..=first + ahead).next_back()) {
                        let id = *id;
                        block_on(store.purge(id)).unwrap();
                        model = model.split_off(&(id.index + 1));
                        purged = Some(id);
                    }
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path()).unwrap();
                }
            }
            prop_assert_eq!(contents(&store), model.values().cloned().collect::<Vec<_>>());
            let found = block_on(store.get_log_state()).unwrap();
            prop_assert_eq!(found.last_purged_log_id, purged);
            prop_assert_eq!(found.last_log_id, model.values().next_back().map(|last| last.0).or(purged));
        }
        let live: usize = model.values().map(|(_, bytes)| padded_len(bytes.len())).sum();
        drop(store);
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        // Live entries, what was truncated among them, one segment in use, one prepared, two spares, the vote.
        let bound = live / 4096 + 40;
        prop_assert!(files <= bound, "{} files for {} live bytes", files, live);
    }
}
