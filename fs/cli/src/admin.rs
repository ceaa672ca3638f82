//! The command line of `pangu`, one command a file.

mod adopt;
mod df;
mod drain;
mod masters;
mod replicas;
mod status;
mod verify;
mod r#where;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use master_api::{ClientConfig, MasterClient};
use zhongkui_access::Access;

use crate::find::{Found, KeyFlags};
use crate::fuse::one_line;

/// Looks at a Pangu cluster and at where its files are.
///
/// The cluster is the one of --cluster or --mount, or of the path asked about; otherwise the one described in
/// $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml or /etc/feitian/cluster.toml, or this user's embedded one.
#[derive(Debug, Parser)]
#[command(name = "pangu", version, after_help = EXAMPLES)]
pub struct Flags {
    /// Cluster description
    #[arg(long, value_name = "FILE", global = true)]
    cluster: Option<PathBuf>,
    /// The cluster that is mounted here
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "cluster")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyFlags,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    json: bool,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 10)]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Masters, chunkservers, groups, sessions: what there is and how it is
    Status,
    /// Space and files
    Df,
    /// Where a file's chunks are: which chunkservers, in which racks
    Where {
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Read every copy of a file from every chunkserver and compare them with their checksums and with each other
    Verify {
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Move everything off a chunkserver, or one of its disks, and say when it is safe to pull
    Drain {
        /// The chunkserver's id, as `pangu status` shows it
        #[arg(value_name = "CHUNKSERVER", required_unless_present = "disk")]
        chunkserver: Option<u32>,
        /// A single disk's id, as `pangu status --json` shows it
        #[arg(long, value_name = "DISK", conflicts_with = "chunkserver")]
        disk: Option<u32>,
        /// Mark it and return; the data moves in the background
        #[arg(long)]
        no_wait: bool,
    },
    /// Add a master to the cluster, or remove one
    #[command(subcommand)]
    Master(MasterCommand),
    /// Make an embedded store, as `pangu-fuse MOUNT` keeps one, the first node of a cluster
    ///
    /// Unmount it first. Nothing is copied: its servers run on the directories it has, as processes of their own from then on. Prints
    /// what to start here and on the machines that are added.
    Adopt {
        /// The store's directory [default: where pangu-fuse keeps it]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Where its master listens from now on, tcp://HOST:PORT; other machines must reach it there
        #[arg(long, value_name = "ADDRESS")]
        listen: String,
        /// The same of Nuwa's member, if the store has one [default: where the master listens, a hundred ports above]
        #[arg(long, value_name = "ADDRESS")]
        nuwa_listen: Option<String>,
        /// What the cluster is called
        #[arg(long, value_name = "NAME", default_value = "pangu")]
        name: String,
        /// Copies of everything, each in another rack, as soon as there are so many
        #[arg(long, value_name = "N", default_value_t = 3)]
        replicas: u32,
        /// Copies a write must reach, as soon as everything has so many [default: 2, or 1 with one replica]
        #[arg(long, value_name = "N")]
        min_replicas: Option<u32>,
    },
    /// Change how many copies there are of everything
    ///
    /// Copies are made, or deleted, in the background.
    Replicas {
        /// Copies of everything, each in another rack
        #[arg(value_name = "N")]
        replicas: u32,
        /// Copies a write must reach, as soon as everything has so many [default: 2, or 1 with one replica]
        #[arg(long, value_name = "N")]
        min: Option<u32>,
    },
    /// Take a drain back: the disks are used again
    Undrain {
        /// The chunkserver's id, as `pangu status` shows it
        #[arg(value_name = "CHUNKSERVER", required_unless_present = "disk")]
        chunkserver: Option<u32>,
        /// A single disk's id
        #[arg(long, value_name = "DISK", conflicts_with = "chunkserver")]
        disk: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
enum MasterCommand {
    /// Make a master that was started with --join one of the cluster, and wait until it has caught up
    Add {
        /// Where it listens, tcp://HOST:PORT
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// Take a master out of the cluster: a lost one, or one that is to go
    Remove {
        /// Its number, as `pangu status` shows it
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Say that masters which were restored from an older copy are to be followed
    ///
    /// Chunkservers and mounts follow no masters whose state is older than one they saw. This raises the cluster epoch, and they
    /// do. What happened since the copy was made is lost as far as the masters kept it.
    NewEpoch,
}

const EXAMPLES: &str = "\
Examples:
  pangu status
  pangu where /mnt/pangu/some/file
  pangu verify /mnt/pangu/some/file
  pangu --cluster cluster.toml df --json
  pangu drain 3
  pangu master add tcp://10.0.0.9:7101
  pangu adopt /var/lib/feitian --listen tcp://10.0.0.1:7101

Exit status: 0 if all is well, 1 if an answer could not be had, 2 for wrong flags, 3 if verify found damage.";

/// What a command ends with when it worked.
enum Verdict {
    Well,
    Damaged,
    Unknown,
}

/// A cluster, and how to ask it.
struct Session {
    found: Found,
    access: Access,
    master: MasterClient,
    timeout: Duration,
    json: bool,
}

impl Session {
    async fn open(found: Found, flags: &Flags) -> anyhow::Result<Self> {
        let description = format!("pangu {}", std::process::id());
        let access = flags.keys.access(&found.description)?.over_tls(found.cluster.tls);
        let masters = crate::find::masters(&found.cluster, &access);
        let mut config = ClientConfig::new(masters, description);
        config.transport = access.transport();
        let master = MasterClient::new(config)?;
        Ok(Self {
            found,
            access,
            master,
            timeout: Duration::from_secs(flags.timeout.max(1)),
            json: flags.json,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.timeout)
    }

    async fn close(self) {
        self.master.close(Instant::now() + Duration::from_secs(2)).await;
    }
}

/// Runs the program.
#[must_use]
pub fn main(flags: Flags) -> ExitCode {
    match run(&flags) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Unknown) => ExitCode::FAILURE,
        Ok(Verdict::Damaged) => ExitCode::from(3),
        Err(error) => {
            eprintln!("pangu: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn what(chunkserver: Option<u32>, disk: Option<u32>) -> anyhow::Result<drain::What> {
    match (chunkserver, disk) {
        (Some(id), _) => Ok(drain::What::Server(id)),
        (None, Some(id)) => Ok(drain::What::Disk(id)),
        (None, None) => anyhow::bail!("name a chunkserver or a disk"),
    }
}

fn run(flags: &Flags) -> anyhow::Result<Verdict> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let (cluster, mount) = (flags.cluster.as_deref(), flags.mount.as_deref());
    runtime.block_on(async {
        match &flags.command {
            Command::Status => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = status::run(&session).await;
                finish(session, text).await
            }
            Command::Df => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = df::run(&session).await;
                finish(session, text).await
            }
            Command::Drain { chunkserver, disk, no_wait } => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = drain::run(&session, what(*chunkserver, *disk)?, !no_wait).await;
                finish(session, text).await
            }
            Command::Undrain { chunkserver, disk } => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = drain::undo(&session, what(*chunkserver, *disk)?).await;
                finish(session, text).await
            }
            Command::Adopt { dir, listen, nuwa_listen, name, replicas, min_replicas } => {
                let (dir, nuwa_listen, json) = (dir.as_ref(), nuwa_listen.as_deref(), flags.json);
                let (replicas, min_replicas) = (*replicas, *min_replicas);
                let wanted = adopt::Wanted { dir, listen, nuwa_listen, name, replicas, min_replicas, json };
                print(&adopt::run(wanted).await?);
                Ok(Verdict::Well)
            }
            Command::Replicas { replicas, min } => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = replicas::run(&session, *replicas, *min).await;
                finish(session, text).await
            }
            Command::Master(command) => {
                let session = Session::open(crate::find::cluster(cluster, mount)?, flags).await?;
                let text = match command {
                    MasterCommand::Add { address } => masters::add(&session, address).await,
                    MasterCommand::Remove { id } => masters::remove(&session, *id).await,
                    MasterCommand::NewEpoch => masters::new_epoch(&session).await,
                };
                finish(session, text).await
            }
            Command::Where { path } => {
                let file = crate::find::file(cluster, mount, path)?;
                let session = Session::open(file.found, flags).await?;
                let text = r#where::run(&session, path, file.path).await;
                finish(session, text).await
            }
            Command::Verify { path } => {
                let file = crate::find::file(cluster, mount, path)?;
                let session = Session::open(file.found, flags).await?;
                let report = verify::run(&session, path, file.path).await;
                session.close().await;
                let (text, verdict) = report?;
                print(&text);
                Ok(verdict)
            }
        }
    })
}

async fn finish(session: Session, text: anyhow::Result<String>) -> anyhow::Result<Verdict> {
    session.close().await;
    print(&text?);
    Ok(Verdict::Well)
}

/// A reader that went away (`pangu status | head`) is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _reader_gone = std::io::stdout().write_all(text.as_bytes());
}
