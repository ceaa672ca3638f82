//! `nuwa-server`: one of the members of Nuwa.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::{ClusterConfig, by_id};
use kuafu::Address;
use monitor_telemetry::LogFlags;
use nuwa_server::{Config, NuwaServer};
use zhongkui_access::{Audit, KeyDirectory, directory};

/// Small requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A member of Nuwa, the coordination service: keeps a tree of small files, locks and sessions, and agrees on them
/// with the other members by Raft.
///
/// All members read the same cluster description (cluster.toml), which lists them under `nuwa`; a member's number is its
/// place in that list, counted from 1. The first start of all of them forms the cluster, every later start finds it again
/// in the data directory.
#[derive(Debug, Parser)]
#[command(name = "nuwa-server", version, after_help = EXAMPLE)]
struct Flags {
    /// This member's number: its place in the list of members, counted from 1; with --join any that no member has had
    #[arg(long, value_name = "N")]
    id: u64,
    /// Directory for everything this member keeps; made if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this member's keys: nuwa.key, nuwa.cap, authority.pub [default: $FEITIAN_KEYS, or `keys` beside the
    /// cluster description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Address to listen on, tcp://HOST:PORT or unix:///PATH [default: this member's address in the description]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Address>,
    /// This member is to be added to a cluster that is at work: start it on an empty directory, then `nuwa member add ADDRESS`
    #[arg(long, requires = "listen")]
    join: bool,
    /// Serve the same by gRPC (with health and reflection) on this address
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<SocketAddr>,
    /// Serve Prometheus metrics by HTTP on this address
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<SocketAddr>,
    /// Memory for the cache of the tree, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    cache: usize,
    #[command(flatten)]
    logs: LogFlags,
}

const EXAMPLE: &str = "\
Example:
  cat > cluster.toml <<EOF
  name = \"dev\"
  nuwa = [\"tcp://127.0.0.1:7201\"]
  EOF
  zhongkui init --keys keys
  nuwa-server --cluster cluster.toml --id 1 --data /var/lib/feitian/nuwa-1";

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line, and no backtrace whatever the environment says: it is for whoever typed the command.
            eprintln!("nuwa-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let config = config(flags)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let signal = monitor_telemetry::stop_signal().context("listen for signals")?;
        let server = NuwaServer::start(config).await?;
        tracing::info!(address = %server.address(), "member is listening");
        tokio::select! {
            name = signal => tracing::info!(signal = name, "stopping"),
            () = server.failed() => {
                let reason = server.failure().unwrap_or_else(|| "unknown".to_owned());
                server.shutdown().await;
                anyhow::bail!("the member stopped by itself: {reason}");
            }
        }
        server.shutdown().await;
        Ok(())
    })
}

fn config(flags: Flags) -> anyhow::Result<Config> {
    let (path, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    tracing::info!(cluster = cluster.name, description = %path.display(), "cluster");
    let audit = Audit::to(&flags.data.join("audit.log"));
    let access = KeyDirectory::find(flags.keys.as_deref(), &path)
        .access(directory::NUWA, audit)?
        .over_tls(cluster.tls);
    let mut config = Config::new(flags.id, by_id(&cluster.nuwa), flags.data);
    config.access = access;
    config.join = flags.join;
    config.listen_as_known = flags.listen.is_none();
    if let Some(listen) = flags.listen {
        config.listen = listen;
    }
    config.grpc = flags.grpc;
    config.metrics = flags.metrics;
    config.cache_bytes = flags.cache << 20;
    let raft = cluster.raft;
    config.snapshot_after_entries = raft.snapshot_after_entries.unwrap_or(config.snapshot_after_entries);
    config.keep_entries = raft.keep_entries.unwrap_or(config.keep_entries);
    config.segment_bytes = raft.segment_mib.map_or(config.segment_bytes, |mib| u64::from(mib) << 20);
    config.validate()?;
    Ok(config)
}
