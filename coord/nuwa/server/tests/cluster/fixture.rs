//! A cluster in five lines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kuafu::Address;
use nuwa_api::{ClientConfig, ClientError, NuwaClient, Session};
use nuwa_server::{Config, NuwaServer};
use tempfile::TempDir;

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Of the sessions of tests that are not about their end.
pub(crate) const LONG: Duration = Duration::from_secs(300);

pub(crate) fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) struct Cluster {
    dir: TempDir,
    members: BTreeMap<u64, Address>,
    pub(crate) running: BTreeMap<u64, NuwaServer>,
    tweak: fn(&mut Config),
}

impl Cluster {
    pub(crate) async fn start(members: u64) -> Self {
        Self::start_with(members, |_| {}).await
    }

    pub(crate) async fn start_with(members: u64, tweak: fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let members =
            (1..=members).map(|id| (id, Address::Unix(dir.path().join(format!("{id}.sock"))))).collect();
        let mut cluster = Self { dir, members, running: BTreeMap::new(), tweak };
        for id in cluster.members.clone().into_keys() {
            cluster.start_one(id).await;
        }
        cluster.whole().await;
        cluster
    }

    /// Waits until every member has what the leader has: only then does each of them count when another one dies.
    pub(crate) async fn whole(&self) {
        let client = self.client();
        until("a whole cluster", async || {
            let statuses = client.statuses(PATIENCE).await;
            let answers: Vec<_> = statuses.into_iter().filter_map(|(_, status)| status.ok()).collect();
            let newest =
                answers.iter().filter(|status| status.leads).map(|status| status.last_log_index).max();
            answers.len() == self.running.len()
                && answers.iter().all(|status| Some(status.applied_index) == newest)
        })
        .await;
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("data-{id}"))
    }

    pub(crate) fn address(&self, id: u64) -> Address {
        Address::Unix(self.dir.path().join(format!("{id}.sock")))
    }

    pub(crate) fn config(&self, id: u64) -> Config {
        let mut config = Config::new(id, self.members.clone(), self.data_dir(id));
        config.listen = self.address(id);
        config.cache_bytes = 8 << 20;
        (self.tweak)(&mut config);
        config
    }

    pub(crate) async fn start_one(&mut self, id: u64) {
        let server = NuwaServer::start(self.config(id)).await.unwrap();
        self.running.insert(id, server);
    }

    /// A process that is none of the members yet.
    pub(crate) async fn start_newcomer(&mut self, id: u64) {
        let config = Config { join: true, ..self.config(id) };
        self.running.insert(id, NuwaServer::start(config).await.unwrap());
    }

    /// As kill -9 would.
    pub(crate) async fn crash(&mut self, id: u64) {
        self.running.remove(&id).unwrap().crash().await;
    }

    pub(crate) async fn stop_one(&mut self, id: u64) {
        self.running.remove(&id).unwrap().shutdown().await;
    }

    pub(crate) async fn shutdown(self) {
        drop(self.shutdown_keeping().await);
    }

    /// Gives the directory with everything the members kept.
    pub(crate) async fn shutdown_keeping(mut self) -> TempDir {
        while let Some((_, server)) = self.running.pop_first() {
            server.shutdown().await;
        }
        self.dir
    }

    /// Waits until one leads.
    pub(crate) async fn leader(&self) -> u64 {
        let mut leader = 0;
        until("a leader", async || {
            let found = self.running.iter().find(|(_, server)| server.is_leader());
            leader = found.map_or(0, |(id, _)| *id);
            leader != 0
        })
        .await;
        leader
    }

    pub(crate) fn client(&self) -> NuwaClient {
        self.client_of(self.members.values().cloned().collect())
    }

    /// Of one member only.
    pub(crate) fn client_at(&self, id: u64) -> NuwaClient {
        self.client_of(vec![self.address(id)])
    }

    fn client_of(&self, members: Vec<Address>) -> NuwaClient {
        NuwaClient::new(ClientConfig {
            attempt_timeout: Duration::from_secs(2),
            ..ClientConfig::new(members)
        })
    }

    pub(crate) async fn session(&self) -> Session {
        self.client().open_session(LONG, "test", soon()).await.unwrap()
    }
}

/// What Nuwa says when it refuses.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Err(error @ ClientError::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}
