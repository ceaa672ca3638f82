//! Random operations on an engine and on a map of bytes: after each they must agree, also after reopening.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use bytes::Bytes;
use chunkserver_engine::io::sim::{Faults, Power};
use chunkserver_engine::{ChunkContents, Engine, EngineError, Piece};
use common::{CHUNK, Model, TestOp, World, call, content, key, observe, piece_crcs};
use coord_types::{BLOCK_SIZE, Epoch, Version};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Op(TestOp),
    /// `true`: closed first; `false`: the machine lost power with nothing in flight.
    Reopen(bool),
}

fn range() -> impl Strategy<Value = (u32, u32)> {
    let any_bytes = (0..CHUNK, 1_u32..120_000).prop_map(|(offset, len)| (offset, len.min(CHUNK - offset)));
    let blocks = (0..CHUNK / 4096, 1_u32..30)
        .prop_map(|(first, count)| (first * 4096, (count * 4096).min(CHUNK - first * 4096)));
    let few_bytes = (0..CHUNK - 100, 1_u32..100);
    prop_oneof![2 => any_bytes, 2 => blocks, 1 => few_bytes]
}

fn step() -> impl Strategy<Value = Step> {
    let chunk = 0_u8..6;
    let pieces = proptest::collection::btree_map(0_u32..16, 1_u32..4, 0..5)
        .prop_map(|pieces| pieces.into_iter().map(|(slot, count)| (slot * 4, count)).collect());
    prop_oneof![
        8 => (chunk.clone(), range(), any::<u8>())
            .prop_map(|(chunk, (offset, len), seed)| Step::Op(TestOp::Write { chunk, offset, len, seed })),
        4 => (chunk.clone(), range()).prop_map(|(chunk, (offset, len))| Step::Op(TestOp::Punch { chunk, offset, len })),
        2 => (chunk.clone(), pieces, any::<u8>())
            .prop_map(|(chunk, pieces, seed)| Step::Op(TestOp::Install { chunk, pieces, seed })),
        2 => (chunk.clone(), 0_u32..30, 1_u32..20)
            .prop_map(|(chunk, first, count)| Step::Op(TestOp::Heal { chunk, first, count })),
        1 => chunk.prop_map(|chunk| Step::Op(TestOp::Remove { chunk })),
        1 => (0_u8..3).prop_map(|data| Step::Op(TestOp::DeleteData { data })),
        1 => any::<u8>().prop_map(|value| Step::Op(TestOp::Setting { value })),
        1 => any::<bool>().prop_map(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_map_of_bytes(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let world = World::new();
    let mut model = Model::default();
    let mut life = Some(world.boot().await.unwrap());
    for step in steps {
        match step {
            Step::Op(op) => {
                let (engine, _) = life.as_ref().unwrap();
                let (asked, effects) = model.plan(&op);
                call(engine, asked).await.unwrap();
                model.acknowledge(&effects);
                for (key, _) in effects {
                    assert_eq!(observe(engine, key).await, *model.chunks[&key].states.last().unwrap());
                }
            }
            Step::Reopen(close) => {
                let (engine, disk) = life.take().unwrap();
                if close {
                    engine.close().await;
                }
                drop(engine);
                disk.crash();
                world.kv.crash(if close { usize::MAX } else { world.kv.pending() / 2 });
                life = Some(world.boot().await.unwrap());
            }
        }
    }
    let (engine, _disk) = life.unwrap();
    check_all(&engine, &model).await;
}

async fn check_all(engine: &Engine, model: &Model) {
    let mut observed = std::collections::BTreeMap::new();
    for (key, history) in &model.chunks {
        observed.insert(*key, observe(engine, *key).await);
        assert_eq!(observed[key], *history.states.last().unwrap());
    }
    common::assert_no_leak(engine, &observed);
    assert_eq!(engine.get_setting("answer").unwrap(), model.settings.last().map(|value| vec![*value]));
    let listed = engine.list(common::GROUP, None, 100).unwrap();
    let expected: Vec<_> =
        observed.iter().filter(|(_, s)| s.version.counter > 0).map(|(k, s)| (*k, s.version)).collect();
    assert_eq!(listed, expected);
    assert_eq!(engine.chunk_count(), expected.len() as u64);
    if let Some(((first, _), rest)) = expected.split_first() {
        assert_eq!(engine.list(common::GROUP, Some(*first), 100).unwrap(), rest);
    }
}

#[tokio::test]
async fn pipelined_writes_of_a_chunk_take_effect_in_order() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let ops = (0..40_u32).map(|at| {
        let (offset, len) =
            if at % 5 == 4 { (at * 1000, 3000) } else { (at % 7 * 8192, 4096 + at % 3 * 40_960) };
        TestOp::Write { chunk: 0, offset: offset.min(CHUNK - len), len, seed: at as u8 }
    });
    let calls: Vec<_> = ops.map(|op| model.plan(&op).0).collect();
    let results = futures::future::join_all(calls.into_iter().map(|asked| call(&engine, asked))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(observe(&engine, key(0)).await, *model.chunks[&key(0)].states.last().unwrap());
}

#[tokio::test]
async fn a_refused_write_takes_its_followers_with_it_and_leaves_no_trace() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let write = |offset, len, seed| TestOp::Write { chunk: 0, offset, len, seed };
    let (first, _) = model.plan(&write(0, 5000, 1));
    call(&engine, first).await.unwrap();
    let before = observe(&engine, key(0)).await;
    let used = engine.usage().used_bytes;
    // The second write is larger than the disk has room for; the third expects its version.
    let full = World::sized(chunkserver_engine::Geometry {
        capacity_blocks: 40,
        segment_blocks: 40,
        ..world.geometry
    });
    let (small, _small_disk) = full.boot().await.unwrap();
    let mut model = Model::default();
    call(&small, model.plan(&write(0, 5000, 1)).0).await.unwrap();
    let calls = [model.plan(&write(0, 200_000, 2)).0, model.plan(&write(4096, 4096, 3)).0];
    let results = futures::future::join_all(calls.into_iter().map(|asked| call(&small, asked))).await;
    assert!(matches!(results[0], Err(EngineError::Full { .. })), "{results:?}");
    assert!(matches!(results[1], Err(EngineError::VersionMismatch { .. })), "{results:?}");
    assert_eq!(observe(&small, key(0)).await, before);
    assert_eq!(small.usage().used_bytes, used);
}

#[tokio::test]
async fn refuses_what_does_not_fit_the_request() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let common::Call::Write(good) =
        model.plan(&TestOp::Write { chunk: 0, offset: 100, len: 9000, seed: 1 }).0
    else {
        unreachable!("a write was planned");
    };
    let mut bad = good.clone();
    bad.data = content(2, 9000).into();
    assert!(matches!(engine.write(bad).await, Err(EngineError::PayloadChecksum { piece: 0, .. })));
    let mut bad = good.clone();
    bad.block_crcs.pop();
    assert!(matches!(engine.write(bad).await, Err(EngineError::Invalid { .. })));
    let mut bad = good.clone();
    bad.block_crcs.push(0);
    assert!(matches!(engine.write(bad).await, Err(EngineError::Invalid { .. })));
    let mut bad = good.clone();
    bad.offset_bytes = CHUNK - 8999;
    assert!(matches!(engine.write(bad).await, Err(EngineError::Invalid { .. })));
    let mut bad = good.clone();
    bad.chunk_size_bytes = 12345;
    assert!(matches!(engine.write(bad).await, Err(EngineError::Invalid { .. })));
    let mut bad = good.clone();
    bad.expect.counter = 9;
    assert!(matches!(engine.write(bad).await, Err(EngineError::VersionMismatch { .. })));
    assert_eq!(engine.stat(key(0)).unwrap(), None, "nothing of all that left a trace");
    assert_eq!(engine.write(good.clone()).await.unwrap().allocated_delta_bytes, 3 * BLOCK_SIZE as i64);
    let mut bad = good.clone();
    (bad.expect, bad.version.counter) = (good.version, 2);
    bad.chunk_size_bytes = 2 * CHUNK;
    assert!(matches!(engine.write(bad).await, Err(EngineError::ChunkSize { .. })));
    let stamp = good.stamp.unwrap();
    assert!(engine.seen(key(0), stamp).unwrap());
    assert!(!engine.seen(key(0), coord_types::Stamp { seq: stamp.seq + 1, ..stamp }).unwrap());
    assert!(!engine.seen(key(1), stamp).unwrap());
    let long = vec![0; 70_000];
    assert!(matches!(engine.put_setting("x", &long).await, Err(EngineError::SettingTooLong { .. })));
}

fn piece(offset_bytes: u32) -> Piece {
    let data = content(3, 2 * BLOCK_SIZE);
    let crcs = piece_crcs(0, &data);
    Piece::new(key(0), offset_bytes, data.into(), crcs).unwrap()
}

#[tokio::test]
async fn refuses_to_install_what_is_no_chunk() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let good = || {
        let version = Version { epoch: Epoch(3), counter: 1 };
        let pieces = vec![piece(0), piece(16_384)];
        ChunkContents { version, windows: Vec::new(), chunk_size_bytes: CHUNK, pieces }
    };
    let bad: [fn(&mut ChunkContents); 4] = [
        |bad| bad.version = Version::NONE,
        |bad| bad.pieces[1] = piece(4096),
        |bad| bad.pieces.reverse(),
        |bad| bad.pieces[1] = piece(CHUNK - 4096),
    ];
    for (at, change) in bad.into_iter().enumerate() {
        let mut contents = good();
        change(&mut contents);
        let refused = engine.install(key(0), contents).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "case {at}: {refused:?}");
    }
    assert_eq!(engine.stat(key(0)).unwrap(), None);
    engine.install(key(0), good()).await.unwrap();
}

