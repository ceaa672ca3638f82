//! Whole jobs over random data against the simplest model there is: a stable sort of a vector.

mod common;

use common::{Job, input, lines, shell, tiny, with_control};
use proptest::prelude::*;
use sched_shuffle::{Boundaries, Format, Key, Partitioner, RecordSpec, SampleTask, sample};

/// Bytes with many newlines, few distinct letters, NULs, now and then a long line, often no newline at the end.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![4 => Just(b'\n'), 8 => b'a'..b'd', 2 => Just(b','), 1 => Just(0), 1 => any::<u8>()];
    let short = prop::collection::vec(byte, 0..300);
    let long = (1..2000_usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    prop_oneof![8 => short, 1 => long]
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Whole),
        (0..3_u32).prop_map(|number| Key::Field { separator: b',', number }),
        (0..4_u32, 0..12_u32).prop_map(|(start, len)| Key::Bytes { start, len }),
    ]
}

fn partitioner() -> impl Strategy<Value = Partitioner> {
    prop_oneof![
        (1..5_u32).prop_map(Partitioner::Hash),
        prop::collection::vec(prop::collection::vec(b'a'..b'd', 0..10), 0..4)
            .prop_map(|keys| Partitioner::Range(Boundaries::new(keys))),
    ]
}

/// What each partition must hold: its records in the order of the input, sorted stably by key.
fn model(job: &Job, records: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new(); job.partitioner.count() as usize];
    for record in records {
        let partition = job.partitioner.partition(job.spec.key_of(&record));
        parts[partition.0 as usize].push(record);
    }
    parts
        .into_iter()
        .map(|mut part| {
            part.sort_by(|a, b| job.spec.key_of(a).cmp(job.spec.key_of(b)));
            part.concat()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn lines_are_sorted_stably(
        contents in prop::collection::vec(text(), 1..4),
        key in key(),
        partitioner in partitioner(),
        (memory, block) in (2500..6000_usize, 1..200_usize),
        split_bytes in 1..500_u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spec = RecordSpec { format: Format::Lines, key };
        let job = Job { spec, partitioner, split_bytes: split_bytes.max(20), ..Job::new(tiny(memory, block)) };
        prop_assert_eq!(job.run(dir.path(), &contents).unwrap(), model(&job, lines(&contents)));
    }

    #[test]
    fn fixed_records_are_sorted_stably(
        record_len in 1..30_u32,
        counts in prop::collection::vec(0..40_usize, 1..4),
        bytes in prop::collection::vec(b'a'..b'c', 1200),
        key in key(),
        partitioner in partitioner(),
        (memory, block) in (100..2000_usize, 1..100_usize),
        split_bytes in 10..500_u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spec = RecordSpec { format: Format::Fixed(record_len), key };
        let contents: Vec<_> = counts.iter().map(|count| bytes[..count * record_len as usize].to_vec()).collect();
        let job = Job { spec, partitioner, split_bytes, ..Job::new(tiny(memory, block)) };
        let records = contents.iter().flat_map(|c| c.chunks(record_len as usize).map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(job.run(dir.path(), &contents).unwrap(), model(&job, records));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Programs in between, against the same tools on all the input at once.
    #[test]
    fn uniq_counts_what_was_mapped(contents in prop::collection::vec(text(), 1..3)) {
        let dir = tempfile::tempdir().unwrap();
        let job = Job {
            split_bytes: 200,
            mapper: Some(shell(dir.path(), "cat")),
            reducer: Some(shell(dir.path(), "uniq -c")),
            ..Job::new(tiny(4000, 64))
        };
        let got = job.run(dir.path(), &contents).unwrap();
        let all = input(dir.path(), "all", &lines(&contents).concat());
        let sort = std::process::Command::new("/bin/sh").env("LC_ALL", "C").args(["-c", "sort \"$1\" | uniq -c", "sh"]).arg(&all.path).output().unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&got[0]), String::from_utf8_lossy(&sort.stdout));
    }
}

/// More entries than one bucket, so that the pass by prefix and the threads have something to do.
#[test]
fn many_records_are_sorted_by_buckets() {
    let dir = tempfile::tempdir().unwrap();
    let mut x = 1_u64;
    let mut text = Vec::new();
    for i in 0..60_000 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.extend_from_slice(format!("{},{}{}\n", x >> 60, x >> 40, i % 7).as_bytes());
    }
    for key in [Key::Whole, Key::Field { separator: b',', number: 0 }, Key::Bytes { start: 0, len: 11 }] {
        let dir = tempfile::tempdir_in(dir.path()).unwrap();
        let job = Job {
            spec: RecordSpec { format: Format::Lines, key },
            split_bytes: 500_000,
            ..Job::new(tiny(1 << 20, 4096))
        };
        assert!(
            job.run(dir.path(), &[text.clone()]).unwrap() == model(&job, lines(&[text.clone()])),
            "{key:?}"
        );
    }
}

#[test]
fn a_combiner_may_change_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let sum = r#"awk -F, '{n[$1] += $2} END {for (k in n) print k "," n[k]}'"#;
    let job = Job {
        spec: RecordSpec { format: Format::Lines, key: Key::Field { separator: b',', number: 0 } },
        partitioner: Partitioner::Hash(3),
        combiner: Some(shell(dir.path(), sum)),
        reducer: Some(shell(dir.path(), &format!("{sum} | sort"))),
        split_bytes: 2000,
        ..Job::new(tiny(3000, 512))
    };
    let text: String = (0..1000).map(|i| format!("{},{}\n", (i * 7) % 13, i)).collect();
    let mut got: Vec<_> = job
        .run(dir.path(), &[text.into_bytes()])
        .unwrap()
        .concat()
        .split_inclusive(|b| *b == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    got.sort();
    let mut sums = [0; 13];
    (0..1000).for_each(|i| sums[(i * 7) % 13] += i);
    let mut wanted: Vec<_> =
        sums.iter().enumerate().map(|(k, n)| format!("{k},{n}\n").into_bytes()).collect();
    wanted.sort();
    assert_eq!(got, wanted);
}

#[test]
fn a_sample_makes_even_partitions_and_always_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let text: String =
        (0..20_000_u64).map(|i| format!("{:08x}\n", i.wrapping_mul(2_654_435_761) as u32)).collect();
    let task = SampleTask {
        inputs: vec![input(dir.path(), "in", text.as_bytes())],
        input_format: Format::Lines,
        spec: common::LINES,
        mapper: Some(shell(dir.path(), "tr a-f A-F")),
        partitions: 8,
        samples: 800,
        limits: tiny(1 << 20, 1024),
    };
    let boundaries = with_control(|control| sample(&task, control)).unwrap();
    assert_eq!(with_control(|control| sample(&task, control)).unwrap(), boundaries);
    let partitioner = Partitioner::Range(boundaries);
    assert_eq!(partitioner.count(), 8);
    let mut sizes = [0; 8];
    text.to_uppercase()
        .lines()
        .for_each(|line| sizes[partitioner.partition(line.as_bytes()).0 as usize] += 1);
    assert!(sizes.iter().all(|size| (1250..=5000).contains(size)), "{sizes:?}");
}
