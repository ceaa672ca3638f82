//! The server: listens, reads frames, runs handlers, answers.

mod connection;
mod handlers;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::handlers::Handlers;
use crate::address::Address;
use crate::auth::{AllowAll, Authorizer};
use crate::frame::{Header, MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX};
use crate::message::RawResponse;
use crate::method::Method;
use crate::metrics::{MethodMetrics, Snapshot};
use crate::payload::{PayloadAllocator, PoolAllocator};
use crate::service::Service;
use crate::status::Status;
use crate::tls::{self, HANDSHAKES_AT_ONCE_MAX, Mismatch, TlsError};
use crate::transport::handshake::{self, Came};
use crate::transport::{Listener, Socket, tcp, unix};

/// Payload buffers kept for the next payloads, unless another allocator is given.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    #[error("offer TLS on {address}")]
    Tls {
        address: Address,
        #[source]
        source: TlsError,
    },
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

    /// Where payloads of requests land. Default: a [`PoolAllocator`].
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
        let Self { services, config, allocator, authorizer } = self;
        let mut methods = Vec::new();
        let mut by_id = HashMap::new();
        for service in services {
            for (index, method) in service.methods().iter().enumerate() {
                let first: Option<usize> = by_id.insert(method.id, methods.len());
                assert!(first.is_none(), "{}/{}: served twice under one id", method.service, method.name);
                let service = Arc::clone(&service);
                methods.push(Served { service, index, method: *method, metrics: MethodMetrics::new() });
            }
        }
        Server {
            shared: Arc::new(Shared {
                methods,
                by_id,
                config,
                allocator,
                authorizer,
                in_flight: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
                handshakes: AtomicUsize::new(0),
                mismatch: Mismatch::default(),
                connections_made: AtomicU64::new(0),
            }),
        }
    }
}

/// A method as the server finds it.
struct Served {
    service: Arc<dyn Service>,
    /// Among its service's methods.
    index: usize,
    method: Method,
    metrics: MethodMetrics,
}

/// What all connections share.
struct Shared {
    methods: Vec<Served>,
    /// Method id to index in `methods`.
    by_id: HashMap<u32, usize>,
    config: ServerConfig,
    allocator: Arc<dyn PayloadAllocator>,
    authorizer: Arc<dyn Authorizer>,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    /// TLS handshakes under way.
    handshakes: AtomicUsize,
    mismatch: Mismatch,
    connections_made: AtomicU64,
}

impl Shared {
    /// Whether one more call of this size may be handled. Whoever keeps to the credit it was granted is only ever refused
    /// for the sake of other connections.
    fn room(&self, handlers: &Handlers, header: &Header) -> Result<(), Status> {
        let received = handlers.received_bytes() as u64;
        let more = u64::from(header.message_len) + u64::from(header.payload_len);
        if handlers.len() >= self.config.in_flight_max as usize {
            return Err(self.busy("calls in flight on this connection"));
        }
        // A single call of any size is always taken.
        if received > 0 && received + more > self.config.in_flight_bytes_max {
            return Err(self.busy("payload bytes on this connection"));
        }
        if self.in_flight.load(Ordering::Relaxed) > self.config.total_in_flight_max {
            return Err(self.busy("calls in flight on this server"));
        }
        Ok(())
    }

    fn busy(&self, what: &str) -> Status {
        Status::busy(format!("too many {what}"), self.config.busy_delay)
    }
}

/// A handler's answer must fit into a frame.
fn check_response(response: RawResponse) -> Result<RawResponse, Status> {
    let (message, payload) = (response.message.len(), response.payload.len());
    if message > MESSAGE_LEN_MAX || payload > PAYLOAD_LEN_MAX {
        let text = format!("an answer of {message} + {payload} bytes is longer than a frame may be");
        return Err(Status::internal(text));
    }
    Ok(response)
}

/// Services and how they are served. May be bound to several addresses. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Server {
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            services: Vec::new(),
            config: ServerConfig::default(),
            allocator: Arc::new(PoolAllocator::new(KEPT_BYTES_MAX)),
            authorizer: Arc::new(AllowAll),
        }
    }

    /// Counters and latencies of all methods.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let methods = self.shared.methods.iter().map(|served| (served.method, &served.metrics));
        Snapshot::new(methods, self.shared.connections.load(Ordering::Relaxed) as u64)
    }

    /// Listens. A Unix socket file left by a dead process is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(&self, address: &Address) -> Result<Bound, BindError> {
        let (listener, local) = match address {
            Address::Tcp(host_port) => bind_tcp(address, host_port).await?,
            Address::Unix(path) => {
                let listener = unix::Listener::bind(path).await.map_err(|failure| match failure {
                    unix::BindFailure::InUse => BindError::InUse { address: address.clone() },
                    unix::BindFailure::NotASocket => BindError::NotASocket { address: address.clone() },
                    unix::BindFailure::Io(source) => bind_error(address, source),
                })?;
                (Listener::Unix(listener), address.clone())
            }
        };
        let secret = self.shared.authorizer.tls() && matches!(listener, Listener::Tcp(_));
        let tls = if secret { Some(tls::server(tls::FRAMES)) } else { None };
        let tls = tls.transpose().map_err(|source| BindError::Tls { address: address.clone(), source })?;
        Ok(Bound { listener, tls, address: local, server: self.clone() })
    }
}

