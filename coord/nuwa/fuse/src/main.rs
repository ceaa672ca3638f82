//! `nuwa-fuse`: mounts Nuwa's tree.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::ClusterConfig;
use fs_mount::{Access, MountOptions, mountpoint};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_api::{ClientConfig, NuwaClient};
use nuwa_fuse::Tree;
use nuwa_fuse::tree::Owner;

/// Small requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After this the user is told what the mount waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Programs with files open on the mount may close them within this, when it is told to stop.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// The session is ended within this, or ends with its lease.
const END_GRACE: Duration = Duration::from_secs(2);

/// Mounts Nuwa, the coordination service, on a directory: names, locks (flock), compare-and-set, and changes as they happen
/// (DIR/.events), for programs that know nothing but files.
///
/// Runs in the foreground until it is unmounted (umount DIR) or told to stop (Ctrl-C, SIGTERM).
#[derive(Debug, Parser)]
#[command(name = "nuwa-fuse", version, after_help = EXAMPLES)]
struct Flags {
    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Locks taken through this mount are free so many seconds after it was last heard
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    lease: u64,
    /// Let in everybody, not only the user who mounts [default for root]
    #[arg(long)]
    allow_other: bool,
    /// Let in only the user who mounts [default for others than root]
    #[arg(long, conflicts_with = "allow_other")]
    only_owner: bool,
    #[command(flatten)]
    logs: LogFlags,
}

const EXAMPLES: &str = "\
Examples:
  nuwa-fuse /mnt/nuwa &
  echo 'max=10' > /mnt/nuwa/limits                       one atomic set
  flock /mnt/nuwa/lock ./backup.sh                       one at a time in the whole cluster
  tail -f /mnt/nuwa/.events                              what changes, one line of JSON each
  getfattr -n user.nuwa.version /mnt/nuwa/limits
  setfattr -n user.nuwa.cas -v '1 max=20' /mnt/nuwa/limits   only if version 1 is still there";

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nuwa-fuse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let (description, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    anyhow::ensure!(
        !cluster.nuwa.is_empty(),
        "{} lists no members of Nuwa: write nuwa = [\"tcp://HOST:PORT\", ...]",
        description.display()
    );
    let found = mountpoint::make_ready(&flags.mountpoint)?;
    if found.hides_files {
        eprintln!("nuwa-fuse: {} is not empty: the mount hides what is in it", flags.mountpoint.display());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let mut signal = std::pin::pin!(stop_signal().context("listen for signals")?);
        let client = NuwaClient::new(ClientConfig::new(cluster.nuwa.clone()));
        let host = nix::unistd::gethostname().unwrap_or_default();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let name = format!("nuwa-fuse {} on {}:{}", std::process::id(), host.to_string_lossy(), flags.mountpoint.display());
        let tree = Tree::new(client, Duration::from_secs(flags.lease), short(name), Owner { uid, gid });
        let tree = Arc::new(tree);
        tokio::select! {
            ready = wait(&tree, &cluster) => ready?,
            name = &mut signal => anyhow::bail!("{name} before the mount was up"),
        }
        let everybody = flags.allow_other || (uid == 0 && !flags.only_owner);
        let options = MountOptions {
            fs_name: description.display().to_string(),
            fs_type: "nuwa",
            access: if everybody { Access::Everybody } else { Access::Owner },
            lists_attributes: false,
            locks: true,
            polls: true,
            ..MountOptions::new(&flags.mountpoint)
        };
        let mounted =
            fs_mount::mount(Arc::clone(&tree), &options, &tokio::runtime::Handle::current())?;
        eprintln!("nuwa-fuse: mounted {} (cluster {})", mounted.mountpoint().display(), description.display());
        let outcome = tokio::select! {
            ended = mounted.ended() => ended.map_err(anyhow::Error::from).context("the connection to the kernel broke"),
            name = &mut signal => {
                tracing::info!(signal = name, "unmounting");
                if !mounted.detach().await? {
                    eprintln!("nuwa-fuse: {} is in use: waiting {CLOSE_GRACE:?} for it", mounted.mountpoint().display());
                }
                mounted.finish(CLOSE_GRACE).await;
                Ok(())
            }
        };
        tree.end(END_GRACE).await;
        outcome
    })
}

/// Until Nuwa answers.
async fn wait(tree: &Tree, cluster: &ClusterConfig) -> anyhow::Result<()> {
    let mut ready = std::pin::pin!(tree.ready());
    tokio::select! {
        ready = &mut ready => return Ok(ready?),
        () = tokio::time::sleep(PATIENCE) => {}
    }
    let members: Vec<String> = cluster.nuwa.iter().map(ToString::to_string).collect();
    eprintln!("nuwa-fuse: waiting for Nuwa at {} (Ctrl-C to give up)", members.join(", "));
    Ok(ready.await?)
}

/// A session's description has at most 256 bytes.
fn short(mut description: String) -> String {
    let mut end = description.len().min(256);
    while !description.is_char_boundary(end) {
        end -= 1;
    }
    description.truncate(end);
    description
}
