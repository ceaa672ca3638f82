//! `pangu-faults`: how long programs on a mount wait when servers fail.
//!
//! A system is brought up, writers that keep a ledger of what was confirmed to them begin to work on its mount, and
//! servers are hurt, one fault after another, round by round. The longest operation of each round counts, apart for the
//! fault and for the return. At the end everything that was confirmed is read and compared.
//!
//! Read in this order: [`fault`] (what is done to a system), [`system`] (the systems), [`round`] (one fault), [`report`].

mod fault;
mod report;
mod round;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use deploy_e2e::Load;

use crate::fault::Fault;
use crate::report::{Outcome, Report};
use crate::system::{Pangu, Script, System};

/// Measures how long programs on a mount wait when servers fail, and that nothing confirmed is lost.
#[derive(Debug, Parser)]
#[command(name = "pangu-faults", version, after_help = EXAMPLES)]
struct Flags {
    /// How often each fault is done
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: usize,
    /// Chunkservers of the Pangu cluster, each in a rack of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=50))]
    chunkservers: u32,
    /// Programs that work on the mount at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    writers: u64,
    /// Only these faults
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<Fault>,
    /// Do the same to another system, brought up by a script (`up MOUNTPOINT`, `down`, `pids`); NAME is moosefs or gluster
    #[arg(long, value_name = "NAME=SCRIPT")]
    peer: Vec<String>,
    /// Leave Pangu out
    #[arg(long, requires = "peer")]
    peers_only: bool,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Needs root: each server of the Pangu cluster gets a network namespace, so that its cable can be pulled.

Exit status: 0 if Pangu kept its limits, gave no error and lost nothing; 1 otherwise.";

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pangu-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<bool> {
    let mut report = Report::default();
    for peer in &flags.peer {
        let (name, script) = peer.split_once('=').context("--peer wants NAME=SCRIPT")?;
        report.add(measure(&mut Script::up(name, script.as_ref())?, flags)?);
    }
    if !flags.peers_only {
        report.add(measure(&mut Pangu::up(flags.chunkservers)?, flags)?);
    }
    print!("{}", report.text());
    if let Some(path) = &flags.json {
        std::fs::write(path, report.json()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(report.kept())
}

/// All rounds on one system.
fn measure(system: &mut dyn System, flags: &Flags) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new(system.name());
    let mut load = Load::start(system.mount(), flags.writers, 0)?;
    for fault in Fault::ALL {
        if !(flags.only.is_empty() || flags.only.contains(&fault)) || !system.can(fault) {
            continue;
        }
        for number in 0..flags.rounds {
            let stall = round::round(system, &mut load, fault, number)
                .with_context(|| format!("{}: {fault}, round {}", system.name(), number + 1))?;
            eprintln!(
                "{}: {fault} {}/{}: {:.3} s{}, at the return {:.3} s",
                system.name(),
                number + 1,
                flags.rounds,
                stall.fault.as_secs_f64(),
                if stall.alone { "" } else { " and longer" },
                stall.back.as_secs_f64()
            );
            outcome.add(fault, stall);
        }
    }
    let ended = load.finish();
    let errors = ended.errors.iter().map(|met| met.error.to_string()).collect();
    outcome.end(errors, ended.wrong, ended.right);
    system.down()?;
    Ok(outcome)
}
