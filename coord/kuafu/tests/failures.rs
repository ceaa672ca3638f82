//! Calls through real sockets: what goes wrong, and what callers see then.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::proto::*;
use common::*;
use kuafu::conn::{Body, Outbound};
use kuafu::frame::{HEADER_LEN, Header, Hello, Kind};
use kuafu::{
    Address, BindError, Bytes, CallOptions, CancellationToken, ClientConfig, Code, Server, ServerConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

fn hello(version: u32) -> Hello {
    Hello {
        version_min: version,
        version_max: version,
        in_flight_max: 8,
        in_flight_bytes_max: 1 << 20,
        ..Default::default()
    }
}

fn bytes_of(out: &mut Outbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut slices = [std::io::IoSlice::new(&[]); kuafu::conn::outbound::SLICES_MAX];
    let count = out.slices(&mut slices);
    slices[..count].iter().for_each(|slice| bytes.extend_from_slice(slice));
    bytes
}

fn frame(header: Header, message: &impl prost::Message, payload: Bytes) -> Vec<u8> {
    let mut out = Outbound::default();
    out.push_message(header, message, payload);
    bytes_of(&mut out)
}

fn hello_frame(version: u32) -> Vec<u8> {
    frame(Header::bare(Kind::Hello, 0), &hello(version), Bytes::new())
}

fn host_port(address: &Address) -> &str {
    let Address::Tcp(host_port) = address else { panic!("not TCP") };
    host_port
}

/// One frame off the wire.
async fn read_frame(stream: &mut TcpStream) -> (Header, Vec<u8>) {
    let mut bytes = [0; HEADER_LEN];
    stream.read_exact(&mut bytes).await.unwrap();
    let header = Header::decode(&bytes).unwrap();
    let mut body = vec![0; header.message_len as usize + header.payload_len as usize];
    stream.read_exact(&mut body).await.unwrap();
    (header, body)
}

#[tokio::test]
async fn dropped_call_is_cancelled_at_the_server() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.wait(WaitRequest { gate: 1 }, &options()).await }
        });
        let gates = &running.service.gates;
        eventually("the handler runs", || gates.entered.load(Ordering::SeqCst) == 1).await;
        call.abort();
        eventually("the handler is dropped", || gates.dropped.load(Ordering::SeqCst) == 1).await;
        client.echo(echo_request("goes on"), &options()).await.unwrap();
        let metrics = running.server.metrics();
        eventually("counted", || running.server.metrics().methods[1].calls() == 1).await;
        assert_eq!(metrics.methods[1].codes[Code::Cancelled as usize], 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn deadline_ends_the_call_on_both_sides() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        client.echo(echo_request("connect"), &options()).await.unwrap();
        let began = Instant::now();
        let short = CallOptions::within(Duration::from_millis(50));
        let error = client.wait(WaitRequest { gate: 1 }, &short).await.unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded);
        assert!(began.elapsed() >= Duration::from_millis(50) && began.elapsed() < PATIENCE / 2);
        let gates = &running.service.gates;
        eventually("the handler is dropped", || gates.dropped.load(Ordering::SeqCst) == 1).await;
        running.stop().await;
    }
}

/// The server's own deadline: a client that never cancels.
#[tokio::test]
async fn server_drops_late_work_by_itself() {
    let running = serve(Over::Tcp).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    assert_eq!(read_frame(&mut peer).await.0.kind, Kind::Hello);
    let wait = |id, deadline_us| {
        let header = Header { method: ECHO_METHODS[1].id, deadline_us, ..Header::bare(Kind::Request, id) };
        frame(header, &WaitRequest { gate: 1 }, Bytes::new())
    };
    peer.write_all(&wait(7, 20_000)).await.unwrap();
    let (header, _) = read_frame(&mut peer).await;
    assert_eq!((header.kind, header.id, header.method), (Kind::Error, 7, Code::DeadlineExceeded as u32));
    assert_eq!(running.service.gates.dropped.load(Ordering::SeqCst), 1);
    // Up on arrival: not even started.
    peer.write_all(&wait(8, 0)).await.unwrap();
    let (header, _) = read_frame(&mut peer).await;
    assert_eq!((header.kind, header.id, header.method), (Kind::Error, 8, Code::DeadlineExceeded as u32));
    assert_eq!(running.service.gates.entered.load(Ordering::SeqCst), 1);
}

