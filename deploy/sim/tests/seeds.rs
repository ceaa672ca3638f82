//! The simulator, simulated: a healthy system passes, things really go wrong in it, a seed repeats itself, and bugs that are put
//! back are noticed.

use std::collections::BTreeMap;

use deploy_sim::{Bug, Options, Outcome, run};

/// Enough that all kinds of faults are drawn, few enough for every change.
const SEEDS: u64 = 60;
/// A bug is noticed within so many seeds, or the simulator is blind to it.
const SEEDS_PER_BUG: u64 = 1500;

fn outcome(seed: u64, bug: Option<Bug>) -> Outcome {
    run(Options { bug, ..Options::new(seed) })
}

#[test]
fn a_healthy_system_passes_and_things_go_wrong_in_it() {
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let outcome = outcome(seed, None);
        assert_eq!(outcome.violation, None, "scripts/sim --seed {seed}");
        for (what, count) in outcome.counters {
            *counters.entry(what).or_default() += count;
        }
    }
    for (what, least) in [
        ("crashes of chunkservers", 70),
        ("crashes of masters", 20),
        ("master leader changes", 60),
        ("lost answers of masters", 25),
        ("network cuts", 75),
        ("network cuts in one direction", 30),
        ("networks split in two", 20),
        ("lost messages", 800),
        ("late messages", 200),
        ("doubled messages", 600),
        ("bursts of lost messages", 20),
        ("processes stopped for a while", 20),
        ("slow disks", 20),
        ("slow members taken out", 20),
        ("disks that came back empty", 8),
        ("disks that failed", 8),
        ("disks drained", 15),
        ("graceful stops", 15),
        ("clock steps", 20),
        ("writes lost at a crash", 10),
        ("writes torn at a crash", 2),
        ("unconfirmed writes that survived", 4),
        ("epochs", 600),
        ("activations", 600),
        ("chunks filled", 250),
        ("chunks installed", 100),
        ("writes forwarded to members being filled", 100),
        ("replicas deleted", 20),
        ("reads without a lease", 100),
        ("writes acknowledged", 4000),
        ("reads shown", 4000),
    ] {
        let count = counters.get(what).copied().unwrap_or_default();
        assert!(count >= least, "{what}: {count} times in {SEEDS} runs; all: {counters:#?}");
    }
}

#[test]
fn a_seed_repeats_itself_and_no_other() {
    let first = outcome(7, None);
    assert_eq!(first, outcome(7, None));
    assert_ne!(first.hash, outcome(8, None).hash);
    let traced = run(Options { trace: true, ..Options::new(7) });
    assert_eq!(first.hash, traced.hash, "looking changes nothing");
    assert!(!traced.trace.is_empty());
}

/// The bug is noticed by one of these invariants, and the run that noticed it repeats itself.
fn is_noticed(bug: Bug, by: &[&str]) {
    let noticed = (0..SEEDS_PER_BUG).map(|seed| outcome(seed, Some(bug))).find(|run| run.violation.is_some());
    let noticed = noticed.unwrap_or_else(|| panic!("{bug:?} is not noticed in {SEEDS_PER_BUG} seeds"));
    let violation = noticed.violation.clone().expect("it was found by that");
    assert!(by.contains(&violation.invariant), "{bug:?} is noticed by {violation:?}");
    assert_eq!(noticed, outcome(noticed.seed, Some(bug)), "its replay is another history");
}

#[test]
fn a_lease_that_is_not_waited_for_is_noticed() {
    is_noticed(Bug::LeaseWait, &["leases", "I4"]);
}

#[test]
fn reads_without_a_lease_are_noticed() {
    is_noticed(Bug::NoLease, &["I4"]);
}

#[test]
fn confirmed_writes_that_were_not_synced_are_noticed() {
    is_noticed(Bug::Unsynced, &["I1", "I4", "I5", "equal versions"]);
}

#[test]
fn records_before_their_data_are_noticed() {
    is_noticed(Bug::RecordFirst, &["I2", "equal versions"]);
}

#[test]
fn forgotten_stamps_are_noticed() {
    is_noticed(Bug::ForgetStamp, &["I5"]);
}

#[test]
fn a_member_that_serves_too_early_is_noticed() {
    is_noticed(Bug::SettleEarly, &["I1", "I4"]);
}

#[test]
fn an_answer_before_all_members_have_the_write_is_noticed() {
    is_noticed(Bug::AckEarly, &["I1"]);
}

#[test]
fn heartbeats_without_numbers_are_noticed() {
    is_noticed(Bug::LateHeartbeat, &["leases", "I4"]);
}

#[test]
fn a_slow_disk_that_keeps_its_lease_is_noticed() {
    is_noticed(Bug::SlowLease, &["leases", "I4"]);
}
