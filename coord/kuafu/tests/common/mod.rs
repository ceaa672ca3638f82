//! A test service on both transports, and a raw peer that speaks bytes.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kuafu::{
    Address, Authorizer, Bytes, CallOptions, CancellationToken, Client, ClientConfig, Code, Request,
    Response, Server, ServerBuilder, Status,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(crate) mod relay;
pub(crate) mod trust;

pub(crate) mod proto {
    #![allow(dead_code, unreachable_pub, missing_debug_implementations)]
    kuafu::include_proto!("feitian.kuafu.test.v1");
}

use proto::*;

/// Long enough for a loaded machine, short enough for a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn options() -> CallOptions {
    CallOptions::within(PATIENCE)
}

/// Waits until `condition` holds; tests need no sleeps with it.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}

/// No gate: a handler that asks to be polled again and again.
pub(crate) const SPIN: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(crate) struct Gates {
    gates: Mutex<HashMap<u64, Arc<Semaphore>>>,
    pub(crate) entered: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
    pub(crate) passed: AtomicUsize,
}

impl Gates {
    fn gate(&self, number: u64) -> Arc<Semaphore> {
        let closed = || Arc::new(Semaphore::new(0));
        Arc::clone(self.gates.lock().entry(number).or_insert_with(closed))
    }

    pub(crate) fn open(&self, number: u64) {
        self.gate(number).add_permits(1);
    }
}

/// Counts a handler that is dropped before its gate opened.
struct Inside<'a>(&'a Gates, bool);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let counter = if self.1 { &self.0.passed } else { &self.0.dropped };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub(crate) struct EchoService {
    pub(crate) gates: Gates,
}

impl Echo for EchoService {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let EchoRequest { text, blob } = request.message;
        let reply = EchoReply { text, blob };
        Ok(match request.payload_check {
            kuafu::PayloadCheck::Crc => Response::with_payload(reply, request.payload),
            kuafu::PayloadCheck::ByMessage => Response::with_covered_payload(reply, request.payload),
        })
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
        let gate = request.message.gate;
        self.gates.entered.fetch_add(1, Ordering::SeqCst);
        let mut inside = Inside(&self.gates, false);
        if gate == SPIN {
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            })
            .await;
        }
        let permit = self.gates.gate(gate).acquire_owned().await;
        permit.expect("gates are never torn down").forget();
        inside.1 = true;
        Ok(Response::new(WaitReply { gate }))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<FailReply>, Status> {
        let status = Status::new(Code::from_wire(request.message.code), "as asked");
        Err(Status { retry_after: Some(Duration::from_millis(3)), ..status }
            .with_detail(Bytes::from_static(b"detail")))
    }
}

pub(crate) struct Running {
    pub(crate) over: Over,
    pub(crate) address: Address,
    pub(crate) service: Arc<EchoService>,
    pub(crate) server: Server,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Tcp,
    Tls,
    Unix,
}

/// Everybody may call, by TLS.
pub(crate) struct Secret;

impl Authorizer for Secret {
    fn tls(&self) -> bool {
        true
    }
}

pub(crate) const EVERY: [Over; 3] = [Over::Tcp, Over::Tls, Over::Unix];

pub(crate) async fn serve(over: Over) -> Running {
    serve_with(over, |builder| builder).await
}

pub(crate) async fn serve_with(
    over: Over,
    configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let address = match over {
        Over::Tcp | Over::Tls => Address::Tcp("127.0.0.1:0".to_owned()),
        Over::Unix => Address::Unix(dir.path().join("s")),
    };
    let service = Arc::new(EchoService::default());
    let builder = Server::builder().service(EchoServer::new(Arc::clone(&service)));
    let builder = match over {
        Over::Tls => builder.authorizer(Arc::new(Secret)),
        Over::Tcp | Over::Unix => builder,
    };
    let server = configure(builder).build();
    let bound = server.bind(&address).await.unwrap();
    let address = bound.local_address().clone();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    Running { over, address, service, server, shutdown, serving, _dir: dir }
}

impl Running {
    pub(crate) fn client(&self) -> EchoClient {
        self.client_with(ClientConfig::default())
    }

    pub(crate) fn client_with(&self, config: ClientConfig) -> EchoClient {
        let config = ClientConfig { tls: matches!(self.over, Over::Tls), ..config };
        EchoClient::new(Client::new(self.address.clone(), config))
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

pub(crate) fn echo_request(text: &str) -> EchoRequest {
    EchoRequest { text: text.to_owned(), blob: Bytes::new() }
}

/// Bytes that are not all alike.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect()
}
