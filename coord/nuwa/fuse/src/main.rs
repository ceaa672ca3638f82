//! `nuwa-fuse`: mounts Nuwa's tree.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::ClusterConfig;
use fs_mount::Access;
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_fuse::{NuwaMount, NuwaMountConfig};
use nuwa_naming::security::ClientKeys;

/// Small requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Folder with keys: authority.pub, and the administrator's, admin.key and admin.cap [default: $FEITIAN_KEYS, or `keys`
    /// beside the cluster description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Secret key to use instead of the administrator's
    #[arg(long, value_name = "FILE", requires = "cap")]
    key: Option<PathBuf>,
    /// Capability for that key: what it does not allow is refused with EACCES, whoever asks
    #[arg(long, value_name = "FILE", requires = "key")]
    cap: Option<PathBuf>,
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
    let keys = ClientKeys { folder: flags.keys, pair: flags.key.zip(flags.cap) }
        .open(&description)?
        .over_tls(cluster.tls);
    let everybody = flags.allow_other || (nix::unistd::geteuid().is_root() && !flags.only_owner);
    let config = NuwaMountConfig {
        mountpoint: flags.mountpoint,
        description: description.clone(),
        cluster,
        lease: Duration::from_secs(flags.lease),
        access: if everybody { Access::Everybody } else { Access::Owner },
        program: "nuwa-fuse",
        keys,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let mut signal = std::pin::pin!(stop_signal().context("listen for signals")?);
        let mount = tokio::select! {
            mount = NuwaMount::start(config) => mount?,
            name = &mut signal => anyhow::bail!("{name} before the mount was up"),
        };
        eprintln!("nuwa-fuse: mounted {} (cluster {})", mount.mountpoint().display(), description.display());
        tokio::select! {
            ended = mount.ended() => {
                mount.end_session().await;
                ended
            }
            name = &mut signal => {
                tracing::info!(signal = name, "unmounting");
                mount.stop().await
            }
        }
    })
}
