//! A master's life: open the state, listen, join or make the cluster, serve, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use coord_raft::{Formed, Leadership, MembershipError, OpenError, RaftConfig, RaftNode};
use kuafu::grpc::{GrpcError, GrpcServer};
use kuafu::{Address, BindError};
use master_api::proto::{self, AdminGrpc, AdminServer, ClusterServer, NamespaceServer};
use monitor_telemetry::{BoundMetrics, MetricsError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::background;
use crate::config::{Config, ConfigError};
use crate::hub::Hub;
use crate::machine::Machine;
use crate::service::admin::Admin;
use crate::service::cluster::Cluster;
use crate::service::namespace::Namespace;
use crate::soft::Soft;
use crate::tokens::Signer;

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
        raft_config.transport = config.access.transport();
        let hub = Arc::<Hub>::default();
        let raft = RaftNode::open(raft_config, Machine { hub: Arc::clone(&hub) })
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
            hub,
            signer: Signer::default(),
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
        let guard = app
            .config
            .access
            .guard()
            .asks_itself(&proto::NAMESPACE_METHODS)
            .asks_itself_in(&proto::CLUSTER_METHODS, "GetTable")
            .asks_itself_in(&proto::CLUSTER_METHODS, "Report")
            .asks_itself_in(&proto::ADMIN_METHODS, "Where")
            .shows(&proto::ADMIN_METHODS, "Status")
            .build();
        let server = kuafu::Server::builder()
            .authorizer(guard.clone())
            .service(NamespaceServer::new(Arc::new(Namespace(Arc::clone(&app)))))
            .service(ClusterServer::new(Arc::new(Cluster(Arc::clone(&app)))))
            .service(AdminServer::new(Arc::new(Admin(Arc::clone(&app)))))
            .service(app.raft.service())
            .build();
        let initialized = app.raft.is_initialized().await.map_err(StartError::State)?;
        let bound = server.bind(&app.config.listen).await?;
        let grpc = match app.config.grpc {
            Some(address) => Some(
                GrpcServer::new(guard)
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

    /// Where others are told to connect to.
    #[must_use]
    pub fn advertised(&self) -> &Address {
        self.app.config.advertised()
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

/// Makes the cluster, if this master is the one to do so.
async fn begin(app: Arc<App>) {
    let listed = app.config.members.iter().filter(|_| !app.config.join);
    let members = listed.map(|(id, address)| (*id, address.to_string())).collect();
    match app.raft.form(members).await {
        Ok(Formed::Yes) => {}
        Ok(Formed::Joins) => tracing::info!(
            "this master has no data and joins: `pangu master add {}` makes it one of the cluster",
            app.config.advertised()
        ),
        Ok(Formed::NotFirst) => tracing::info!(
            "this master has no data: waiting for a leader, or for the first master to make the cluster"
        ),
        Ok(Formed::HasData) => {
            tracing::warn!("the other masters have data and this one has none: waiting for their leader");
        }
        Err(error) => tracing::error!(%error, "make the cluster"),
    }
}
