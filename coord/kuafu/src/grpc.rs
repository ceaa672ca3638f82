//! The gRPC side of a server: tonic with the standard health service and reflection, so that `grpcurl` works.
//! For control and administration only; a call costs some twenty times a framed one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic_health::ServingStatus;

/// A peer that does not answer HTTP/2 pings is cut off after the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// When stopping: calls in flight may finish within this.
const DRAIN: Duration = Duration::from_millis(100);

/// Why the gRPC server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    #[error("{address} is in use: another process listens there")]
    InUse { address: SocketAddr },
    #[error("listen on {address} for gRPC")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("load the definitions for reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("serve gRPC")]
    Serve(#[source] tonic::transport::Error),
}

/// Collects tonic services and serves them, with health and reflection.
#[derive(Debug, Default)]
pub struct GrpcServer {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl GrpcServer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service: `XGrpc::server(Arc::new(..))`.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Adds a generated `FILE_DESCRIPTOR_SET`, for reflection.
    #[must_use]
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.descriptors.push(set);
        self
    }

    /// Listens.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn bind(self, address: SocketAddr) -> Result<BoundGrpc, GrpcError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => GrpcError::InUse { address },
            _ => GrpcError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(BoundGrpc { server: self, listener, address })
    }
}

/// A gRPC server that listens.
#[derive(Debug)]
pub struct BoundGrpc {
    server: GrpcServer,
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundGrpc {
    /// Where it listens: port 0 has become the real one.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled. Health answers SERVING for each service until then.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), GrpcError> {
        let GrpcServer { mut routes, names, descriptors } = self.server;
        let (reporter, health) = tonic_health::server::health_reporter();
        for name in names {
            reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        let reflection = descriptors
            .into_iter()
            .chain([tonic_health::pb::FILE_DESCRIPTOR_SET])
            .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            })
            .build_v1()
            .map_err(GrpcError::Reflection)?;
        routes.add_service(health).add_service(reflection);
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(self.listener),
                shutdown.clone().cancelled_owned(),
            );
        tokio::select! {
            result = serving => result.map_err(GrpcError::Serve),
            // tonic waits for its connections without a bound of its own.
            () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    }
}
