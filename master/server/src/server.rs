//! A master's life: open the state, listen, join or make the cluster, serve, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use coord_raft::{Leadership, MembershipError, OpenError, RaftConfig, RaftNode};
use kuafu::grpc::{GrpcError, GrpcServer};
use kuafu::{Address, BindError, CallOptions, Client, ClientConfig};
use master_api::proto::{self, AdminClient, AdminGrpc, AdminServer, ClusterServer, NamespaceServer};
use monitor_telemetry::{BoundMetrics, MetricsError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::background;
use crate::config::{Config, ConfigError};
use crate::machine::Machine;
use crate::service::admin::Admin;
use crate::service::cluster::Cluster;
use crate::service::namespace::Namespace;
use crate::soft::Soft;

/// Between questions to the other masters whether a cluster exists.
const JOIN_PERIOD: Duration = Duration::from_millis(200);
/// Another master's answer to that.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A stopping leader tries for this long to have another one in its place: an election without timeouts takes a few
/// synced writes, and whoever waits longer than this would have waited for the others' timeout.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a master did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("make the data directory {}: give --data a directory this user may write", path.display())]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("open the master's data in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("look whether the master has data")]
    State(#[source] MembershipError),
}

/// A running master. [`shutdown`](Self::shutdown) stops it; dropping it leaves it running with its runtime.
pub struct MasterServer {
    app: Arc<App>,
    address: Address,
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for MasterServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterServer")
            .field("id", &self.app.config.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl MasterServer {
    /// Starts a master on the current runtime. It serves when this returns; whether there is a leader yet is another
    /// matter.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        coord_kv_rocks::create_dir_durably(&config.data_dir)
            .map_err(|source| StartError::DataDir { path: config.data_dir.clone(), source })?;
        let mut config = config;
        let mut raft_config = RaftConfig::new(config.id, config.advertised().to_string(), &config.data_dir);
        raft_config.store.cache_bytes = config.cache_bytes;
        raft_config.snapshot_after_entries = config.snapshot_after_entries;
        raft_config.keep_entries = config.keep_entries;
        raft_config.segment_bytes = config.segment_bytes;
        let raft = RaftNode::open(raft_config, Machine)
            .await
            .map_err(|source| StartError::Open { path: config.data_dir.clone(), source })?;
        let known = raft.status().members.remove(&config.id).and_then(|member| member.address.parse().ok());
        if let Some(known) = known.filter(|_| config.listen_as_known) {
            config.listen = known;
        }
        let app = Arc::new(App {
            config,
            raft,
            soft: Soft::default(),
            registered: Notify::new(),
            looked: tokio::sync::Mutex::default(),
            table_version: tokio::sync::watch::Sender::new(0),
            begun: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
        });
        match Self::serve(Arc::clone(&app)).await {
            Ok(server) => Ok(server),
            Err(error) => {
                app.raft.shutdown().await;
                Err(error)
            }
        }
    }

    async fn serve(app: Arc<App>) -> Result<Self, StartError> {
        let server = kuafu::Server::builder()
            .service(NamespaceServer::new(Arc::new(Namespace(Arc::clone(&app)))))
            .service(ClusterServer::new(Arc::new(Cluster(Arc::clone(&app)))))
            .service(AdminServer::new(Arc::new(Admin(Arc::clone(&app)))))
            .service(app.raft.service())
            .build();
        let initialized = app.raft.is_initialized().await.map_err(StartError::State)?;
        let bound = server.bind(&app.config.listen).await?;
        let grpc = match app.config.grpc {
            Some(address) => Some(
                GrpcServer::new()
                    .service(AdminGrpc::server(Arc::new(Admin(Arc::clone(&app)))))
                    .descriptors(proto::FILE_DESCRIPTOR_SET)
                    .bind(address)
                    .await?,
            ),
            None => None,
        };
        let metrics = match app.config.metrics {
            Some(address) => Some(BoundMetrics::bind(address).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        let mut running = Self {
            address: bound.local_address().clone(),
            grpc: grpc.as_ref().map(kuafu::grpc::BoundGrpc::local_address),
            metrics: metrics.as_ref().map(BoundMetrics::local_address),
            stop: stop.clone(),
            tasks: Vec::new(),
            app: Arc::clone(&app),
        };
        running.tasks.push(tokio::spawn(bound.serve(stop.clone())));
        if let Some(grpc) = grpc {
            let stop = stop.clone();
            running.tasks.push(tokio::spawn(async move {
                if let Err(error) = grpc.serve(stop).await {
                    tracing::error!(%error, "gRPC stopped");
                }
            }));
        }
        if let Some(metrics) = metrics {
            let (app, server) = (Arc::clone(&app), server.clone());
            let render = Arc::new(move || crate::metrics::render(&app, &server));
            running.tasks.push(tokio::spawn(metrics.serve(render, stop.clone())));
        }
        running.spawn(background::run(Arc::clone(&app)));
        if !initialized {
            running.spawn(begin(app));
        }
        Ok(running)
    }

    /// Runs a job until the master stops.
    fn spawn(&mut self, job: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = job => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where gRPC is served.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Whether this master leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.app.leads()
    }

    /// Resolves when the master stopped by itself, for example because its disk failed.
    pub async fn failed(&self) {
        let mut leadership = self.app.raft.watch_leadership();
        // A closed channel means the same.
        let _stopped = leadership.wait_for(|now| *now == Leadership::Stopped).await;
    }

    /// Why it stopped by itself.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.app.raft.status().failure
    }

    /// Hands leadership over if this master has it, stops serving, then closes the state.
    pub async fn shutdown(self) {
        // Still serving: whoever asks meanwhile waits a moment and is told who leads next.
        self.app.hand_over(Instant::now() + HAND_OVER_TIMEOUT).await;
        self.app.raft.give_lease_up();
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the master");
            }
        }
        self.app.raft.shutdown().await;
    }

    /// Stops as a killed process would: nothing is answered, nothing is flushed that the protocol does not ask for.
    #[doc(hidden)]
    pub async fn crash(self) {
        for task in &self.tasks {
            task.abort();
        }
        self.app.raft.crash().await;
        self.stop.cancel();
    }
}

/// Makes the cluster, if this master is the one to do so: the lowest in the list, and no other has ever had data. A
/// member whose disk was replaced finds that the others have, and waits for the leader instead.
async fn begin(app: Arc<App>) {
    let members = &app.config.members;
    if app.config.join || !members.contains_key(&app.config.id) {
        tracing::info!(
            "this master has no data and joins: `pangu master add {}` makes it one of the cluster",
            app.config.advertised()
        );
        return;
    }
    let Some(first) = members.keys().next().filter(|first| **first != app.config.id) else {
        return make_cluster(&app).await;
    };
    tracing::info!(
        first,
        "this master has no data: waiting for a leader, or for the first master to make the cluster"
    );
}

async fn make_cluster(app: &App) {
    let members = &app.config.members;
    let others: Vec<AdminClient> = members
        .iter()
        .filter(|(id, _)| **id != app.config.id)
        .map(|(_, address)| AdminClient::new(Client::new(address.clone(), ClientConfig::default())))
        .collect();
    let mut said = false;
    loop {
        match fresh(&others).await {
            Freshness::All => break,
            Freshness::SomeHaveData => {
                tracing::warn!("the other masters have data and this one has none: waiting for their leader");
                return;
            }
            Freshness::Unknown { answered } => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(
                        answered,
                        of = others.len(),
                        "waiting for the other masters to make the cluster"
                    );
                }
                tokio::time::sleep(JOIN_PERIOD).await;
            }
        }
    }
    let voters = members.iter().map(|(id, address)| (*id, address.to_string())).collect();
    match app.raft.initialize(voters).await {
        Ok(()) | Err(MembershipError::AlreadyInitialized) => {}
        Err(error) => tracing::error!(%error, "make the cluster"),
    }
}

enum Freshness {
    /// Every other master answered, and none has data.
    All,
    SomeHaveData,
    Unknown {
        answered: usize,
    },
}

async fn fresh(others: &[AdminClient]) -> Freshness {
    let asked = others.iter().map(|other| async {
        let asked = Instant::now();
        let options = CallOptions::within(JOIN_TIMEOUT);
        let reply = other.status(proto::StatusRequest {}, &options).await;
        tracing::debug!(took = ?asked.elapsed(), ok = reply.is_ok(), "asked another master for its state");
        reply.map(|reply| reply.message)
    });
    let answers = futures::future::join_all(asked).await;
    let known: Vec<_> = answers.into_iter().flatten().collect();
    // A member that heard of a cluster has a log, even if nothing is applied yet.
    if known.iter().any(|status| !status.cluster_id.is_empty() || status.last_log_index > 0) {
        return Freshness::SomeHaveData;
    }
    if known.len() == others.len() { Freshness::All } else { Freshness::Unknown { answered: known.len() } }
}
