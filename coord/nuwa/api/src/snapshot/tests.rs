//! What a writer wrote is read, and nothing else is.

use proptest::prelude::*;

use super::*;

fn record(path: &str, value: &str) -> SnapshotRecord {
    let (version, created, modified) = if path == "/" { (1, 0, 0) } else { (1, 1, 1) };
    SnapshotRecord {
        path: path.to_owned(),
        value: value.to_owned().into(),
        version,
        created,
        modified,
        ..SnapshotRecord::default()
    }
}

fn header() -> SnapshotHeader {
    SnapshotHeader { revision: 9, next_session: 4, cluster: "test".to_owned(), ..SnapshotHeader::default() }
}

fn blocks() -> Vec<Vec<SnapshotRecord>> {
    vec![
        vec![record("/", ""), record("/a", "one"), record("/d/", "")],
        vec![record("/e/", "")],
        vec![record("/d/x", "two"), record("/d/y", "")],
    ]
}

fn write(blocks: Vec<Vec<SnapshotRecord>>) -> Result<(Vec<u8>, Contents), SnapshotError> {
    let mut writer = Writer::new(Vec::new(), header())?;
    for records in blocks {
        writer.add(records)?;
    }
    writer.finish()
}

fn good() -> Vec<u8> {
    write(blocks()).unwrap().0
}

/// Where each block begins, and where the last one ends.
fn places(file: &[u8]) -> Vec<usize> {
    let mut places = vec![START_LEN];
    while let Some(at) = places.last().copied().filter(|at| *at < file.len()) {
        let len = u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        places.push(at + BLOCK_HEAD_LEN + len);
    }
    places
}

