//! One end speaks TLS and the other does not: what both are told. Neither ever goes on without.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// To a client without TLS, by a server with it.
pub(crate) const PLAIN_CLIENT: &str = "this server speaks only TLS: tls = true is missing in the cluster.toml of the client's machine, or does not belong in that of the server's";
/// To a client with TLS, about a server without it.
pub(crate) const PLAIN_SERVER: &str = "this server does not speak TLS: tls = true is missing in the cluster.toml of the server's machine, or does not belong in that of the client's";
/// To the log of the same server.
pub(crate) const REFUSED_PLAIN: &str = "a client without TLS is refused: tls = true is missing in the cluster.toml of its machine, or does not belong in that of this one";
/// To the log of a server without TLS, about a client with it.
pub(crate) const REFUSED_TLS: &str = "a client that speaks TLS is refused: tls = true is missing in the cluster.toml of this machine, or does not belong in that of the client's";

/// The log hears of it at most so often: whoever is set up wrongly tries again and again.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The first byte of a TLS stream: the record of a handshake.
pub(crate) const FIRST_BYTE: u8 = 0x16;

/// Whether a stream begins as TLS does: a handshake record, of version 3.x.
pub(crate) const fn is_tls(first: [u8; 4]) -> bool {
    first[0] == FIRST_BYTE && first[1] == 3
}

/// When a server last complained.
#[derive(Debug, Default)]
pub(crate) struct Mismatch {
    said: Mutex<Option<Instant>>,
}

impl Mismatch {
    /// Warns, unless it did so a short time ago.
    pub(crate) fn warn(&self, peer: &dyn Display, what: &str) {
        let now = Instant::now();
        let mut said = self.said.lock();
        if said.is_none_or(|said| now - said >= WARN_EVERY) {
            *said = Some(now);
            tracing::warn!(%peer, "{what}");
        } else {
            tracing::debug!(%peer, "{what}");
        }
    }
}
