//! Stream sockets under a connection: [`tcp`] and [`unix`] open and bind them, here they are one type.
//!
//! Reading and writing are split: the connection's task owns the reading half, while any thread may try to write under
//! the connection's lock.

pub(crate) mod tcp;
pub(crate) mod unix;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::address::Address;
use crate::auth::PeerTransport;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tokio::net::tcp::OwnedReadHalf),
    Unix(tokio::net::unix::OwnedReadHalf),
}

/// Dropping it tells the peer that nothing more comes.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tokio::net::tcp::OwnedWriteHalf),
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

    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
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
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl WriteHalf {
    /// Writes what the socket takes now.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write_vectored(slices),
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
            Self::Unix(half) => Pin::new(half).poll_write_vectored(cx, slices),
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
