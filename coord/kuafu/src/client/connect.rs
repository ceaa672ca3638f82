//! Opens a connection: socket, then hellos.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio_util::io::poll_read_buf;

use super::ClientConfig;
use super::link::{Identity, Opened};
use crate::address::Address;
use crate::auth::{Binding, CHANNEL_BYTES, NONCE_BYTES};
use crate::conn::outbound::SLICES_MAX;
use crate::conn::{Admit, Conn, ConnError, Decoder, Event, Outbound, Role, Step, Timing};
use crate::frame::{Header, Hello, VERSION};
use crate::payload::PayloadBuf;
use crate::status::Status;
use crate::tls;
use crate::transport::Socket;
use crate::transport::handshake::{self, HandshakeError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect to {address}: {source}")]
    Connect {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("{address}: {source}")]
    Tls {
        address: Address,
        #[source]
        source: HandshakeError,
    },
    #[error("say hello to {address}: {source}")]
    Hello {
        address: Address,
        #[source]
        source: ConnError,
    },
    #[error("{address} did not answer within {timeout:?}")]
    Timeout { address: Address, timeout: std::time::Duration },
}

impl ConnectError {
    /// One end speaks TLS and the other does not: a human must look.
    pub(super) fn is_mismatch(&self) -> bool {
        match self {
            Self::Tls { source, .. } => {
                matches!(source, HandshakeError::PlainServer | HandshakeError::Closed)
            }
            Self::Hello { source: ConnError::Refused(status), .. } => status.message == tls::PLAIN_CLIENT,
            Self::Connect { .. } | Self::Hello { .. } | Self::Timeout { .. } => false,
        }
    }

    pub(super) fn into_status(self) -> Status {
        match self {
            // The server said why in its own words: that will not change by trying again, unless it says so.
            Self::Hello { source: ConnError::Refused(status), .. } => status,
            Self::Hello { source: error @ ConnError::NoCommonVersion { .. }, .. } => {
                Status::unimplemented(error.to_string())
            }
            error @ (Self::Connect { .. } | Self::Tls { .. } | Self::Hello { .. } | Self::Timeout { .. }) => {
                Status::not_reached(error.to_string())
            }
        }
    }
}

pub(super) async fn connect(address: &Address, config: &ClientConfig) -> Result<Opened, ConnectError> {
    let timeout = config.connect_timeout;
    tokio::time::timeout(timeout, connect_untimed(address, config))
        .await
        .unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.clone(), timeout }))
}

async fn connect_untimed(address: &Address, config: &ClientConfig) -> Result<Opened, ConnectError> {
    let socket = Socket::connect(address)
        .await
        .map_err(|source| ConnectError::Connect { address: address.clone(), source })?;
    let socket = match socket {
        Socket::Tcp(stream) if config.tls => handshake::connect(stream)
            .await
            .map_err(|source| ConnectError::Tls { address: address.clone(), source })?,
        socket => socket,
    };
    greet(socket, config).await.map_err(|source| ConnectError::Hello { address: address.clone(), source })
}

async fn greet(socket: Socket, config: &ClientConfig) -> Result<Opened, ConnError> {
    let channel = socket.channel();
    let (mut reader, mut writer) = socket.split();
    let timing = Timing {
        ping_idle: Some(config.ping_idle),
        ping_waiting: Some(config.ping_waiting),
        silence: config.ping_timeout,
    };
    let mut conn = Conn::new(Role::Client, timing, Instant::now());
    let mut out = Outbound::default();
    let client_nonce = rand::random();
    conn.greet(&hello(config, &client_nonce), &mut out);
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = out.slices(&mut slices);
        let written = poll_fn(|cx| writer.poll_write(cx, &slices[..count])).await;
        let n = written.map_err(|_| ConnError::Closed)?;
        out.advance(n);
    }
    poll_fn(|cx| writer.poll_flush(cx)).await.map_err(|_| ConnError::Closed)?;
    let mut decoder = Decoder::new();
    let mut admit = |header: &Header| Admit::Into(PayloadBuf::heap(header.payload_len as usize));
    loop {
        let read = poll_fn(|cx| poll_read_buf(Pin::new(&mut reader), cx, &mut decoder)).await;
        if read.map_err(|_| ConnError::Closed)? == 0 {
            return Err(ConnError::Closed);
        }
        conn.handle_life_sign(Instant::now());
        // Nothing but the hello is due before the first request, so nothing is left in the decoder behind it.
        if let Step::Frame(frame) = decoder.step(&mut admit)?
            && let Event::Hello(hello) = conn.handle_frame(frame, &mut out)?
        {
            let identity = identity(config, client_nonce, channel, &hello)?;
            return Ok(Opened { reader, writer, decoder, conn, hello, identity });
        }
    }
}

/// What this side shows of itself, to a server that it takes for one.
fn identity(
    config: &ClientConfig,
    client_nonce: [u8; NONCE_BYTES],
    channel: Option<[u8; CHANNEL_BYTES]>,
    hello: &Hello,
) -> Result<Option<Identity>, ConnError> {
    let Some(credentials) = &config.credentials else { return Ok(None) };
    let server_nonce = <[u8; NONCE_BYTES]>::try_from(&hello.nonce[..]).ok();
    let introduction = hello.introduction.clone();
    // Without a nonce nothing can be proved, neither by the server nor to it.
    let said = server_nonce.is_some().then_some(&introduction);
    let binding = Binding { client_nonce, server_nonce: server_nonce.unwrap_or_default(), channel };
    credentials.check_server(&binding, said).map_err(ConnError::Refused)?;
    Ok(Some(Identity { credentials: Arc::clone(credentials), binding, introduction }))
}

fn hello(config: &ClientConfig, nonce: &[u8; NONCE_BYTES]) -> Hello {
    Hello {
        version_min: VERSION.into(),
        version_max: VERSION.into(),
        in_flight_max: 0,
        in_flight_bytes_max: 0,
        agent: concat!("kuafu/", env!("CARGO_PKG_VERSION")).to_owned(),
        nonce: match config.credentials {
            Some(_) => Bytes::copy_from_slice(nonce),
            None => Bytes::new(),
        },
        introduction: Bytes::new(),
    }
}
