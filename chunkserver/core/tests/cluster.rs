//! Three members of a group, and a spare disk, run through random loss, delay and duplication of messages, crashes,
//! restarts, and changes of members by the master's rules (out, lost, sync, join, replace, lead), with leases; I1, I3, I4, I5 and "equal versions, equal bytes" are checked after each step, and that everything is acknowledged once faults stop.
//!
//! A chunk's bytes are modelled by the list of writes applied to it, in order: two lists are equal if and only if the
//! bytes are, whatever the writes overlap.

mod cluster {
    pub(crate) mod master;
    pub(crate) mod member;
    pub(crate) mod world;
}

use cluster::world::{Faults, World};
use proptest::prelude::*;

/// Steps with faults; a run takes a few milliseconds.
const STEPS: usize = 1500;

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
        epoch in 0u64..200,
        depth in 1usize..5,
    ) {
        run(seed, Faults { loss, crash, disk, epoch, depth, leases: true });
    }
}

#[test]
fn without_faults_every_write_is_acknowledged() {
    let mut world = World::new(1, Faults { loss: 0, crash: 0, disk: 0, epoch: 0, depth: 4, leases: true });
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    assert!(world.acknowledged() > 20, "only {} writes came through", world.acknowledged());
    assert!(world.shown() > 10, "only {} reads came through", world.shown());
}

/// The harness sees what it must: without leases a member that was taken out shows what is no longer true.
#[test]
#[should_panic(expected = "I4")]
fn a_read_without_a_lease_is_noticed() {
    for seed in 0..5000 {
        run(seed, Faults { loss: 0, crash: 0, disk: 0, epoch: 100, depth: 4, leases: false });
    }
}

/// Members come back by resync, and writes go on meanwhile.
#[test]
fn members_come_and_go_under_writes() {
    let mut totals = (0, 0);
    for seed in 0..20 {
        let mut world =
            World::new(seed, Faults { loss: 2, crash: 5, disk: 0, epoch: 80, depth: 4, leases: true });
        for _ in 0..4 * STEPS {
            world.step();
            world.check();
        }
        totals = (totals.0 + world.joined(), totals.1 + world.forwarded());
        world.heal();
        world.check_healed();
    }
    assert!(totals.0 > 20 && totals.1 > 20, "{totals:?} joins and forwards: the test tests little");
}

/// The harness sees what it must: a member that loses an acknowledged write is caught.
#[test]
#[should_panic(expected = "I4")]
fn a_lost_write_is_noticed() {
    let mut world = World::new(1, Faults { loss: 0, crash: 0, disk: 0, epoch: 0, depth: 4, leases: true });
    for _ in 0..STEPS {
        world.step();
    }
    world.lose_a_write();
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
}
