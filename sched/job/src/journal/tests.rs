//! The journal's bytes: what is written is read, a torn end is cut, damage before the end is an error.

use proptest::prelude::*;

use super::*;
use crate::{Cause, JobOutcome, Outputs, TaskId, Time};

fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
    prop::collection::vec((0_u32..1000, 1_u32..1000), 0..20).prop_map(|steps| {
        let mut before = 0;
        let step = |(gap, len)| {
            let range = (before + gap, before + gap + len);
            before = range.1;
            range
        };
        steps.into_iter().map(step).collect()
    })
}

fn outcome() -> impl Strategy<Value = JobOutcome> {
    prop_oneof![
        Just(JobOutcome::Done),
        ".{0,40}".prop_map(|reason| JobOutcome::Failed { reason }),
        ".{0,40}".prop_map(|by| JobOutcome::Killed { by }),
    ]
}

fn outputs() -> impl Strategy<Value = Outputs> {
    prop::collection::vec(any::<u32>(), 0..=crate::record::GANG_MAX).prop_map(|counts| {
        let mut outputs = Outputs::none(counts.len()).unwrap();
        for (member, count) in counts.into_iter().enumerate() {
            outputs.set(member, count);
        }
        outputs
    })
}

fn record() -> impl Strategy<Value = Record> {
    let cause = prop_oneof![
        any::<i32>().prop_map(Cause::Exit),
        any::<i32>().prop_map(Cause::Signal),
        Just(Cause::Timeout),
        Just(Cause::OutOfMemory),
        Just(Cause::NoSuchProgram),
        Just(Cause::Nonsense),
    ];
    prop_oneof![
        (any::<u32>(), any::<u64>()).prop_map(|(generation, at)| Record::Opened { generation, at: Time(at) }),
        (any::<(u32, u32, u64, u64)>(), outputs(), ranges()).prop_map(|(n, outputs, ranges)| Record::Won {
            task: TaskId(n.0),
            attempt: n.1,
            outputs,
            ranges,
            bytes: n.2,
            mean_ms: n.3,
        }),
        (any::<u32>(), ranges()).prop_map(|(task, ranges)| Record::Placed { task: TaskId(task), ranges }),
        (any::<(u32, u32, bool)>(), cause, ".{0,60}").prop_map(|(n, cause, text)| Record::Failed {
            task: TaskId(n.0),
            instance: n.1,
            cause,
            for_good: n.2,
            text,
        }),
        any::<(u32, u32, bool)>().prop_map(|n| Record::Lost {
            task: TaskId(n.0),
            instance: n.1,
            for_good: n.2
        }),
        any::<(u32, u32)>().prop_map(|n| Record::Reopened { task: TaskId(n.0), instance: n.1 }),
        Just(Record::Paused),
        Just(Record::Resumed),
        outcome().prop_map(|outcome| Record::Closing { outcome }),
        outcome().prop_map(|outcome| Record::Ended { outcome }),
    ]
}

fn appends() -> impl Strategy<Value = Vec<Vec<Record>>> {
    prop::collection::vec(prop::collection::vec(record(), 1..6), 1..6)
}

/// The file, and where each frame begins.
fn file(appends: &[Vec<Record>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = header(7).to_vec();
    let mut starts = Vec::new();
    for (number, records) in appends.iter().enumerate() {
        starts.push(bytes.len());
        bytes.extend(frame(number as u32, records));
    }
    (bytes, starts)
}

proptest! {
    #[test]
    fn what_is_written_is_read(appends in appends()) {
        let (bytes, starts) = file(&appends);
        let journal = read(&bytes, 7).unwrap();
        prop_assert_eq!(journal.records, appends.concat());
        prop_assert_eq!(journal.len_bytes, bytes.len());
        prop_assert_eq!(journal.next_frame as usize, starts.len());
    }

    #[test]
    fn a_torn_end_is_cut_to_the_last_whole_frame(appends in appends(), at: prop::sample::Index, zeros in 0_usize..50) {
        let (mut bytes, starts) = file(&appends);
        let end = HEADER_LEN_BYTES + at.index(bytes.len() - HEADER_LEN_BYTES);
        let whole = starts.iter().skip(1).chain([&bytes.len()]).filter(|start| **start <= end).count();
        bytes.truncate(end);
        bytes.extend(vec![0; zeros]);
        let journal = read(&bytes, 7).unwrap();
        // A frame whose last bytes are zeros is whole when zeros follow.
        prop_assert!(journal.next_frame as usize >= whole);
        prop_assert_eq!(&journal.records, &appends[..journal.next_frame as usize].concat());
        if zeros == 0 {
            prop_assert_eq!(journal.next_frame as usize, whole);
        }
    }

    #[test]
    fn a_changed_bit_is_found(appends in appends(), at: prop::sample::Index, bit in 0_u32..8) {
        let (mut bytes, starts) = file(&appends);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match read(&bytes, 7) {
            // Only in the last frame, which then counts as torn.
            Ok(journal) => {
                prop_assert!(at >= *starts.last().unwrap());
                prop_assert_eq!(journal.records, appends[..appends.len() - 1].concat());
                prop_assert_eq!(journal.len_bytes, *starts.last().unwrap());
            }
            Err(JournalError::Damaged { offset, next }) => {
                prop_assert!(offset <= at && at < next);
            }
            Err(error) => prop_assert!(at < HEADER_LEN_BYTES, "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), with_header: bool) {
        let mut file = if with_header { header(7).to_vec() } else { Vec::new() };
        file.extend(&bytes);
        let _ = read(&file, 7);
        let _ = codec::decode_all(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same(bytes in prop::collection::vec(0_u8..12, 0..30)) {
        if let Some(records) = codec::decode_all(&bytes) {
            let mut again = Vec::new();
            for record in &records {
                codec::encode(record, &mut again);
            }
            prop_assert_eq!(codec::decode_all(&again), Some(records));
        }
    }
}

#[test]
fn frames_out_of_order_and_other_plans_are_refused() {
    let mut bytes = header(7).to_vec();
    bytes.extend(frame(0, &[Record::Paused]));
    bytes.extend(frame(0, &[Record::Paused]));
    assert_eq!(read(&bytes, 7), Err(JournalError::Sequence { offset: 41, found: 0, expected: 1 }));
    assert_eq!(read(&header(8), 7), Err(JournalError::Plan { found: 8, expected: 7 }));
    assert_eq!(read(b"a text of somebody", 7), Err(JournalError::Magic));
    assert_eq!(read(&header(7)[..10], 7).unwrap().len_bytes, 0);
    assert_eq!(read(&[0; 100], 7).unwrap().len_bytes, 0);
    assert_eq!(read(&[], 7).unwrap().len_bytes, 0);
}

#[test]
fn ten_thousand_winners_in_a_row_take_a_few_bytes() {
    let outputs = Outputs::none(1).unwrap();
    let won =
        Record::Won { task: TaskId(0), attempt: 0, outputs, ranges: vec![(0, 10_000)], bytes: 0, mean_ms: 3 };
    assert!(frame(0, &[won]).len() < 32);
}
