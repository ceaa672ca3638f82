//! The gRPC side of a server: tonic with the standard health service and reflection, so that `grpcurl` works.
//! For control and administration only; a call costs some twenty times a framed one.

mod incoming;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic_health::ServingStatus;

use crate::auth::{Authorizer, PeerInfo, PeerTransport};
use crate::tls::{self, TlsError};

/// A peer that does not answer HTTP/2 pings is cut off after the sum of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// When stopping: calls in flight may finish within this.
const DRAIN: Duration = Duration::from_millis(100);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    #[error("offer TLS on {address} for gRPC")]
    Tls {
        address: SocketAddr,
        #[source]
        source: TlsError,
    },
    #[error("load the definitions for reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("serve gRPC")]
    Serve(#[source] tonic::transport::Error),
}

/// Collects tonic services and serves them, with health and reflection, which are for everybody.
pub struct GrpcServer {
    authorizer: Arc<dyn Authorizer>,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl fmt::Debug for GrpcServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcServer").field("names", &self.names).finish_non_exhaustive()
    }
}

impl GrpcServer {
    /// `authorizer` says who may call, and whether by TLS.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer, routes: RoutesBuilder::default(), names: Vec::new(), descriptors: Vec::new() }
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
        let authorizer = Arc::clone(&self.authorizer);
        self.routes.add_service(Guarded { service, authorizer });
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
        let tls = if self.authorizer.tls() { Some(tls::server(tls::GRPC)) } else { None };
        let tls = tls.transpose().map_err(|source| GrpcError::Tls { address, source })?;
        Ok(BoundGrpc { server: self, listener, tls, address })
    }
}

/// A service that asks first.
#[derive(Clone)]
struct Guarded<S> {
    service: S,
    authorizer: Arc<dyn Authorizer>,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let extensions = request.extensions();
        let plain = extensions.get::<TcpConnectInfo>();
        let secret = || Some(extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?.get_ref());
        let address = plain.or_else(secret).and_then(TcpConnectInfo::remote_addr);
        let peer = PeerInfo::new(PeerTransport::Grpc(address), 0);
        let path = request.uri().path().trim_start_matches('/');
        let metadata = MetadataMap::from_headers(request.headers().clone());
        match self.authorizer.grpc_request(&peer, path, &metadata) {
            Ok(principal) => {
                if let Some(principal) = principal {
                    request.extensions_mut().insert(principal);
                }
                Box::pin(self.service.call(request))
            }
            Err(status) => {
                let answer = crate::codegen::grpc_status(status).into_http();
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

/// A gRPC server that listens.
#[derive(Debug)]
pub struct BoundGrpc {
    server: GrpcServer,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
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
        let GrpcServer { mut routes, names, descriptors, authorizer: _ } = self.server;
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
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes.routes());
        let (listener, stopped) = (self.listener, shutdown.clone().cancelled_owned());
        let serving = async {
            match self.tls {
                None => router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await,
                Some(tls) => {
                    let (incoming, accepting) = incoming::incoming(listener, tls);
                    tokio::select! {
                        result = router.serve_with_incoming_shutdown(incoming, stopped) => result,
                        never = accepting => match never {},
                    }
                }
            }
        };
        tokio::select! {
            result = serving => result.map_err(GrpcError::Serve),
            // tonic waits for its connections without a bound of its own.
            () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    }
}
