//! Starts and stops a chunkserver. Used by the program and, as a library, by whoever runs one within another process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chunkserver_api::pb;
use chunkserver_engine::BufferPool;
use kuafu::grpc::GrpcServer;
use kuafu::{Address, Server};
use monitor_telemetry::BoundMetrics;
use tokio::task::JoinHandle;

use crate::advertise;
use crate::buffers::Buffers;
use crate::config::Config;
use crate::disks;
use crate::error::StartError;
use crate::errors;
use crate::heartbeat::{self, Identity};
use crate::lost;
use crate::metrics;
use crate::node::Node;
use crate::pace;
use crate::repair;
use crate::scrub;
use crate::service::admin::AdminService;
use crate::service::chunk::ChunkService;
use crate::service::replica::ReplicaService;
use crate::surplus;

/// How long a stop waits for what is in flight before it closes the disks all the same.
const STOP_MAX: Duration = Duration::from_millis(500);

/// A chunkserver.
#[derive(Debug)]
pub struct ChunkServer;

/// A running chunkserver. Dropping it stops the server without waiting for anything.
#[derive(Debug)]
pub struct Handle {
    node: Arc<Node>,
    address: Address,
    advertised: Address,
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    masters: master_api::Masters,
    tasks: Vec<JoinHandle<()>>,
}

impl ChunkServer {
    /// Opens the disks and listens. Registration goes on in the background, for as long as it takes.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        config.validate()?;
        let pool = BufferPool::new(config.buffer_bytes);
        let disks = disks::open_all(&config, &pool).await?;
        let started = start_with(&config, &pool, &disks).await;
        if started.is_err() {
            for disk in &disks {
                disk.engine.close().await;
            }
        }
        started
    }
}

async fn start_with(
    config: &Config,
    pool: &Arc<BufferPool>,
    disks: &[Arc<disks::Disk>],
) -> Result<Handle, StartError> {
    let uuid = disks::server_uuid(disks).await?;
    let node = Arc::new(Node::new(disks.to_vec(), config.access.clone(), config.renew_damaged));
    let admin = Arc::new(AdminService(node.clone()));
    let guard = config
        .access
        .guard()
        .asks_itself(&pb::CHUNK_METHODS)
        .shows(&pb::CHUNK_ADMIN_METHODS, "Status")
        .build();
    let server = Server::builder()
        .authorizer(guard.clone())
        .service(pb::ChunkServer::new(Arc::new(ChunkService(node.clone()))))
        .service(pb::ReplicaServer::new(Arc::new(ReplicaService(node.clone()))))
        .service(pb::ChunkAdminServer::new(admin.clone()))
        .payload_allocator(Arc::new(Buffers(pool.clone())))
        .build();
    let bound = server.bind(&config.listen).await?;
    let address = bound.local_address().clone();
    let mut tasks = Vec::new();

    let mut grpc = None;
    if let Some(at) = config.grpc {
        let server = GrpcServer::new(guard)
            .service(pb::ChunkAdminGrpc::server(admin))
            .descriptors(pb::FILE_DESCRIPTOR_SET)
            .bind(at)
            .await?;
        grpc = Some(server.local_address());
        let stop = node.stop.clone();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = server.serve(stop).await {
                tracing::error!(%error, "serve gRPC");
            }
        }));
    }
    let mut metrics_at = None;
    if let Some(at) = config.metrics {
        let listener = BoundMetrics::bind(at).await?;
        metrics_at = Some(listener.local_address());
        let (node, server) = (node.clone(), server.clone());
        let stop = node.stop.clone();
        let render = move || metrics::text(&node) + &server.metrics().prometheus();
        tasks.push(tokio::spawn(listener.serve(Arc::new(render), stop)));
    }
    tasks.push(tokio::spawn(bound.serve(node.stop.clone())));
    let advertised = advertise::address(config.advertise.as_ref(), &address);
    let identity = Identity { uuid, address: advertised.clone(), location: config.location.to_string() };
    tasks.push(tokio::spawn(heartbeat::run(node.clone(), config.masters.clone(), identity)));
    tasks.push(tokio::spawn(surplus::run(node.clone(), config.masters.clone())));
    tasks.push(tokio::spawn(repair::run(node.clone())));
    tasks.extend(disks.iter().map(|disk| tokio::spawn(scrub::run(node.clone(), disk.clone()))));
    tasks.extend(disks.iter().map(|disk| tokio::spawn(errors::run(node.clone(), disk.clone()))));
    tasks.extend(disks.iter().map(|disk| tokio::spawn(pace::run(node.clone(), disk.clone()))));
    tasks.extend(disks.iter().map(|disk| tokio::spawn(lost::run(node.clone(), disk.clone()))));
    tracing::info!(%address, disks = disks.len(), "chunkserver listens");
    Ok(Handle {
        node,
        address,
        advertised,
        grpc,
        metrics: metrics_at,
        masters: config.masters.clone(),
        tasks,
    })
}

impl Handle {
    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Where others are told to connect to.
    #[must_use]
    pub const fn advertised(&self) -> &Address {
        &self.advertised
    }

    #[must_use]
    pub const fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    #[must_use]
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Resolves when the metadata of a disk turned out to be damaged and the server should be started again, to make the disk
    /// anew. Never if it was not told to ([`Config::renew_damaged`]).
    pub async fn condemned(&self) {
        self.node.condemned.cancelled().await;
    }

    /// Resolves when a disk that failed because its file system was full could work again, if the server were started again.
    pub async fn room_again(&self) {
        self.node.room_again.cancelled().await;
    }

    /// All metrics, as Prometheus reads them.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        metrics::text(&self.node)
    }

    /// Stops: answers no more reads, lets the groups go on elsewhere, then takes no new calls, gives those in flight a
    /// moment, and closes the disks.
    pub async fn shutdown(mut self) {
        // In this order: the master takes the server out without waiting for its lease.
        self.node.lease.end();
        heartbeat::goodbye(&self.node, &self.masters).await;
        self.node.stop.cancel();
        let tasks = futures::future::join_all(std::mem::take(&mut self.tasks));
        if tokio::time::timeout(STOP_MAX, tasks).await.is_err() {
            tracing::warn!("calls in flight did not end in time; closing the disks");
        }
        self.node.forget_groups();
        for disk in &self.node.disks {
            disk.engine.close().await;
        }
        tracing::info!(address = %self.address, "chunkserver stopped");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}
