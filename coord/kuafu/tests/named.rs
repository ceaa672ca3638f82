//! A service by its name: endpoints that come, go, hang and refuse, under callers that notice nothing.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::proto::*;
use common::*;
use kuafu::{
    Address, CallOptions, CancellationToken, Channel, Code, Endpoint, Endpoints, Name, NamedClient,
    NamedConfig, Request, Resolver, Response, Server, ServerConfig, Status, UnknownCluster,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Endpoints of one service, listed by hand.
struct Fleet {
    dir: tempfile::TempDir,
    list: watch::Sender<Endpoints>,
    executed: Arc<Executed>,
}

/// What all endpoints did.
#[derive(Default)]
struct Executed {
    calls: AtomicUsize,
    gates: Mutex<Vec<u64>>,
}

/// An endpoint at work.
struct Member {
    number: usize,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

struct Counting(Arc<Executed>);

impl Echo for Counting {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let EchoRequest { text, blob } = request.message;
        Ok(Response::new(EchoReply { text, blob }))
    }

    /// Not idempotent: what was done twice is in the list twice.
    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
        let gate = request.message.gate;
        self.0.gates.lock().push(gate);
        tokio::time::sleep(Duration::from_millis(gate % 5)).await;
        Ok(Response::new(WaitReply { gate }))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<FailReply>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        Err(Status::new(Code::from_wire(request.message.code), "as asked"))
    }
}

impl Fleet {
    fn new() -> Self {
        let (dir, list) = (tempfile::tempdir().unwrap(), watch::Sender::new(None));
        Self { dir, list, executed: Arc::default() }
    }

    fn endpoint(&self, number: usize) -> Endpoint {
        Endpoint::new(Address::Unix(self.dir.path().join(number.to_string())))
    }

    fn list(&self, numbers: &[usize]) {
        self.list.send_replace(Some(numbers.iter().map(|number| self.endpoint(*number)).collect()));
    }

    async fn start(&self, number: usize) -> Member {
        let config = ServerConfig { drain: PATIENCE, ..ServerConfig::default() };
        let service = EchoServer::new(Arc::new(Counting(Arc::clone(&self.executed))));
        let server = Server::builder().service(service).config(config).build();
        let bound = server.bind(&self.endpoint(number).address).await.unwrap();
        let stop = CancellationToken::new();
        Member { number, serving: tokio::spawn(bound.serve(stop.clone())), stop }
    }

    fn client(&self) -> EchoClient {
        let name = Name::new("test", "Echo").unwrap();
        EchoClient::new(NamedClient::new(name, self.list.subscribe(), NamedConfig::default()))
    }
}