/// A peer that ignores its credit is answered BUSY, its payload is dropped, and the connection goes on.
#[tokio::test]
async fn overload_is_answered_busy() {
    let config = ServerConfig { in_flight_max: 2, in_flight_bytes_max: 50_000, ..ServerConfig::default() };
    let running = serve_with(Over::Tcp, |builder| builder.config(config.clone())).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    read_frame(&mut peer).await;
    let wait = |id: u64, payload| {
        let header =
            Header { method: ECHO_METHODS[1].id, deadline_us: u32::MAX, ..Header::bare(Kind::Request, id) };
        frame(header, &WaitRequest { gate: id }, payload)
    };
    // One of 40,000 bytes is in; one more of 20,000 is too much; a short one fits; then there are two.
    for (id, len, busy) in [(1, 40_000, false), (2, 20_000, true), (3, 10, false), (4, 0, true)] {
        let mut bytes = Vec::new();
        let mut out = Outbound::default();
        let header =
            Header { method: ECHO_METHODS[1].id, deadline_us: u32::MAX, ..Header::bare(Kind::Request, id) };
        out.push(
            header,
            Body {
                message: prost::Message::encode_to_vec(&WaitRequest { gate: id }).into(),
                payload: pattern(len),
            },
        );
        bytes.extend(bytes_of(&mut out));
        assert_eq!(bytes, wait(id, pattern(len)));
        peer.write_all(&bytes).await.unwrap();
        if busy {
            let (header, _) = read_frame(&mut peer).await;
            assert_eq!((header.kind, header.id, header.method), (Kind::Error, id, Code::Busy as u32));
        }
    }
    running.service.gates.open(1);
    let (header, _) = read_frame(&mut peer).await;
    assert_eq!((header.kind, header.id), (Kind::Response, 1));
    assert_eq!(running.server.metrics().methods[1].codes[Code::Busy as usize], 2);
}

/// A peer that sends and sends but does not take its answers is not read from any more, until it does.
#[tokio::test]
async fn who_does_not_take_its_answers_is_not_read_from() {
    const CALLS: u64 = 100;
    let running = serve(Over::Tcp).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    read_frame(&mut peer).await;
    let (mut reader, mut writer) = peer.into_split();
    let sending = tokio::spawn(async move {
        let payload = pattern(1 << 20);
        for id in 1..=CALLS {
            let header = Header {
                method: ECHO_METHODS[0].id,
                deadline_us: u32::MAX,
                ..Header::bare(Kind::Request, id)
            };
            writer.write_all(&frame(header, &echo_request(""), payload.clone())).await.unwrap();
        }
        writer
    });
    let answered = || running.server.metrics().methods[0].calls();
    eventually("16 MiB of answers wait", || answered() > 16).await;
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished(), "{} of {CALLS} were read", answered());
    let mut bytes = [0; HEADER_LEN];
    for _ in 0..CALLS {
        reader.read_exact(&mut bytes).await.unwrap();
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.kind, header.payload_len), (Kind::Response, 1 << 20));
        let mut body = vec![0; header.message_len as usize + header.payload_len as usize];
        reader.read_exact(&mut body).await.unwrap();
    }
    sending.await.unwrap();
}

/// A call larger than all of the connection's credit is taken when nothing else is in flight.
#[tokio::test]
async fn a_call_of_any_size_is_taken_alone() {
    let config = ServerConfig { in_flight_bytes_max: 50_000, ..ServerConfig::default() };
    let running = serve_with(Over::Tcp, |builder| builder.config(config)).await;
    let client = running.client();
    let reply = client.echo_with_payload(echo_request("large"), pattern(1 << 20), &options()).await.unwrap();
    assert_eq!(reply.payload, pattern(1 << 20));
}

