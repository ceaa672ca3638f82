//! A cluster in five lines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kuafu::Address;
use nuwa_api::{ClientConfig, ClientError, NuwaClient, Session};
use nuwa_server::{Config, NuwaServer};
use tempfile::TempDir;
use zhongkui::keyring::{write_capability, write_secret_key};
use zhongkui::terms::Root;
use zhongkui::{
    Capability, CapabilityId, Grant, Rights, SecretKey, Terms, Timestamp, User, UserEpoch, Validity,
};
use zhongkui_access::guard::grpc_headers;
use zhongkui_access::keyring::KeyFiles;
use zhongkui_access::{Access, Audit, KeyDirectory, Keyring, directory};

/// Longer than anything here may take on a busy machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Of the sessions of tests that are not about their end.
pub(crate) const LONG: Duration = Duration::from_secs(300);

pub(crate) fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

/// Connections that show what every server of this process accepts.
pub(crate) fn transport() -> kuafu::ClientConfig {
    Access::process().transport()
}

/// The same for a call by gRPC.
pub(crate) fn grpc_request<T>(method: &kuafu::Method, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for (key, value) in grpc_headers(&Access::process(), &format!("{}/{}", method.service, method.name)) {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    request
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
    access: Access,
    keys: Option<Keys>,
}

/// Keys of a cluster in a folder of their own.
pub(crate) struct Keys {
    directory: KeyDirectory,
    _dir: TempDir,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let directory = KeyDirectory::at(dir.path().join("keys"));
        directory.init().unwrap();
        Self { directory, _dir: dir }
    }

    /// A member, or whoever else is made with the cluster.
    pub(crate) fn of(&self, name: &str) -> Access {
        self.directory.access(name, Audit::none()).unwrap()
    }

    /// A user with rights on a resource.
    pub(crate) fn user(&self, name: &str, grants: &[(Rights, &str)]) -> Access {
        let (authority, key) = (self.directory.authority().unwrap(), SecretKey::generate().unwrap());
        let user = User::new(name.parse().unwrap(), UserEpoch(0), 1000, vec![1000]).unwrap();
        let root = Root { id: CapabilityId(1), issuer: authority.public().id(), user };
        let granted = Capability::grant(&authority, root, terms(&key, grants)).unwrap();
        self.shown(&format!("{name}-{}", key.public().id()), &key, &granted)
    }

    /// What the holder of one hands on.
    pub(crate) fn narrowed(&self, from: &Access, grants: &[(Rights, &str)]) -> Access {
        let (holder, capability) = from.keyring().pair();
        let key = SecretKey::generate().unwrap();
        let narrow = capability.narrow(&holder, terms(&key, grants)).unwrap();
        self.shown(&format!("narrow-{}", key.public().id()), &key, &narrow)
    }

    fn shown(&self, file: &str, key: &SecretKey, capability: &Capability) -> Access {
        let files = KeyFiles {
            key: self.directory.path(file, "key"),
            capability: self.directory.path(file, "cap"),
            authorities: self.directory.folder().to_owned(),
        };
        write_secret_key(&files.key, key).unwrap();
        write_capability(&files.capability, capability).unwrap();
        Access::new(Keyring::open(files).unwrap(), Audit::none())
    }
}

fn terms(key: &SecretKey, grants: &[(Rights, &str)]) -> Terms {
    let grants = grants.iter().map(|(rights, on)| Grant::new(*rights, on.parse().unwrap()).unwrap());
    let always = Validity::new(Timestamp(0), Timestamp::FOREVER).unwrap();
    Terms::new(key.public(), always, grants.collect()).unwrap()
}

impl Cluster {
    pub(crate) async fn start(members: u64) -> Self {
        Self::start_with(members, |_| {}).await
    }

    pub(crate) async fn start_with(members: u64, tweak: fn(&mut Config)) -> Self {
        Self::start_as(members, tweak, None).await
    }

    /// One that lets in who has keys of its own, and nobody else. Its [`client`](Self::client) is the administrator's.
    pub(crate) async fn start_with_keys(members: u64) -> Self {
        Self::start_as(members, |config| config.grpc = Some(([127, 0, 0, 1], 0).into()), Some(Keys::new()))
            .await
    }

    async fn start_as(members: u64, tweak: fn(&mut Config), keys: Option<Keys>) -> Self {
        let access = keys.as_ref().map_or_else(Access::process, |keys| keys.of(directory::ADMIN));
        let dir = tempfile::tempdir().unwrap();
        let members =
            (1..=members).map(|id| (id, Address::Unix(dir.path().join(format!("{id}.sock"))))).collect();
        let mut cluster = Self { dir, members, running: BTreeMap::new(), tweak, access, keys };
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
        // Each has its own knowledge of what was taken back, as in a process of its own.
        if let Some(keys) = &self.keys {
            config.access = keys.of(directory::NUWA);
        }
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
        self.client_as(self.access.transport())
    }

    /// Somebody else's.
    pub(crate) fn client_as(&self, transport: kuafu::ClientConfig) -> NuwaClient {
        self.client_of(self.members.values().cloned().collect(), transport)
    }

    /// Of one member only.
    pub(crate) fn client_at(&self, id: u64) -> NuwaClient {
        self.client_of(vec![self.address(id)], self.access.transport())
    }

    fn client_of(&self, members: Vec<Address>, transport: kuafu::ClientConfig) -> NuwaClient {
        NuwaClient::new(ClientConfig {
            attempt_timeout: Duration::from_secs(2),
            ..ClientConfig::with(members, transport)
        })
    }

    pub(crate) fn keys(&self) -> &Keys {
        self.keys.as_ref().unwrap()
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