impl Member {
    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }

    /// As a process that is killed: connections break with calls in them.
    async fn kill(self) {
        self.serving.abort();
        assert!(self.serving.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call_and_executes_none_twice() {
    let fleet = Fleet::new();
    let mut members = vec![fleet.start(0).await, fleet.start(1).await, fleet.start(2).await];
    fleet.list(&[0, 1, 2]);
    let done = CancellationToken::new();
    let callers: Vec<_> = (0..16u64)
        .map(|caller| {
            let (client, done) = (fleet.client(), done.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !done.is_cancelled() {
                    let gate = caller << 32 | made;
                    client.wait(WaitRequest { gate }, &options()).await.unwrap();
                    made += 1;
                }
                made as usize
            })
        })
        .collect();
    for round in 0..6 {
        let member = members.remove(0);
        let number = member.number;
        let others: Vec<usize> = members.iter().map(|member| member.number).collect();
        if round % 2 == 0 {
            // In good order: it takes itself out of the list first.
            fleet.list(&others);
        }
        let before = fleet.executed.gates.lock().len();
        member.stop().await;
        eventually("the others go on", || fleet.executed.gates.lock().len() > before + 200).await;
        members.push(fleet.start(number).await);
        fleet.list(&[0, 1, 2]);
    }
    done.cancel();
    let mut made = 0;
    for caller in callers {
        made += caller.await.unwrap();
    }
    let mut gates = fleet.executed.gates.lock().clone();
    assert_eq!(gates.len(), made);
    gates.sort_unstable();
    gates.dedup();
    assert_eq!(gates.len(), made, "something was done twice");
}

#[tokio::test]
async fn killed_endpoints_cost_idempotent_calls_nothing() {
    let fleet = Fleet::new();
    let (first, second) = (fleet.start(0).await, fleet.start(1).await);
    fleet.list(&[0, 1]);
    let client = fleet.client();
    for _ in 0..20 {
        client.echo(echo_request("both"), &options()).await.unwrap();
    }
    first.kill().await;
    for _ in 0..50 {
        client.echo(echo_request("the list is wrong"), &options()).await.unwrap();
    }
    let again = fleet.start(0).await;
    second.kill().await;
    for _ in 0..50 {
        client.echo(echo_request("the other one"), &options()).await.unwrap();
    }
    again.stop().await;
}

#[tokio::test]
async fn what_may_have_been_executed_is_repeated_only_if_that_does_no_harm() {
    let fleet = Fleet::new();
    let members = [fleet.start(0).await, fleet.start(1).await];
    fleet.list(&[0, 1]);
    let client = fleet.client();
    let executed = || fleet.executed.calls.load(Ordering::SeqCst);
    let code = |code: Code| FailRequest { code: code as u32 };
    let status = client.fail(code(Code::Unavailable), &options()).await.unwrap_err();
    assert_eq!((status.code, executed()), (Code::Unavailable, 1), "not idempotent, and it reached a handler");
    // Not executed: both are tried, again and again, until the time is up.
    let short = CallOptions::within(Duration::from_millis(100));
    let status = client.fail(code(Code::Busy), &short).await.unwrap_err();
    assert_eq!(status.code, Code::Busy);
    assert!(executed() > 4, "{} tries", executed());
    let before = executed();
    let status = client.fail(code(Code::NotFound), &options()).await.unwrap_err();
    assert_eq!((status.code, executed()), (Code::NotFound, before + 1));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test]
async fn calls_wait_for_the_first_list_and_keep_the_last_good_one() {
    let fleet = Fleet::new();
    let client = fleet.client();
    let status =
        client.echo(echo_request(""), &CallOptions::within(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(status.code, Code::Unavailable);
    assert!(status.was_not_executed() && status.message.contains("nuwa://test/Echo"), "{status}");

    let member = fleet.start(0).await;
    let options = options();
    let (early, ()) = tokio::join!(client.echo(echo_request("early"), &options), async {
        tokio::task::yield_now().await;
        fleet.list(&[0]);
    });
    assert_eq!(early.unwrap().message.text, "early");
    fleet.list(&[]);
    client.echo(echo_request("nobody is listed"), &options).await.unwrap();
    let Fleet { dir, list, .. } = fleet;
    drop(list);
    client.echo(echo_request("nobody lists"), &options).await.unwrap();
    member.stop().await;
    let status =
        client.echo(echo_request(""), &CallOptions::within(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(status.code, Code::Unavailable, "{status}");
    drop(dir);
}

#[tokio::test]
async fn a_server_that_moved_is_found() {
    let fleet = Fleet::new();
    let (client, options) = (fleet.client(), options());
    let mut member = fleet.start(0).await;
    fleet.list(&[0]);
    for number in 1..10 {
        client.echo(echo_request("here"), &options).await.unwrap();
        let moved = fleet.start(number).await;
        std::mem::replace(&mut member, moved).stop().await;
        // The call is made before the list is right.
        let (found, ()) = tokio::join!(client.echo(echo_request("there"), &options), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            fleet.list(&[number]);
        });
        found.unwrap();
    }
    member.stop().await;
}

/// Knows one list, whatever the name.
#[derive(Debug)]
struct Listed(watch::Receiver<Endpoints>);

impl Resolver for Listed {
    fn resolve(&self, _: &Name) -> Result<watch::Receiver<Endpoints>, UnknownCluster> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn a_channel_that_knows_its_rack_stays_there_while_it_can() {
    let (near, far) = (Fleet::new(), Fleet::new());
    let (first, second) = (near.start(0).await, far.start(1).await);
    let standing = |rack: &str, endpoint| Endpoint { rack: rack.to_owned(), ..endpoint };
    let both = [standing("/r/1", near.endpoint(0)), standing("/r/2", far.endpoint(1))];
    near.list.send_replace(Some(both.into()));
    let config = NamedConfig { rack: "/r/1".to_owned(), ..NamedConfig::default() };
    let target = "nuwa://test/Echo".parse().unwrap();
    let channel = Channel::with(&target, config, &Listed(near.list.subscribe())).unwrap();
    let (client, options) = (EchoClient::new(channel), options());
    for _ in 0..50 {
        client.echo(echo_request("near"), &options).await.unwrap();
    }
    let calls = |fleet: &Fleet| fleet.executed.calls.load(Ordering::SeqCst);
    assert_eq!((calls(&near), calls(&far)), (50, 0));
    first.stop().await;
    client.echo(echo_request("far"), &options).await.unwrap();
    assert_eq!((calls(&near), calls(&far)), (50, 1));
    second.stop().await;
}
