//! `pangu-sim`: runs seeds on all cores, prints what went wrong and how to see it again, then what happened in all.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use deploy_sim::{Bug, Options, Outcome, run};

/// Failures printed in full.
const SHOWN_MAX: usize = 3;

/// Simulates whole Pangu clusters, each driven by one seed.
#[derive(Debug, Parser)]
#[command(name = "pangu-sim", version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed alone, twice, and say what happened in it
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Put a bug back, to see that it is noticed
    #[arg(long)]
    bug: Option<Bug>,
    /// Virtual seconds with faults in each run
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What panics is told with its seed.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let failed = match arguments.seed {
        Some(seed) => replay(&arguments, seed),
        None => many(&arguments),
    };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn options(arguments: &Arguments, seed: u64) -> Options {
    Options { bug: arguments.bug, seconds: arguments.seconds, ..Options::new(seed) }
}

fn replay(arguments: &Arguments, seed: u64) -> bool {
    let first = run(options(arguments, seed));
    let again = run(Options { trace: true, ..options(arguments, seed) });
    assert_eq!(
        first.hash, again.hash,
        "seed {seed} does not repeat itself: something here is not deterministic"
    );
    let failed = again.violation.is_some();
    if failed {
        explain(arguments, &again);
    }
    summary(&again.counters);
    println!("history of seed {seed}: {:016x}", again.hash);
    println!("{} passed, {} failed", u8::from(!failed), u8::from(failed));
    failed
}

/// What was violated, the last events before it, and the command that does it again.
fn explain(arguments: &Arguments, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    for line in &outcome.trace {
        println!("  {line}");
    }
    println!("seed {}: {} is violated: {}", outcome.seed, violation.invariant, violation.what);
    println!("  history {:016x}; replay: {}", outcome.hash, command(arguments, outcome.seed));
}

fn command(arguments: &Arguments, seed: u64) -> String {
    let mut command = format!("scripts/sim --seed {seed}");
    if let Some(bug) = arguments.bug {
        let name = clap::ValueEnum::to_possible_value(&bug).map(|value| value.get_name().to_owned());
        command += &format!(" --bug {}", name.unwrap_or_default());
    }
    if arguments.seconds != 8 {
        command += &format!(" --seconds {}", arguments.seconds);
    }
    command
}

fn many(arguments: &Arguments) -> bool {
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let outcomes = Mutex::new((BTreeMap::new(), Vec::new()));
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = run(options(arguments, seed));
                    let mut outcomes = outcomes.lock().expect("nobody panics with it");
                    for (what, count) in &outcome.counters {
                        *outcomes.0.entry(*what).or_insert(0) += count;
                    }
                    if outcome.violation.is_some() {
                        outcomes.1.push(seed);
                    }
                }
            });
        }
    });
    let (counters, mut failed) = outcomes.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    for seed in failed.iter().take(SHOWN_MAX) {
        explain(arguments, &run(Options { trace: true, ..options(arguments, *seed) }));
    }
    for seed in failed.iter().skip(SHOWN_MAX) {
        println!("seed {seed} failed, too: {}", command(arguments, *seed));
    }
    summary(&counters);
    println!("{} passed, {} failed", arguments.seeds - failed.len() as u64, failed.len());
    !failed.is_empty()
}

fn summary(counters: &BTreeMap<&'static str, u64>) {
    for (what, count) in counters {
        println!("{count:>12}  {what}");
    }
}
