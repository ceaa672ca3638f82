//! Real disks in temporary directories: both ways of IO, locking, formatting, damage, verify.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use chunkserver_engine::{
    BufferPool, Damage, Engine, EngineConfig, EngineError, Failure, FormatOptions, IoKind, OpenError,
    WriteOp, verify,
};
use common::{CHUNK, Model, TestOp, call, content, key, observe, piece_crcs};
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, Version};

fn options() -> FormatOptions {
    FormatOptions {
        segment_bytes: Some(16 << 20),
        journal_bytes: Some(1 << 20),
        ..FormatOptions::new(64 << 20)
    }
}

fn config(io: IoKind) -> EngineConfig {
    EngineConfig { io, ..EngineConfig::new(BufferPool::new(4 << 20)) }
}

async fn check(dir: &Path) -> chunkserver_engine::VerifyReport {
    verify(dir, &mut |_| {}).await.unwrap()
}

/// Operations with several in flight, a reopening without and one with `close`, everything read back.
async fn work(io: IoKind) {
    let dir = tempfile::tempdir().unwrap();
    Engine::format(dir.path(), &options()).unwrap();
    let mut model = Model::default();
    for life in 0..3_u8 {
        let engine = Engine::open(dir.path(), config(io)).await.unwrap();
        for (key, history) in &model.chunks {
            assert_eq!(observe(&engine, *key).await, *history.states.last().unwrap());
        }
        for round in 0..20_u8 {
            let ops = (0..8_u8).map(|n| {
                let (offset, len) =
                    [(0, CHUNK), (4096, 4096), (10_000, 5000), (65_536, 131_072)][usize::from(n % 4)];
                TestOp::Write { chunk: n % 6, offset, len, seed: life ^ round ^ n }
            });
            let calls: Vec<_> = ops.map(|op| model.plan(&op).0).collect();
            let results =
                futures::future::join_all(calls.into_iter().map(|asked| call(&engine, asked))).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            call(&engine, model.plan(&TestOp::Punch { chunk: round % 6, offset: 5000, len: 90_000 }).0)
                .await
                .unwrap();
        }
        engine.put_setting("life", &[life]).await.unwrap();
        assert_eq!(engine.get_setting("life").unwrap(), Some(vec![life]));
        if life == 1 {
            engine.close().await;
            assert!(matches!(engine.stat(key(0)), Err(EngineError::Failed(_))));
        }
        drop(engine);
        if life > 0 {
            let report = check(dir.path()).await;
            assert!(report.is_clean(), "{report}");
            assert_eq!(report.chunks, 6);
        }
    }
}

#[tokio::test]
async fn works_through_io_uring() {
    work(IoKind::Uring).await;
}

#[tokio::test]
async fn works_through_plain_system_calls() {
    work(IoKind::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_several_threads() {
    work(IoKind::Uring).await;
}

#[tokio::test]
async fn an_aligned_write_is_read_back_through_pooled_buffers() {
    let dir = tempfile::tempdir().unwrap();
    Engine::format(dir.path(), &options()).unwrap();
    let pool = BufferPool::new(4 << 20);
    let engine = Engine::open(dir.path(), EngineConfig::new(pool.clone())).await.unwrap();
    let mut buf = pool.allocate(1 << 20);
    buf.copy_from_slice(&content(1, 1 << 20));
    let data = buf.freeze();
    let op = WriteOp {
        key: key(0),
        expect: Version::NONE,
        version: Version { epoch: Epoch(1), counter: 1 },
        offset_bytes: 1 << 20,
        data: data.clone(),
        block_crcs: piece_crcs(0, &data),
        stamp: None,
        chunk_size_bytes: 8 << 20,
    };
    engine.write(op).await.unwrap();
    let read = engine.read(key(0), (1 << 20) + 5, 100).await.unwrap();
    assert_eq!((read.payload_offset_bytes, read.data.len()), (1 << 20, BLOCK_SIZE));
    assert_eq!(read.data[..], data[..BLOCK_SIZE]);
    let read = engine.read(key(0), 1 << 20, 1 << 20).await.unwrap();
    assert!(read.data == data && pool.contains(&read.data));
    assert_eq!(pool.overflows(), 0);
    assert!(engine.read(key(0), 0, 1 << 20).await.unwrap().hole);
    assert_eq!(engine.map(key(0)).unwrap(), [(1 << 20, 1 << 20)]);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Engine::open(dir.path(), config(IoKind::Auto)).await,
        Err(OpenError::NotFormatted { .. })
    ));
    Engine::format(dir.path(), &options()).unwrap();
    assert!(matches!(Engine::format(dir.path(), &options()), Err(OpenError::AlreadyFormatted { .. })));
    let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
    assert!(matches!(Engine::open(dir.path(), config(IoKind::Auto)).await, Err(OpenError::Locked { .. })));
    assert!(matches!(verify(dir.path(), &mut |_| {}).await, Err(OpenError::Locked { .. })));
    engine.close().await;
    Engine::open(dir.path(), config(IoKind::Auto)).await.expect("closing lets go of the disk");
}

