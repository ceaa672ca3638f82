//! Calls through real sockets, over TCP and Unix: what works.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::proto::*;
use common::*;
use kuafu::{
    Authorizer, Binding, Bytes, ClientConfig, Code, Credentials, PayloadAllocator, PayloadBuf, PayloadBuffer,
    PeerInfo, Principal, Status,
};

#[tokio::test]
async fn echoes() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        let request = EchoRequest { text: "hello".to_owned(), blob: Bytes::from_static(b"blob") };
        let answer = client.echo(&request, &options()).await.unwrap();
        assert_eq!((answer.message.text.as_str(), &answer.message.blob[..]), ("hello", &b"blob"[..]));
        assert!(answer.payload.is_empty());
        running.stop().await;
    }
}

#[tokio::test]
async fn payloads_of_all_sizes() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        for len in [1, 100, 2047, 2048, 2049, 4096, 32 << 10, 65_537, 1 << 20, 4 << 20] {
            let payload = pattern(len);
            for options in [options(), options().payload_covered()] {
                let answer =
                    client.echo_with_payload(echo_request("x"), payload.clone(), &options).await.unwrap();
                assert_eq!(answer.payload_check, options.payload_check);
                assert!(answer.payload == payload, "{over:?} {len}");
            }
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn long_messages() {
    let running = serve(Over::Unix).await;
    let client = running.client();
    let blob = pattern((4 << 20) - 100);
    let answer = client.echo(EchoRequest { text: String::new(), blob: blob.clone() }, &options()).await;
    assert!(answer.unwrap().message.blob == blob);
}

#[tokio::test]
async fn too_long_is_refused_before_sending() {
    let running = serve(Over::Tcp).await;
    let client = running.client();
    let payload = pattern((4 << 20) + 1);
    let error = client.echo_with_payload(echo_request(""), payload.clone(), &options()).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    let request = EchoRequest { text: String::new(), blob: payload };
    assert_eq!(client.echo(request, &options()).await.unwrap_err().code, Code::InvalidArgument);
    client.echo(echo_request("the connection lives"), &options()).await.unwrap();
}

#[tokio::test]
async fn many_at_once() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        let calls = (0..3000).map(|i| {
            let client = client.clone();
            tokio::spawn(async move {
                let payload = pattern(i * 7 % 20_000);
                let request = echo_request(&i.to_string());
                let answer = client.echo_with_payload(request, payload.clone(), &options()).await.unwrap();
                assert_eq!(answer.message.text, i.to_string());
                assert!(answer.payload == payload);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let snapshot = running.server.metrics();
        assert_eq!((snapshot.methods[0].calls(), snapshot.methods[0].in_flight), (3000, 0));
        assert_eq!(snapshot.connections, 1, "one connection carries them all");
        running.stop().await;
    }
}

#[tokio::test]
async fn answers_out_of_order() {
    for over in EVERY {
        let running = serve(over).await;
        let client = running.client();
        let wait = |gate| {
            let client = client.clone();
            tokio::spawn(async move { client.wait(WaitRequest { gate }, &options()).await })
        };
        let (first, second) = (wait(1), wait(2));
        eventually("both wait", || running.service.gates.entered.load(Ordering::SeqCst) == 2).await;
        running.service.gates.open(2);
        assert_eq!(second.await.unwrap().unwrap().message.gate, 2);
        assert!(!first.is_finished());
        client.echo(echo_request("overtakes"), &options()).await.unwrap();
        running.service.gates.open(1);
        assert_eq!(first.await.unwrap().unwrap().message.gate, 1);
        running.stop().await;
    }
}

/// All handlers of a connection share one task, and tokio lets a task use only so many of its resources in a row: more
/// handlers than that, woken at once, all get on.
#[tokio::test]
async fn many_handlers_woken_together() {
    let running = serve(Over::Unix).await;
    let client = running.client();
    let calls: Vec<_> = (0..600)
        .map(|gate| {
            let client = client.clone();
            tokio::spawn(async move { client.wait(WaitRequest { gate }, &options()).await })
        })
        .collect();
    let gates = &running.service.gates;
    eventually("all wait", || gates.entered.load(Ordering::SeqCst) == 600).await;
    (0..600).for_each(|gate| gates.open(gate));
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// A handler that is always ready to go on holds up neither its connection nor the others.
#[tokio::test]
async fn handler_that_wakes_itself_starves_nobody() {
    let running = serve(Over::Unix).await;
    let (busy, other) = (running.client(), running.client());
    let spinning = tokio::spawn({
        let busy = busy.clone();
        async move { busy.wait(WaitRequest { gate: SPIN }, &options()).await }
    });
    eventually("it spins", || running.service.gates.entered.load(Ordering::SeqCst) == 1).await;
    busy.echo(echo_request("same connection"), &options()).await.unwrap();
    other.echo(echo_request("another"), &options()).await.unwrap();
    spinning.abort();
    eventually("it is cancelled", || running.service.gates.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn statuses_travel_whole() {
    let running = serve(Over::Tcp).await;
    let client = running.client();
    for code in 1..=14 {
        let status = client.fail(FailRequest { code }, &options()).await.unwrap_err();
        assert_eq!(status.code, Code::from_wire(code));
        assert_eq!(status.message, "as asked");
        assert_eq!(&status.detail[..], b"detail");
        assert_eq!(status.retry_after, Some(std::time::Duration::from_millis(3)));
    }
}

#[tokio::test]
async fn method_that_is_not_served() {
    let running = serve(Over::Tcp).await;
    static OTHER: kuafu::Method = kuafu::Method::new("x.Y", "Z", false);
    let client = running.client();
    let (channel, request, options) = (client.channel(), echo_request(""), options());
    let answer = channel.call::<_, EchoReply>(&OTHER, &request, Bytes::new(), &options).await;
    assert_eq!(answer.unwrap_err().code, Code::Unimplemented);
}

/// Callers outside the runtime, as a FUSE thread is one.
#[test]
fn calls_from_other_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (running, client) = runtime.block_on(async {
        let running = serve(Over::Unix).await;
        let client = running.client();
        (running, client)
    });
    let callers: Vec<_> = (0..4)
        .map(|t| {
            let client = client.clone();
            std::thread::spawn(move || {
                // Another runtime, without timers: the connection's own must do.
                let here = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for i in 0..200 {
                    let payload = pattern(i * 997);
                    let request = echo_request(&format!("{t} {i}"));
                    let options = options();
                    let call = client.echo_with_payload(&request, payload.clone(), &options);
                    let answer = here.block_on(call).unwrap();
                    assert_eq!(answer.message.text, request.text);
                    assert!(answer.payload == payload);
                }
            })
        })
        .collect();
    runtime.block_on(async {
        eventually("all callers are done", || callers.iter().all(std::thread::JoinHandle::is_finished)).await;
        running.stop().await;
    });
    for caller in callers {
        caller.join().unwrap();
    }
}

struct Pooled(Vec<u8>, Arc<AtomicUsize>);

impl PayloadBuffer for Pooled {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn freeze(self: Box<Self>) -> Bytes {
        self.1.fetch_add(1, Ordering::SeqCst);
        Bytes::from(self.0)
    }
}

struct Pool(Arc<AtomicUsize>);

impl PayloadAllocator for Pool {
    fn allocate(&self, len: usize) -> PayloadBuf {
        PayloadBuf::custom(Box::new(Pooled(vec![0xee; len], Arc::clone(&self.0))))
    }
}

#[tokio::test]
async fn payloads_land_in_buffers_of_the_allocator() {
    let (at_server, at_client) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let pool = Arc::new(Pool(Arc::clone(&at_server)));
    let running = serve_with(Over::Unix, |builder| builder.payload_allocator(pool)).await;
    let pool = Arc::new(Pool(Arc::clone(&at_client)));
    let client = running.client_with(ClientConfig { payload_allocator: pool, ..ClientConfig::default() });
    for (count, len) in [(1, 10), (2, 100_000), (3, 1 << 20)] {
        let payload = pattern(len);
        let answer = client.echo_with_payload(echo_request(""), payload.clone(), &options()).await.unwrap();
        assert!(answer.payload == payload);
        assert_eq!((at_server.load(Ordering::SeqCst), at_client.load(Ordering::SeqCst)), (count, count));
    }
}

/// A call larger than the credit ever granted goes through alone.
#[tokio::test]
async fn credit_holds_calls_back_without_refusing_them() {
    let config = kuafu::ServerConfig { in_flight_max: 2, in_flight_bytes_max: 100_000, ..Default::default() };
    let running = serve_with(Over::Unix, |builder| builder.config(config)).await;
    let client = running.client();
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let client = client.clone();
            tokio::spawn(async move {
                client.echo_with_payload(echo_request(""), pattern(i * 10_000), &options()).await
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let codes = &running.server.metrics().methods[0].codes;
    assert_eq!((codes[Code::Ok as usize], codes.iter().sum::<u64>()), (50, 50), "nothing was BUSY");
}

/// Knows one word, and takes no other for the name of who calls. What it shows and hears is bound to the connection.
struct Keyed;

/// Not a proof of anything, but different on every connection.
fn bound(word: &str, binding: &Binding) -> Bytes {
    let channel = &binding.channel.unwrap_or_default();
    [word.as_bytes(), &binding.client_nonce, &binding.server_nonce, channel].concat().into()
}

impl Authorizer for Keyed {
    fn introduce(&self, binding: &Binding) -> Result<Option<Bytes>, Status> {
        Ok(Some(bound("server", binding)))
    }

    fn identify(
        &self,
        peer: &PeerInfo,
        binding: &Binding,
        introduction: &Bytes,
        proof: &Bytes,
    ) -> Result<Principal, Status> {
        assert_eq!(*introduction, bound("server", binding));
        assert!(peer.to_string().starts_with("unix"), "{peer}");
        let known = ["first", "second"].into_iter().find(|word| bound(word, binding) == *proof);
        let word = known.ok_or_else(|| Status::permission_denied("unknown"))?;
        Ok(Principal::new(word, Arc::new(word)))
    }

    fn request(
        &self,
        _: &PeerInfo,
        principal: Option<&Principal>,
        method: &kuafu::Method,
    ) -> Result<(), Status> {
        let principal = principal.ok_or_else(|| Status::permission_denied("who are you?"))?;
        let word = principal.downcast_ref::<&str>().copied();
        if method.name == "Fail" { Err(Status::permission_denied(format!("not {word:?}"))) } else { Ok(()) }
    }
}

/// Words one after the other.
#[derive(Debug)]
struct Words {
    now: AtomicUsize,
    words: [&'static str; 3],
    server: &'static str,
}

impl Credentials for Words {
    fn check_server(&self, binding: &Binding, introduction: Option<&Bytes>) -> Result<(), Status> {
        match introduction {
            Some(said) if *said == bound(self.server, binding) => Ok(()),
            Some(_) => Err(Status::permission_denied("another server")),
            None => Err(Status::permission_denied("it does not say who it is")),
        }
    }

    fn generation(&self) -> u64 {
        self.now.load(Ordering::Relaxed) as u64
    }

    fn present(&self, binding: &Binding, _: &Bytes) -> Bytes {
        bound(self.words[self.now.load(Ordering::Relaxed)], binding)
    }
}

fn words(server: &'static str) -> Arc<Words> {
    Arc::new(Words { now: AtomicUsize::new(0), words: ["first", "second", "third"], server })
}

fn with(words: &Arc<Words>) -> ClientConfig {
    ClientConfig { credentials: Some(words.clone()), ..ClientConfig::default() }
}

#[tokio::test]
async fn an_authorizer_hears_who_calls_and_decides() {
    let running = serve_with(Over::Unix, |builder| builder.authorizer(Arc::new(Keyed))).await;
    let stranger = running.client();
    let refused = stranger.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (Code::PermissionDenied, "who are you?"));
    let words = words("server");
    let client = running.client_with(with(&words));
    client.echo(echo_request(""), &options()).await.unwrap();
    let said = async || client.fail(FailRequest { code: 1 }, &options()).await.unwrap_err().message;
    assert_eq!(said().await, "not Some(\"first\")");
    // New keys are shown on the connection that is open.
    words.now.store(1, Ordering::Relaxed);
    assert_eq!(said().await, "not Some(\"second\")");
    words.now.store(2, Ordering::Relaxed);
    assert_eq!(said().await, "unknown");
    words.now.store(0, Ordering::Relaxed);
    assert_eq!(said().await, "not Some(\"first\")");
    assert_eq!(running.server.metrics().connections, 2, "one of a stranger, and one of this client");
}

#[tokio::test]
async fn a_client_says_nothing_to_a_server_that_it_does_not_know() {
    let running = serve_with(Over::Unix, |builder| builder.authorizer(Arc::new(Keyed))).await;
    let client = running.client_with(with(&words("another")));
    let refused = client.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (Code::PermissionDenied, "another server"));
    let open = serve_with(Over::Unix, |builder| builder).await;
    let client = open.client_with(with(&words("server")));
    let refused = client.echo(echo_request(""), &options()).await.unwrap_err();
    assert_eq!(refused.message, "it does not say who it is");
}

#[tokio::test]
async fn wrong_proofs_end_a_connection_in_the_end() {
    let running = serve_with(Over::Unix, |builder| builder.authorizer(Arc::new(Keyed))).await;
    let words = words("server");
    let client = running.client_with(with(&words));
    client.echo(echo_request(""), &options()).await.unwrap();
    let mut broken = false;
    for turn in 0..40 {
        words.now.store(if turn % 2 == 0 { 2 } else { 0 }, Ordering::Relaxed);
        let result = client.echo(echo_request(""), &options()).await;
        broken |= result.is_err_and(|status| status.code == Code::Unavailable);
    }
    assert!(broken, "who shows wrong proofs on and on is cut off");
}