/// The server need not finish what nobody waits for.
#[tokio::test]
async fn a_server_is_told_of_a_deadline_that_passed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    // No ping wakes the client earlier.
    let never = Duration::from_secs(600);
    let config = ClientConfig { ping_idle: never, ping_waiting: never, ..ClientConfig::default() };
    let client = EchoClient::new(kuafu::Client::new(address, config));
    let call = tokio::spawn(async move {
        client.wait(WaitRequest { gate: 1 }, &CallOptions::within(Duration::from_millis(50))).await
    });
    let (mut peer, _) = listener.accept().await.unwrap();
    read_frame(&mut peer).await;
    peer.write_all(&hello_frame(1)).await.unwrap();
    let (request, _) = read_frame(&mut peer).await;
    let cancel = tokio::time::timeout(PATIENCE, read_frame(&mut peer)).await;
    let (cancel, _) = cancel.expect("a frame comes by itself");
    assert_eq!((request.kind, cancel.kind, cancel.id), (Kind::Request, Kind::Cancel, request.id));
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::DeadlineExceeded);
}

/// Its work is dropped, and counts as over.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_in_flight() {
    let running = serve(Over::Tcp).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    read_frame(&mut peer).await;
    let header =
        Header { method: ECHO_METHODS[1].id, deadline_us: u32::MAX, ..Header::bare(Kind::Request, 1) };
    peer.write_all(&frame(header, &WaitRequest { gate: 1 }, Bytes::new())).await.unwrap();
    let gates = &running.service.gates;
    eventually("the handler runs", || gates.entered.load(Ordering::SeqCst) == 1).await;
    drop(peer);
    eventually("the connection is gone", || running.server.metrics().connections == 0).await;
    assert_eq!(running.server.metrics().methods[1].codes[Code::Cancelled as usize], 1);
    assert_eq!(gates.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stopping_server_begins_nothing_new() {
    let config = ServerConfig { drain: PATIENCE, ..ServerConfig::default() };
    let running = serve_with(Over::Tcp, |builder| builder.config(config)).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    read_frame(&mut peer).await;
    running.shutdown.cancel();
    assert_eq!(read_frame(&mut peer).await.0.kind, Kind::GoAway);
    let header =
        Header { method: ECHO_METHODS[0].id, deadline_us: u32::MAX, ..Header::bare(Kind::Request, 1) };
    peer.write_all(&frame(header, &echo_request("late"), Bytes::new())).await.unwrap();
    let (header, _) = read_frame(&mut peer).await;
    assert_eq!((header.kind, header.id, header.method), (Kind::Error, 1, Code::Unavailable as u32));
}

/// The bound over all connections, as a well-behaved client sees it.
#[tokio::test]
async fn busy_server_says_when_to_come_back() {
    let delay = Duration::from_millis(9);
    let config = ServerConfig { total_in_flight_max: 1, busy_delay: delay, ..ServerConfig::default() };
    let running = serve_with(Over::Unix, |builder| builder.config(config)).await;
    let (first, second) = (running.client(), running.client());
    let waiting = tokio::spawn(async move { first.wait(WaitRequest { gate: 1 }, &options()).await });
    let gates = &running.service.gates;
    eventually("the first is in", || gates.entered.load(Ordering::SeqCst) == 1).await;
    let busy = second.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!((busy.code, busy.retry_after), (Code::Busy, Some(delay)));
    gates.open(1);
    waiting.await.unwrap().unwrap();
    second.echo(echo_request(""), &options()).await.unwrap();
}

#[tokio::test]
async fn too_many_waiting_callers_are_busy() {
    let config = ServerConfig { in_flight_max: 1, ..ServerConfig::default() };
    let running = serve_with(Over::Unix, |builder| builder.config(config)).await;
    let client = running.client_with(ClientConfig { waiting_max: 1, ..ClientConfig::default() });
    let wait = |gate| {
        let client = client.clone();
        tokio::spawn(async move { client.wait(WaitRequest { gate }, &options()).await })
    };
    let gates = &running.service.gates;
    let first = wait(1);
    eventually("the first is in", || gates.entered.load(Ordering::SeqCst) == 1).await;
    // Of two more, one may wait for the place.
    let (second, third) = (wait(2), wait(2));
    eventually("one is refused", || second.is_finished() || third.is_finished()).await;
    gates.open(1);
    gates.open(2);
    first.await.unwrap().unwrap();
    let results = [second.await.unwrap(), third.await.unwrap()];
    let busy = results.iter().filter(|r| r.as_ref().is_err_and(|status| status.code == Code::Busy)).count();
    assert_eq!((busy, results.iter().filter(|r| r.is_ok()).count()), (1, 1));
}

#[tokio::test]
async fn broken_connection_fails_what_waits_and_the_next_call_reconnects() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        let waiting: Vec<_> = (0..10)
            .map(|gate| {
                let client = client.clone();
                tokio::spawn(async move { client.wait(WaitRequest { gate }, &options()).await })
            })
            .collect();
        let gates = &running.service.gates;
        eventually("all wait", || gates.entered.load(Ordering::SeqCst) == 10).await;
        // Dropping the server's future closes at once, like the death of the process.
        running.serving.abort();
        for call in waiting {
            assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
        }
        eventually("the handlers are dropped", || gates.dropped.load(Ordering::SeqCst) == 10).await;
        let bound = loop {
            match running.server.bind(&running.address).await {
                Ok(bound) => break bound,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let _serving = tokio::spawn(bound.serve(CancellationToken::new()));
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = client.echo(echo_request("again"), &options()).await {
            assert_eq!(status.code, Code::Unavailable);
            assert!(Instant::now() < deadline, "never reconnected: {status}");
            // The pause it asks for is what bounds this loop.
            tokio::time::sleep(status.retry_after.unwrap_or_default()).await;
        }
    }
}

#[tokio::test]
async fn absent_server_costs_no_busy_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    drop(listener);
    let client = EchoClient::new(kuafu::Client::new(address, ClientConfig::default()));
    let first = client.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!(first.code, Code::Unavailable);
    let pause = first.retry_after.unwrap();
    assert!(pause > Duration::ZERO && pause <= Duration::from_millis(250));
    // Until then the answer comes without a try, and says how long.
    let second = client.echo(echo_request(""), &options()).await.unwrap_err();
    assert!(second.retry_after.unwrap() <= pause);
    assert!(second.message.contains("connect to tcp://127.0.0.1"), "{second}");
}

