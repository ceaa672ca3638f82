//! Start and stop of the servers. They share one thread with one runtime: a hand-over between threads costs more than
//! the work of a request.
//!
//! Start: Nuwa (if wanted), master, then chunkservers; with Nuwa all of them register, as in a cluster. Stop: first from the registry, then in
//! the opposite order, so that nothing is written any more when the master stops.
//! A kill at any moment is what the servers' formats are made for; the next start finds everything.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use chunkserver_server::{ChunkServer, Location};
use kuafu::{Address, Endpoint};
use master_api::masters;
use master_server::MasterServer;
use nix::sys::statvfs::statvfs;
use nuwa_api::{ClientConfig, NuwaClient};
use nuwa_naming::Registration;
use nuwa_server::NuwaServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zhongkui_access::{Access, Audit, DirectoryError, KeyDirectory, directory};

use crate::config::{EmbeddedConfig, Shape};
use crate::member::ID;
use crate::store::{Store, StoreError};

/// The master of a single machine serves one client; a cluster's default would be memory lost to the page cache.
const MASTER_CACHE_BYTES: usize = 64 << 20;
/// Memory of one chunkserver between sockets and disk.
const BUFFER_BYTES: usize = 64 << 20;
/// The name under which `pangu-chunkserver` registers, too.
const CHUNKSERVERS: &str = "pangu-chunkserver";

/// Why the platform did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the platform's keys")]
    Keys(#[from] DirectoryError),
    #[error(
        "{path} has room for {room} bytes a chunkserver, at least 64 MiB are needed: free some space or choose another \
         place with --data",
        path = path.display()
    )]
    NoRoom { path: PathBuf, room: u64 },
    #[error("ask how much space is free at {path}", path = path.display())]
    FreeSpace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("start the servers' thread")]
    Thread(#[source] std::io::Error),
    #[error("start the master")]
    Master(#[from] master_server::StartError),
    #[error("start the member of Nuwa")]
    Nuwa(#[from] nuwa_server::StartError),
    #[error("start chunkserver {n}")]
    Chunkserver {
        n: u32,
        #[source]
        source: Box<chunkserver_server::StartError>,
    },
    #[error("the servers' thread ended before it had started them")]
    Died,
}

/// A running platform. Dropped, it stops the servers and waits for them.
#[derive(Debug)]
pub struct Embedded {
    master: Address,
    fuxi: Address,
    dir: PathBuf,
    cluster_file: PathBuf,
    keys: KeyDirectory,
    shape: Shape,
    stop: CancellationToken,
    /// The reason, if the servers ended by themselves.
    failed: watch::Receiver<Option<String>>,
    thread: Option<thread::JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

/// How long a drop waits for the servers.
const DROP_WAIT: Duration = Duration::from_secs(10);

impl Embedded {
    /// Starts the servers; they serve when this returns.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
    pub fn start(config: &EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let store = Store::open(config)?;
        let keys = store.keys();
        keys.init()?;
        let capacity_bytes = capacity(&store, config)?;
        let (master, fuxi) = (store.master_address(), store.fuxi_address());
        let (dir, cluster_file, shape) = (store.dir().to_owned(), store.cluster_file(), store.shape);
        let stop = CancellationToken::new();
        let (started, starting) = mpsc::sync_channel(1);
        let (tell_failed, failed) = watch::channel(None);
        let (end, ended) = mpsc::sync_channel(1);
        let stopping = stop.clone();
        let thread = thread::Builder::new()
            .name("servers".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(run(&store, capacity_bytes, &started, &tell_failed, stopping))
                    }
                    Err(error) => {
                        let _ = started.send(Err(EmbeddedError::Thread(error)));
                    }
                }
                drop(store);
                // Nobody listens any more after a drop that gave up.
                let _ = end.send(());
            })
            .map_err(EmbeddedError::Thread)?;
        let embedded =
            Self { master, fuxi, dir, cluster_file, keys, shape, stop, failed, thread: Some(thread), ended };
        starting.recv().map_err(|_| EmbeddedError::Died)??;
        Ok(embedded)
    }

    /// Where its master listens.
    #[must_use]
    pub const fn master(&self) -> &Address {
        &self.master
    }

    pub(crate) fn keys(&self) -> &KeyDirectory {
        &self.keys
    }

    /// Where a master of Fuxi may listen.
    pub(crate) const fn fuxi_address(&self) -> &Address {
        &self.fuxi
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster description it wrote.
    #[must_use]
    pub fn cluster_file(&self) -> &Path {
        &self.cluster_file
    }

    /// Keys with all rights on it, for clients in this process.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn access(&self) -> Result<Access, DirectoryError> {
        self.keys.access(directory::ADMIN, Audit::none())
    }

    #[must_use]
    pub const fn replicas(&self) -> u32 {
        self.shape.replicas
    }

    #[must_use]
    pub const fn chunkservers(&self) -> u32 {
        self.shape.chunkservers
    }

    /// Resolves with the reason when the servers stopped by themselves.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        reason.unwrap_or_else(|| "the servers' thread ended".to_owned())
    }

    /// Stops the servers; `false` if that took longer than `deadline`. Blocks the calling thread.
    pub fn stop(mut self, deadline: Duration) -> bool {
        self.stop_within(deadline)
    }

    fn stop_within(&mut self, deadline: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.stop.cancel();
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(deadline) {
            return false;
        }
        if thread.join().is_err() {
            tracing::error!("the servers' thread panicked");
        }
        true
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop_within(DROP_WAIT);
    }
}

