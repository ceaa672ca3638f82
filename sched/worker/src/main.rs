//! `fuxi-worker`: runs instances of a job's tasks, in one grant.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use coord_cluster::ClusterConfig;
use kuafu::{Address, Channel, Client, ClientConfig, Target};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_naming::NuwaResolver;
use sched_worker::{Config, Over, Worker};
use zhongkui_access::{Audit, KeyDirectory};

/// Requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A worker of a job: runs instances of its tasks, one after another, until the job's master has no more for it.
///
/// Agents start it, and tell it all of this by the environment.
#[derive(Debug, Parser)]
#[command(name = "fuxi-worker", version)]
struct Flags {
    /// The job it works for
    #[arg(long, env = "FUXI_JOB", value_name = "ID")]
    job: String,
    /// The grant it runs in
    #[arg(long, env = "FUXI_GRANT", value_name = "NUMBER")]
    grant: u64,
    /// This machine's name
    #[arg(long, env = "FUXI_NODE", value_name = "NAME", default_value = "")]
    node: String,
    /// Where Pangu is mounted
    #[arg(long, env = "FUXI_MOUNT", value_name = "DIR")]
    mount: PathBuf,
    /// The job's directory, relative to the mount
    #[arg(long, env = "FUXI_DIRECTORY", value_name = "DIR")]
    directory: PathBuf,
    /// A local directory of its own
    #[arg(long, env = "FUXI_SCRATCH", value_name = "DIR")]
    scratch: PathBuf,
    /// Where the job's master serves [default: the master is asked]
    #[arg(long, env = "FUXI_JOB_MASTER", value_name = "ADDRESS", default_value = "")]
    job_master: String,
    /// Fuxi's master: an address, or nuwa://CLUSTER/fuxi-master
    #[arg(long, env = "FUXI_MASTER", value_name = "ADDRESS", default_value = "")]
    master: String,
    /// Cluster description, where the master is given by its name
    #[arg(long, env = "FUXI_CLUSTER", value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this worker's keys [default: none are shown]
    #[arg(long, env = "FUXI_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The name of its key there
    #[arg(long, env = "FUXI_KEY_NAME", value_name = "NAME", default_value = "fuxi")]
    key_name: String,
    /// A file that counts the grant's processes that were killed for want of memory
    #[arg(long, env = "FUXI_OOM_FILE", value_name = "FILE")]
    oom_file: Option<PathBuf>,
    /// A file that is written at a good end: exit code and words
    #[arg(long, env = "FUXI_EXIT_RECORD", value_name = "FILE")]
    exit_record: Option<PathBuf>,
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
            eprintln!("fuxi-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    flags.logs.start()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let record = flags.exit_record.clone();
    let words = runtime.block_on(work(flags))?;
    if let Some(record) = record {
        // For an agent that was started meanwhile, and so cannot wait for this process. Without it that agent says that it does not know.
        std::fs::write(&record, format!("0 {words}\n"))
            .with_context(|| format!("write {}", record.display()))?;
    }
    Ok(())
}

async fn work(flags: Flags) -> anyhow::Result<&'static str> {
    let signal = stop_signal().context("listen for signals")?;
    let mut worker = Worker::start(config(flags)?)?;
    let words = tokio::select! {
        name = signal => {
            tracing::info!(signal = name, "stopping");
            "told to stop by a signal"
        }
        over = worker.over() => match over {
            Over::Dismissed => "dismissed by the job's master",
            Over::JobUnknown => "the job has ended",
        },
    };
    tracing::info!(reason = words, "the worker ends");
    worker.shutdown().await;
    Ok(words)
}

fn config(flags: Flags) -> anyhow::Result<Config> {
    let access = match &flags.keys {
        Some(keys) => {
            Some(KeyDirectory::at(keys).access(&flags.key_name, Audit::none())?.over_tls(flags.tls))
        }
        None => None,
    };
    let transport = access.as_ref().map_or_else(ClientConfig::default, zhongkui_access::Access::transport);
    let mut config = Config::new(flags.job, flags.grant, flags.mount, flags.scratch);
    config.node = flags.node;
    config.directory = flags.directory;
    config.oom_file = flags.oom_file;
    config.owns_process = true;
    if !flags.job_master.is_empty() {
        let address: Address = flags.job_master.parse().context("--job-master")?;
        config.job_master = Some(address);
    }
    if !flags.master.is_empty() {
        let target: Target = flags.master.parse().context("--master")?;
        config.master = Some(match &target {
            Target::Address(address) => Client::new(address.clone(), transport.clone()).into(),
            Target::Name(_) => {
                let (_, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
                let access = access.context("--keys is needed where the master is found by its name")?;
                let resolver = NuwaResolver::of(&cluster, &access)
                    .context("the cluster has no Nuwa: give the master's address")?;
                Channel::to(&target, transport.clone(), &resolver)?
            }
        });
    }
    config.transport = transport;
    Ok(config)
}