#[test]
fn a_piece_is_whole_blocks_with_their_checksums() {
    let data = content(3, 2 * BLOCK_SIZE);
    let crcs = piece_crcs(0, &data);
    let new = |offset, data: &[u8], crcs: &[u32]| {
        Piece::new(key(0), offset, Bytes::copy_from_slice(data), crcs.to_vec())
    };
    assert!(new(4096, &data, &crcs).is_ok());
    for (offset, len, crcs) in [(4097, 8192, &crcs[..]), (4096, 8191, &crcs), (4096, 8192, &crcs[..1])] {
        let refused = new(offset, &data[..len], crcs);
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
    }
    let refused = new(4096, &data, &[crcs[0], crcs[1] ^ 1]);
    assert!(matches!(refused, Err(EngineError::PayloadChecksum { piece: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_write_behind_a_removal_of_nothing_goes_on() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let (asked, _) = model.plan(&TestOp::Write { chunk: 0, offset: 0, len: 4096, seed: 1 });
    let (removed, written) = tokio::join!(engine.remove(key(0)), call(&engine, asked));
    assert_eq!((removed.is_ok(), written.is_ok()), (true, true));
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_write() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let (first, _) = model.plan(&TestOp::Write { chunk: 0, offset: 0, len: 100_000, seed: 1 });
    let (second, _) = model.plan(&TestOp::Write { chunk: 0, offset: 50_000, len: 5000, seed: 2 });
    {
        let mut abandoned = std::pin::pin!(call(&engine, first));
        // One look starts it.
        assert!(futures::poll!(abandoned.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    call(&engine, second).await.unwrap();
    assert_eq!(observe(&engine, key(0)).await, *model.chunks[&key(0)].states.last().unwrap());
}

#[tokio::test]
async fn what_a_reader_reads_is_not_handed_out_meanwhile() {
    let world = World::sized(chunkserver_engine::Geometry {
        capacity_blocks: 256,
        segment_blocks: 256,
        ..World::new().geometry
    });
    let (parts, disk) = world.parts(&Power::new(None), 9);
    disk.set_faults(Faults { read_turns: 12, ..Faults::default() });
    let engine = Engine::on(parts).await.unwrap();
    let mut model = Model::default();
    call(&engine, model.plan(&TestOp::Write { chunk: 0, offset: 0, len: CHUNK, seed: 0 }).0).await.unwrap();
    // Overwrites hand blocks out again as fast as the disk is small; a read of an old state runs beside several.
    for round in 0..100_u8 {
        let writes = async {
            for nth in 0..4 {
                let op = TestOp::Write {
                    chunk: 0,
                    offset: 0,
                    len: CHUNK / 4,
                    seed: round.wrapping_mul(5).wrapping_add(nth),
                };
                let (write, _) = model.plan(&op);
                call(&engine, write).await.unwrap();
            }
        };
        let ((), read) = futures::join!(writes, engine.read(key(0), 0, CHUNK));
        let read = read.expect("the blocks a reader looked up hold what they held");
        let states = &model.chunks[&key(0)].states;
        let state = states.iter().find(|state| state.version == read.version).unwrap();
        assert_eq!(read.data[..], state.bytes[..]);
    }
}

/// More chunks, and so more pages, than are looked at in one step.
#[tokio::test]
async fn a_disk_with_many_chunks_is_found_whole_when_opened() {
    let world = World::new();
    let (engine, disk) = world.boot().await.unwrap();
    let chunk = |index| coord_types::ChunkKey::new(common::GROUP, coord_types::DataId(1), index);
    let version = coord_types::Version { epoch: coord_types::Epoch(1), counter: 1 };
    let data = content(3, BLOCK_SIZE);
    for index in 0..600 {
        let op = chunkserver_engine::WriteOp {
            key: chunk(index),
            expect: coord_types::Version::NONE,
            version,
            offset_bytes: 0,
            data: data.clone().into(),
            block_crcs: common::piece_crcs(0, &data),
            stamp: None,
            chunk_size_bytes: CHUNK,
        };
        engine.write(op).await.unwrap();
    }
    drop(engine);
    disk.crash();
    world.kv.crash(0);
    let (parts, _disk) = world.parts(&Power::new(None), 1);
    let report = chunkserver_engine::verify_parts(&parts, &mut |_| {}).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.chunks, report.pages, report.blocks), (600, 600, 600));
    let (engine, _disk) = world.boot().await.unwrap();
    assert_eq!(engine.chunk_count(), 600);
    let used = engine.usage().used_bytes / BLOCK_SIZE as u64;
    assert!((600..=664).contains(&used), "{used} blocks in use");
    let mut model = Model::default();
    call(&engine, model.plan(&TestOp::Write { chunk: 0, offset: 0, len: CHUNK, seed: 1 }).0).await.unwrap();
    for index in 0..600 {
        assert_eq!(engine.read(chunk(index), 0, 4096).await.unwrap().data[..], data[..], "chunk {index}");
    }
}

#[tokio::test]
async fn an_installed_chunk_knows_the_writes_it_came_with() {
    let world = World::new();
    let (engine, disk) = world.boot().await.unwrap();
    let session = coord_types::SessionId(7);
    let window = coord_types::WriterWindow { session, newest: 5, seen: 0b101 };
    let contents = chunkserver_engine::ChunkContents {
        version: coord_types::Version { epoch: coord_types::Epoch(1), counter: 9 },
        windows: vec![window],
        chunk_size_bytes: CHUNK,
        pieces: Vec::new(),
    };
    engine.install(key(0), contents).await.unwrap();
    let seen = |engine: &Engine| {
        [3, 4, 5, 6].map(|seq| engine.seen(key(0), coord_types::Stamp { session, seq }).unwrap())
    };
    assert_eq!(seen(&engine), [true, false, true, false]);
    drop(engine);
    disk.crash();
    world.kv.crash(0);
    let (engine, _disk) = world.boot().await.unwrap();
    assert_eq!(seen(&engine), [true, false, true, false]);
}

#[tokio::test]
async fn what_follows_a_refused_write_joins_those_before_it() {
    let world = World::sized(chunkserver_engine::Geometry {
        capacity_blocks: 50,
        segment_blocks: 50,
        ..World::new().geometry
    });
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let write = |offset, len, seed| TestOp::Write { chunk: 0, offset, len, seed };
    let first = model.plan(&write(0, 80_000, 1)).0;
    let (refused, effects) = model.plan(&write(81_920, 240_000 - 81_920, 2));
    let results = futures::future::join(call(&engine, first), async {
        let refused = call(&engine, refused).await;
        assert!(matches!(refused, Err(EngineError::Full { .. })), "{refused:?}");
        model.take_back(&effects);
        call(&engine, model.plan(&write(4096, 8192, 3)).0).await
    })
    .await;
    assert!(results.0.is_ok() && results.1.is_ok(), "{results:?}");
    assert_eq!(observe(&engine, key(0)).await, *model.chunks[&key(0)].states.last().unwrap());
}

#[tokio::test]
async fn all_writes_of_a_new_chunk_agree_on_its_size() {
    let world = World::new();
    let (engine, _disk) = world.boot().await.unwrap();
    let mut model = Model::default();
    let common::Call::Write(first) = model.plan(&TestOp::Write { chunk: 0, offset: 0, len: 4096, seed: 1 }).0
    else {
        unreachable!("a write was planned");
    };
    let mut other = first.clone();
    (other.expect, other.version.counter) = (first.version, first.version.counter + 1);
    other.chunk_size_bytes = 2 * CHUNK;
    let (first, other) = futures::join!(engine.write(first), engine.write(other));
    first.unwrap();
    assert!(matches!(other, Err(EngineError::ChunkSize { .. })), "{other:?}");
}

/// A frame that is too long could not be read back. Here one frame's write is overtaken by many: the journal fills with
/// frames that cannot be applied yet, and a flush of the store then lets go of none. That was tried again at once, for ever.
#[tokio::test]
async fn however_much_waits_a_frame_stays_short() {
    let geometry = chunkserver_engine::Geometry { journal_bytes: 4 << 20, ..World::new().geometry };
    let world = World::sized(geometry);
    let (engine, disk) = world.boot().await.unwrap();
    let value = vec![9; 60_000];
    let names: Vec<_> = (0..100).map(|n| format!("setting {n}")).collect();
    let puts = names.iter().map(|name| engine.put_setting(name, &value));
    futures::future::try_join_all(puts).await.unwrap();
    drop(engine);
    disk.crash();
    world.kv.crash(0);
    let (engine, _disk) = world.boot().await.unwrap();
    for name in &names {
        assert_eq!(engine.get_setting(name).unwrap().as_deref(), Some(value.as_slice()), "{name}");
    }
}
