//! The service registry: who serves is listed, and `nuwa://` addresses lead there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kuafu::{
    Address, Bytes, CallOptions, CancellationToken, Channel, Endpoint, Endpoints, HandlerFuture, Method,
    RawRequest, RawResponse, Resolver, Server, ServerConfig, Service,
};
use nuwa_api::client::Freshness;
use nuwa_api::{ops, proto};
use nuwa_naming::{NuwaResolver, Registration, record};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fixture::*;

fn endpoint(number: usize) -> Endpoint {
    Endpoint::new(format!("tcp://10.0.0.{number}:1").parse().unwrap())
}

/// Waits until exactly these are listed.
async fn listed(endpoints: &mut watch::Receiver<Endpoints>, numbers: &[usize]) {
    let wanted: Vec<Endpoint> = numbers.iter().map(|number| endpoint(*number)).collect();
    let seen = endpoints.wait_for(|list| list.as_deref() == Some(&wanted[..]));
    let seen = tokio::time::timeout(PATIENCE, seen).await.map(drop);
    assert!(seen.is_ok(), "{:?} is listed, not {numbers:?}", endpoints.borrow());
}

#[tokio::test]
async fn who_serves_is_listed_whatever_becomes_of_the_file() {
    let cluster = Cluster::start(1).await;
    let resolver = NuwaResolver::new("test", cluster.client());
    let mut endpoints = resolver.follow("echo");
    listed(&mut endpoints, &[]).await;
    let first = Registration::start(cluster.client(), "echo", &endpoint(1));
    let second = Registration::start(cluster.client(), "echo", &endpoint(2));
    listed(&mut endpoints, &[1, 2]).await;
    assert_eq!(resolver.follow("echo").borrow().as_deref().map(<[_]>::len), Some(2), "one watch for all");

    let path = format!("{}{}", nuwa_naming::directory("echo"), record::file_name(&endpoint(1).address));
    let client = cluster.client();
    let entry =
        async || client.get(&path, Freshness::Linearizable, soon()).await.unwrap().unwrap_or_default();
    let owner = entry().await.owner;
    assert_ne!(owner, 0);
    let somebody = cluster.session().await;
    somebody.change_one(ops::delete(path.clone()), soon()).await.unwrap();
    until("the file is back", async || entry().await.owner == owner).await;
    somebody.put(&path, "nonsense", soon()).await.unwrap();
    until("it is right again", async || entry().await.value == record::encode(&endpoint(1))).await;
    let end = proto::command::What::EndSession(proto::EndSession { session: owner });
    somebody.change(end, soon()).await.unwrap();
    until("another session owns it", async || ![0, owner].contains(&entry().await.owner)).await;
    listed(&mut endpoints, &[1, 2]).await;

    // The process is started again before the session of the one that died is over.
    drop(first);
    let again = Registration::start(cluster.client(), "echo", &endpoint(1));
    let before = entry().await.owner;
    until("the new process has it", async || ![0, before].contains(&entry().await.owner)).await;
    second.withdraw().await;
    listed(&mut endpoints, &[1]).await;
    again.withdraw().await;
    listed(&mut endpoints, &[]).await;
    somebody.put("/services/echo/x", "no record", soon()).await.unwrap();
    somebody.put("/services/echo/y", record::encode(&endpoint(3)), soon()).await.unwrap();
    listed(&mut endpoints, &[3]).await;
    let other = "nuwa://elsewhere/echo".parse().unwrap();
    assert_eq!(
        resolver.resolve(&other).unwrap_err().to_string(),
        "nuwa://elsewhere/echo cannot be looked up: test is known, elsewhere is not"
    );
    cluster.shutdown().await;
}

