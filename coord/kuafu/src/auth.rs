//! Who may do what: the point where capabilities plug in. By default everything is allowed.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::method::Method;
use crate::status::Status;

/// How a peer is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTransport {
    /// Address and port.
    Tcp(std::net::SocketAddr),
    /// The kernel's word for who opened the socket.
    Unix { pid: Option<i32>, uid: u32, gid: u32 },
    /// gRPC, address if known.
    Grpc(Option<std::net::SocketAddr>),
    /// The same process, without a connection (tests).
    Local,
}

/// Who is at the other end of a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerInfo(Arc<Peer>);

#[derive(Debug)]
struct Peer {
    transport: PeerTransport,
    connection: u64,
}

impl PeerInfo {
    #[must_use]
    pub fn new(transport: PeerTransport, connection: u64) -> Self {
        Self(Arc::new(Peer { transport, connection }))
    }

    /// For requests that came over no connection.
    #[must_use]
    pub fn local() -> Self {
        Self::new(PeerTransport::Local, 0)
    }

    #[must_use]
    pub fn transport(&self) -> &PeerTransport {
        &self.0.transport
    }

    /// Numbers the connections of a server; requests of one connection have the same.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.0.connection
    }
}

impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.transport {
            PeerTransport::Tcp(address) => write!(f, "tcp {address}"),
            PeerTransport::Unix { pid: Some(pid), uid, .. } => write!(f, "unix pid {pid} uid {uid}"),
            PeerTransport::Unix { pid: None, uid, .. } => write!(f, "unix uid {uid}"),
            PeerTransport::Grpc(Some(address)) => write!(f, "grpc {address}"),
            PeerTransport::Grpc(None) => f.write_str("grpc"),
            PeerTransport::Local => f.write_str("local"),
        }
    }
}

/// Bytes that both ends of a TLS session know.
pub const CHANNEL_BYTES: usize = 32;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

/// What both sides of one connection drew. A proof that signs it is good on that connection only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub client_nonce: [u8; NONCE_BYTES],
    pub server_nonce: [u8; NONCE_BYTES],
    /// The TLS session they are on, as this end sees it (RFC 9266, `tls-exporter`); absent without TLS. If it were not signed, whoever ends
    /// the client's session and begins another one to the server could pass the proofs on and read everything.
    pub channel: Option<[u8; CHANNEL_BYTES]>,
}

/// Somebody who proved who he is. What he is, the [`Authorizer`] knows that made it; Kuafu only hands it on. Cheap to clone.
#[derive(Clone)]
pub struct Principal {
    name: Arc<str>,
    value: Arc<dyn Any + Send + Sync>,
}

impl Principal {
    /// `name` is for people.
    pub fn new(name: impl Into<Arc<str>>, value: Arc<dyn Any + Send + Sync>) -> Self {
        Self { name: name.into(), value }
    }

    /// The value it was made with, if that is one of these.
    #[must_use]
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.value).downcast().ok()
    }

    /// The same without taking a share in it.
    #[must_use]
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Principal").field(&self.name).finish()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Decides for a server. Called on the connection's task: must not block.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether connections over TCP have to be TLS. Asked once for each address that is bound. It is here and not in the server's configuration because
    /// certificates prove nothing: without proofs that sign [`Binding::channel`], TLS keeps out only who listens.
    fn tls(&self) -> bool {
        false
    }

    /// What the server says of itself, or `None` if it neither says who it is nor asks who others are.
    ///
    /// # Errors
    /// The connection is refused with this status.
    fn introduce(&self, _binding: &Binding) -> Result<Option<Bytes>, Status> {
        Ok(None)
    }

    /// A client shows a proof to the server that introduced itself so.
    ///
    /// # Errors
    /// Calls that refer to it are answered with this status.
    fn identify(
        &self,
        peer: &PeerInfo,
        _binding: &Binding,
        _introduction: &Bytes,
        _proof: &Bytes,
    ) -> Result<Principal, Status> {
        Err(Status::permission_denied(format!("nobody asked who {peer} is")))
    }

    /// A peer calls a method, referring to a proof or to none.
    ///
    /// # Errors
    /// The call is answered with this status.
    fn request(
        &self,
        _peer: &PeerInfo,
        _principal: Option<&Principal>,
        _method: &Method,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// The same for a call by gRPC, which has no connection to bind a proof to: what the metadata say has to be enough.
    ///
    /// # Errors
    /// The call is answered with this status.
    fn grpc_request(
        &self,
        _peer: &PeerInfo,
        _path: &str,
        _metadata: &tonic::metadata::MetadataMap,
    ) -> Result<Option<Principal>, Status> {
        Ok(None)
    }
}

/// Allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {}

/// Who a client is. Called on the connection's task and under its lock: must not block.
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// Whether the server is one, by what it says of itself (`None`: nothing).
    ///
    /// # Errors
    /// The connection is given up with this status.
    fn check_server(&self, binding: &Binding, introduction: Option<&Bytes>) -> Result<(), Status>;

    /// Another number than before whenever [`present`](Self::present) would show something else.
    fn generation(&self) -> u64;

    /// A proof for this connection, to the server that introduced itself so.
    fn present(&self, binding: &Binding, introduction: &Bytes) -> Bytes;
}
