//! Stands between a client and a server and writes down what passes.

use std::sync::Arc;

use kuafu::Address;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// Passes every byte on.
pub(crate) struct Relay {
    pub(crate) address: Address,
    seen: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn before(server: &Address) -> Self {
        let Address::Tcp(server) = server.clone() else { panic!("not TCP") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let seen = Arc::default();
        let task = tokio::spawn(pass(listener, server, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// Both directions.
    pub(crate) fn saw(&self, bytes: &[u8]) -> bool {
        self.seen.lock().windows(bytes.len()).any(|window| window == bytes)
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.lock().len()
    }

    /// Both connections are cut.
    pub(crate) fn cut(&self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, server: String, seen: Arc<Mutex<Vec<u8>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&server).await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        connections.spawn(copy(from_client, to_server, Arc::clone(&seen)));
        connections.spawn(copy(from_server, to_client, Arc::clone(&seen)));
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    seen: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        seen.lock().extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