/// Two servers that live claim one address: the later one has it, and the file stays as it is. Each took the deletion that
/// the other's claim begins with for somebody else's, and put its own file back, as fast as Nuwa answered.
#[tokio::test]
async fn two_that_claim_one_address_do_not_fight_for_it() {
    let cluster = Cluster::start(1).await;
    let path = format!("{}{}", nuwa_naming::directory("echo"), record::file_name(&endpoint(1).address));
    let client = cluster.client();
    let entry =
        async || client.get(&path, Freshness::Linearizable, soon()).await.unwrap().unwrap_or_default();
    let first = Registration::start(cluster.client(), "echo", &endpoint(1));
    until("the first one has it", async || entry().await.owner != 0).await;
    let before = entry().await;
    let second = Registration::start(cluster.client(), "echo", &endpoint(1));
    until("the second one has it", async || ![0, before.owner].contains(&entry().await.owner)).await;
    let taken = entry().await;
    let session = cluster.session().await;
    for n in 0..200 {
        session.put("/n", n.to_string(), soon()).await.unwrap();
        assert_eq!(entry().await.modified, taken.modified, "after {n} other changes");
    }
    // It is given back.
    second.withdraw().await;
    until("the first one has it again", async || entry().await.owner == before.owner).await;
    first.withdraw().await;
    cluster.shutdown().await;
}

/// Counts who asked for what.
#[derive(Default)]
struct Once {
    executed: Mutex<HashMap<u64, usize>>,
    calls: AtomicUsize,
}

static ONCE: [Method; 1] = [Method::new("test.Once", "Once", false)];

struct OnceService(Arc<Once>);

impl Service for OnceService {
    fn methods(&self) -> &'static [Method] {
        &ONCE
    }

    fn call(&self, _: usize, request: RawRequest) -> HandlerFuture {
        let once = Arc::clone(&self.0);
        Box::pin(async move {
            let number = u64::from_le_bytes(request.payload.as_ref().try_into().expect("eight bytes"));
            *once.executed.lock().entry(number).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(number % 4)).await;
            once.calls.fetch_add(1, Ordering::SeqCst);
            let (message, payload_check) = (Bytes::new(), request.payload_check);
            Ok(RawResponse { message, payload: request.payload, payload_check })
        })
    }
}

/// A server of the service, registered.
struct Serving {
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    registration: Registration,
}

impl Serving {
    async fn start(cluster: &Cluster, once: &Arc<Once>, address: &Address) -> Self {
        let config = ServerConfig { drain: PATIENCE, ..ServerConfig::default() };
        let server = Server::builder().service(OnceService(Arc::clone(once))).config(config).build();
        let bound = server.bind(address).await.unwrap();
        let stop = CancellationToken::new();
        let registration = Registration::start(cluster.client(), "once", &Endpoint::new(address.clone()));
        Self { serving: tokio::spawn(bound.serve(stop.clone())), stop, registration }
    }

