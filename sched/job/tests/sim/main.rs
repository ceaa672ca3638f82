//! One job in a simulated world: workers that are slow, fail and die, replies that get lost, and a job master that crashes between
//! any two effects, with what it was appending torn. What must hold is checked at every step by `world`; here are the runs.

mod plans;
mod world;

use sched_job::JobOutcome;
use world::{Config, World};

fn run(config: Config) -> World {
    let seed = config.seed;
    let mut world = World::new(config);
    world.run();
    assert_eq!(world.ended, Some(JobOutcome::Done), "seed {seed}: {}", world.why());
    world.check_end();
    world
}

#[test]
fn a_calm_job_ends_and_runs_everything_once() {
    let world = run(Config { seed: 1, ..Config::calm(plans::mixed()) });
    assert_eq!(world.assigned, world.instances(), "nothing ran twice");
    assert_eq!(world.crashes, 0);
}

#[test]
fn whatever_breaks_every_instance_is_promoted_once_and_the_job_ends() {
    let (mut crashes, mut torn, mut lost, mut reopened) = (0, 0, 0, 0);
    for seed in 0..150 {
        let world = run(Config { seed, ..Config::rough(plans::mixed()) });
        crashes += world.crashes;
        torn += world.torn;
        lost += world.workers_lost;
        reopened += world.reopened();
    }
    // The runs are worth nothing if nothing broke in them.
    assert!(crashes > 1000 && torn > 50 && lost > 300 && reopened > 20, "{crashes} {torn} {lost} {reopened}");
}

#[test]
fn a_crash_before_each_effect_in_turn_is_survived() {
    let mut at = 0;
    loop {
        let config = Config { seed: 7, crash_at: Some(at), ..Config::calm(plans::small()) };
        if run(config).crashes == 0 {
            break;
        }
        at += 1;
    }
    assert!(at > 80, "only {at} effects in all");
}

#[test]
fn a_tenth_slow_or_killed_costs_less_than_a_quarter() {
    for seed in 0..6 {
        let calm = run(Config { seed, ..Config::calm(plans::long()) }).makespan_ms();
        let config = Config { slow_per_mille: 50, kill_per_mille: 50, ..Config::calm(plans::long()) };
        let rough = run(Config { seed, ..config });
        assert!(rough.workers_lost > 10 && rough.backups() > 10, "the run was rough");
        let percent = rough.makespan_ms() * 100 / calm;
        println!("seed {seed}: calm {calm} ms, rough {} ms: {percent} %", rough.makespan_ms());
        assert!(percent <= 125, "seed {seed}: {percent} % of the calm time");
    }
}
