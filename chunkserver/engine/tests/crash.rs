//! Power cuts: at every step of a random run of operations. Afterwards every acknowledged operation is there, every
//! other one is there whole or not at all, the offline check finds nothing, and no block is lost.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use chunkserver_engine::io::sim::{Power, SimDisk};
use chunkserver_engine::{Engine, EngineError};
use common::{CHUNK, Model, TestOp, World, call, observe};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Operations in flight at a time.
const DEPTH: usize = 6;

fn random_ops(seed: u64, count: usize) -> Vec<TestOp> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let chunk = rng.random_range(0..4);
            let (offset, len) = match rng.random_range(0..4) {
                0 => (rng.random_range(0..CHUNK / 4096) * 4096, 4096),
                1 => (rng.random_range(0..CHUNK - 5000), rng.random_range(1..5000)),
                2 => (rng.random_range(0..20) * 4096, rng.random_range(1..12) * 4096),
                _ => (rng.random_range(0..20) * 4096, rng.random_range(17..40) * 4096),
            };
            match rng.random_range(0..20) {
                0 => TestOp::Remove { chunk },
                1 => TestOp::DeleteData { data: chunk / 2 },
                2 => TestOp::Install {
                    chunk,
                    pieces: vec![(0, rng.random_range(1..20)), (40, 3)],
                    seed: rng.random(),
                },
                3 | 4 => TestOp::Punch { chunk, offset, len },
                5 => TestOp::Setting { value: rng.random() },
                6 => TestOp::Heal { chunk, first: rng.random_range(0..20), count: rng.random_range(1..20) },
                _ => TestOp::Write { chunk, offset, len, seed: rng.random() },
            }
        })
        .collect()
}

/// Runs operations, several at a time, until all are done or power is off.
async fn run(engine: &Engine, power: &Power, model: &Arc<Mutex<Model>>, ops: &[TestOp]) {
    let mut running = tokio::task::JoinSet::new();
    for op in ops {
        // What deletes by prefix, or says only which was the last, has no order among what runs beside it.
        let alone = matches!(op, TestOp::DeleteData { .. } | TestOp::Setting { .. });
        while running.len() >= DEPTH || (alone && !running.is_empty()) {
            if !settle(&mut running, power).await {
                return;
            }
        }
        let (asked, effects) = model.lock().plan(op);
        let setting = matches!(op, TestOp::Setting { .. }).then(|| model.lock().settings.len());
        let (engine, model) = (engine.clone(), model.clone());
        running.spawn(async move {
            match call(&engine, asked).await {
                Ok(()) => {
                    let mut model = model.lock();
                    model.acknowledge(&effects);
                    if let Some(setting) = setting {
                        model.setting_acknowledged = setting;
                    }
                }
                Err(EngineError::Failed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        });
        // Let it take its place: the order of plans is the order of versions.
        tokio::task::yield_now().await;
        if alone {
            while !running.is_empty() {
                if !settle(&mut running, power).await {
                    return;
                }
            }
        }
    }
    while !running.is_empty() && settle(&mut running, power).await {}
}

/// Lets things run until one is done. `false` if power went off.
async fn settle(running: &mut tokio::task::JoinSet<()>, power: &Power) -> bool {
    loop {
        if power.is_off() {
            return false;
        }
        if let Some(done) = running.try_join_next() {
            done.unwrap();
            return true;
        }
        tokio::task::yield_now().await;
    }
}

/// One life of the machine, ended by a power cut just before step `off_at`. Returns the steps it had.
fn live_and_crash(
    world: &World,
    model: &Arc<Mutex<Model>>,
    ops: &[TestOp],
    off_at: Option<u64>,
    seed: u64,
) -> u64 {
    live(world, model, ops, off_at, seed, SimDisk::crash)
}

fn live(
    world: &World,
    model: &Arc<Mutex<Model>>,
    ops: &[TestOp],
    off_at: Option<u64>,
    seed: u64,
    end: fn(&SimDisk),
) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let power = Power::new(off_at);
        let (parts, disk) = world.parts(&power, seed);
        let opened = tokio::spawn(Engine::on(parts));
        while !opened.is_finished() && !power.is_off() {
            tokio::task::yield_now().await;
        }
        // Power may go while the disk is being opened, too.
        if opened.is_finished()
            && let Ok(engine) = opened.await.unwrap()
        {
            run(&engine, &power, model, ops).await;
        }
        end(&disk);
        let pending = world.kv.pending();
        let kept = StdRng::seed_from_u64(seed).random_range(0..=pending);
        world.kv.crash(kept);
        power.steps()
    })
}

