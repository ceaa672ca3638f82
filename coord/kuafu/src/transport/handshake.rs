//! Begins TLS on a TCP socket, at either end. Neither goes on if the other end speaks plainly; what it says then is in
//! [`crate::tls`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{Connection, InvalidMessage, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Socket;
use crate::auth::CHANNEL_BYTES;
use crate::tls::{self, HANDSHAKE_MAX};

/// A socket with a TLS session on it.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(super) stream: TcpStream,
    pub(super) session: Connection,
    pub(super) channel: [u8; CHANNEL_BYTES],
}

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{}", tls::PLAIN_SERVER)]
    PlainServer,
    #[error(
        "the peer closed the connection during the TLS handshake; does it speak TLS (tls = true in its machine's cluster.toml)?"
    )]
    Closed,
    #[error("the TLS handshake took more than {0:?}")]
    Late(Duration),
    #[error("no TLS with this peer: {0}")]
    Tls(#[source] io::Error),
}

/// What a client that came to a server with TLS speaks.
#[derive(Debug)]
pub(crate) enum Came {
    Tls(Box<Secured>),
    /// Something else: kept as it is, so that it can be told.
    Plain(TcpStream),
}

/// Without a bound in time: the caller has one for the whole connect.
pub(crate) async fn connect(stream: TcpStream) -> Result<Socket, HandshakeError> {
    let connector = TlsConnector::from(tls::client());
    let stream = connector.connect(tls::server_name(), stream).await.map_err(HandshakeError::from)?;
    let (stream, session) = stream.into_inner();
    secured(stream, session.into()).map(|secured| Socket::Tls(Box::new(secured)))
}

/// Within [`HANDSHAKE_MAX`], and `silence_max` if that is shorter.
pub(crate) async fn accept(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    silence_max: Duration,
) -> Result<Came, HandshakeError> {
    let accepting = async {
        let mut first = [0];
        // Not taken off the stream. TLS begins with a handshake record, everything else is not TLS.
        let n = stream.peek(&mut first).await.map_err(HandshakeError::Tls)?;
        if n == 0 {
            return Err(HandshakeError::Closed);
        }
        if first != [tls::FIRST_BYTE] {
            return Ok(Came::Plain(stream));
        }
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let (stream, session) = stream.into_inner();
        secured(stream, session.into()).map(|secured| Came::Tls(Box::new(secured)))
    };
    let within = silence_max.min(HANDSHAKE_MAX);
    tokio::time::timeout(within, accepting).await.unwrap_or(Err(HandshakeError::Late(within)))
}

fn secured(stream: TcpStream, session: Connection) -> Result<Secured, HandshakeError> {
    let channel = tls::channel(&session).map_err(|error| HandshakeError::Tls(io::Error::other(error)))?;
    Ok(Secured { stream, session, channel })
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let broken = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (broken, error.kind()) {
            // Kuafu's own magic where a record should be.
            (Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), _) => Self::PlainServer,
            (
                None,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe,
            ) => Self::Closed,
            _ => Self::Tls(error),
        }
    }
}