async fn bind_tcp(address: &Address, host_port: &str) -> Result<(Listener, Address), BindError> {
    let resolved = tokio::net::lookup_host(host_port)
        .await
        .map_err(|source| BindError::Resolve { address: address.clone(), source })?
        .next()
        .ok_or_else(|| BindError::Resolve {
            address: address.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
    let listener = tcp::bind(resolved).await.map_err(|source| bind_error(address, source))?;
    let local = listener.local_addr().map_err(|source| bind_error(address, source))?;
    // The host as it was given, so that an advertised name stays one; the port as it became.
    let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host);
    Ok((Listener::Tcp(listener), Address::Tcp(format!("{host}:{}", local.port()))))
}

fn bind_error(address: &Address, source: io::Error) -> BindError {
    let address = address.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Permission { address, source },
        _ => BindError::Listen { address, source },
    }
}

/// A server that listens; connections wait until it serves.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    /// What everybody who comes has to begin with.
    tls: Option<Arc<rustls::ServerConfig>>,
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
    /// [`ServerConfig::drain`], and closes. Dropping the future closes at once.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { listener, tls, server, .. } = self;
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok(socket) => server.connect(socket, tls.as_ref(), &shutdown, &mut connections),
                    Err(error) => {
                        // Mostly out of descriptors: those waiting stay in the kernel's queue meanwhile.
                        tracing::warn!(%error, "cannot accept connections; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = accepting => {}
        }
        // No new ones: the address is free from here on.
        drop(listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(server.shared.config.drain, all_ended).await.is_err() {
            tracing::debug!("calls in flight are dropped");
        }
        connections.shutdown().await;
    }
}

impl Server {
    fn connect(
        &self,
        socket: Socket,
        tls: Option<&Arc<rustls::ServerConfig>>,
        shutdown: &CancellationToken,
        connections: &mut JoinSet<()>,
    ) {
        let shared = &self.shared;
        let begun = shared.handshakes.load(Ordering::Relaxed);
        if shared.connections.load(Ordering::Relaxed) + begun >= shared.config.connections_max {
            tracing::warn!(max = shared.config.connections_max, "a connection more than allowed is closed");
            return;
        }
        let number = shared.connections_made.fetch_add(1, Ordering::Relaxed) + 1;
        match (socket, tls) {
            (Socket::Tcp(_), Some(_)) if begun >= HANDSHAKES_AT_ONCE_MAX => {
                tracing::debug!(max = HANDSHAKES_AT_ONCE_MAX, "a TLS handshake more than allowed is closed");
            }
            (Socket::Tcp(stream), Some(tls)) => {
                let (server, tls, shutdown) = (self.clone(), Arc::clone(tls), shutdown.clone());
                let handshake = Handshake::begin(shared);
                connections.spawn(async move {
                    let came = handshake::accept(stream, tls, server.shared.config.silence_max).await;
                    let opened = match came {
                        Ok(Came::Tls(secured)) => server.open(Socket::Tls(secured), shutdown, number, false),
                        Ok(Came::Plain(stream)) => server.open(Socket::Tcp(stream), shutdown, number, true),
                        Err(error) => {
                            tracing::debug!(%error, "a connection ended before it was open");
                            None
                        }
                    };
                    drop(handshake);
                    if let Some(connection) = opened {
                        connection.run().await;
                    }
                });
            }
            (socket, _) => {
                if let Some(connection) = self.open(socket, shutdown.clone(), number, false) {
                    connections.spawn(connection.run());
                }
            }
        }
    }

    fn open(
        &self,
        socket: Socket,
        shutdown: CancellationToken,
        number: u64,
        without_tls: bool,
    ) -> Option<Connection> {
        Connection::new(Arc::clone(&self.shared), socket, shutdown, number, without_tls)
            .inspect_err(|error| tracing::debug!(%error, "a peer went away at once"))
            .ok()
    }
}

/// Counts a TLS handshake for as long as it is under way.
struct Handshake(Arc<Shared>);

impl Handshake {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PayloadCheck;
    use crate::status::Code;

    #[test]
    fn an_answer_that_fits_into_no_frame_is_an_error() {
        let answer = |message: usize, payload: usize| {
            let response = RawResponse {
                message: vec![0; message].into(),
                payload: vec![0; payload].into(),
                payload_check: PayloadCheck::Crc,
            };
            check_response(response).map(drop).map_err(|status| status.code)
        };
        assert_eq!(answer(MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX), Ok(()));
        assert_eq!(answer(MESSAGE_LEN_MAX + 1, 0), Err(Code::Internal));
        assert_eq!(answer(0, PAYLOAD_LEN_MAX + 1), Err(Code::Internal));
    }
}
