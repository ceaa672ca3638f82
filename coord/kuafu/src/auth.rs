//! Who may do what: the point where capabilities plug in. By default everything is allowed.

use std::fmt;
use std::sync::Arc;

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

/// Decides about connections and requests. Called on the connection's task: must not block.
pub trait Authorizer: Send + Sync + 'static {
    /// A peer said hello with these credentials (may be empty).
    ///
    /// # Errors
    /// The connection is closed with this status.
    fn connection(&self, _peer: &PeerInfo, _credentials: &[u8]) -> Result<(), Status> {
        Ok(())
    }

    /// A peer calls a method.
    ///
    /// # Errors
    /// The call is answered with this status.
    fn request(&self, _peer: &PeerInfo, _method: &Method) -> Result<(), Status> {
        Ok(())
    }
}

/// Allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {}
