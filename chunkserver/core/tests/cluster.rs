//! Three members run through random loss, delay and duplication of messages, crashes, restarts and epochs; I1, I3, I4, I5
//! and "equal versions, equal bytes" are checked after each step, and that everything is acknowledged once faults stop.
//!
//! A chunk's bytes are modelled by the list of writes applied to it, in order: two lists are equal if and only if the
//! bytes are, whatever the writes overlap.

mod cluster {
    pub(crate) mod member;
    pub(crate) mod world;
}

use cluster::world::{Faults, World};
use proptest::prelude::*;

/// Steps with faults; a run takes a few milliseconds.
const STEPS: usize = 1000;

fn run(seed: u64, faults: Faults) {
    let mut world = World::new(seed, faults);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    world.heal();
    world.check();
    world.check_healed();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold(
        seed in any::<u64>(),
        loss in 0u64..30,
        crash in 0u64..20,
        disk in 0u64..10,
        epoch in 0u64..10,
        depth in 1usize..5,
    ) {
        run(seed, Faults { loss, crash, disk, epoch, depth });
    }
}

#[test]
fn without_faults_every_write_is_acknowledged() {
    let mut world = World::new(1, Faults { loss: 0, crash: 0, disk: 0, epoch: 0, depth: 4 });
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    assert!(world.acknowledged() > 20, "only {} writes came through", world.acknowledged());
    assert!(world.shown() > 10, "only {} reads came through", world.shown());
}

/// The harness sees what it must: a member that loses an acknowledged write is caught.
#[test]
#[should_panic(expected = "I4")]
fn a_lost_write_is_noticed() {
    let mut world = World::new(1, Faults { loss: 0, crash: 0, disk: 0, epoch: 0, depth: 4 });
    for _ in 0..STEPS {
        world.step();
    }
    world.lose_a_write();
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
}