#[test]
fn formats_only_what_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    assert!(matches!(Engine::format(dir.path(), &options()), Err(OpenError::NotEmpty { .. })));
    std::fs::remove_file(dir.path().join("holiday.jpg")).unwrap();
    assert!(matches!(Engine::format(dir.path(), &FormatOptions::new(1)), Err(OpenError::TooSmall { .. })));
    // What an attempt cut short left does not stop the next.
    std::fs::write(dir.path().join("new-superblock"), "x").unwrap();
    std::fs::create_dir(dir.path().join("meta")).unwrap();
    Engine::format(dir.path(), &options()).unwrap();
}

/// A disk with one full chunk and one small write, closed.
async fn small_disk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Engine::format(dir.path(), &options()).unwrap();
    let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
    let mut model = Model::default();
    for op in [(0, 0, CHUNK), (1, 4096, 4096)] {
        let (chunk, offset, len) = op;
        call(&engine, model.plan(&TestOp::Write { chunk, offset, len, seed: 9 }).0).await.unwrap();
    }
    engine.close().await;
    dir
}

fn flip(path: &Path, byte: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut value = [0];
    file.read_exact_at(&mut value, byte).unwrap();
    value[0] ^= 0x10;
    file.write_all_at(&value, byte).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_data_is_found_by_read_and_verify() {
    let dir = small_disk().await;
    let segment = std::fs::read(dir.path().join("seg-00000000")).unwrap();
    let data = content(9, CHUNK as usize);
    let at = segment.windows(64).position(|window| *window == data[..64]).unwrap() + 10_000;
    flip(&dir.path().join("seg-00000000"), at as u64);
    let report = check(dir.path()).await;
    assert_eq!(report.problem_count, 1, "{report}");
    assert!(report.to_string().contains("crc32c"));
    let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
    let error = engine.read(key(0), 0, CHUNK).await.unwrap_err();
    assert!(matches!(error, EngineError::Damaged(Damage::Block { block: 2, .. })), "{error}");
    assert!(engine.read(key(0), 0, 8192).await.is_ok() && engine.failure().is_none(), "the rest is served");
}

#[tokio::test]
async fn a_damaged_superblock_is_replaced_by_its_copy() {
    let dir = small_disk().await;
    let path = dir.path().join("superblock");
    flip(&path, 20);
    let report = check(dir.path()).await;
    assert_eq!(report.problem_count, 1, "{report}");
    Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap().close().await;
    assert!(check(dir.path()).await.is_clean(), "opening repaired it");
    flip(&path, 20);
    flip(&path, (64 << 10) + 40);
    let error = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap_err();
    assert!(matches!(error, OpenError::Superblock { .. }), "{error}");
    assert!(!check(dir.path()).await.is_clean());
}

#[tokio::test]
async fn a_short_journal_is_found_when_opening() {
    let dir = small_disk().await;
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("journal")).unwrap();
    file.set_len(4096).unwrap();
    let error = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap_err();
    assert!(matches!(error, OpenError::Failed(Failure::Damage(Damage::Truncated { .. }))), "{error}");
    assert!(!check(dir.path()).await.is_clean());
}

