//! `pangu-chunkserver`: keeps chunks on the disks of one machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use chunkserver_server::config::parse_size;
use chunkserver_server::{ChunkServer, Config, Location};
use clap::{Args, Parser, Subcommand};
use kuafu::{Address, Endpoint};
use master_api::{ClusterConfig, masters};
use monitor_telemetry::{LogFlags, stop_signal};
use nuwa_naming::{NuwaResolver, Registration, withdraw};
use zhongkui_access::{Audit, KeyDirectory, directory};

/// The name under which chunkservers register: `nuwa://CLUSTER/pangu-chunkserver`.
const SERVICE: &str = "pangu-chunkserver";

/// Small requests are mostly allocations; the C library's allocator took an eighth of a master's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A chunkserver of a Pangu cluster: keeps chunks of files on the disks of one machine, and makes each write durable
/// on all members of its replica group before it answers.
///
/// It finds the masters in the cluster description (cluster.toml), registers with them, and is given groups. A data
/// directory that is empty or missing becomes a new disk; every later start finds it again.
#[derive(Debug, Parser)]
#[command(
    name = "pangu-chunkserver",
    version,
    after_help = EXAMPLE,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<Serve>,
    // Here and not in `Serve`: clap takes an optional group that holds another group for absent.
    #[command(flatten)]
    logs: LogFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a data directory that no chunkserver uses: every record and every block of data. The exit status is 0 only
    /// if nothing is wrong, 1 if something is, 2 if it could not be checked
    Verify {
        /// The data directory
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on for clients, chunkservers and masters: tcp://HOST:PORT or unix:///PATH
    #[arg(long, value_name = "ADDRESS")]
    listen: Address,
    /// Address others are told to connect to, if it is not the one listened on
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<Address>,
    /// Data directory, one for each disk; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// Where this machine stands: /REGION/RACK/HOST. Copies of a chunk are kept in different racks
    #[arg(long, value_name = "LOCATION")]
    location: Location,
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Folder with this server's keys: chunkserver.key, chunkserver.cap, authority.pub [default: $FEITIAN_KEYS, or `keys` beside the
    /// cluster description]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Where it is written down who was let in and who was not [default: audit.log in the first data directory]
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Data a new disk may hold, e.g. 100G; at least 64M [default: nine tenths of the free space there]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    capacity: Option<u64>,
    /// Memory for data between network and disks
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
    buffers: u64,
    /// Serve status by gRPC (with health and reflection) on this address
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<SocketAddr>,
    /// Serve Prometheus metrics by HTTP on this address
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<SocketAddr>,
}

const EXAMPLE: &str = "\
Examples:
  pangu-chunkserver --cluster cluster.toml --listen tcp://127.0.0.1:7111 \\
      --data /var/lib/feitian/disk-1 --location /region1/rack1/host1 --capacity 100G
  pangu-chunkserver verify /var/lib/feitian/disk-1";

fn main() -> ExitCode {
    match start(Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            // One line, without the backtrace RUST_BACKTRACE would add: what is wrong lies outside of the program.
            eprintln!("pangu-chunkserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<ExitCode> {
    // One thread: a hand-over between threads costs more than the work of a request.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    match (flags.command, flags.serve) {
        (Some(Command::Verify { dir }), _) => Ok(runtime.block_on(verify(dir))),
        (None, Some(serve)) => {
            flags.logs.start()?;
            let (config, cluster) = config(serve)?;
            runtime.block_on(run(config, &cluster))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => anyhow::bail!("nothing to do: see --help"),
    }
}

async fn verify(dir: PathBuf) -> ExitCode {
    match chunkserver_server::verify::verify(&dir).await {
        Ok(report) => {
            println!("{}: {report}", dir.display());
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("cannot check {}: {error}", dir.display());
            ExitCode::from(2)
        }
    }
}

async fn run(mut config: Config, cluster: &ClusterConfig) -> anyhow::Result<()> {
    let resolver = NuwaResolver::of(cluster, &config.access);
    config.masters.registered = resolver.as_ref().map(|resolver| resolver.follow(masters::SERVICE));
    config.validate()?;
    let signal = stop_signal().context("listen for signals")?;
    tokio::pin!(signal);
    tokio::spawn(nuwa_naming::security::keep(cluster.clone(), config.access.clone()));
    loop {
        let server = ChunkServer::start(config.clone()).await?;
        let endpoint = Endpoint {
            rack: config.location.rack().to_owned(),
            ..Endpoint::new(server.advertised().clone())
        };
        let registration = Registration::of(cluster, &config.access, SERVICE, &endpoint);
        let goes_on = tokio::select! {
            name = &mut signal => {
                tracing::info!(signal = name, "stopping");
                false
            }
            () = server.condemned() => {
                tracing::warn!("starting again, to make a damaged disk anew");
                true
            }
            () = server.room_again() => {
                tracing::warn!("starting again: a disk that failed because its file system was full has room");
                true
            }
        };
        // First, and not meanwhile: nobody is to be sent to a server that has stopped. It costs one command of Nuwa, and goes on serving until
        // that is answered.
        withdraw(registration).await;
        server.shutdown().await;
        if !goes_on {
            return Ok(());
        }
    }
}

fn config(flags: Serve) -> anyhow::Result<(Config, ClusterConfig)> {
    let (path, cluster) = ClusterConfig::require(flags.cluster.as_deref())?;
    tracing::info!(cluster = cluster.name, description = %path.display(), "cluster");
    let audit = flags.audit.or_else(|| flags.data.first().map(|data| data.join("audit.log")));
    let audit = audit.map_or_else(Audit::none, |path| Audit::to(&path));
    let access = KeyDirectory::find(flags.keys.as_deref(), &path)
        .access(directory::CHUNKSERVER, audit)?
        .over_tls(cluster.tls);
    let mut config = Config::new(flags.listen, flags.data, flags.location, cluster.masters.clone());
    config.access = access;
    config.advertise = flags.advertise;
    config.capacity_bytes = flags.capacity;
    config.grpc = flags.grpc;
    config.metrics = flags.metrics;
    config.renew_damaged = true;
    config.buffer_bytes =
        usize::try_from(flags.buffers).context("--buffers is more than this machine addresses")?;
    Ok((config, cluster))
}
