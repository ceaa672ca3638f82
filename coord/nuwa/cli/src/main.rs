//! `nuwa`: Nuwa's command line, one command a file.

mod history;
mod hold;
mod members;
mod name;
mod quota;
mod read;
mod remove;
mod service;
mod show;
mod signals;
mod snapshot;
mod txn;
mod watch;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use coord_cluster::ClusterConfig;
use nuwa_api::proto::{Compare, Operation};
use nuwa_api::session::TxnDone;
use nuwa_api::{ClientConfig, NuwaClient, Session};
use nuwa_naming::security::ClientKeys;

/// Reads and changes Nuwa's tree, locks in it, and looks after its members.
///
/// A path begins with / and names a directory if it ends in /, a file if not. Nuwa is found by the cluster description:
/// --cluster, $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml or /etc/feitian/cluster.toml; else this user's embedded platform, or whatever is
/// mounted here.
#[derive(Debug, Parser)]
#[command(name = "nuwa", version, after_help = EXAMPLES)]
struct Flags {
    /// Cluster description
    #[arg(long, value_name = "FILE", global = true)]
    cluster: Option<PathBuf>,
    /// Folder with keys: authority.pub, and the administrator's, admin.key and admin.cap [default: $FEITIAN_KEYS, or `keys`
    /// beside the cluster description]
    #[arg(long, value_name = "DIR", global = true)]
    keys: Option<PathBuf>,
    /// Secret key to use instead of the administrator's
    #[arg(long, value_name = "FILE", global = true, requires = "cap")]
    key: Option<PathBuf>,
    /// Capability for that key
    #[arg(long, value_name = "FILE", global = true, requires = "key")]
    cap: Option<PathBuf>,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    json: bool,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 10)]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a file's value
    Get(read::Get),
    /// Set a file's value: the one given, or what comes on standard input
    Put(write::Put),
    /// List a directory
    Ls(read::Ls),
    /// Make a directory
    Mkdir(write::Mkdir),
    /// Delete a file, or a directory
    Rm(remove::Rm),
    /// Give a file or a directory another name
    Mv(write::Mv),
    /// Print changes as they happen, one a line
    Watch(watch::Watch),
    /// Carry out a transaction, given as JSON on standard input
    Txn(txn::Txn),
    /// Run a command while holding a file's lock
    ///
    /// The command finds the lock's fence in $NUWA_FENCE. It is stopped if the lock is lost: by SIGTERM, and 5 seconds later by SIGKILL. SIGTERM,
    /// SIGINT and SIGHUP are passed on to it, and it gets SIGTERM if `nuwa` itself is killed; what it has started in turn is its own affair. Ends as
    /// the command does (128 and the signal's number if it died of one); with 1 if the lock cannot be had in time.
    Lock(hold::Lock),
    /// Run a command while leading an election
    ///
    /// Who holds the file's lock leads, and the file says VALUE then. Otherwise as `lock`.
    Elect(hold::Elect),
    /// Show or set how much there may be below a directory
    Quota(quota::Quota),
    /// Show or set how much history is kept, from which watches can begin
    History(history::History),
    /// Write the whole tree into a file, as it is at one revision
    ///
    /// Everybody works on meanwhile. FILE is there whole, or not at all. What sessions own, locks and history are not in it.
    Snapshot(snapshot::Snapshot),
    /// Make a snapshot the tree of a cluster that has none
    ///
    /// The file is checked to its end first. While it is restored the tree refuses everything else. One that was broken off is begun again by
    /// the same command.
    Restore(snapshot::Restore),
    /// Who serves what
    #[command(subcommand)]
    Service(service::Service),
    /// Members, and how they are
    Status,
    /// Add a member to the cluster, or remove one
    #[command(subcommand)]
    Member(members::Member),
}

const EXAMPLES: &str = "\
Examples:
  nuwa put /config/limits 'max=10' --parents
  nuwa get /config/limits
  nuwa watch /config/ --json
  nuwa lock /locks/backup -- ./backup.sh
  nuwa elect /leader \"$(hostname)\" -- ./serve.sh
  echo '{\"if\": [{\"path\": \"/a\", \"version\": 0}], \"then\": [{\"put\": {\"path\": \"/a\", \"value\": \"x\"}}]}' | nuwa txn
  nuwa snapshot tree.nuwa && nuwa snapshot --check tree.nuwa
  nuwa --cluster new.toml restore tree.nuwa
  nuwa history --events 2000000
  nuwa --key alice.key --cap alice.cap get /alice/notes
  nuwa status";

