//! `fuxi-master`: one of the masters of Fuxi.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::ClusterConfig;
use kuafu::Address;
use monitor_telemetry::LogFlags;
use sched_server::{Config, FuxiMaster};
use zhongkui_access::{Audit, KeyDirectory, directory};

/// Requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A master of Fuxi: takes jobs from the spool in the mount, and gives them resources of the agents' machines.
///
/// Several may run; Nuwa says which of them leads. Nothing that runs stops when one of them dies.
#[derive(Debug, Parser)]
#[command(name = "fuxi-master", version)]
struct Flags {
    /// Where Pangu is mounted here; the spool is in `spool` there
    #[arg(long, value_name = "DIR")]
    mount: PathBuf,
    /// Address to listen on, tcp://HOST:PORT or unix:///PATH
    #[arg(long, value_name = "ADDRESS")]
    listen: Address,
    /// Directory for this master's audit log; made if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this master's keys: fuxi.key, fuxi.cap, authority.pub [default: $FEITIAN_KEYS, or `keys` beside the
    /// cluster description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    logs: LogFlags,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuxi-master: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let (path, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    std::fs::create_dir_all(&flags.data).with_context(|| format!("make {}", flags.data.display()))?;
    let audit = Audit::to(&flags.data.join("audit.log"));
    let access = KeyDirectory::find(flags.keys.as_deref(), &path)
        .access(directory::FUXI, audit)?
        .over_tls(cluster.tls);
    let config =
        Config { cluster: cluster.clone(), mount: flags.mount, listen: flags.listen, access: access.clone() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let signal = monitor_telemetry::stop_signal().context("listen for signals")?;
        let keys = tokio::spawn(nuwa_naming::security::keep(cluster, access));
        let master = FuxiMaster::start(config).await?;
        tracing::info!(address = %master.address(), "master is listening");
        let name = signal.await;
        tracing::info!(signal = name, "stopping");
        master.shutdown().await;
        keys.abort();
        Ok(())
    })
}