#[tokio::test]
async fn graceful_stop_answers_what_is_in_flight() {
    for over in EVERY {
        let config = ServerConfig { drain: PATIENCE, ..ServerConfig::default() };
        let running = serve_with(over, |builder| builder.config(config)).await;
        let client = running.client();
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.wait(WaitRequest { gate: 1 }, &options()).await }
        });
        let service = std::sync::Arc::clone(&running.service);
        eventually("it waits", || service.gates.entered.load(Ordering::SeqCst) == 1).await;
        running.shutdown.cancel();
        // New calls see that it goes: nobody listens any more.
        let deadline = Instant::now() + PATIENCE;
        while client.echo(echo_request(""), &options()).await.is_ok() {
            assert!(Instant::now() < deadline, "it still serves");
        }
        service.gates.open(1);
        assert_eq!(waiting.await.unwrap().unwrap().message.gate, 1);
        tokio::time::timeout(PATIENCE, running.serving)
            .await
            .expect("stops when the last answer is out")
            .unwrap();
    }
}

#[tokio::test]
async fn stop_is_bounded() {
    let running = serve(Over::Unix).await;
    let client = running.client();
    let waiting = tokio::spawn(async move { client.wait(WaitRequest { gate: 1 }, &options()).await });
    eventually("it waits", || running.service.gates.entered.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::Unavailable);
}

/// The peer is there, but nothing answers any more: as after a cut network, or a stopped process.
#[tokio::test]
async fn silent_peer_is_found_dead() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let config = ClientConfig {
        ping_idle: Duration::from_millis(50),
        ping_waiting: Duration::from_millis(20),
        ping_timeout: Duration::from_millis(60),
        ..ClientConfig::default()
    };
    let client = EchoClient::new(kuafu::Client::new(address, config));
    let call = tokio::spawn(async move { client.echo(echo_request(""), &options()).await });
    let (mut peer, _) = listener.accept().await.unwrap();
    read_frame(&mut peer).await;
    peer.write_all(&hello_frame(1)).await.unwrap();
    assert_eq!(read_frame(&mut peer).await.0.kind, Kind::Request);
    // A ping comes; answering it keeps the connection.
    for _ in 0..3 {
        let (ping, _) = read_frame(&mut peer).await;
        assert_eq!(ping.kind, Kind::Ping);
        let pong = frame(Header::bare(Kind::Pong, ping.id), &(), Bytes::new());
        peer.write_all(&pong).await.unwrap();
    }
    assert!(!call.is_finished());
    assert_eq!(read_frame(&mut peer).await.0.kind, Kind::Ping);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("silent"), "{error}");
}