/// Of the session of a change: more than one takes.
const CHANGE_TTL: Duration = Duration::from_secs(60);

/// What every command has.
#[derive(Debug)]
struct Context {
    client: NuwaClient,
    /// Its name.
    cluster: String,
    json: bool,
    timeout: Duration,
}

impl Context {
    fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.timeout)
    }

    /// Who changes something has a session: a change that is asked for twice is made once.
    async fn session(&self, ttl: Duration) -> anyhow::Result<Session> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let description = format!("nuwa, process {} on {}", std::process::id(), host.to_string_lossy());
        Ok(self.client.open_session(ttl, description, self.deadline()).await?)
    }

    /// Ends what [`session`](Self::session) began; if that fails it ends with its time.
    async fn end(&self, session: Session) {
        if let Err(error) = session.end(self.deadline()).await {
            show::warn(self.json, format_args!("the session ends by itself: {error}"));
        }
    }

    /// One transaction, in a session of its own.
    async fn txn(
        &self,
        compares: Vec<Compare>,
        then: Vec<Operation>,
        otherwise: Vec<Operation>,
    ) -> anyhow::Result<TxnDone> {
        let session = self.session(CHANGE_TTL).await?;
        let done = session.txn(compares, then, otherwise, self.deadline()).await;
        self.end(session).await;
        Ok(done?)
    }
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return misused(&error),
    };
    let json = flags.json;
    match run(flags) {
        Ok(code) => code,
        Err(error) => {
            show::error(json, format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the arguments, or the help that was asked for.
fn misused(error: &clap::Error) -> ExitCode {
    // They do not parse: whether there is to be JSON can only be guessed. Behind -- there is a command with flags of its own.
    let asked = || std::env::args_os().skip(1).take_while(|argument| argument != "--");
    if error.use_stderr() && asked().any(|argument| argument == "--json") {
        show::error(true, format_args!("{}", error.to_string().trim()));
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    error.exit()
}

fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    if let Command::Snapshot(snapshot) = &flags.command
        && let Some(checked) = snapshot.check(flags.json)
    {
        return checked.map(|()| ExitCode::SUCCESS);
    }
    let known = ClusterConfig::known(flags.cluster.as_deref(), "fuse.nuwa")?;
    let (path, cluster) = known.context(
        "no cluster is known: mount its Nuwa, with pangu-fuse MOUNT --nuwa DIR or nuwa-fuse, or name its description with \
         --cluster FILE",
    )?;
    anyhow::ensure!(
        !cluster.nuwa.is_empty(),
        "{} lists no members of Nuwa: write nuwa = [\"tcp://HOST:PORT\", ...], or, if pangu-fuse wrote it, give that --nuwa DIR",
        path.display()
    );
    let access =
        ClientKeys { folder: flags.keys, pair: flags.key.zip(flags.cap) }.open(&path)?.over_tls(cluster.tls);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        // Commands may run for weeks, and keys be exchanged meanwhile.
        tokio::spawn(access.clone().keep_fresh());
        let context = Context {
            client: NuwaClient::new(ClientConfig::with(cluster.nuwa, access.transport())),
            cluster: cluster.name,
            json: flags.json,
            timeout: Duration::from_secs(flags.timeout.max(1)),
        };
        match flags.command {
            Command::Get(get) => get.run(&context).await?,
            Command::Put(put) => put.run(&context).await?,
            Command::Ls(ls) => ls.run(&context).await?,
            Command::Mkdir(mkdir) => mkdir.run(&context).await?,
            Command::Rm(rm) => rm.run(&context).await?,
            Command::Mv(mv) => mv.run(&context).await?,
            Command::Watch(watch) => watch.run(&context).await?,
            Command::Txn(txn) => return txn.run(&context).await,
            Command::Lock(lock) => return lock.run(&context).await,
            Command::Elect(elect) => return elect.run(&context).await,
            Command::Quota(quota) => quota.run(&context).await?,
            Command::History(history) => history.run(&context).await?,
            Command::Snapshot(snapshot) => snapshot.run(&context).await?,
            Command::Restore(restore) => restore.run(&context).await?,
            Command::Service(service) => service.run(&context).await?,
            Command::Status => members::status(&context).await?,
            Command::Member(member) => member.run(&context).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
