//! A member's life: open the state, listen, join or form the cluster, serve, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_kv::KvError;
use coord_raft::{Formed, Leadership, OpenError, RaftConfig, RaftNode};
use kuafu::grpc::{GrpcError, GrpcServer};
use kuafu::{Address, BindError};
use monitor_telemetry::{BoundMetrics, MetricsError};
use nuwa_api::proto::{self, NuwaAdminGrpc, NuwaAdminServer, NuwaGrpc, NuwaServer as TreeServer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::background;
use crate::config::{Config, ConfigError};
use crate::exports::Exports;
use crate::machine::Machine;
use crate::revoked;
use crate::service::admin::Admin;
use crate::service::tree::Tree;

/// A stopping leader tries for this long to have another one in its place: an election without timeouts takes a few
/// synced writes, and whoever waits longer than this would have waited for the others' timeout.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a member did not start.
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
    #[error("open the member's data in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("read what was taken back")]
    Revoked(#[source] KvError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// A running member. [`shutdown`](Self::shutdown) stops it; dropping it leaves it running with its runtime.
pub struct NuwaServer {
    app: Arc<App>,
    address: Address,
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for NuwaServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NuwaServer")
            .field("id", &self.app.config.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl NuwaServer {
    /// Starts a member on the current runtime. It serves when this returns; whether there is a leader yet is another
    /// matter.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        config.validate()?;
        coord_kv_rocks::create_dir_durably(&config.data_dir)
            .map_err(|source| StartError::DataDir { path: config.data_dir.clone(), source })?;
        let mut raft_config = RaftConfig::new(config.id, config.advertised().to_string(), &config.data_dir);
        raft_config.store.cache_bytes = config.cache_bytes;
        raft_config.snapshot_after_entries = config.snapshot_after_entries;
        raft_config.keep_entries = config.keep_entries;
        raft_config.segment_bytes = config.segment_bytes;
        raft_config.transport = config.access.transport();
        let (hub, leases) = (Arc::default(), Arc::default());
        let machine = Machine { hub: Arc::clone(&hub), leases: Arc::clone(&leases) };
        let raft = RaftNode::open(raft_config, machine)
            .await
            .map_err(|source| StartError::Open { path: config.data_dir.clone(), source })?;
        let known = raft.status().members.remove(&config.id).and_then(|member| member.address.parse().ok());
        if let Some(known) = known.filter(|_| config.listen_as_known) {
            config.listen = known;
        }
        let app = Arc::new(App { config, raft, hub, leases, exports: Exports::default() });
        match Self::serve(Arc::clone(&app)).await {
            Ok(server) => Ok(server),
            Err(error) => {
                app.raft.shutdown().await;
                Err(error)
            }
        }
    }

    async fn serve(app: Arc<App>) -> Result<Self, StartError> {
        // Before anybody is let in.
        revoked::follow(&app).await.map_err(StartError::Revoked)?;
        let tree = Arc::new(Tree(Arc::clone(&app)));
        let admin = Arc::new(Admin(Arc::clone(&app)));
        let guard = app.config.access.guard().asks_itself(&proto::NUWA_METHODS);
        let guard =
            guard.shows(&proto::NUWA_ADMIN_METHODS, "Status").shows(&proto::NUWA_ADMIN_METHODS, "Export");
        let guard = guard.build();
        let server = kuafu::Server::builder()
            .authorizer(guard.clone())
            .service(TreeServer::new(Arc::clone(&tree)))
            .service(NuwaAdminServer::new(Arc::clone(&admin)))
            .service(app.raft.service())
            .build();
        let bound = server.bind(&app.config.listen).await?;
        let grpc = match app.config.grpc {
            Some(address) => Some(
                GrpcServer::new(guard)
                    .service(NuwaGrpc::server(tree))
                    .service(NuwaAdminGrpc::server(admin))
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
        running.spawn(background::expire_exports(Arc::clone(&app)));
        running.spawn(revoked::keep(Arc::clone(&app)));
        let access = app.config.access.clone();
        running.spawn(async move { match access.keep_fresh().await {} });
        running.spawn(begin(app));
        Ok(running)
    }

    /// Runs a job until the member stops.
    fn spawn(&mut self, job: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = job => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    #[cfg(test)]
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
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

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.app.leads()
    }

    /// Resolves when the member stopped by itself, for example because its disk failed.
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

    /// Hands leadership over if this member has it, stops serving, then closes the state.
    pub async fn shutdown(self) {
        // Still serving: whoever asks meanwhile waits a moment and is told who leads next.
        if let Some(leader) = self.app.raft.hand_over(Instant::now() + HAND_OVER_TIMEOUT).await {
            tracing::info!(leader = leader.id, "leadership handed over");
        }
        self.app.raft.give_lease_up();
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the member");
            }
        }
        drop(self.app.exports.take_all());
        self.app.raft.shutdown().await;
    }

    /// Stops as a killed process would: nothing is answered, nothing is flushed that the protocol does not ask for.
    #[doc(hidden)]
    pub async fn crash(self) {
        for task in &self.tasks {
            task.abort();
        }
        // A killed process has no files open.
        drop(self.app.exports.take_all());
        self.app.raft.crash().await;
        self.stop.cancel();
    }
}

/// Forms the cluster, if this member is the one to do so.
async fn begin(app: Arc<App>) {
    let listed = app.config.members.iter().filter(|_| !app.config.join);
    let members = listed.map(|(id, address)| (*id, address.to_string())).collect();
    match app.raft.form(members).await {
        Ok(Formed::Yes) => tracing::info!("cluster formed"),
        Ok(Formed::HasData) => {}
        Ok(Formed::Joins) => tracing::info!(
            "this member has no data and joins: `nuwa member add {}` makes it one of the cluster",
            app.config.advertised()
        ),
        Ok(Formed::NotFirst) => tracing::info!(
            "this member has no data: waiting for a leader, or for the first member to form the cluster"
        ),
        Err(error) => tracing::error!(%error, "form the cluster"),
    }
}

#[cfg(test)]
mod tests {
    use kuafu::{CallOptions, Client, ClientConfig, Code, Method, Service as _};

    use super::*;
    use crate::testing::{PATIENCE, Single};

    /// Nothing is asked for: what is refused is refused before it is read.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Nothing {}

    /// Every method of every service, those that other members call too.
    #[tokio::test]
    async fn nobody_is_let_in_who_shows_nothing() {
        let single = Single::start().await;
        let raft = single.server.app().raft.service().methods();
        let methods: Vec<&'static Method> =
            proto::NUWA_METHODS.iter().chain(&proto::NUWA_ADMIN_METHODS).chain(raft).collect();
        assert!(raft.len() > 3, "{raft:?}");
        let client = Client::new(single.server.address().clone(), ClientConfig::default());
        for method in methods {
            let options = CallOptions::within(PATIENCE);
            let answer = client.call::<_, Nothing>(method, &Nothing {}, bytes::Bytes::new(), &options).await;
            assert_eq!(
                answer.map_err(|status| status.code).unwrap_err(),
                Code::PermissionDenied,
                "{method:?}"
            );
        }
        single.server.shutdown().await;
    }
}
