//! TLS under frames: what passes on the wire, and who is refused. That calls go over it as over everything else is in
//! `loopback.rs` and `failures.rs`, which run over it as well.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::proto::*;
use common::relay::Relay;
use common::*;
use kuafu::{
    Authorizer, Binding, Bytes, Client, ClientConfig, Code, Credentials, PeerInfo, Principal, ServerConfig,
    Status,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WORD: &[u8] = b"a word that nobody else may read";

fn client(address: &kuafu::Address, tls: bool) -> EchoClient {
    EchoClient::new(Client::new(address.clone(), ClientConfig { tls, ..ClientConfig::default() }))
}

fn host_port(address: &kuafu::Address) -> &str {
    let kuafu::Address::Tcp(host_port) = address else { panic!("not TCP") };
    host_port
}

/// Sixteen of the longest payloads there are at once, both ways: many times what is buffered on the way.
#[tokio::test]
async fn as_much_as_the_credit_allows() {
    let running = serve(Over::Tls).await;
    let client = running.client();
    let payload = pattern(4 << 20);
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (client, payload) = (client.clone(), payload.clone());
            tokio::spawn(async move {
                client.echo_with_payload(echo_request("x"), payload, &options().payload_covered()).await
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().payload == payload);
    }
    assert_eq!(running.server.metrics().connections, 1);
    running.stop().await;
}

/// The same word, in a message and in a payload, with TLS and without: the relay in between finds it only without.
#[tokio::test]
async fn who_listens_reads_nothing() {
    for (over, tls) in [(Over::Tcp, false), (Over::Tls, true)] {
        let running = serve(over).await;
        let relay = Relay::before(&running.address).await;
        let client = client(&relay.address, tls);
        let payload = Bytes::from(WORD.repeat(1000));
        let message = String::from_utf8(WORD.to_vec()).unwrap();
        let echoed = client.echo_with_payload(echo_request(&message), payload.clone(), &options()).await;
        assert!(echoed.unwrap().payload == payload);
        assert!(relay.seen() > 2 * payload.len(), "it stood in between");
        assert_eq!(relay.saw(WORD), !tls, "{over:?}");
        // Nor what methods are called: frames as a whole are inside.
        assert_eq!(relay.saw(b"KUAF"), !tls, "{over:?}");
    }
}

#[tokio::test]
async fn a_peer_that_is_cut_off_fails_its_calls() {
    let running = serve(Over::Tls).await;
    let relay = Relay::before(&running.address).await;
    let client = client(&relay.address, true);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.wait(WaitRequest { gate: 1 }, &options()).await }
    });
    let gates = &running.service.gates;
    eventually("the handler runs", || gates.entered.load(Ordering::SeqCst) == 1).await;
    relay.cut();
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
    eventually("the handler is dropped", || gates.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_client_without_tls_is_told_so_and_nothing_else() {
    let running = serve(Over::Tls).await;
    let error = client(&running.address, false).echo(echo_request("secret"), &options()).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            Code::Unavailable,
            "this server speaks only TLS: tls = true is missing in the cluster.toml of the client's machine, or does not \
             belong in that of the server's"
        )
    );
    assert_eq!(running.server.metrics().methods[0].calls(), 0);
    client(&running.address, true).echo(echo_request("x"), &options()).await.unwrap();
}

#[tokio::test]
async fn a_client_with_tls_does_without_nowhere() {
    let running = serve(Over::Tcp).await;
    let relay = Relay::before(&running.address).await;
    let error = client(&relay.address, true).echo(echo_request("secret"), &options()).await.unwrap_err();
    assert_eq!(
        (error.code, error.message),
        (
            Code::Unavailable,
            format!(
                "{}: this server does not speak TLS: tls = true is missing in the cluster.toml of the server's machine, \
                 or does not belong in that of the client's",
                relay.address
            )
        )
    );
    assert!(!relay.saw(b"secret"));
    assert_eq!(running.server.metrics().methods[0].calls(), 0);
    client(&running.address, false).echo(echo_request("x"), &options()).await.unwrap();
}

