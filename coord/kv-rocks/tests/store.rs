//! The store keeps what `Kv` promises, on a real RocksDB.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use coord_kv::{Batch, Durability, Family, FamilySpec, Kv, KvError, Range, Read};
use coord_kv_rocks::{LogUse, OpenError, RocksKv, RocksOptions};

const FAMILIES: &[FamilySpec] = &[
    FamilySpec { name: "a", bloom: true, prefix_len_bytes: Some(2) },
    FamilySpec { name: "b", bloom: false, prefix_len_bytes: None },
];
const A: Family = Family(0);
const B: Family = Family(1);

fn open(dir: &std::path::Path) -> RocksKv {
    let options = RocksOptions { log: LogUse::Elsewhere, ..RocksOptions::default() };
    RocksKv::open(dir, FAMILIES, &options).unwrap()
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(family, key, value);
    batch
}

fn keys(kv: &dyn Read, family: Family, range: &Range) -> Vec<Vec<u8>> {
    kv.scan(family, range, 100).unwrap().into_iter().map(|pair| pair.0).collect()
}

#[test]
fn scans_cross_prefixes_and_stay_in_range_before_and_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    for key in [b"aa1".as_slice(), b"aa2", b"ab1", b"b", b"ba1", b"\xff\xff9"] {
        kv.write(put(A, key, b"v"), Durability::Unlogged).unwrap();
    }
    for round in 0..2 {
        assert_eq!(keys(&kv, A, &Range::prefix(b"")).len(), 6, "round {round}");
        assert_eq!(keys(&kv, A, &Range::prefix(b"aa")), [b"aa1", b"aa2"], "round {round}");
        assert_eq!(keys(&kv, A, &Range::prefix(b"a")), [b"aa1", b"aa2", b"ab1"], "round {round}");
        assert_eq!(keys(&kv, A, &Range::prefix(b"aa").after(b"aa1")), [b"aa2"], "round {round}");
        let across = Range { start: b"aa2".to_vec(), end_exclusive: Some(b"ac".to_vec()) };
        assert_eq!(keys(&kv, A, &across), [b"aa2", b"ab1"], "round {round}");
        assert_eq!(keys(&kv, A, &Range::prefix(b"\xff\xff")), [b"\xff\xff9"], "round {round}");
        assert_eq!(keys(&kv, B, &Range::prefix(b"")).len(), 0, "round {round}");
        assert_eq!(kv.scan(A, &Range::prefix(b""), 2).unwrap().len(), 2);
        kv.flush().unwrap();
    }
}

#[test]
fn a_range_without_end_takes_what_the_same_batch_put() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(put(A, b"a", b"1"), Durability::Synced).unwrap();
    let mut batch = put(A, b"zz", b"2");
    batch.delete_range(A, Range { start: b"b".to_vec(), end_exclusive: None });
    batch.put(A, b"y", b"3".as_slice());
    batch.delete_range(B, Range { start: b"b".to_vec(), end_exclusive: None });
    kv.write(batch, Durability::Synced).unwrap();
    assert_eq!(keys(&kv, A, &Range::prefix(b"")), [b"a", b"y"]);
}

#[test]
fn a_second_opener_is_told_about_the_lock_and_a_reopen_finds_all() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(put(A, b"k", b"v"), Durability::Logged).unwrap();
    let error = RocksKv::open(dir.path(), FAMILIES, &RocksOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }) && error.retryable(), "{error}");
    assert!(error.to_string().contains("locked by another process"), "{error}");
    drop(kv);
    assert_eq!(open(dir.path()).get(A, b"k").unwrap().as_deref(), Some(b"v".as_slice()));
}

/// The process dies without closing: what a copy of the directory holds at that moment is what a crash leaves.
fn crashed_copy(from: &std::path::Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

#[test]
fn what_survives_of_mixed_writes_is_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(put(A, b"1", b"v"), Durability::Synced).unwrap();
    kv.write(put(B, b"2", b"v"), Durability::Unlogged).unwrap();
    kv.write(put(A, b"3", b"v"), Durability::Logged).unwrap();
    let crashed = crashed_copy(dir.path());
    let after = open(crashed.path());
    assert_eq!(keys(&after, A, &Range::prefix(b"")), [b"1"], "the logged write overtook the unlogged one");
    assert_eq!(keys(&after, B, &Range::prefix(b"")).len(), 0);

    kv.write(put(A, b"4", b"v"), Durability::Synced).unwrap();
    let crashed = crashed_copy(dir.path());
    let after = open(crashed.path());
    assert_eq!(keys(&after, A, &Range::prefix(b"")), [b"1", b"3", b"4"]);
    assert_eq!(keys(&after, B, &Range::prefix(b"")), [b"2"]);
}

#[test]
fn a_flush_makes_unlogged_writes_of_all_families_durable() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(put(A, b"1", b"v"), Durability::Unlogged).unwrap();
    kv.write(put(B, b"1", b"v"), Durability::Unlogged).unwrap();
    kv.flush().unwrap();
    kv.write(put(B, b"2", b"v"), Durability::Unlogged).unwrap();
    let crashed = crashed_copy(dir.path());
    let after = open(crashed.path());
    assert_eq!(keys(&after, A, &Range::prefix(b"")).len(), 1);
    assert_eq!(keys(&after, B, &Range::prefix(b"")), [b"1"]);
}

