//! Load for coordination services, the same for each of them. Called by `scripts/bench/nuwa`.
//!
//! A measurement prints one line of JSON ([`record`]); `table` makes Markdown of such lines. Read in this order:
//! [`store`] (what is asked of a service), [`closed`], [`watch`], [`kill`] (the measurements), [`table`].
//!
//! Nothing here knows which service it loads: connections, keys, values and windows are the same, and a call that
//! fails is counted and not tried again.

mod closed;
mod kill;
mod procs;
mod record;
mod store;
mod table;
mod watch;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::closed::{ClosedFlags, Op};
use crate::kill::KillFlags;
use crate::procs::Procs;
use crate::record::{Record, StoreName};
use crate::store::{Etcd, Nuwa, Store, ZooKeeper};
use crate::watch::WatchFlags;

#[derive(Debug, Parser)]
#[command(about = "Load for coordination services: Nuwa, etcd, ZooKeeper")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure one thing; one line of JSON
    Measure {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        what: What,
    },
    /// Medians of such lines as Markdown
    Table {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// The cluster that is measured.
#[derive(Debug, Args)]
struct Target {
    #[arg(long)]
    store: StoreName,
    /// Its members, HOST:PORT, comma separated
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Their processes, comma separated: CPU and memory of these are counted
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Connections (clients, sessions), in turn to one member each
    #[arg(long, default_value_t = 12)]
    connections: usize,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Overwrite keys, closed loop; then read back what was acknowledged
    Put(ClosedFlags),
    /// Linearizable reads (ZooKeeper: sync, then read), closed loop
    Get(ClosedFlags),
    /// Reads of whatever the connected member has, closed loop
    GetStale(ClosedFlags),
    /// One writer, many watchers of one key
    Watch(WatchFlags),
    /// Kill the leader under a steady rate of writes; then read back what was acknowledged
    Kill(KillFlags),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Measure { target, what } => match target.store {
            StoreName::Nuwa => measure::<Nuwa>(&target, &what).await,
            StoreName::Etcd => measure::<Etcd>(&target, &what).await,
            StoreName::Zookeeper => measure::<ZooKeeper>(&target, &what).await,
        },
        Command::Table { files } => {
            print!("{}", table::markdown(&record::read(&files)?));
            Ok(())
        }
    }
}

async fn measure<S: Store>(target: &Target, what: &What) -> anyhow::Result<()> {
    let print = |record: Record| record.print(target.store);
    match what {
        What::Put(flags) => print(Record::Closed(closed::run::<S>(target, flags, Op::Put).await?)),
        What::Get(flags) => print(Record::Closed(closed::run::<S>(target, flags, Op::Get).await?)),
        What::GetStale(flags) => print(Record::Closed(closed::run::<S>(target, flags, Op::GetStale).await?)),
        What::Watch(flags) => print(Record::Watch(watch::run::<S>(target, flags).await?)),
        What::Kill(flags) => kill::run::<S>(target, flags, |round| print(Record::Kill(round))).await,
    }
}

impl Target {
    fn procs(&self) -> Procs {
        Procs(self.pids.clone())
    }

    /// So many connections, in turn to one member each.
    async fn connect<S: Store>(&self, connections: usize) -> anyhow::Result<Vec<std::sync::Arc<S>>> {
        let mut stores = Vec::new();
        for endpoint in self.endpoints.iter().cycle().take(connections) {
            let store = S::connect(std::slice::from_ref(endpoint)).await;
            stores.push(store.with_context(|| format!("connect to {endpoint}"))?.into());
        }
        Ok(stores)
    }
}
