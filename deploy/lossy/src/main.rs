//! `lossy-disk MOUNTPOINT BACKING`: a lossy disk for people. Commands on the standard input, one a line: `cut` (all
//! that is not synced goes), `cut SEED` (some of it), `quit`. What it does to files in use is theirs to bear.

use std::io::{self, BufRead as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use deploy_lossy::{Loss, LossyDisk, Options};

#[derive(Debug, Parser)]
#[command(about = "A file system that forgets on command what was not synced", version)]
struct Args {
    /// An empty directory
    mountpoint: PathBuf,
    /// A directory that holds the bytes while the disk lives
    backing: PathBuf,
    /// How long a sync takes, in milliseconds
    #[arg(long, default_value_t = 0)]
    sync_delay_ms: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = Options { sync_delay: Duration::from_millis(args.sync_delay_ms) };
    let disk = LossyDisk::mount(&args.mountpoint, &args.backing, options)
        .with_context(|| format!("mount on {}", args.mountpoint.display()))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let loss = match words[..] {
            [] => continue,
            ["quit"] => break,
            ["cut"] => Loss::All,
            ["cut", seed] => match seed.parse() {
                Ok(seed) => Loss::Subset(seed),
                Err(error) => {
                    eprintln!("{seed}: {error}");
                    continue;
                }
            },
            _ => {
                eprintln!("cut, cut SEED, or quit");
                continue;
            }
        };
        println!("{:?}", disk.cut(loss)?);
        disk.power_on();
    }
    Ok(())
}
