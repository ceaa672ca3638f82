//! `pangu-chaos`: a cluster under a checked load, and faults drawn from a seed.
//!
//! Writers keep a ledger of what was confirmed to them, readers on another mount compare; registers and names are
//! worked on from all mounts, and their histories are checked for linearizability at the end. Meanwhile servers are
//! killed, stopped, cut off and starved, one or two at a time, never more than the design survives.
//!
//! Read in this order: [`plan`] (what is done), [`nemesis`] (does it), [`registers`] and [`names`] (what is checked),
//! [`linear`] (how), [`run`] (all together), [`report`]; and [`nuwa`], which does the same to Nuwa.

mod crew;
mod deck;
mod disks;
mod keep;
mod linear;
mod names;
mod nemesis;
mod nuwa;
mod plan;
mod registers;
mod report;
mod run;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Hurts a cluster at random while programs work on it, and checks all that they saw.
#[derive(Debug, Parser)]
#[command(name = "pangu-chaos", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    /// How long the load runs; bringing up and checking come on top
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Decides faults, victims, times, and what each worker does [default: drawn, and printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Chunkservers, each in a rack and on a disk of its own
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(4..=20))]
    chunkservers: u32,
    /// Hurt Nuwa instead of Pangu, and check what its clients saw
    #[arg(long, conflicts_with = "chunkservers")]
    nuwa: bool,
    /// Members of Nuwa
    #[arg(long, value_name = "N", default_value_t = 3, requires = "nuwa", value_parser = clap::value_parser!(u32).range(3..=7))]
    members: u32,
    /// Only these faults; of one that there is not, all that there are
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the result there too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Needs root: each server gets a network namespace, each chunkserver a file system in a loop device.

Exit status: 0 if every check passed; 130 if interrupted; 1 otherwise, and the logs and histories are kept.";

impl Flags {
    /// The kinds of fault that are wanted, of all that there are.
    fn faults<F: ValueEnum>(&self, all: &[F]) -> anyhow::Result<Vec<F>> {
        if self.only.is_empty() {
            return Ok(all.to_vec());
        }
        let names = || all.iter().filter_map(F::to_possible_value).map(|value| value.get_name().to_owned());
        let parse = |name: &String| {
            let known = F::from_str(name, true).ok();
            known.with_context(|| format!("--only {name}: {}", names().collect::<Vec<_>>().join(", ")))
        };
        self.only.iter().map(parse).collect()
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let run = if flags.nuwa { nuwa::run::run } else { run::run };
    match watch_signals().and_then(|()| run(&flags, &INTERRUPTED)) {
        _ if INTERRUPTED.load(Ordering::Acquire) => {
            eprintln!("pangu-chaos: interrupted; the cluster is down");
            ExitCode::from(130)
        }
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pangu-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Set by SIGINT and SIGTERM. A handler and not a blocked signal that is waited for: what is blocked here would be blocked
/// in every server that is started, which then could not be stopped.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Release);
}

fn watch_signals() -> anyhow::Result<()> {
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else, which a handler may do.
        unsafe { sigaction(signal, &action) }.context("listen for signals")?;
    }
    Ok(())
}