/// The share of a chunkserver that is made now.
fn capacity(store: &Store, config: &EmbeddedConfig) -> Result<Option<u64>, EmbeddedError> {
    let new = store.shape.chunkservers - store.chunkservers_before;
    if new == 0 || config.capacity_bytes.is_some() {
        return Ok(config.capacity_bytes);
    }
    let path = store.dir().to_owned();
    let free = match statvfs(&path) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(errno) => return Err(EmbeddedError::FreeSpace { path, source: errno.into() }),
    };
    let share = free / 10 * 9 / u64::from(new);
    if share < EmbeddedConfig::CAPACITY_MIN_BYTES {
        return Err(EmbeddedError::NoRoom { path, room: share });
    }
    Ok(Some(share))
}

/// Who the servers are: the same as in a cluster, so that nothing is different for being in one process.
struct Accesses {
    master: Access,
    chunkserver: Access,
    nuwa: Access,
}

impl Accesses {
    fn open(store: &Store) -> Result<Self, DirectoryError> {
        let (keys, audit) = (store.keys(), Audit::to(&store.dir().join("audit.log")));
        let access = |name| keys.access(name, audit.clone());
        Ok(Self {
            master: access(directory::MASTER)?,
            chunkserver: access(directory::CHUNKSERVER)?,
            nuwa: access(directory::NUWA)?,
        })
    }
}