/// Opens the disk after a crash, compares it with what may be there, and takes what is there as the truth.
fn check(world: &World, model: &Arc<Mutex<Model>>, context: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        world.assert_clean().await;
        let (engine, _disk) = world.boot().await.unwrap();
        // Taken out: nobody else has it now, and a lock must not be held while waiting.
        let mut model_now = std::mem::take(&mut *model.lock());
        let model_slot = model;
        let model = &mut model_now;
        let mut observed = BTreeMap::new();
        for (key, history) in &mut model.chunks {
            let state = observe(&engine, *key).await;
            let found = (history.acknowledged..history.states.len()).find(|at| history.states[*at] == state);
            let Some(at) = found else {
                let known = history.states.iter().position(|known| known.version == state.version);
                panic!(
                    "{context}: chunk {key:?} is at {} (state {known:?}), acknowledged was state {} at {}",
                    state.version, history.acknowledged, history.states[history.acknowledged].version
                );
            };
            history.states = vec![history.states[at].clone()];
            history.acknowledged = 0;
            observed.insert(*key, state);
        }
        common::assert_no_leak(&engine, &observed);
        let setting = engine.get_setting("answer").unwrap().map(|value| value[0]);
        let allowed = &model.settings[model.setting_acknowledged.saturating_sub(1)..];
        assert!(
            setting.map_or(model.setting_acknowledged == 0, |value| allowed.contains(&value)),
            "{context}"
        );
        model.settings = setting.into_iter().collect();
        model.setting_acknowledged = model.settings.len();
        *model_slot.lock() = model_now;
    });
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged() {
    let ops = random_ops(11, 60);
    let whole = live_and_crash(&World::new(), &Arc::default(), &ops, None, 5);
    assert!(whole > 150, "the run has only {whole} steps");
    for off_at in 0..whole {
        let world = World::new();
        let model = Arc::<Mutex<Model>>::default();
        live_and_crash(&world, &model, &ops, Some(off_at), 5);
        check(&world, &model, &format!("cut at step {off_at}"));
    }
}

#[test]
fn power_cuts_one_after_another_add_nothing_up() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = World::new();
        let model = Arc::<Mutex<Model>>::default();
        for life in 0..8 {
            let ops = random_ops(rng.random(), 40);
            let off_at = rng.random_range(0..150);
            live_and_crash(&world, &model, &ops, Some(off_at), rng.random());
            // Opening must survive being cut itself.
            for _ in 0..rng.random_range(0..3) {
                live_and_crash(&world, &model, &[], Some(rng.random_range(0..12)), rng.random());
            }
            check(&world, &model, &format!("seed {seed}, life {life}, cut at step {off_at}"));
        }
    }
}

/// Overwrites of two blocks, many in flight: blocks are freed while the frames that named them are hardly written, and
/// handed out again at once.
#[test]
fn blocks_are_not_handed_out_while_a_crash_may_want_to_look_at_them() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ops: Vec<_> = (0..24)
            .map(|_| TestOp::Write {
                chunk: rng.random_range(0..2),
                offset: 0,
                len: 4096,
                seed: rng.random(),
            })
            .collect();
        let whole = live_and_crash(&World::new(), &Arc::default(), &ops, None, seed);
        for off_at in (whole / 4..whole).step_by(2) {
            let world = World::new();
            let model = Arc::<Mutex<Model>>::default();
            live_and_crash(&world, &model, &ops, Some(off_at), seed);
            check(&world, &model, &format!("seed {seed}, cut at step {off_at}"));
        }
    }
}

/// The process is killed with writes in the disk's cache. The next one finds them; what it goes on from must survive
/// the power cut that follows.
#[test]
fn what_is_found_after_a_kill_survives_a_power_cut() {
    for seed in 0..20 {
        let ops: Vec<_> = random_ops(seed, 30);
        let whole = live_and_crash(&World::new(), &Arc::default(), &ops, None, seed);
        for off_at in (0..whole).step_by(3) {
            let world = World::new();
            let model = Arc::<Mutex<Model>>::default();
            live(&world, &model, &ops, Some(off_at), seed, SimDisk::kill);
            check(&world, &model, &format!("seed {seed}, killed at step {off_at}"));
            live_and_crash(&world, &model, &[], None, seed);
            check(&world, &model, &format!("seed {seed}, killed at step {off_at}, then cut"));
        }
    }
}

/// A crash may leave a frame behind one that is missing. The next life writes another in the place of the missing one
/// and dies at once: the one behind it must not come back to life.
#[test]
fn what_lies_behind_a_missing_frame_stays_dead() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = World::new();
        let model = Arc::<Mutex<Model>>::default();
        let write = |rng: &mut StdRng| TestOp::Write {
            chunk: rng.random_range(0..6),
            offset: 0,
            len: 4096,
            seed: rng.random(),
        };
        for life in 0..4 {
            let ops: Vec<_> = (0..30).map(|_| write(&mut rng)).collect();
            let off_at = rng.random_range(3..30);
            live_and_crash(&world, &model, &ops, Some(off_at), rng.random());
            check(&world, &model, &format!("seed {seed}, life {life}, cut at step {off_at}"));
        }
    }
}