#[tokio::test]
async fn server_answers_pings_and_closes_silent_connections() {
    let config = ServerConfig { silence_max: Duration::from_millis(80), ..ServerConfig::default() };
    let running = serve_with(Over::Tcp, |builder| builder.config(config)).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    assert_eq!(read_frame(&mut peer).await.0.kind, Kind::Hello);
    peer.write_all(&frame(Header::bare(Kind::Ping, 42), &(), Bytes::new())).await.unwrap();
    let (pong, _) = read_frame(&mut peer).await;
    assert_eq!((pong.kind, pong.id), (Kind::Pong, 42));
    let mut rest = Vec::new();
    assert_eq!(tokio::time::timeout(PATIENCE, peer.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn connect_is_bounded() {
    // Accepts (in the kernel's queue), and never says hello.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let config = ClientConfig { connect_timeout: Duration::from_millis(50), ..ClientConfig::default() };
    let client = EchoClient::new(kuafu::Client::new(address.clone(), config));
    let error = client.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("did not answer within 50ms"), "{error}");
    // A caller with less time does not wait for that.
    let client = EchoClient::new(kuafu::Client::new(address, ClientConfig::default()));
    let short = CallOptions::within(Duration::from_millis(10));
    assert_eq!(client.echo(echo_request(""), &short).await.unwrap_err().code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let running = serve(Over::Tcp).await;
    let client = running.client();
    client.echo(echo_request("before"), &options()).await.unwrap();
    let mut damaged = hello_frame(1);
    *damaged.last_mut().unwrap() ^= 1;
    let after_hello = |bytes: Vec<u8>| [hello_frame(1), bytes].concat();
    let cases = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: everything\r\n\r\n".to_vec(),
        vec![0; 100],
        damaged,
        hello_frame(1)[..30].to_vec(),
        after_hello(hello_frame(1)),
        after_hello(vec![0xff; 48]),
        // Only servers send these.
        after_hello(frame(Header::bare(Kind::Response, 1), &(), Bytes::new())),
        // Before the hello.
        frame(Header::bare(Kind::Ping, 1), &(), Bytes::new()),
    ];
    for bytes in cases {
        let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
        peer.write_all(&bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // Closed, perhaps by a reset: bytes were left unread.
        let read = tokio::time::timeout(PATIENCE, peer.read_to_end(&mut rest)).await;
        let _closed = read.expect("the server closes");
    }
    client.echo(echo_request("after"), &options()).await.unwrap();
    eventually("the connections are gone", || running.server.metrics().connections == 1).await;
}

#[tokio::test]
async fn client_survives_a_server_that_speaks_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let answers = [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
        vec![],
        hello_frame(1)[..20].to_vec(),
    ];
    for answer in answers {
        let client = EchoClient::new(kuafu::Client::new(address.clone(), ClientConfig::default()));
        let call = tokio::spawn(async move { client.echo(echo_request(""), &options()).await });
        let (mut peer, _) = listener.accept().await.unwrap();
        read_frame(&mut peer).await;
        peer.write_all(&answer).await.unwrap();
        drop(peer);
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
        assert!(error.message.contains("say hello to tcp://"), "{error}");
    }
}

#[tokio::test]
async fn wrong_version_is_said_to_both_sides() {
    let running = serve(Over::Tcp).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(9)).await.unwrap();
    let (header, _) = read_frame(&mut peer).await;
    assert_eq!((header.kind, header.method), (Kind::GoAway, Code::Unimplemented as u32));
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    let client = EchoClient::new(kuafu::Client::new(address, ClientConfig::default()));
    let call = tokio::spawn(async move { client.echo(echo_request(""), &options()).await });
    let (mut peer, _) = listener.accept().await.unwrap();
    read_frame(&mut peer).await;
    peer.write_all(&hello_frame(9)).await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unimplemented);
    assert!(error.message.contains("speaks versions 9 to 9"), "{error}");
}

