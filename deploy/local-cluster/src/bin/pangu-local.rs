//! `pangu-local`: a replicated cluster of real processes on this machine, for people who want to try one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use deploy_local_cluster::{Deadline, Options, end_process, is_mounted, start_time, unmount};
use serde::{Deserialize, Serialize};

/// Starts, shows and ends a cluster on this machine: masters, chunkservers in racks of their own, one mount.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Folder for data, logs and state.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir().join("feitian-local"))]
    folder: PathBuf,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a fresh cluster and mount it.
    Up {
        /// Where to mount it.
        mount: PathBuf,
        /// Masters.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
        masters: u32,
        /// Chunkservers, each in a rack of its own.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
        chunkservers: u32,
        /// Copies of each chunk [default: 3, or fewer if there are fewer chunkservers].
        #[arg(long)]
        replicas: Option<u32>,
        /// What each chunkserver may use of the disk.
        #[arg(long, default_value = "20G")]
        capacity: String,
        /// Encrypt what its processes say to each other.
        #[arg(long)]
        tls: bool,
    },
    /// Show the processes and what the cluster says of itself.
    Status,
    /// Unmount, end every process, delete the data.
    Down,
}

/// What `up` leaves for `status` and `down`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    mount: PathBuf,
    binaries: PathBuf,
    processes: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    pid: u32,
    /// With the pid it names the process for good.
    started: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Verb::Up { mount, masters, chunkservers, replicas, capacity, tls } => {
            let mut options = Options::new(masters, chunkservers);
            if let Some(replicas) = replicas {
                options.replicas = replicas;
                options.min_replicas = replicas.saturating_sub(1).max(1);
            }
            options.capacity = capacity;
            options.tls = tls;
            up(&cli.folder, &mount, options)
        }
        Verb::Status => status(&cli.folder),
        Verb::Down => down(&cli.folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pangu-local: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn state_file(folder: &Path) -> PathBuf {
    folder.join("processes.json")
}

fn load(folder: &Path) -> anyhow::Result<Option<State>> {
    let path = state_file(folder);
    match fs::read_to_string(&path) {
        Ok(text) => {
            Ok(Some(serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn up(folder: &Path, mount: &Path, mut options: Options) -> anyhow::Result<()> {
    if let Some(state) = load(folder)? {
        bail!(
            "already up at {}; end it first: pangu-local --folder {} down",
            state.mount.display(),
            folder.display()
        );
    }
    if options.replicas == 0 || options.replicas > options.chunkservers {
        bail!("{} replicas need at least as many chunkservers, and at least one", options.replicas);
    }
    fs::create_dir_all(mount).with_context(|| format!("make {}", mount.display()))?;
    let mount = mount.canonicalize().with_context(|| format!("find {}", mount.display()))?;
    if is_mounted(&mount) {
        bail!("something is mounted at {} already", mount.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    options.folder = Some(folder.to_owned());
    let mut cluster = options.start()?;
    cluster.mount_at(&mount)?;
    let binaries = cluster.binaries().to_owned();
    let description = cluster.description();
    let processes = cluster
        .detach()
        .into_iter()
        .filter_map(|(role, pid)| Some(Entry { name: role.to_string(), pid, started: start_time(pid)? }))
        .collect();
    let state = State { mount, binaries, processes };
    let path = state_file(folder);
    fs::write(&path, serde_json::to_string_pretty(&state)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("mounted at {}", state.mount.display());
    println!("  {} --cluster {} status", state.binaries.join("pangu").display(), description.display());
    println!("  logs and data: {}", folder.display());
    println!("  pangu-local --folder {} down", folder.display());
    Ok(())
}

fn status(folder: &Path) -> anyhow::Result<()> {
    let Some(state) = load(folder)? else { bail!("nothing is up in {}", folder.display()) };
    for process in &state.processes {
        let word = if start_time(process.pid) == Some(process.started) { "runs" } else { "gone" };
        println!("{:<14} {word}  pid {}", process.name, process.pid);
    }
    let word = if is_mounted(&state.mount) { "mounted" } else { "not mounted" };
    println!("{:<14} {word}", state.mount.display());
    let program = state.binaries.join("pangu");
    let said =
        Command::new(&program).arg("--cluster").arg(folder.join("cluster.toml")).arg("status").status();
    if !said.with_context(|| format!("run {}", program.display()))?.success() {
        bail!("the cluster does not answer; logs are in {}", folder.join("log").display());
    }
    Ok(())
}

fn down(folder: &Path) -> anyhow::Result<()> {
    const STOP: Duration = Duration::from_secs(15);
    let Some(state) = load(folder)? else {
        println!("nothing is up in {}", folder.display());
        return Ok(());
    };
    if !unmount(&state.mount, Deadline::within(STOP))? {
        println!("{} was busy: detached, it goes when the last file on it is closed", state.mount.display());
    }
    // The client last started, first ended; then chunkservers, then masters.
    for process in state.processes.iter().rev() {
        end_process(process.pid, process.started, STOP);
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    println!("down");
    Ok(())
}
