//! The simulator, simulated: a healthy system passes, things really go wrong in it, a seed repeats itself, and bugs that are put
//! back are noticed.

use std::collections::BTreeMap;

use deploy_sim::{Bug, Options, Outcome, run};

/// Enough that all kinds of faults are drawn, few enough for every change.
const SEEDS: u64 = 24;
/// A bug is noticed within so many seeds, or the simulator is blind to it.
const SEEDS_PER_BUG: u64 = 150;

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
        ("crashes of chunkservers", 50),
        ("crashes of masters", 10),
        ("master leader changes", 30),
        ("lost answers of masters", 10),
        ("network cuts", 30),
        ("network cuts in one direction", 10),
        ("lost messages", 500),
        ("late messages", 100),
        ("doubled messages", 500),
        ("processes stopped for a while", 10),
        ("slow disks", 10),
        ("disks that came back empty", 5),
        ("disks that failed", 3),
        ("disks drained", 5),
        ("graceful stops", 10),
        ("clock steps", 10),
        ("writes lost at a crash", 30),
        ("writes torn at a crash", 10),
        ("epochs", 500),
        ("activations", 500),
        ("chunks filled", 100),
        ("chunks installed", 20),
        ("writes forwarded to members being filled", 50),
        ("replicas deleted", 3),
        ("reads without a lease", 50),
        ("writes acknowledged", 5000),
        ("reads shown", 5000),
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
