//! `pangu-rebuild`: how long a lost chunkserver takes to be filled again and a drained one to be empty, and what programs on a
//! mount feel of it.
//!
//! A cluster is filled, programs that check what they read work on it at a steady pace, and their operations are timed: first
//! with nothing else going on, then while the data of one chunkserver is made again, then while another is emptied. At the end
//! every byte is read and compared.
//!
//! Read in this order: [`store`] (the data), [`foreground`] (the programs), [`scene`] (the cluster and the steps), [`report`].

mod foreground;
mod report;
mod scene;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::report::Report;
use crate::scene::Scene;

/// Measures the rebuild of a lost chunkserver and the drain of one, and what programs on a mount feel of them.
#[derive(Debug, Parser)]
#[command(name = "pangu-rebuild", version, after_help = NOTES)]
struct Flags {
    /// What each chunkserver holds
    #[arg(long, value_name = "GIB", default_value_t = 10.0)]
    gib: f64,
    /// Chunkservers at the start, each in a rack of its own
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=20))]
    chunkservers: u32,
    /// Programs that work on the mount at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    programs: u64,
    /// How long they are timed before anything happens
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// Lines of the cluster description's section [survival], e.g. "resync_mib_per_s = 100"
    #[arg(long, value_name = "LINES", default_value = "")]
    survival: String,
    /// Leave the drain out: it wants one chunkserver more, and its space
    #[arg(long)]
    no_drain: bool,
    /// Everything lies there [default: a folder of its own in TMPDIR]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const NOTES: &str = "\
All servers share this machine's disks and cores, so a rebuild competes with the programs for everything.

Exit status: 0 if nothing was lost and no operation failed; 1 otherwise. The figures are for reading.";

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pangu-rebuild: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<bool> {
    anyhow::ensure!(flags.gib > 0.0, "--gib {}: each chunkserver must hold something", flags.gib);
    let mut report = Report::default();
    let mut scene = Scene::up(flags)?;
    report.add(scene.quiet(Duration::from_secs(flags.seconds))?);
    report.add(scene.rebuild()?);
    if !flags.no_drain {
        report.add(scene.drain()?);
    }
    let (wrong, right_bytes) = scene.down()?;
    report.end(wrong, right_bytes);
    print!("{}", report.text());
    if let Some(path) = &flags.json {
        std::fs::write(path, report.json()).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(report.whole())
}
