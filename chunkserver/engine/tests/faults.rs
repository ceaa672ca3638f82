//! Failing and full disks, and damage to metadata, on the simulated disk.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use bytes::Bytes;
use chunkserver_engine::io::sim::{Faults, Power};
use chunkserver_engine::{
    Damage, Engine, EngineError, Failure, FileId, Geometry, OpenError, Problem, verify_parts,
};
use common::{CHUNK, Model, TestOp, World, call, key, observe};
use coord_kv::{Batch, Durability, Family, Kv, Range, Read};
use coord_types::{BLOCK_SIZE, Version};

fn small(capacity_blocks: u64) -> World {
    World::sized(Geometry { capacity_blocks, segment_blocks: 256, ..World::new().geometry })
}

fn write(chunk: u8, offset: u32, len: u32) -> TestOp {
    TestOp::Write { chunk, offset, len, seed: chunk ^ len as u8 }
}

/// Runs one operation; a refused one leaves the model as it was.
async fn run(engine: &Engine, model: &mut Model, op: TestOp) -> Result<(), EngineError> {
    let (asked, effects) = model.plan(&op);
    let result = call(engine, asked).await;
    if result.is_err() {
        model.take_back(&effects);
    }
    result
}

async fn fill(engine: &Engine, model: &mut Model) -> u32 {
    for written in 0.. {
        let (chunk, offset) = ((written / 16) as u8, written % 16 * 16384);
        match run(engine, model, write(chunk, offset, 16384)).await {
            Ok(()) => {}
            Err(EngineError::Full { .. }) => return written,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a disk fills up");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_but_still_punches_deletes_and_overwrites() {
    let world = small(512);
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let written = fill(&engine, &mut model).await;
    let usage = engine.usage();
    assert_eq!(usage.capacity_bytes, 2 << 20);
    assert!(usage.available_bytes() < 16384 && usage.reserve_bytes > 0, "{usage:?}");
    assert!(u64::from(written) * 16384 + usage.reserve_bytes + 16384 > usage.capacity_bytes, "{written} fit");
    for round in 0..50_u32 {
        let offset = round % 16 * 16384;
        run(&engine, &mut model, write(0, offset, 16384)).await.expect("an overwrite takes no space");
        run(&engine, &mut model, write(0, offset + 100, 5000)).await.expect("nor does an unaligned one");
    }
    let refused = run(&engine, &mut model, write(90, 0, 4096)).await;
    assert!(matches!(refused, Err(EngineError::Full { .. })), "new data still does not fit: {refused:?}");
    // A punch with two edges needs two new blocks before it frees any.
    run(&engine, &mut model, TestOp::Punch { chunk: 1, offset: 100, len: 60_000 }).await.unwrap();
    run(&engine, &mut model, write(90, 0, 40_960)).await.expect("what was punched is free again");
    run(&engine, &mut model, TestOp::DeleteData { data: 0 }).await.unwrap();
    assert!(engine.usage().available_bytes() >= u64::from(CHUNK));
    for (key, history) in &model.chunks {
        assert_eq!(observe(&engine, *key).await, *history.states.last().unwrap());
    }
    run(&engine, &mut model, TestOp::DeleteData { data: 45 }).await.unwrap();
    drop(engine);
    world.assert_clean().await;
}

/// Blocks in a row on the disk may lie in two segments, which are two files.
#[tokio::test]
async fn a_chunk_over_the_end_of_a_segment_is_read_and_verified() {
    for first_blocks in 17..50 {
        let world = small(512);
        let (engine, _disk) = world.boot().await.unwrap();
        let mut model = Model::default();
        run(&engine, &mut model, write(0, 0, first_blocks * 4096)).await.unwrap();
        for chunk in 1..5 {
            run(&engine, &mut model, write(chunk, 0, 131_072)).await.unwrap();
            run(&engine, &mut model, write(chunk, 131_072, 131_072)).await.unwrap();
        }
        for (key, history) in &model.chunks {
            assert_eq!(observe(&engine, *key).await, *history.states.last().unwrap());
        }
        engine.close().await;
        drop(engine);
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn filling_and_emptying_again_and_again_loses_no_block() {
    let world = small(512);
    let (engine, _disk) = world.boot().await.unwrap();
    let mut first = None;
    for _ in 0..5 {
        let mut model = Model::default();
        let written = fill(&engine, &mut model).await;
        assert_eq!(*first.get_or_insert(written), written);
        for data in 0..5 {
            call(&engine, model.plan(&TestOp::DeleteData { data }).0).await.unwrap();
        }
        assert_eq!(engine.chunk_count(), 0);
    }
}

#[tokio::test]
async fn a_full_file_system_below_makes_the_disk_smaller_not_broken() {
    let world = small(1024);
    let (engine, disk) = world.boot().await.unwrap();
    disk.set_faults(Faults { segments_max: Some(2), ..Faults::default() });
    let mut model = Model::default();
    fill(&engine, &mut model).await;
    assert_eq!(engine.usage().capacity_bytes, 2 << 20, "two segments of 1 MiB were made");
    assert!(engine.failure().is_none());
    run(&engine, &mut model, TestOp::DeleteData { data: 0 }).await.unwrap();
    run(&engine, &mut model, write(80, 0, 16384)).await.unwrap();
}

#[tokio::test]
async fn an_io_error_takes_the_disk_out_and_nothing_acknowledged_is_lost() {
    for from in (0..60).step_by(7) {
        let world = World::new();
        let (engine, disk) = world.boot().await.unwrap();
        let mut model = Model::default();
        let begin = disk.operations();
        disk.set_faults(Faults { eio_from: Some(begin + from), ..Faults::default() });
        let mut failed = None;
        for round in 0..40_u32 {
            let (asked, effects) = model.plan(&write((round % 3) as u8, round * 4096, 100 + round * 2500));
            match call(&engine, asked).await {
                Ok(()) => model.acknowledge(&effects),
                Err(EngineError::Failed(failure)) => {
                    failed = Some(failure);
                    break;
                }
                // A read of the rest of a block came first.
                Err(EngineError::Damaged(_)) => model.take_back(&effects),
                Err(error) => panic!("{error}"),
            }
        }
        let failure = failed.expect("the disk failed");
        assert!(
            matches!(&*failure, Failure::Io(error) if error.source.raw_os_error() == Some(libc::EIO)),
            "{failure}"
        );
        disk.set_faults(Faults::default());
        assert!(
            matches!(engine.read(key(0), 0, 4096).await, Err(EngineError::Failed(_))),
            "refused from here on"
        );
        assert!(matches!(engine.stat(key(0)), Err(EngineError::Failed(_))));
        assert!(matches!(engine.put_setting("a", b"b").await, Err(EngineError::Failed(_))));
        assert!(engine.failure().is_some());
        drop(engine);
        disk.crash();
        world.kv.crash(0);
        world.assert_clean().await;
        let (engine, _disk) = world.boot().await.unwrap();
        for (key, history) in &model.chunks {
            let state = observe(&engine, *key).await;
            assert!(history.states[history.acknowledged..].contains(&state), "from {from}");
        }
    }
}

#[tokio::test]
async fn bad_sectors_are_damage_until_there_are_too_many() {
    let world = World::new();
    let (engine, disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    run(&engine, &mut model, write(0, 0, 8192)).await.unwrap();
    disk.set_faults(Faults { unreadable: true, ..Faults::default() });
    for _ in 0..64 {
        let error = engine.read(key(0), 0, 4096).await.unwrap_err();
        assert!(matches!(error, EngineError::Damaged(Damage::Unreadable { .. })), "{error}");
        assert_eq!(error.damaged_chunk(), Some(key(0)));
    }
    // What another member has is written elsewhere.
    let whole = Bytes::copy_from_slice(&model.chunks[&key(0)].states[1].bytes[..8192]);
    let version = engine.stat(key(0)).unwrap().unwrap().version;
    engine.heal(key(0), version, 0, whole.clone()).await.unwrap();
    disk.set_faults(Faults::default());
    assert_eq!(engine.read(key(0), 0, 8192).await.unwrap().data, whole);
    assert!(engine.failure().is_none());
    disk.set_faults(Faults { unreadable: true, ..Faults::default() });
    assert!(matches!(engine.read(key(0), 0, 4096).await, Err(EngineError::Failed(_))), "it dies");
    assert!(engine.failure().is_some());
}

/// What is written in advance finds no room either: it is tried again later, not again and again.
#[tokio::test]
async fn a_file_system_that_is_full_under_a_segment_refuses_writes_and_loses_no_block() {
    let world = World::new();
    let (engine, disk) = world.boot().await.unwrap();
    disk.set_faults(Faults { full: true, ..Faults::default() });
    let mut model = Model::default();
    // Two, and large: a lone or a small write's journal frame does not wait for its data, which then must arrive.
    let (first, first_effects) = model.plan(&write(0, 0, 100_000));
    let (second, second_effects) = model.plan(&write(1, 0, 100_000));
    let refused = futures::join!(call(&engine, first), call(&engine, second));
    let full = |result: &Result<(), EngineError>| matches!(result, Err(EngineError::Full { .. }));
    assert!(full(&refused.0) && full(&refused.1), "{refused:?}");
    model.take_back(&first_effects);
    model.take_back(&second_effects);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(disk.operations() < 20, "{} operations", disk.operations());
    assert_eq!((engine.usage().used_bytes, engine.failure().is_some()), (0, false));
    disk.set_faults(Faults::default());
    run(&engine, &mut model, write(0, 0, 100_000)).await.unwrap();
    let observed = observe(&engine, key(0)).await;
    assert_eq!(observed, *model.chunks[&key(0)].states.last().unwrap());
    common::assert_no_leak(&engine, &[(key(0), observed)].into());
}

/// A store that cannot be flushed any more.
#[derive(Debug)]
struct Unflushable(std::sync::Arc<coord_kv::MemKv>);

impl Read for Unflushable {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.0.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<coord_kv::Pair>> {
        self.0.scan(family, range, limit)
    }
}

impl Kv for Unflushable {
    fn write(&self, batch: Batch, durability: Durability) -> coord_kv::Result<()> {
        self.0.write(batch, durability)
    }

    fn flush(&self) -> coord_kv::Result<()> {
        // Opening flushes, with nothing written yet but a new salt.
        if self.0.pending() <= 1 {
            return self.0.flush();
        }
        Err(coord_kv::KvError::Io { operation: "flush", path: "simulation".into(), reason: "no".into() })
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_flushed_takes_the_disk_out_and_the_journal_keeps_all() {
    let world = World::new();
    let (mut parts, disk) = world.parts(&Power::new(None), 1);
    parts.kv = std::sync::Arc::new(Unflushable(world.kv.clone()));
    let engine = Engine::on(parts).await.unwrap();
    let mut model = Model::default();
    let failure = loop {
        let (asked, effects) = model.plan(&write(0, 0, 4096));
        match call(&engine, asked).await {
            Ok(()) => model.acknowledge(&effects),
            Err(EngineError::Failed(failure)) => break failure,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(matches!(&*failure, Failure::Kv(_)), "{failure}");
    drop(engine);
    disk.crash();
    world.kv.crash(0);
    let (engine, _disk) = world.boot().await.unwrap();
    let history = &model.chunks[&key(0)];
    assert!(history.states[history.acknowledged..].contains(&observe(&engine, key(0)).await));
}

/// A disk with three chunks, closed, nothing left in the journal.
async fn three_chunks() -> (World, Model) {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    for chunk in 0..3 {
        run(&engine, &mut model, write(chunk, 4096, 150_000)).await.unwrap();
        run(&engine, &mut model, write(chunk, 0, 70_000)).await.unwrap();
    }
    engine.close().await;
    (world, model)
}

async fn problems(world: &World) -> Vec<Problem> {
    let (parts, _disk) = world.parts(&Power::new(None), 1);
    verify_parts(&parts, &mut |_| {}).await.problems
}

#[tokio::test]
async fn a_flipped_bit_in_any_record_is_found() {
    let (world, _) = three_chunks().await;
    for family in [0, 1] {
        for (record, value) in world.kv.scan(Family(family), &Range::prefix(&[]), 100).unwrap() {
            for at in (0..value.len()).step_by(13) {
                let mut bad = value.clone();
                bad[at] ^= 4;
                put(&world, family, &record, bad);
                let error = world.boot().await.map(drop).unwrap_err();
                assert!(
                    matches!(error, OpenError::Failed(Failure::Damage(Damage::Record { .. }))),
                    "{error}"
                );
                assert!(!problems(&world).await.is_empty(), "byte {at} of {record:?}");
            }
            put(&world, family, &record, value);
        }
    }
    assert!(problems(&world).await.is_empty());
}

fn put(world: &World, family: u8, key: &[u8], value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(Family(family), key, value);
    world.kv.write(batch, Durability::Synced).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_setting_is_told() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    engine.put_setting("epoch", b"12").await.unwrap();
    engine.close().await;
    let value = world.kv.get(Family(2), b"epoch").unwrap().unwrap();
    for bit in 0..value.len() * 8 {
        let mut bad = value.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&world, 2, b"epoch", bad);
        let (engine, _disk) = world.boot().await.unwrap();
        let found = engine.get_setting("epoch");
        assert!(matches!(found, Err(EngineError::Damaged(Damage::Record { .. }))), "bit {bit}: {found:?}");
    }
}

/// A record with its body changed and a good checksum.
fn forge(world: &World, family: u8, (key, value): &(Vec<u8>, Vec<u8>), change: impl FnOnce(&mut [u8])) {
    let mut body = value[..value.len() - 4].to_vec();
    change(&mut body);
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &body);
    body.extend(crc.to_le_bytes());
    put(world, family, key, body);
}

#[tokio::test]
async fn verify_tells_blocks_beyond_the_chunk_or_the_disk_and_segments_that_are_not_there() {
    let (world, _) = three_chunks().await;
    let chunk = world.kv.scan(Family(0), &Range::prefix(&[]), 1).unwrap().remove(0);
    let page = world.kv.scan(Family(1), &Range::prefix(&[]), 1).unwrap().remove(0);
    // 154,096 bytes are 38 blocks.
    forge(&world, 0, &chunk, |body| body[4..8].copy_from_slice(&(37 * 4096_u32).to_le_bytes()));
    let found = problems(&world).await;
    assert!(matches!(found[..], [Problem::BeyondChunk { block: 37, .. }]), "{found:?}");
    put(&world, 0, &chunk.0, chunk.1.clone());
    // The disk block of the page's first run.
    let start = |block: u64| move |body: &mut [u8]| body[6..12].copy_from_slice(&block.to_le_bytes()[..6]);
    forge(&world, 1, &page, start(4095));
    let found = problems(&world).await;
    assert!(found.iter().any(|p| matches!(p, Problem::Unreadable(_))), "segment 3 was never made: {found:?}");
    for outside in [4096, 1 << 40] {
        forge(&world, 1, &page, start(outside));
        let found = problems(&world).await;
        let beyond = |p: &Problem| matches!(p, Problem::Damage(Damage::OutOfDisk { .. }));
        assert!(found.iter().any(beyond), "{found:?}");
        let error = world.boot().await.map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Failed(Failure::Damage(Damage::OutOfDisk { .. }))), "{error}");
    }
    put(&world, 1, &page.0, page.1.clone());
    assert!(problems(&world).await.is_empty());
}

#[tokio::test]
async fn verify_tells_a_lost_record_a_lost_page_and_a_page_of_another_chunk() {
    let (world, _) = three_chunks().await;
    let chunks = world.kv.scan(Family(0), &Range::prefix(&[]), 100).unwrap();
    let pages = world.kv.scan(Family(1), &Range::prefix(&[]), 100).unwrap();
    let delete = |family, key: &[u8]| {
        let mut batch = Batch::new();
        batch.delete(Family(family), key);
        world.kv.write(batch, Durability::Synced).unwrap();
    };
    delete(0, &chunks[0].0);
    let found = problems(&world).await;
    assert!(matches!(found[..], [Problem::Orphan { .. }]), "{found:?}");
    put(&world, 0, &chunks[0].0, chunks[0].1.clone());
    delete(1, &pages[0].0);
    let found = problems(&world).await;
    assert!(matches!(found[..], [Problem::Allocated { .. }]), "{found:?}");
    put(&world, 1, &pages[0].0, pages[0].1.clone());
    // A page that names the blocks of another chunk's page, with a good checksum.
    let mut twin = pages[0].1[..pages[0].1.len() - 4].to_vec();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&pages[1].0), &twin);
    twin.extend(crc.to_le_bytes());
    put(&world, 1, &pages[1].0, twin);
    let found = problems(&world).await;
    assert!(found.iter().any(|p| matches!(p, Problem::Damage(Damage::DoubleUse { .. }))), "{found:?}");
    let error = world.boot().await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Failed(Failure::Damage(Damage::DoubleUse { .. }))), "{error}");
    put(&world, 1, &pages[1].0, pages[1].1.clone());
    assert!(problems(&world).await.is_empty());
}

#[tokio::test]
async fn damage_in_the_middle_of_the_journal_is_told_from_its_torn_end() {
    let world = World::sized(Geometry { journal_bytes: 1 << 20, ..World::new().geometry });
    let (engine, disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    for at in 0..20 {
        call(&engine, model.plan(&write(0, at * 4096, 4096)).0).await.unwrap();
    }
    let last = model.chunks[&key(0)].states.last().unwrap().clone();
    drop(engine);
    disk.crash();
    world.kv.crash(0);
    let journal = world.medium.contents(FileId::Journal).unwrap();
    let frames: Vec<usize> =
        (0..journal.len()).step_by(BLOCK_SIZE).filter(|at| journal[*at..*at + 4] == *b"FTJ1").collect();
    assert!(frames.len() >= 20, "{} frames", frames.len());
    for byte in [0, 20, 70, 100] {
        let bit = (frames[frames.len() / 2] + byte) * 8;
        world.medium.flip(FileId::Journal, bit);
        let error = world.boot().await.map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Failed(Failure::Damage(Damage::Journal { .. }))), "{error}");
        assert!(!problems(&world).await.is_empty());
        world.medium.flip(FileId::Journal, bit);
    }
    let (engine, _disk) = world.boot().await.unwrap();
    assert_eq!(observe(&engine, key(0)).await, last, "all that was acknowledged is in the journal");
}