/// Six chunks over several segments of 1 MiB.
async fn disk_of_segments() -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let options = FormatOptions { segment_bytes: Some(512 << 10), ..options() };
    Engine::format(dir.path(), &options).unwrap();
    let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
    let mut model = Model::default();
    for chunk in 0..8 {
        let (asked, effects) = model.plan(&TestOp::Write { chunk, offset: 0, len: CHUNK, seed: chunk });
        call(&engine, asked).await.unwrap();
        model.acknowledge(&effects);
    }
    engine.close().await;
    (dir, model)
}

/// Writes every damaged block of a chunk anew, as another member would have it; gives how many.
async fn heal(engine: &Engine, key: ChunkKey, content: &[u8]) -> usize {
    let version = engine.stat(key).unwrap().unwrap().version;
    let mut healed = 0;
    for (block, data) in content.chunks_exact(4096).enumerate() {
        let offset = block as u32 * 4096;
        if let Err(EngineError::Damaged(_)) = engine.read(key, offset, 4096).await {
            engine.heal(key, version, offset, Bytes::copy_from_slice(data)).await.unwrap();
            healed += 1;
        }
    }
    healed
}

#[tokio::test]
async fn lost_segments_are_made_anew_and_their_data_is_damaged_not_gone() {
    let segments = |dir: &Path| {
        let names =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("seg-")).count() as u32
    };
    // Four are full; the last was made in advance, and nobody misses it.
    assert_eq!(segments(disk_of_segments().await.0.path()), 5);
    // The first, one between, the last with data, the rest of one, and all.
    for (gone, cut, lost) in [
        (0..1, None, 0..1),
        (1..2, None, 1..2),
        (3..5, None, 3..4),
        (1..2, Some(300_000), 1..2),
        (0..5, None, 0..4),
    ] {
        let (dir, model) = disk_of_segments().await;
        for index in gone {
            let path = dir.path().join(format!("seg-{index:08}"));
            match cut {
                None => std::fs::remove_file(&path).unwrap(),
                Some(len) => {
                    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap()
                }
            }
        }
        let before = segments(dir.path());
        assert!(!check(dir.path()).await.is_clean(), "{lost:?}");
        assert_eq!(segments(dir.path()), before, "looking changes nothing");
        let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
        assert_eq!(engine.lost_segments(), &lost.clone().collect(), "{lost:?}");
        let mut healed = 0;
        for (key, history) in &model.chunks {
            let content = &history.states.last().unwrap().bytes;
            let touched = engine.is_in_segments(*key, engine.lost_segments()).unwrap();
            let here = heal(&engine, *key, content).await;
            assert!(touched || here == 0, "{key:?} has {here} damaged blocks elsewhere");
            healed += here;
            let read = engine.read(*key, 0, CHUNK).await.unwrap();
            assert!(read.data[..] == content[..], "{key:?}");
        }
        assert!(healed > 0, "{lost:?}");
        engine.close().await;
        assert!(check(dir.path()).await.is_clean(), "{lost:?}");
        let engine = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap();
        assert!(engine.lost_segments().is_empty());
        engine.close().await;
    }
}

#[tokio::test]
async fn a_lost_metadata_store_is_not_taken_for_an_empty_disk() {
    let dir = small_disk().await;
    std::fs::remove_dir_all(dir.path().join("meta")).unwrap();
    let error = Engine::open(dir.path(), config(IoKind::Auto)).await.unwrap_err();
    assert!(matches!(error, OpenError::Failed(Failure::Damage(Damage::Record { .. }))), "{error}");
}
