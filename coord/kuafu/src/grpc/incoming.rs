//! TLS under gRPC: the handshake is made here and not by tonic, so that it is bounded and says what is wrong as frames do.
//!
//! gRPC's proofs do not sign the session (`coord/zhongkui/docs/connection.md`): tools make them before they connect.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::ACCEPT_PAUSE;
use crate::tls::{self, FIRST_BYTE, HANDSHAKE_MAX, Mismatch};

/// Handshakes under way at once; whoever comes then waits in the kernel's queue. Administration is few people.
const AT_ONCE_MAX: usize = 64;
/// Sessions that tonic has not taken yet.
const WAITING_MAX: usize = 16;
/// INADEQUATE_SECURITY of RFC 9113.
const INADEQUATE_SECURITY: u32 = 0xc;

/// Connections as tonic takes them.
pub(super) type Incoming = ReceiverStream<io::Result<TlsStream<TcpStream>>>;

/// What comes, and what has to be polled for anything to come.
pub(super) fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> (Incoming, impl Future<Output = std::convert::Infallible>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (ReceiverStream::new(receiver), accept(listener, config, sender))
}

async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    sender: Sender<io::Result<TlsStream<TcpStream>>>,
) -> std::convert::Infallible {
    let mismatch = Arc::new(Mismatch::default());
    let mut handshakes = JoinSet::new();
    loop {
        if handshakes.len() >= AT_ONCE_MAX {
            handshakes.join_next().await;
        }
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (config, sender, mismatch) = (Arc::clone(&config), sender.clone(), Arc::clone(&mismatch));
                handshakes.spawn(async move {
                    let begun = tokio::time::timeout(HANDSHAKE_MAX, begin(stream, config, &mismatch)).await;
                    match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                        // tonic takes it, or has stopped.
                        Ok(Some(session)) => drop(sender.send(Ok(session)).await),
                        Ok(None) => {}
                        Err(error) => tracing::debug!(%error, "no TLS with a client by gRPC"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for gRPC; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// `None`: it came without TLS, and was told.
async fn begin(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    mismatch: &Mismatch,
) -> io::Result<Option<TlsStream<TcpStream>>> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [FIRST_BYTE] {
        mismatch.warn(&peer, tls::REFUSED_PLAIN);
        stream.write_all(&refusal()).await?;
        stream.shutdown().await?;
        // Until the client closes: closing with bytes unread would reset the connection, and what it was told with it.
        let mut ignored = [0; 512];
        while stream.read(&mut ignored).await? > 0 {}
        return Ok(None);
    }
    TlsAcceptor::from(config).accept(stream).await.map(Some)
}

/// What HTTP/2 says to whom it does not serve: SETTINGS, and GOAWAY with the reason in words.
fn refusal() -> Vec<u8> {
    let text = tls::PLAIN_CLIENT.as_bytes();
    let length = u32::try_from(8 + text.len()).expect("a sentence").to_be_bytes();
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&0u32.to_be_bytes());
    bytes.extend_from_slice(&INADEQUATE_SECURITY.to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}