#[tokio::test]
async fn a_damaged_block_fails_reads_of_it_and_unaligned_writes_to_it_only() {
    let (world, mut model) = three_chunks().await;
    let data = &model.chunks[&key(1)].states.last().unwrap().bytes[8192..8192 + 64];
    let segment = world.medium.contents(FileId::Segment(0)).unwrap();
    let at = segment.windows(64).position(|window| window == data).unwrap();
    world.medium.flip(FileId::Segment(0), at * 8 + 3);
    let (engine, _disk) = world.boot().await.unwrap();
    assert!(matches!(
        engine.read(key(1), 9000, 5).await,
        Err(EngineError::Damaged(Damage::Block { block: 2, .. }))
    ));
    let refused = run(&engine, &mut model, write(1, 8200, 10)).await;
    assert!(matches!(refused, Err(EngineError::Damaged(_))), "{refused:?}");
    run(&engine, &mut model, write(1, 8192, 4096)).await.expect("a whole block replaces the damaged one");
    assert_eq!(observe(&engine, key(1)).await, *model.chunks[&key(1)].states.last().unwrap());
    assert!(engine.failure().is_none());
}

#[tokio::test]
async fn a_damaged_block_is_healed_with_what_was_there_and_nothing_else() {
    let (world, model) = three_chunks().await;
    let state = model.chunks[&key(1)].states.last().unwrap().clone();
    let good = Bytes::copy_from_slice(&state.bytes[8192..16384]);
    let segment = world.medium.contents(FileId::Segment(0)).unwrap();
    let at = segment.windows(64).position(|window| *window == good[..64]).unwrap();
    world.medium.flip(FileId::Segment(0), at * 8 + 3);
    let (engine, _disk) = world.boot().await.unwrap();
    assert!(matches!(engine.read(key(1), 8192, 4096).await, Err(EngineError::Damaged(_))));

    let mut wrong = good.to_vec();
    wrong[4097] ^= 1;
    let refused = engine.heal(key(1), state.version, 8192, wrong.into()).await;
    assert!(matches!(refused, Err(EngineError::PayloadChecksum { piece: 1, .. })), "{refused:?}");
    let older = Version { counter: state.version.counter - 1, ..state.version };
    let refused = engine.heal(key(1), older, 8192, good.clone()).await;
    assert!(matches!(refused, Err(EngineError::VersionMismatch { .. })), "{refused:?}");
    let refused = engine.heal(key(1), state.version, 8192, good.slice(..100)).await;
    assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
    for outside in [4097, CHUNK] {
        let refused = engine.heal(key(1), state.version, outside, good.clone()).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "at {outside}: {refused:?}");
    }
    let refused = engine.heal(key(9), state.version, 8192, good.clone()).await;
    assert!(matches!(refused, Err(EngineError::VersionMismatch { .. })), "no such chunk: {refused:?}");

    let used = engine.usage().used_bytes;
    engine.heal(key(1), state.version, 8192, good).await.unwrap();
    assert_eq!(observe(&engine, key(1)).await, state);
    assert_eq!(engine.usage().used_bytes, used, "the damaged blocks are free again");
    engine.close().await;
    drop(engine);
    world.assert_clean().await;
    let (engine, _disk) = world.boot().await.unwrap();
    assert_eq!(observe(&engine, key(1)).await, state, "healed for good");
}

#[tokio::test]
async fn a_full_disk_is_healed_too() {
    let world = small(512);
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    fill(&engine, &mut model).await;
    let state = model.chunks[&key(0)].states.last().unwrap().clone();
    let block = Bytes::copy_from_slice(&state.bytes[..16384]);
    engine.heal(key(0), state.version, 0, block).await.expect("what it frees it takes");
    assert_eq!(observe(&engine, key(0)).await, state);
}

#[tokio::test]
async fn a_write_behind_a_heal_that_is_refused_goes_on() {
    let (world, mut model) = three_chunks().await;
    let (engine, _disk) = world.boot().await.unwrap();
    let version = model.chunks[&key(1)].states.last().unwrap().version;
    let heal = engine.heal(key(1), version, 0, vec![7; BLOCK_SIZE].into());
    let (asked, _) = model.plan(&write(1, 0, 4096));
    let (healed, written) = tokio::join!(heal, call(&engine, asked));
    assert!(matches!(healed, Err(EngineError::PayloadChecksum { .. })), "{healed:?}");
    written.unwrap();
    assert_eq!(observe(&engine, key(1)).await, *model.chunks[&key(1)].states.last().unwrap());
}
