//! `fuxi-jobmaster`: leads one job.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::ClusterConfig;
use kuafu::{Address, CancellationToken, Channel, Client, Target};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_naming::NuwaResolver;
use sched_jobmaster::Config;
use zhongkui_access::{Access, Audit, KeyDirectory};

/// Requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The master of one job: reads its file, gives its instances to workers, and keeps a journal of what is done.
///
/// Agents start it, and tell it all of this by the environment.
#[derive(Debug, Parser)]
#[command(name = "fuxi-jobmaster", version)]
struct Flags {
    /// The job it leads
    #[arg(long, env = "FUXI_JOB", value_name = "ID")]
    job: String,
    /// The grant it runs in
    #[arg(long, env = "FUXI_GRANT", value_name = "NUMBER")]
    grant: u64,
    /// Where Pangu is mounted
    #[arg(long, env = "FUXI_MOUNT", value_name = "DIR")]
    mount: PathBuf,
    /// The job's directory, relative to the mount
    #[arg(long, env = "FUXI_DIRECTORY", value_name = "DIR")]
    directory: PathBuf,
    /// Where to serve the job's workers: tcp://HOST:0 takes any port
    #[arg(long, env = "FUXI_LISTEN", value_name = "ADDRESS", default_value = "tcp://127.0.0.1:0")]
    listen: Address,
    /// Fuxi's master: an address, or nuwa://CLUSTER/fuxi-master
    #[arg(long, env = "FUXI_MASTER", value_name = "ADDRESS")]
    master: Target,
    /// Cluster description, where the master is given by its name
    #[arg(long, env = "FUXI_CLUSTER", value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this process's keys
    #[arg(long, env = "FUXI_KEYS", value_name = "DIR")]
    keys: PathBuf,
    /// The name of its key there
    #[arg(long, env = "FUXI_KEY_NAME", value_name = "NAME", default_value = "fuxi-worker")]
    key_name: String,
    /// Connections are encrypted, as the cluster's description says
    #[arg(long, env = "FUXI_TLS", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    tls: bool,
    #[command(flatten)]
    logs: LogFlags,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuxi-jobmaster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let signal = stop_signal().context("listen for signals")?;
        let stop = CancellationToken::new();
        let leading = sched_jobmaster::run(config(flags)?, stop.clone());
        tokio::pin!(leading);
        tokio::select! {
            led = &mut leading => Ok(led?),
            name = signal => {
                tracing::info!(signal = name, "stopping");
                stop.cancel();
                Ok(leading.await?)
            }
        }
    })
}

fn config(flags: Flags) -> anyhow::Result<Config> {
    let access = KeyDirectory::at(&flags.keys).access(&flags.key_name, Audit::none())?.over_tls(flags.tls);
    let master = master(&flags, &access)?;
    Ok(Config {
        job: flags.job,
        grant: flags.grant,
        mount: flags.mount,
        directory: flags.directory,
        listen: flags.listen,
        master,
        access,
    })
}

fn master(flags: &Flags, access: &Access) -> anyhow::Result<Channel> {
    let transport = access.transport();
    Ok(match &flags.master {
        Target::Address(address) => Client::new(address.clone(), transport).into(),
        Target::Name(_) => {
            let (_, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
            let resolver = NuwaResolver::of(&cluster, access)
                .context("the cluster has no Nuwa: give the master's address")?;
            Channel::to(&flags.master, transport, &resolver)?
        }
    })
}