/// The store flushes by itself when memory runs short; a family that is full then takes the others along.
#[test]
fn what_survives_of_unlogged_writes_is_one_moment_of_all_families() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        RocksOptions { log: LogUse::Elsewhere, write_buffer_bytes: 1 << 20, ..RocksOptions::default() };
    let kv = RocksKv::open(dir.path(), FAMILIES, &options).unwrap();
    let mut written = 0_u32;
    while kv.table_bytes() == 0 {
        written += 1;
        kv.write(put(A, &written.to_be_bytes(), &[1; 8192]), Durability::Unlogged).unwrap();
        kv.write(put(B, &written.to_be_bytes(), b"v"), Durability::Unlogged).unwrap();
    }
    let after = open(crashed_copy(dir.path()).path());
    let count = |family| after.scan(family, &Range::prefix(b""), written as usize).unwrap().len();
    let (a, b) = (count(A), count(B));
    assert!(a > 0 && (a == b || a == b + 1), "{a} of one family and {b} of the other");
}

#[test]
fn a_checkpoint_holds_unlogged_writes_and_not_what_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(&dir.path().join("live"));
    kv.write(put(A, b"1", b"v"), Durability::Unlogged).unwrap();
    let copy = dir.path().join("copy");
    kv.checkpoint(&copy).unwrap();
    kv.write(put(A, b"2", b"v"), Durability::Unlogged).unwrap();
    assert!(keys(&kv, A, &Range::prefix(b"")).len() == 2);
    assert_eq!(keys(&open(&copy), A, &Range::prefix(b"")), [b"1"]);
    assert!(kv.checkpoint(&copy).is_err(), "an existing directory is not overwritten");
}

#[test]
fn the_log_is_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        RocksOptions { wal_max_bytes: 1 << 20, write_buffer_bytes: 1 << 20, ..RocksOptions::default() };
    let kv = RocksKv::open(dir.path(), FAMILIES, &options).unwrap();
    let inodes = || -> std::collections::BTreeSet<u64> {
        use std::os::unix::fs::MetadataExt;
        let logs = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        let logs = logs.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
        logs.map(|entry| entry.metadata().unwrap().ino()).collect()
    };
    let mut seen = inodes();
    for i in 0..64_u32 {
        kv.write(put(B, &i.to_be_bytes(), &vec![7; 256 << 10]), Durability::Logged).unwrap();
        seen.extend(inodes());
    }
    let written_logs = 64 / 4;
    assert!(seen.len() < written_logs, "{} log files were made for about {written_logs} logs", seen.len());
}

#[test]
fn a_synced_write_through_the_own_log_survives_a_crash_with_all_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), FAMILIES, &RocksOptions::default()).unwrap();
    kv.write(put(A, b"1", b"v"), Durability::Unlogged).unwrap();
    kv.write(put(B, b"2", b"v"), Durability::Logged).unwrap();
    kv.write(put(B, b"3", b"v"), Durability::Synced).unwrap();
    let crashed = crashed_copy(dir.path());
    let after = RocksKv::open(crashed.path(), FAMILIES, &RocksOptions::default()).unwrap();
    assert_eq!(keys(&after, A, &Range::prefix(b"")), [b"1"]);
    assert_eq!(keys(&after, B, &Range::prefix(b"")), [b"2", b"3"]);
}

#[test]
fn families_have_names_of_their_own_and_fit_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let family = |name| FamilySpec { name, bloom: false, prefix_len_bytes: None };
    let open = |families: &[FamilySpec]| RocksKv::open(dir.path(), families, &RocksOptions::default());
    let twice = open(&[family("a"), family("b"), family("a")]);
    assert!(matches!(twice, Err(OpenError::DuplicateFamily { name: "a", .. })), "{twice:?}");
    let names: Vec<&'static str> = (0..256).map(|n| &*format!("f{n}").leak()).collect();
    let many: Vec<_> = names.iter().map(|name| family(name)).collect();
    assert!(matches!(open(&many), Err(OpenError::TooManyFamilies { count: 256 })));
}

/// Damage is told from a disk that failed: it needs a person, not patience.
#[test]
fn damage_is_told_when_opening_and_when_reading() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    for key in 0..1000_u32 {
        kv.write(put(B, &key.to_be_bytes(), &key.to_le_bytes().repeat(50)), Durability::Unlogged).unwrap();
    }
    kv.flush().unwrap();
    drop(kv);
    let tables = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let table = tables().find(|path| path.extension().is_some_and(|name| name == "sst")).unwrap();
    let good = std::fs::read(&table).unwrap();
    let mut bad = good.clone();
    bad[..good.len() / 2].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&table, &bad).unwrap();
    let kv = open(dir.path());
    let error = kv.scan(B, &Range::prefix(b""), 2000).unwrap_err();
    assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
    let error = kv.get(B, &1_u32.to_be_bytes()).unwrap_err();
    assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
    drop(kv);
    std::fs::write(&table, &good).unwrap();
    std::fs::write(dir.path().join("CURRENT"), "MANIFEST-x").unwrap();
    let options = RocksOptions { log: LogUse::Elsewhere, ..RocksOptions::default() };
    let error = RocksKv::open(dir.path(), FAMILIES, &options).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }) && !error.retryable(), "{error}");
}
