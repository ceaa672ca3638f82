//! Is there a process behind an address?

use std::io::ErrorKind;
use std::time::Duration;

use crate::address::Address;
use crate::transport::Socket;

/// What an address says to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Somebody took it, who may be stuck all the same.
    Listening,
    /// The host says that nobody listens (a Unix socket is removed by the process that stops): if the process that listened there
    /// does not close its listener while it is at work, it has ended. An address must lead to the process itself for this, and
    /// not to a proxy or a firewall that refuses in its place.
    Refused,
    /// Nobody says anything: host or network are away, or busy.
    Silent,
}

impl Address {
    /// Connects, and closes the connection again. A host that is there answers within a round trip.
    pub async fn presence(&self, timeout: Duration) -> Presence {
        match tokio::time::timeout(timeout, Socket::connect(self)).await {
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
    async fn a_listener_is_there_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = Address::Unix(path.clone());
        let patience = Duration::from_secs(5);
        assert_eq!(unix.presence(patience).await, Presence::Refused, "no file");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(unix.presence(patience).await, Presence::Listening);
        drop(listener);
        assert_eq!(unix.presence(patience).await, Presence::Refused, "a file nobody listens at");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp: Address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        assert_eq!(tcp.presence(patience).await, Presence::Listening);
        drop(listener);
        assert_eq!(tcp.presence(patience).await, Presence::Refused);
    }

    #[tokio::test]
    async fn no_answer_is_no_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let through_a_file = Address::Unix(file.join("socket"));
        assert_eq!(through_a_file.presence(Duration::from_secs(5)).await, Presence::Silent);
    }
}
