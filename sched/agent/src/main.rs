//! `fuxi-agent`: starts and keeps what Fuxi's master wants on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use coord_cluster::ClusterConfig;
use kuafu::{Channel, Name, Target};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_naming::NuwaResolver;
use sched_agent::capacity::{parse_mib, parse_named};
use sched_agent::cgroup::CgroupUse;
use sched_agent::{Agent, Config, Containers, CpuLimit, KeyFolder};
use zhongkui_access::{Audit, KeyDirectory};

/// Requests are mostly allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The agent of one machine: offers what the machine has to Fuxi's master, starts workers and job masters as it is told, within their limits,
/// and says how they ended.
///
/// What it started goes on when the agent ends, and is taken over by the next one with the same data directory. Run as root, it starts each
/// job's programs as the job's user.
#[derive(Debug, Parser)]
#[command(name = "fuxi-agent", version, after_help = EXAMPLE)]
struct Flags {
    /// Directory for everything the agent keeps; made if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where Pangu is mounted
    #[arg(long, value_name = "DIR", default_value = "/mnt/pangu")]
    mount: PathBuf,
    /// Where this machine stands: /REGION/RACK/HOST
    #[arg(long, value_name = "LOCATION")]
    location: String,
    /// This machine's name, unique in the cluster [default: its host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Cores to offer, for example 7.5 [default: all]
    #[arg(long, value_name = "N")]
    cpu: Option<f64>,
    /// Memory to offer, for example 12G [default: nine tenths]
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    memory: Option<u64>,
    /// Disk space to offer [default: nine tenths of what is free in the data directory]
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    disk: Option<u64>,
    /// Anything else there is to offer, for example gpu=2; may be given several times
    #[arg(long, value_name = "NAME=AMOUNT", value_parser = parse_named)]
    resource: Vec<(String, u64)>,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with the keys: those of --key-name, --worker-key and --job-master-key [default: $FEITIAN_KEYS, or `keys` beside the cluster
    /// description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The agent's key there
    #[arg(long, value_name = "NAME", default_value = "fuxi")]
    key_name: String,
    /// The key that workers are given
    #[arg(long, value_name = "NAME", default_value = "fuxi")]
    worker_key: String,
    /// The key that job masters are given
    #[arg(long, value_name = "NAME", default_value = "fuxi")]
    job_master_key: String,
    /// Fuxi's master [default: nuwa://CLUSTER/fuxi-master]
    #[arg(long, value_name = "ADDRESS")]
    master: Option<Target>,
    /// This machine's name or address, where workers elsewhere reach job masters that run here
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    advertise: String,
    /// Folder with fuxi-worker and fuxi-jobmaster [default: that of this program]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Processes and threads that one grant may have
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pids: u64,
    /// Seconds that what is told to stop may take before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    grace: u64,
    /// Never give a grant more cpu than it asked for, even if nobody else wants it
    #[arg(long)]
    cpu_quota: bool,
    /// Limits by control groups: below the agent's own if that is a root or delegated (own), in any case (delegated), or never (off)
    #[arg(long, value_name = "WHEN", default_value = "own")]
    cgroups: Cgroups,
    /// When the agent is stopped, stop everything it started too
    #[arg(long)]
    stop_all: bool,
    #[command(flatten)]
    logs: LogFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cgroups {
    Own,
    Delegated,
    Off,
}

const EXAMPLE: &str = "\
Example:
  fuxi-agent --cluster cluster.toml --data /var/lib/feitian/agent --mount /mnt/pangu \\
      --location /region1/rack1/host1 --resource gpu=2";

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuxi-agent: {error:#}");
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
        let at_end = if flags.stop_all { Containers::Stop } else { Containers::Keep };
        let agent = Agent::start(config(flags)?).await?;
        tracing::info!(signal = signal.await, "stopping");
        agent.shutdown(at_end).await;
        Ok(())
    })
}

fn config(flags: Flags) -> anyhow::Result<Config> {
    let node = match &flags.node {
        Some(node) => node.clone(),
        None => {
            nix::unistd::gethostname()?.into_string().ok().context("the host name is no text: give --node")?
        }
    };
    let (master, environment, keys) = master(&flags)?;
    let mut config = Config::new(node, flags.location, flags.data, flags.mount, master);
    if let Some(cores) = flags.cpu {
        anyhow::ensure!((0.001..=1e6).contains(&cores), "--cpu {cores} is no number of cores");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just now")]
        config.capacity.insert("cpu".to_owned(), (cores * 1000.0).round() as u64);
    }
    let sizes = [("memory", flags.memory), ("disk", flags.disk)];
    config.capacity.extend(sizes.into_iter().filter_map(|(name, size)| Some((name.to_owned(), size?))));
    config.capacity.extend(flags.resource);
    if let Some(programs) = &flags.programs {
        let programs = std::path::absolute(programs)?;
        config.worker = programs.join("fuxi-worker");
        config.job_master = programs.join("fuxi-jobmaster");
    }
    config.environment = environment;
    config.keys = keys;
    config.pids_max = flags.pids;
    config.grace = Duration::from_secs(flags.grace);
    config.cpu = if flags.cpu_quota { CpuLimit::Quota } else { CpuLimit::Shares };
    config.cgroups = match flags.cgroups {
        Cgroups::Own => CgroupUse::Own,
        Cgroups::Delegated => CgroupUse::Delegated,
        Cgroups::Off => CgroupUse::Off,
    };
    Ok(config)
}

type Master = (Channel, BTreeMap<String, String>, Option<KeyFolder>);

/// How the master is called, what programs are told of it, and the keys they are given.
fn master(flags: &Flags) -> anyhow::Result<Master> {
    let (path, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    let directory = KeyDirectory::find(flags.keys.as_deref(), &path);
    let access = directory.access(&flags.key_name, Audit::none())?.over_tls(cluster.tls);
    let target = match &flags.master {
        Some(target) => target.clone(),
        None => Target::Name(Name::new(&cluster.name, sched_api::MASTER_SERVICE)?),
    };
    let channel = match &target {
        Target::Address(address) => kuafu::Client::new(address.clone(), access.transport()).into(),
        Target::Name(_) => {
            let resolver = NuwaResolver::of(&cluster, &access)
                .context("the cluster has no Nuwa that knows the master: give --master")?;
            Channel::to(&target, access.transport(), &resolver)?
        }
    };
    tokio::spawn(access.keep_fresh());
    let description = std::path::absolute(&path)?;
    let environment = BTreeMap::from([
        ("FUXI_MASTER".to_owned(), target.to_string()),
        ("FUXI_CLUSTER".to_owned(), description.display().to_string()),
        ("FUXI_TLS".to_owned(), cluster.tls.to_string()),
        // Any free port.
        ("FUXI_LISTEN".to_owned(), format!("tcp://{}:0", flags.advertise)),
        // Programs log as the agent does.
        ("FEITIAN_LOG".to_owned(), flags.logs.log.clone()),
    ]);
    let keys = KeyFolder {
        folder: directory.folder().to_path_buf(),
        worker: flags.worker_key.clone(),
        job_master: flags.job_master_key.clone(),
    };
    Ok((channel, environment, Some(keys)))
}
