//! `pangu-master`: one of the masters of a Pangu cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use kuafu::{Address, Endpoint};
use master_api::ClusterConfig;
use master_api::cluster::by_id;
use master_server::{Config, MasterServer};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_naming::{Registration, withdraw};
use zhongkui_access::{Audit, KeyDirectory, directory};

/// Small requests are mostly allocations; the C library's allocator took an eighth of a master's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A master of a Pangu cluster: keeps names, attributes and the table of chunkservers, agrees on them with the
/// other masters by Raft.
///
/// All masters of a cluster read the same cluster description (cluster.toml), which lists them; a master's number is
/// its place in that list, counted from 1. The first start of all of them makes the cluster, every later
/// start finds it again in the data directory.
#[derive(Debug, Parser)]
#[command(name = "pangu-master", version, after_help = EXAMPLE)]
struct Flags {
    /// This master's number: its place in the list of masters, counted from 1; with --join any that no master has had
    #[arg(long, value_name = "N")]
    id: u64,
    /// Directory for everything this master keeps; made if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this master's keys: master.key, master.cap, authority.pub [default: $FEITIAN_KEYS, or `keys` beside the
    /// cluster description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Address to listen on, tcp://HOST:PORT or unix:///PATH [default: this master's address in the description]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Address>,
    /// This master is to be added to a cluster that is at work: start it on an empty directory, then `pangu master add ADDRESS`
    #[arg(long, requires = "listen")]
    join: bool,
    /// Serve administration by gRPC (with health and reflection) on this address
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<SocketAddr>,
    /// Serve Prometheus metrics by HTTP on this address
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<SocketAddr>,
    /// Copies of each chunk, each in another rack; fixed when the cluster is made
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u32,
    /// Copies a write must reach while members are missing [default: 2, or fewer with fewer replicas]
    #[arg(long, value_name = "N")]
    min_replicas: Option<u32>,
    /// Memory for the cache of names and attributes, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    cache: usize,
    #[command(flatten)]
    logs: LogFlags,
}

const EXAMPLE: &str = "\
Example:
  cat > cluster.toml <<EOF
  name = \"dev\"
  masters = [\"tcp://127.0.0.1:7101\"]
  EOF
  zhongkui init --keys keys
  pangu-master --cluster cluster.toml --id 1 --data /var/lib/feitian/master-1";

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line, and no backtrace whatever the environment says: it is for whoever typed the command.
            eprintln!("pangu-master: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let (config, cluster) = config(flags)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let signal = stop_signal().context("listen for signals")?;
        let access = config.access.clone();
        let server = MasterServer::start(config).await?;
        tokio::spawn(nuwa_naming::security::keep(cluster.clone(), access.clone()));
        tracing::info!(address = %server.address(), "master is listening");
        let endpoint = Endpoint::new(server.advertised().clone());
        let registration = Registration::of(&cluster, &access, master_api::masters::SERVICE, &endpoint);
        let outcome = tokio::select! {
            name = signal => {
                tracing::info!(signal = name, "stopping");
                Ok(())
            }
            () = server.failed() => {
                let reason = server.failure().unwrap_or_else(|| "unknown".to_owned());
                Err(anyhow::anyhow!("the master stopped by itself: {reason}"))
            }
        };
        // First, and not meanwhile: nobody is to be sent to a master that has stopped.
        withdraw(registration).await;
        server.shutdown().await;
        outcome
    })
}

fn config(flags: Flags) -> anyhow::Result<(Config, ClusterConfig)> {
    let (path, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    tracing::info!(cluster = cluster.name, description = %path.display(), "cluster");
    let audit = Audit::to(&flags.data.join("audit.log"));
    let mut config = Config::new(flags.id, by_id(&cluster.masters), flags.data);
    config.join = flags.join;
    config.listen_as_known = flags.listen.is_none();
    if let Some(listen) = flags.listen {
        config.listen = listen;
    }
    config.grpc = flags.grpc;
    config.metrics = flags.metrics;
    config.replicas = flags.replicas;
    config.min_replicas = flags.min_replicas.unwrap_or_else(|| flags.replicas.min(2));
    config.cache_bytes = flags.cache << 20;
    tune(&mut config, &cluster);
    config.validate()?;
    config.access = KeyDirectory::find(flags.keys.as_deref(), &path)
        .access(directory::MASTER, audit)?
        .over_tls(cluster.tls);
    Ok((config, cluster))
}

/// What the cluster description says of failures and of the log.
fn tune(config: &mut Config, ClusterConfig { survival, raft, .. }: &ClusterConfig) {
    let set = |to: &mut Duration, value: Option<Duration>| *to = value.unwrap_or(*to);
    let millis = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
    set(&mut config.chunkserver_heartbeat, millis(survival.heartbeat_ms));
    set(&mut config.chunkserver_lease, millis(survival.lease_ms));
    set(&mut config.replace_after, survival.replace_after_s.map(|s| Duration::from_secs(s.into())));
    set(&mut config.scrub_period, survival.scrub_period_s.map(|s| Duration::from_secs(s.into())));
    set(&mut config.slow.floor, millis(survival.slow_ms));
    set(&mut config.slow.after, survival.slow_after_s.map(|s| Duration::from_secs(s.into())));
    set(&mut config.slow.return_after, survival.slow_return_s.map(|s| Duration::from_secs(s.into())));
    config.errors_max = survival.errors_max.map_or(config.errors_max, u64::from);
    config.slow.ratio = survival.slow_ratio.unwrap_or(config.slow.ratio);
    config.slow.servers_max = survival.slow_servers_max.unwrap_or(config.slow.servers_max);
    config.slow.percent_max = survival.slow_percent_max.unwrap_or(config.slow.percent_max);
    if let Some(mib) = survival.resync_mib_per_s {
        config.resync_bytes_per_s = u64::from(mib) << 20;
    }
    config.snapshot_after_entries = raft.snapshot_after_entries.unwrap_or(config.snapshot_after_entries);
    config.keep_entries = raft.keep_entries.unwrap_or(config.keep_entries);
    config.segment_bytes = raft.segment_mib.map_or(config.segment_bytes, |mib| u64::from(mib) << 20);
}