/// The servers' life, on their thread.
async fn run(
    store: &Store,
    capacity_bytes: Option<u64>,
    started: &mpsc::SyncSender<Result<(), EmbeddedError>>,
    failed: &watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let access = match Accesses::open(store) {
        Ok(access) => access,
        Err(error) => {
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    let nuwa = match start_nuwa(store, &access.nuwa).await {
        Ok(nuwa) => nuwa,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let master = match start_master(store, &access.master).await {
        Ok(master) => master,
        Err(error) => {
            let _ = started.send(Err(error));
            stop_nuwa(nuwa).await;
            return;
        }
    };
    let mut chunkservers = Vec::new();
    let mut outcome = Ok(());
    for n in 1..=store.shape.chunkservers {
        match start_chunkserver(store, n, capacity_bytes, &access.chunkserver).await {
            Ok(chunkserver) => chunkservers.push(chunkserver),
            Err(source) => {
                outcome = Err(EmbeddedError::Chunkserver { n, source: Box::new(source) });
                break;
            }
        }
    }
    let up = outcome.is_ok();
    let registrations = if up { register(store, &access.master) } else { Vec::new() };
    let keeping = keep(store, [&access.master, &access.chunkserver]);
    // Whoever started us waits for this.
    let _ = started.send(outcome);
    if up {
        tokio::select! {
            () = stop.cancelled() => {}
            () = master.failed() => {
                let reason = master.failure().unwrap_or_else(|| "unknown".to_owned());
                tracing::error!(reason, "the master stopped by itself");
                failed.send_replace(Some(format!("the master stopped by itself: {reason}")));
            }
            reason = nuwa_failed(nuwa.as_ref()) => {
                tracing::error!(reason, "the member of Nuwa stopped by itself");
                failed.send_replace(Some(format!("the member of Nuwa stopped by itself: {reason}")));
            }
        }
    }
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
    futures::future::join_all(registrations.into_iter().map(Registration::withdraw)).await;
    for chunkserver in chunkservers {
        chunkserver.shutdown().await;
    }
    master.shutdown().await;
    stop_nuwa(nuwa).await;
}

/// Follows new keys, and what was taken back, for each of these.
fn keep(store: &Store, accesses: [&Access; 2]) -> Vec<tokio::task::JoinHandle<()>> {
    match store.description() {
        Ok(cluster) => accesses
            .into_iter()
            .map(|access| tokio::spawn(nuwa_naming::security::keep(cluster.clone(), access.clone())))
            .collect(),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "new keys, and what is taken back, are not heard of until the next start");
            Vec::new()
        }
    }
}

/// Lists the servers in the registry; none without Nuwa.
fn register(store: &Store, access: &Access) -> Vec<Registration> {
    if !store.has_nuwa {
        return Vec::new();
    }
    let client = NuwaClient::new(ClientConfig::with(vec![store.nuwa_address()], access.transport()));
    let list = |service, endpoint: Endpoint| Registration::start(client.clone(), service, &endpoint);
    let chunkserver = |n| Endpoint { rack: rack(n), ..Endpoint::new(store.chunkserver_address(n)) };
    let master = list(masters::SERVICE, Endpoint::new(store.master_address()));
    let chunkservers = (1..=store.shape.chunkservers).map(|n| list(CHUNKSERVERS, chunkserver(n)));
    std::iter::once(master).chain(chunkservers).collect()
}

/// A rack each: copies of a chunk go to different ones, as in a cluster.
fn rack(n: u32) -> String {
    format!("/local/rack{n}")
}

async fn start_nuwa(store: &Store, access: &Access) -> Result<Option<NuwaServer>, EmbeddedError> {
    if !store.has_nuwa {
        return Ok(None);
    }
    let mut config = nuwa_server::Config::new(ID, [(ID, store.nuwa_address())].into(), store.nuwa_dir());
    config.access = access.clone();
    Ok(Some(NuwaServer::start(config).await?))
}

async fn nuwa_failed(nuwa: Option<&NuwaServer>) -> String {
    let Some(nuwa) = nuwa else { return std::future::pending().await };
    nuwa.failed().await;
    nuwa.failure().unwrap_or_else(|| "unknown".to_owned())
}

async fn stop_nuwa(nuwa: Option<NuwaServer>) {
    if let Some(nuwa) = nuwa {
        nuwa.shutdown().await;
    }
}

pub(crate) async fn start_master(store: &Store, access: &Access) -> Result<MasterServer, EmbeddedError> {
    let address = store.master_address();
    let mut config = master_server::Config::new(1, [(1, address)].into(), store.master_dir());
    config.access = access.clone();
    config.replicas = store.shape.replicas;
    config.min_replicas = store.shape.replicas.min(2);
    config.cache_bytes = MASTER_CACHE_BYTES;
    // All chunkservers start with us: nobody has to be waited for.
    config.group_settle = Duration::ZERO;
    Ok(MasterServer::start(config).await?)
}

async fn start_chunkserver(
    store: &Store,
    n: u32,
    capacity_bytes: Option<u64>,
    access: &Access,
) -> Result<chunkserver_server::Handle, chunkserver_server::StartError> {
    let location: Location = format!("{}/host", rack(n)).parse()?;
    let data = store.chunkserver_dir(n);
    let mut config = chunkserver_server::Config::new(
        store.chunkserver_address(n),
        vec![data],
        location,
        vec![store.master_address()],
    );
    config.access = access.clone();
    config.capacity_bytes = capacity_bytes;
    config.buffer_bytes = BUFFER_BYTES;
    ChunkServer::start(config).await
}