/// A payload damaged on its way fails its own call; the connection goes on.
#[tokio::test]
async fn damaged_payload_fails_one_call() {
    let running = serve(Over::Tcp).await;
    let mut peer = TcpStream::connect(host_port(&running.address)).await.unwrap();
    peer.write_all(&hello_frame(1)).await.unwrap();
    read_frame(&mut peer).await;
    let header =
        Header { method: ECHO_METHODS[0].id, deadline_us: 9_000_000, ..Header::bare(Kind::Request, 1) };
    let mut bytes = frame(header, &echo_request("x"), pattern(1000));
    *bytes.last_mut().unwrap() ^= 0x10;
    bytes.extend(frame(Header { id: 2, ..header }, &echo_request("x"), pattern(1000)));
    peer.write_all(&bytes).await.unwrap();
    let (first, _) = read_frame(&mut peer).await;
    assert_eq!((first.kind, first.id, first.method), (Kind::Error, 1, Code::DataLoss as u32));
    let (second, _) = read_frame(&mut peer).await;
    assert_eq!((second.kind, second.id, second.payload_len), (Kind::Response, 2, 1000));
}

#[tokio::test]
async fn undecodable_message_fails_one_call() {
    let running = serve(Over::Tcp).await;
    let client = running.client();
    // A WaitRequest where an EchoRequest is due: field 1 has the wrong type.
    let (channel, options) = (client.channel(), options());
    let call =
        channel.call::<_, EchoReply>(&ECHO_METHODS[0], &WaitRequest { gate: 1 }, Bytes::new(), &options);
    assert_eq!(call.await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn address_in_use() {
    for over in EVERY {
        let running = serve(over).await;
        let error = Server::builder().build().bind(&running.address).await.unwrap_err();
        assert!(matches!(&error, BindError::InUse { address } if *address == running.address), "{error}");
        running.client().echo(echo_request("still served"), &options()).await.unwrap();
        running.stop().await;
    }
}

#[tokio::test]
async fn unbindable_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder().build();
    let bind = async |text: String| server.bind(&text.parse().unwrap()).await.map(|_| ()).unwrap_err();
    let missing = format!("unix://{}/missing/s", dir.path().display());
    assert!(matches!(bind(missing).await, BindError::Listen { .. }));
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(bind(format!("unix://{}", file.display())).await, BindError::NotASocket { .. }));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(matches!(bind("tcp://no-such-host.invalid:1".to_owned()).await, BindError::Resolve { .. }));
    // An address of documentation (RFC 5737): on no machine.
    assert!(matches!(bind("tcp://192.0.2.1:0".to_owned()).await, BindError::Listen { .. }));
}

#[tokio::test]
async fn stale_unix_socket_is_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as a killed process leaves it");
    let address = Address::Unix(path.clone());
    let bound = Server::builder().build().bind(&address).await.unwrap();
    UnixStream::connect(&path).await.unwrap();
    drop(bound);
    assert!(!path.exists());
    // A file that is not ours any more stays.
    let bound = Server::builder().build().bind(&address).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(bound);
    assert!(path.exists());
    drop(other);
}

#[tokio::test]
async fn last_client_closes_the_connection() {
    let running = serve(Over::Unix).await;
    let client = running.client();
    client.echo(echo_request(""), &options()).await.unwrap();
    let clone = client.clone();
    drop(client);
    clone.echo(echo_request(""), &options()).await.unwrap();
    assert_eq!(running.server.metrics().connections, 1);
    drop(clone);
    eventually("the connection is closed", || running.server.metrics().connections == 0).await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let config = ServerConfig { connections_max: 1, ..ServerConfig::default() };
    let running = serve_with(Over::Unix, |builder| builder.config(config)).await;
    let first = running.client();
    first.echo(echo_request(""), &options()).await.unwrap();
    let refused = running.client().echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    first.echo(echo_request(""), &options()).await.unwrap();
}