    async fn stop(self) {
        self.registration.withdraw().await;
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// Of a call that takes some milliseconds. Two restarts may be met by one call, each cost it some pauses of at most 200 ms
/// (`coord/kuafu/docs/names.md`, "Failures"), and the machine is busy; what waits for a time to run out somewhere takes longer.
const STUCK: Duration = Duration::from_secs(5);

/// How long it took.
async fn call(channel: &Channel, number: u64) -> Duration {
    let payload = Bytes::copy_from_slice(&number.to_le_bytes());
    let options = CallOptions::within(PATIENCE);
    let began = Instant::now();
    let answer = channel.call::<(), ()>(&ONCE[0], &(), payload.clone(), &options).await;
    assert_eq!(answer.unwrap().payload, payload);
    began.elapsed()
}

/// All servers of a service, each to another address, and all of Nuwa's members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_everything_fails_no_call_and_executes_none_twice() {
    let mut cluster = Cluster::start(3).await;
    let once = Arc::new(Once::default());
    let dir = tempfile::tempdir().unwrap();
    let address = |number: u64| Address::Unix(dir.path().join(number.to_string()));
    let mut serving = Vec::new();
    for number in 0..3 {
        serving.push(Serving::start(&cluster, &once, &address(number)).await);
    }
    let resolver = NuwaResolver::new("test", cluster.client());
    let target = "nuwa://test/once".parse().unwrap();
    let done = CancellationToken::new();
    let callers: Vec<_> = (0..8u64)
        .map(|caller| {
            let channel = Channel::to(&target, kuafu::ClientConfig::default(), &resolver).unwrap();
            let done = done.clone();
            tokio::spawn(async move {
                let (mut made, mut longest) = (0, Duration::ZERO);
                while !done.is_cancelled() {
                    longest = longest.max(call(&channel, caller << 32 | made).await);
                    made += 1;
                }
                (made as usize, longest)
            })
        })
        .collect();
    let calls = |more: usize| {
        let wanted = once.calls.load(Ordering::SeqCst) + more;
        let once = Arc::clone(&once);
        async move { until("calls go on", async || once.calls.load(Ordering::SeqCst) >= wanted).await }
    };
    calls(500).await;
    for number in 0..3 {
        serving.remove(0).stop().await;
        calls(300).await;
        serving.push(Serving::start(&cluster, &once, &address(10 + number)).await);
        let member = number + 1;
        cluster.stop_one(member).await;
        calls(300).await;
        cluster.start_one(member).await;
        cluster.whole().await;
        calls(300).await;
    }

    // Without Nuwa nobody learns of changes, and everybody goes on with the last good list, those who come now too.
    for member in 1..=3 {
        cluster.stop_one(member).await;
    }
    assert!(cluster.running.is_empty());
    calls(300).await;
    let late = Channel::to(&target, kuafu::ClientConfig::default(), &resolver).unwrap();
    let mut longest = call(&late, u64::MAX).await;
    let mut made = 1;
    for member in 1..=3 {
        cluster.start_one(member).await;
    }
    cluster.whole().await;
    calls(300).await;

    done.cancel();
    for caller in callers {
        let (made_by_it, longest_of_it) = caller.await.unwrap();
        made += made_by_it;
        longest = longest.max(longest_of_it);
    }
    println!("{made} calls, the longest took {longest:?}");
    assert!(longest < STUCK, "a call took {longest:?}");
    let executed = once.executed.lock().clone();
    assert_eq!(executed.len(), made);
    assert!(executed.values().all(|times| *times == 1), "something was executed twice");
    for server in serving {
        server.stop().await;
    }
    cluster.shutdown().await;
}

/// What a process of the cluster knows of what was taken back, whichever member it hears.
#[tokio::test]
async fn what_was_taken_back_is_known_within_a_second() {
    let mut cluster = Cluster::start_with_keys(3).await;
    let admin = cluster.session().await;
    let access = cluster.keys().of(zhongkui_access::directory::CHUNKSERVER);
    let members: Vec<_> = (1..=3).map(|id| format!("{:?}", cluster.address(id).to_string())).collect();
    let description = format!("name = \"test\"\nnuwa = [{}]\n", members.join(", "));
    let description = coord_cluster::ClusterConfig::parse("test".as_ref(), &description).unwrap();
    let keeping = tokio::spawn(nuwa_naming::security::keep(description, access.clone()));
    let epoch = |name: &str| access.revoked().get().epoch(&name.parse().unwrap()).0;
    let known = async |name: &str, wanted: u32| {
        let began = Instant::now();
        until("it is known", async || epoch(name) == wanted).await;
        began.elapsed()
    };
    let raise = async |name: &str, epoch: u32| {
        let path = format!("/zhongkui/users/{name}");
        let put = proto::Put { with_parents: true, ..ops::put(path, format!("{epoch}\n")) };
        admin.change_one(put, soon()).await.unwrap();
    };
    raise("alice", 1).await;
    let first = known("alice", 1).await;
    assert!(first < Duration::from_secs(1), "{first:?}");
    for n in 2..5 {
        raise("alice", n).await;
        raise("bob", n).await;
        let took = known("bob", n).await;
        assert!(took < Duration::from_secs(1) && epoch("alice") == n, "{took:?}");
    }
    // Members come and go.
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    raise("alice", 9).await;
    known("alice", 9).await;
    cluster.start_one(leader).await;
    admin.change_one(ops::delete("/zhongkui/users/alice"), soon()).await.unwrap();
    known("alice", 0).await;
    assert_eq!(epoch("bob"), 4);
    keeping.abort();
    cluster.shutdown().await;
}
