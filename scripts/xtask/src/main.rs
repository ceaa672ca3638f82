//! `cargo run -p xtask -- tidy`: what must hold of the tree and no compiler checks. Reads only.

mod purity;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Repository checks that are logic rather than shell.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check sources, documents and the dependencies of the pure crates; print every offence.
    Tidy,
}

fn main() -> anyhow::Result<ExitCode> {
    let Task::Tidy = Cli::parse().task;
    let root = root()?;
    let tree = tidy::Tree::load(&root)?;
    let mut offences = tidy::check(&tree);
    offences.extend(purity::check(&root)?);
    for offence in &offences {
        println!("{offence}");
    }
    println!("tidy: {} files read, {} offences", tree.files.len(), offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The checkout: the folder above `scripts/xtask`, wherever the program is started. What `cargo run` says counts: the
/// target directory is shared by checkouts, and the program may have been built in one that is gone.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .ancestors()
        .nth(2)
        .map(PathBuf::from)
        .ok_or_else(|| anyhow::anyhow!("{} is not two folders deep in a checkout", manifest.display()))
}