/// Which block is wrong, and how.
fn fault(file: &[u8]) -> (u64, u64, BlockFault) {
    match verify(file) {
        Err(SnapshotError::Block { number, at, fault }) => (number, at, fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_read() {
    let (file, written) = write(blocks()).unwrap();
    assert_eq!(verify(&file[..]).unwrap(), written);
    assert_eq!((written.directories, written.files, written.value_bytes, written.records), (2, 3, 6, 6));
    assert_eq!((written.file_bytes, written.header), (file.len() as u64, header()));
    let mut reader = Reader::new(&file[..]).unwrap();
    let mut read = Vec::new();
    while let Some(records) = reader.next_block().unwrap() {
        read.push(records);
    }
    assert_eq!(read, blocks());
    assert_eq!(reader.next_block().unwrap(), None, "as often as it is asked");
}

/// The first bytes are a format: they may not change without a new version.
#[test]
fn the_start_is_what_the_byte_map_says() {
    let file = good();
    assert_eq!(&file[..12], b"NUWASNAP\x01\0\0\0");
    assert_eq!(file[12..16], crc32c::crc32c(&file[..12]).to_le_bytes());
    let len = u32::from_le_bytes(file[16..20].try_into().unwrap()) as usize;
    assert_eq!(
        file[20..24],
        crc32c::crc32c_append(crc32c::crc32c(&file[16..20]), &file[24..24 + len]).to_le_bytes()
    );
}

#[test]
fn every_flipped_bit_is_found_in_its_block() {
    let file = good();
    let places = places(&file);
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            let error = verify(&bad[..]).unwrap_err();
            let block = places.iter().rposition(|place| *place <= at);
            match (block, error) {
                (None, SnapshotError::NotASnapshot) => assert!(at < 8),
                (None, SnapshotError::Start) => assert!(at >= 8),
                (Some(block), SnapshotError::Block { number, at, fault }) => {
                    assert_eq!((number, at), (block as u64, places[block] as u64), "{fault}");
                }
                (block, error) => panic!("byte {at}, block {block:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let file = good();
    let places = places(&file);
    for len in 0..file.len() {
        let error = verify(&file[..len]).unwrap_err();
        if len == 0 {
            assert!(matches!(error, SnapshotError::NotASnapshot));
        } else if len < START_LEN {
            assert!(matches!(error, SnapshotError::Start), "{len}: {error}");
        } else {
            let block = places.iter().rposition(|place| *place <= len).unwrap();
            assert_eq!(fault(&file[..len]), (block as u64, places[block] as u64, BlockFault::CutOff));
        }
    }
}

#[test]
fn blocks_that_are_swapped_missing_or_another_snapshots_are_refused() {
    let file = good();
    let places = places(&file);
    let block = |n: usize| &file[places[n]..places[n + 1]];
    let of = |order: &[usize]| {
        let parts = order.iter().flat_map(|n| block(*n).iter().copied());
        file[..START_LEN].iter().copied().chain(parts).collect::<Vec<u8>>()
    };
    let last = places.len() - 2;
    assert_eq!(of(&[0, 1, 2, 3, last]), file);
    for (order, at, found) in [
        (vec![0, 2, 1, 3, 4], 1, 2),
        (vec![0, 1, 3, 4], 2, 3),
        (vec![0, 1, 1, 2, 3, 4], 2, 1),
        (vec![0, 4], 1, 4),
        (vec![1, 2, 3, 4], 0, 1),
    ] {
        let (number, _, fault) = fault(&of(&order));
        assert_eq!((number, fault), (at, BlockFault::Number { found }), "{order:?}");
    }
    assert_eq!(fault(&[&file[..], b"x"].concat()).2, BlockFault::BehindTheEnd);
    let other = write(vec![blocks()[0].clone(), vec![record("/f/", "")], blocks()[2].clone()]).unwrap().0;
    let other_places = super::tests::places(&other);
    let mixed = [&file[..places[3]], &other[other_places[3]..]].concat();
    let (number, at, fault) = fault(&mixed);
    assert_eq!((number, at, fault), (3, places[3] as u64, BlockFault::Previous));
}

#[test]
fn another_version_and_other_files_are_told_from_damage() {
    let mut file = good();
    file[8] = 7;
    let crc = crc32c::crc32c(&file[..12]).to_le_bytes();
    file[12..16].copy_from_slice(&crc);
    let told = verify(&file[..]).unwrap_err().to_string();
    assert_eq!(told, "the snapshot is of version 7, and this program reads version 1: use a newer program");
    let told = verify(&b"#!/bin/sh\n"[..]).unwrap_err().to_string();
    assert_eq!(told, "this is no snapshot of Nuwa: it does not begin with NUWASNAP");
}

/// Before writing as after reading.
#[test]
fn what_is_no_tree_is_not_written() {
    let wrong = |records: Vec<SnapshotRecord>| match write(vec![records]) {
        Err(SnapshotError::Block { number: 1, fault, .. }) => fault.to_string(),
        other => panic!("{other:?}"),
    };
    let root = || record("/", "");
    assert_eq!(wrong(vec![record("/a", "")]), "the first entry must be the root");
    assert_eq!(wrong(vec![root(), root()]), "/ is out of order, or comes twice");
    assert_eq!(wrong(vec![root(), record("/b", ""), record("/a", "")]), "/a is out of order, or comes twice");
    assert_eq!(
        wrong(vec![root(), record("/d/x", "")]),
        "/d/x is in a directory that does not come before it"
    );
    let both = vec![root(), record("/a", ""), record("/a!", ""), record("/a/", "")];
    assert_eq!(wrong(both), "/a/ is there as a file, too");
    assert!(wrong(vec![root(), record("a", "")]).contains("a path begins with /"));
    assert!(wrong(vec![root(), record("/d/", "value")]).contains("has a value"));
    assert!(wrong(vec![root(), SnapshotRecord { modified: 10, ..record("/a", "") }]).contains("revision"));
    assert!(wrong(vec![root(), SnapshotRecord { version: 0, ..record("/a", "") }]).contains("version 0"));
    let large = SnapshotRecord { value: vec![0; (1 << 20) + 1].into(), ..record("/a", "") };
    let large = write(vec![vec![root()], vec![large]]).unwrap_err().to_string();
    assert!(large.contains("at most 1048576"), "{large}");
    let many: Vec<_> = (0..1001).map(|n| record(&format!("/{n:04}"), "")).collect();
    assert_eq!(wrong(many), "it has more than a block may have");
    assert_eq!(verify(&write(Vec::new()).unwrap().0[..]).unwrap_err().to_string(), {
        "block 1 of the snapshot, at byte ".to_owned()
            + &places(&write(Vec::new()).unwrap().0)[1].to_string()
            + ", is wrong: the first entry must be the root"
    });
}

/// The largest blocks that can be are written and read.
#[test]
fn the_largest_blocks_go_through() {
    let value = bytes::Bytes::from(vec![7; 1 << 20]);
    let name = |n: usize| format!("/{n:0>255}");
    let far = u64::MAX >> 1;
    let busy = |n| SnapshotRecord {
        version: far,
        created: far,
        modified: far,
        modified_unix_nanos: u64::MAX,
        ..record(&name(n), &"v".repeat(700))
    };
    let header = SnapshotHeader { revision: far, ..header() };
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    writer.add(vec![record("/", "")]).unwrap();
    writer.add((0..1000).map(busy).collect()).unwrap();
    writer.add(vec![SnapshotRecord { value, ..record("/z", "") }]).unwrap();
    let (file, contents) = writer.finish().unwrap();
    assert_eq!(verify(&file[..]).unwrap(), contents);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_tree_goes_through_a_file(
        names in proptest::collection::btree_set("(/[a-c!]{1,2}){1,3}", 0..40), cut in 1..20_usize,
    ) {
        // Names with others below them are directories.
        let mut paths: Vec<nuwa_model::Path> = vec![nuwa_model::Path::root()];
        for name in &names {
            let file = nuwa_model::Path::new(name.as_str()).unwrap();
            for directory in file.ancestors().skip(1) {
                paths.push(nuwa_model::Path::new(directory).unwrap());
            }
            let is_directory = names.iter().any(|other| other.starts_with(&format!("{name}/")));
            if !is_directory {
                paths.push(file);
            }
        }
        paths.sort_by(|a, b| a.split().cmp(&b.split()));
        paths.dedup();
        let records: Vec<_> = paths.iter().map(|path| record(path.as_str(), "")).collect();
        let blocks: Vec<Vec<_>> = records.chunks(cut).map(<[_]>::to_vec).collect();
        let (file, written) = write(blocks.clone()).unwrap();
        prop_assert_eq!(verify(&file[..]).unwrap(), written);
        let mut reader = Reader::new(&file[..]).unwrap();
        for records in blocks {
            prop_assert_eq!(reader.next_block().unwrap(), Some(records));
        }
        prop_assert_eq!(reader.next_block().unwrap(), None);
    }
}