/// What each end says of the connection it is on.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<Binding>>);

impl Authorizer for Notes {
    fn tls(&self) -> bool {
        true
    }

    fn introduce(&self, binding: &Binding) -> Result<Option<Bytes>, Status> {
        self.0.lock().push(*binding);
        Ok(Some(Bytes::new()))
    }

    fn identify(&self, _: &PeerInfo, _: &Binding, _: &Bytes, _: &Bytes) -> Result<Principal, Status> {
        Ok(Principal::new("anybody", Arc::new(())))
    }
}

impl Credentials for Notes {
    fn check_server(&self, binding: &Binding, _: Option<&Bytes>) -> Result<(), Status> {
        self.0.lock().push(*binding);
        Ok(())
    }

    fn generation(&self) -> u64 {
        1
    }

    fn present(&self, _: &Binding, _: &Bytes) -> Bytes {
        Bytes::from_static(b"anybody")
    }
}

#[tokio::test]
async fn both_ends_know_their_session_and_no_two_are_alike() {
    let (server, ends) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let running = serve_with(Over::Tls, |builder| builder.authorizer(server.clone())).await;
    for _ in 0..2 {
        let config = ClientConfig { credentials: Some(ends.clone()), ..ClientConfig::default() };
        running.client_with(config).echo(echo_request("x"), &options()).await.unwrap();
    }
    let (server, client) = (server.0.lock().clone(), ends.0.lock().clone());
    assert_eq!(server, client);
    let channels: Vec<_> = server.iter().map(|binding| binding.channel.unwrap()).collect();
    assert!(channels[0] != channels[1] && !channels.contains(&[0; 32]));
}

/// A Unix socket has no wire, and no TLS whatever is asked for.
#[tokio::test]
async fn unix_sockets_go_without() {
    let server = Arc::new(Notes::default());
    let running = serve_with(Over::Unix, |builder| builder.authorizer(server.clone())).await;
    client(&running.address, true).echo(echo_request("x"), &options()).await.unwrap();
    assert_eq!(server.0.lock()[0].channel, None);
}

/// The hello of a client that speaks TLS 1.2 at most, as bytes: no library of ours makes one.
fn hello_of_tls_12() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f];
    let groups = [0, 10, 0, 6, 0, 4, 0, 29, 0, 23];
    let signatures = [0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 4]);
    body.extend_from_slice(&suites);
    body.extend_from_slice(&[1, 0, 0, 20]);
    body.extend_from_slice(&groups);
    body.extend_from_slice(&signatures);
    let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let handshake = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[0x16, 3, 1][..], &length(handshake.len()), &handshake].concat()
}

#[tokio::test]
async fn tls_12_is_refused() {
    let running = serve(Over::Tls).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_of_tls_12()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, peer.read_to_end(&mut answer)).await.unwrap().unwrap();
    // A fatal alert, protocol_version.
    assert_eq!((answer[0], &answer[5..]), (0x15, &[2, 70][..]));
}

/// Whoever comes and says nothing holds a place, but not for long, and there are only so many.
#[tokio::test]
async fn handshakes_have_a_deadline_and_a_bound() {
    let config = ServerConfig {
        connections_max: 1,
        silence_max: Duration::from_millis(300),
        ..ServerConfig::default()
    };
    let running = serve_with(Over::Tls, |builder| builder.config(config)).await;
    let mut silent = TcpStream::connect(host_port(&running.address)).await.unwrap();
    let mut one_more = TcpStream::connect(host_port(&running.address)).await.unwrap();
    let closed = async |peer: &mut TcpStream| {
        let read = tokio::time::timeout(PATIENCE, peer.read(&mut [0; 1])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)));
    };
    closed(&mut one_more).await;
    assert!(silent.try_read(&mut [0; 1]).is_err(), "the first one still has its place");
    closed(&mut silent).await;
    running.client().echo(echo_request("there is room again"), &options()).await.unwrap();
}
