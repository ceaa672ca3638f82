//! The cluster that is told what was taken back, and of new authorities.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use coord_cluster::ClusterConfig;
use nuwa_api::client::Freshness;
use nuwa_api::proto::Compare;
use nuwa_api::{ClientConfig, NuwaClient, Session, ops};
use zhongkui_access::revoked::FOLDER;
use zhongkui_access::{Audit, KeyDirectory, directory};

/// For each answer of Nuwa.
const PATIENCE: Duration = Duration::from_secs(10);
/// The session lives no longer than a command.
const TTL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterFlags {
    /// Cluster description [default: $FEITIAN_CLUSTER, ~/.config/feitian/cluster.toml, /etc/feitian/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
}

/// A session with Nuwa.
pub(crate) struct Told {
    client: NuwaClient,
    session: Session,
    runtime: tokio::runtime::Runtime,
}

impl ClusterFlags {
    /// Shows the administrator's key.
    pub(crate) fn open(&self, keys: &KeyDirectory) -> anyhow::Result<Told> {
        let (path, cluster) = ClusterConfig::require(self.cluster.as_deref())?;
        anyhow::ensure!(
            !cluster.nuwa.is_empty(),
            "{} lists no members of Nuwa, through which servers hear of this: without it only expiry takes a capability back",
            path.display()
        );
        let access = keys.access(directory::ADMIN, Audit::none())?.over_tls(cluster.tls);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = {
            let _runtime = runtime.enter();
            NuwaClient::new(ClientConfig::with(cluster.nuwa, access.transport()))
        };
        let session =
            runtime.block_on(client.open_session(TTL, "zhongkui", deadline())).context("reach Nuwa")?;
        Ok(Told { client, session, runtime })
    }
}

impl Told {
    /// Writes a file below the folder, which is made if it is not there.
    pub(crate) fn write(&self, kind: &str, name: &str, content: &str) -> anyhow::Result<String> {
        let folder = format!("{FOLDER}{kind}/");
        for directory in [FOLDER, &folder] {
            self.make(directory)?;
        }
        let path = format!("{folder}{name}");
        let put = self.session.put(&path, content.to_owned(), deadline());
        self.runtime.block_on(put).with_context(|| format!("write {path}"))?;
        Ok(path)
    }

    fn make(&self, directory: &str) -> anyhow::Result<()> {
        let absent: Vec<Compare> = vec![ops::version_is(directory, 0)];
        let make = vec![ops::make_directory(directory).into()];
        // If it is there already, nothing is done.
        let made = self.session.txn(absent, make, Vec::new(), deadline());
        self.runtime.block_on(made).with_context(|| format!("make {directory}"))?;
        Ok(())
    }

    /// A user's epoch, 0 if it was never raised.
    pub(crate) fn epoch(&self, user: &str) -> anyhow::Result<u32> {
        let path = format!("{FOLDER}users/{user}");
        let entry = self.client.get(&path, Freshness::Linearizable, deadline());
        let Some(entry) = self.runtime.block_on(entry).with_context(|| format!("read {path}"))? else {
            return Ok(0);
        };
        let text = std::str::from_utf8(&entry.value).unwrap_or_default();
        text.trim().parse().with_context(|| format!("{path} is no epoch: {text:?}"))
    }

    /// To be called last; without it the session ends with its time.
    pub(crate) fn close(self) {
        let Self { session, runtime, .. } = self;
        if let Err(error) = runtime.block_on(session.end(deadline())) {
            eprintln!("zhongkui: end the session: {error}");
        }
    }
}

fn deadline() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}
