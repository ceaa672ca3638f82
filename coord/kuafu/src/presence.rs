//! Is there a process behind an address?

use std::io::ErrorKind;
use std::time::Duration;

use crate::address::Address;
use crate::transport::Socket;

/// A dying process closes its connections and its listener one after the other, within milliseconds.
const PROBES: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// A host that is there answers within a round trip. One that does not is no proof of anything.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// What an address says to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Somebody took it, who may be stuck all the same.
    Listening,
    /// The host says that nobody listens. A Unix socket is removed by the process that stops.
    Refused,
    /// Nobody says anything: host or network are away, or busy.
    Silent,
}

impl Address {
    /// Whether the process that listened here, and is suspected, has ended: nobody listens any more, and the caller's own
    /// connections from it are `closed`. Looks for a tenth of a second. It is a proof if that process does not close its
    /// listener while it is at work, and if the address leads to the process itself, and not to a proxy or a firewall that
    /// refuses in its place.
    pub async fn has_ended(&self, closed: impl Fn() -> bool) -> bool {
        for _ in 0..PROBES {
            match self.presence().await {
                Presence::Refused if closed() => return true,
                Presence::Refused | Presence::Listening => tokio::time::sleep(PAUSE).await,
                Presence::Silent => return false,
            }
        }
        false
    }

    /// Connects, and closes the connection again.
    async fn presence(&self) -> Presence {
        match tokio::time::timeout(PROBE_TIMEOUT, Socket::connect(self)).await {
            Ok(Ok(_)) => Presence::Listening,
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                Presence::Refused
            }
            Ok(Err(_)) | Err(_) => Presence::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_has_ended_when_its_listener_and_its_connections_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = Address::Unix(path.clone());
        assert!(unix.has_ended(|| true).await, "no file");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(!unix.has_ended(|| true).await);
        drop(listener);
        assert!(unix.has_ended(|| true).await, "a file nobody listens at");
        assert!(!unix.has_ended(|| false).await, "a connection of it is open");
        let looks = std::cell::Cell::new(0);
        assert!(unix.has_ended(|| looks.replace(looks.get() + 1) == 2).await, "it is closed a moment later");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp: Address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        assert!(!tcp.has_ended(|| true).await);
        drop(listener);
        assert!(tcp.has_ended(|| true).await);
    }

    #[tokio::test]
    async fn no_answer_is_no_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let through_a_file = Address::Unix(file.join("socket"));
        assert!(!through_a_file.has_ended(|| true).await);
    }
}
