//! Stream sockets under a connection: [`tcp`] and [`unix`] open and bind them, here they are one type.
//!
//! Reading and writing are split: the connection's task owns the reading half, while any thread may try to write under
//! the connection's lock.

pub(crate) mod handshake;
pub(crate) mod tcp;
mod tls;
pub(crate) mod unix;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::handshake::Secured;
use crate::address::Address;
use crate::auth::{CHANNEL_BYTES, PeerTransport};

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(tokio::net::TcpStream),
    /// TCP with TLS on it.
    Tls(Box<Secured>),
    Unix(tokio::net::UnixStream),
}

#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tokio::net::tcp::OwnedReadHalf),
    Tls(tls::Reader),
    Unix(tokio::net::unix::OwnedReadHalf),
}

/// Dropping it tells the peer that nothing more comes.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tokio::net::tcp::OwnedWriteHalf),
    Tls(tls::Writer),
    Unix(tokio::net::unix::OwnedWriteHalf),
}

impl Socket {
    /// Connects; without a bound in time, the caller has one.
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(host_port) => tcp::connect(host_port).await.map(Self::Tcp),
            Address::Unix(path) => unix::connect(path).await.map(Self::Unix),
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> io::Result<PeerTransport> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(PeerTransport::Tcp),
            Self::Tls(secured) => secured.stream.peer_addr().map(PeerTransport::Tcp),
            Self::Unix(stream) => {
                let credentials = stream.peer_cred()?;
                Ok(PeerTransport::Unix {
                    pid: credentials.pid(),
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                })
            }
        }
    }

    /// What both ends of its TLS session know and nobody else; absent without TLS.
    pub(crate) fn channel(&self) -> Option<[u8; CHANNEL_BYTES]> {
        match self {
            Self::Tls(secured) => Some(secured.channel),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Tls(secured) => {
                let (read, write) = tls::split(secured.stream, secured.session);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(half) => half.poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl WriteHalf {
    /// Writes what the socket takes now.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write_vectored(slices),
            Self::Tls(half) => half.try_write(slices),
            Self::Unix(half) => half.try_write_vectored(slices),
        }
    }

    /// The same; if it takes nothing, the task is woken when it does.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(cx, slices),
            Self::Tls(half) => half.poll_write(cx, slices),
            Self::Unix(half) => Pin::new(half).poll_write_vectored(cx, slices),
        }
    }

    /// Writes what was taken by a write and is not in the socket yet: only TLS has such.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Tls(half) => half.try_flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// The same; if something is left, the task is woken when more can be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(half) => half.poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing of that is left.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Tls(half) => half.is_flushed(),
            Self::Tcp(_) | Self::Unix(_) => true,
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(unix::Listener),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => tcp::accept(listener).await.map(Socket::Tcp),
            Self::Unix(listener) => listener.accept().await.map(Socket::Unix),
        }
    }
}
