//! The command line of `pangu-fuse`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use deploy_embedded::EmbeddedConfig;
use master_api::ClusterConfig;
use monitor_telemetry::LogFlags;

use crate::find::KeyFlags;
use crate::text::parse_size;
use crate::{daemon, serve};

/// Mounts Pangu, the replicated file system of Feitian, on a directory.
///
/// With a cluster description (cluster.toml) it mounts that cluster. Without one it starts the whole platform in its
/// own process, keeps its data in --data, and mounts that; unmounting ends it, mounting again finds everything
/// as it was.
///
/// Runs in the foreground until it is unmounted (umount DIR, fusermount3 -u DIR) or told to stop (Ctrl-C, SIGTERM).
#[derive(Clone, Debug, Parser)]
#[command(name = "pangu-fuse", version, after_help = EXAMPLES)]
pub struct Flags {
    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml,
    /// and if there is none, an embedded platform]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "replicas", "chunkservers", "capacity"])]
    pub cluster: Option<PathBuf>,
    #[command(flatten)]
    pub keys: KeyFlags,
    /// Start an embedded platform with its data here, whatever descriptions there are [default: /var/lib/feitian for
    /// root, $XDG_DATA_HOME/feitian for others]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Embedded: copies of everything, each in a chunkserver of its own; fixed when the store is made [default: 1]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u32>,
    /// Embedded: chunkservers, each with a rack of its own; may grow later [default: as many as replicas]
    #[arg(long, value_name = "N")]
    pub chunkservers: Option<u32>,
    /// Embedded: the most a chunkserver made now may hold [default: its share of nine tenths of the free space]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// Memory for written data that is on its way to the chunkservers
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "512M")]
    pub memory: u64,
    /// How long the kernel answers for names and attributes without asking: what other mounts change shows after that at the
    /// latest. 0: every look asks the masters, for programs that meet by names on several mounts
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub ttl_ms: u64,
    /// Let in everybody whom file permissions let in, not only the user who mounts [default for root]
    #[arg(long)]
    pub allow_other: bool,
    /// Let in only the user who mounts [default for others than root]
    #[arg(long, conflicts_with = "allow_other")]
    pub only_owner: bool,
    /// Mount Nuwa, the coordination service, on this directory: locks, elections, watches. An embedded platform gets a member of it
    #[arg(long, value_name = "DIR")]
    pub nuwa: Option<PathBuf>,
    /// Start Fuxi, which runs the jobs that are dropped in MOUNT/spool/default/new, on this machine; embedded platforms only
    #[arg(long)]
    pub fuxi: bool,
    /// Mount read-only
    #[arg(long)]
    pub read_only: bool,
    /// Honour set-user-id and set-group-id programs on the mount
    #[arg(long)]
    pub allow_suid: bool,
    /// Let device nodes on the mount be opened
    #[arg(long)]
    pub allow_devices: bool,
    /// Go to the background once the mount is up; the exit status says whether it is
    #[arg(long)]
    pub daemon: bool,
    #[command(flatten)]
    pub logs: LogFlags,
}

const EXAMPLES: &str = "\
Examples:
  pangu-fuse /mnt/pangu                                an embedded store, one copy of everything
  pangu-fuse /mnt/pangu --data ~/store --replicas 3    one with three copies in three chunkservers
  pangu-fuse /mnt/pangu --cluster cluster.toml         the cluster that cluster.toml describes
  pangu-fuse /mnt/pangu --nuwa /mnt/nuwa               Nuwa beside it: flock /mnt/nuwa/lock ./one-at-a-time.sh
  pangu-fuse /mnt/bob --cluster cluster.toml --key bob.key --cap bob.cap   what bob's capability covers
  umount /mnt/pangu                                    ends any of them";

/// What is mounted.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Embedded(EmbeddedConfig),
    Cluster { description: PathBuf, cluster: ClusterConfig },
}

/// Runs the program.
#[must_use]
pub fn main(flags: Flags) -> ExitCode {
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pangu-fuse: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The whole chain of causes.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn run(mut flags: Flags) -> anyhow::Result<()> {
    let source = source(&flags)?;
    if flags.daemon {
        if let (Source::Embedded(config), None) = (&source, &flags.logs.log_file) {
            std::fs::create_dir_all(&config.data_dir)
                .with_context(|| format!("make the data directory {}", config.data_dir.display()))?;
            flags.logs.log_file = Some(config.data_dir.join("pangu-fuse.log"));
        }
        return daemon::run(|ready| serve::serve(&flags, source, ready));
    }
    serve::serve(&flags, source, daemon::Ready::foreground())
}

fn source(flags: &Flags) -> anyhow::Result<Source> {
    let embedded = flags.data.is_some()
        || flags.replicas.is_some()
        || flags.chunkservers.is_some()
        || flags.capacity.is_some();
    if !embedded && let Some((description, cluster)) = ClusterConfig::find(flags.cluster.as_deref())? {
        return Ok(Source::Cluster { description, cluster });
    }
    let data_dir = flags.data.clone().or_else(deploy_embedded::default_data_dir).context(
        "there is no home directory to keep data in: name a directory with --data DIR, or a cluster with --cluster FILE",
    )?;
    Ok(Source::Embedded(EmbeddedConfig {
        replicas: flags.replicas,
        chunkservers: flags.chunkservers,
        capacity_bytes: flags.capacity,
        nuwa: flags.nuwa.is_some(),
        ..EmbeddedConfig::new(data_dir)
    }))
}
