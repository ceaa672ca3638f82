//! Watches: ordered, gap-free, resumable, and told when history is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nuwa_api::ops::{delete, put};
use nuwa_api::proto::command::What;
use nuwa_api::proto::{Event, EventKind, SetHistory};
use nuwa_api::{Place, Watched, Watcher};

use crate::fixture::{Cluster, PATIENCE, soon, until};

async fn event(watcher: &mut Watcher) -> Event {
    match watcher.next().await.unwrap() {
        Watched::Event(event) => event,
        Watched::HistoryLost { first } => panic!("history is lost before {first}"),
    }
}

fn path(event: &Event) -> &str {
    &event.entry.as_ref().unwrap().path
}

#[tokio::test]
async fn each_change_below_is_told_once_and_in_order() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    let parents = |path: &str| nuwa_api::proto::Put { with_parents: true, ..put(path, "v") };
    let mut all = session.client().watch("/", Place::after(0));
    let mut below = session.client().watch("/a/", Place::NOW);
    below.begin().await.unwrap();
    session.change_one(parents("/a/x"), soon()).await.unwrap();
    session.put("/b", "", soon()).await.unwrap();
    session.change_one(delete("/a/x"), soon()).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let event = event(&mut all).await;
        told.push((event.revision, event.number, event.kind(), path(&event).to_owned()));
    }
    let put = EventKind::Put;
    let expected =
        [(1, 0, put, "/a/"), (1, 1, put, "/a/x"), (2, 0, put, "/b"), (3, 0, EventKind::Deleted, "/a/x")];
    assert_eq!(
        told,
        expected.map(|(revision, number, kind, path)| (revision, number, kind, path.to_owned()))
    );
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(path(&event(&mut below).await).to_owned());
    }
    assert_eq!(told, ["/a/", "/a/x", "/a/x"]);
    assert_eq!(below.place(), Place::after(3));
    // From anywhere, as often as wanted.
    let mut again = session.client().watch("/", Place { revision: 1, number: 1 });
    assert_eq!(path(&event(&mut again).await), "/a/x");
    assert_eq!(again.place(), Place { revision: 2, number: 0 });
    cluster.shutdown().await;
}

/// Watchers of one client that wait alike are one call: a thousand of them on four clients were four calls. Those that are meant to be a
/// thousand calls have a client each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_miss_nothing_while_members_restart() {
    const ALONE: usize = 1000;
    const SHARING: usize = 100;
    let mut cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    session.put("/w", "", soon()).await.unwrap();
    let shared = cluster.client();
    let clients: Vec<_> = (0..ALONE).map(|_| cluster.client()).collect();
    let sharing = std::iter::repeat_n(&shared, SHARING);
    let watchers: Vec<_> = clients
        .iter()
        .chain(sharing)
        .map(|client| tokio::spawn(told_until_the_end(client.watch("/", Place::after(1)))))
        .collect();
    // Each asks again after 800 ms of silence: at no moment do really all of them wait.
    until("each waits at a member", async || watchers_at(&cluster).await >= ALONE as u64 * 95 / 100).await;

    let ends = Arc::new(AtomicBool::new(false));
    let puts = tokio::spawn({
        let ends = Arc::clone(&ends);
        async move {
            let mut revision = 1;
            loop {
                revision += 1;
                let last = ends.load(Ordering::Acquire);
                let value = if last { "end".to_owned() } else { revision.to_string() };
                session.put("/w", value, soon()).await.unwrap();
                if last {
                    return revision;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    for id in [1, 2, 3, 1] {
        cluster.crash(id).await;
        cluster.start_one(id).await;
        // A majority has to be there for the puts to go on at all.
        cluster.leader().await;
    }
    ends.store(true, Ordering::Release);
    let last = puts.await.unwrap();
    println!("{last} revisions for {} watchers", watchers.len());
    for (n, watcher) in watchers.into_iter().enumerate() {
        let told = tokio::time::timeout(PATIENCE, watcher).await.unwrap().unwrap();
        assert!(told.iter().copied().eq(2..=last), "watcher {n} was told of {told:?}, not of 2 to {last}");
    }
    cluster.shutdown().await;
}

/// The revisions it was told of, up to the one whose value says that it is the last.
async fn told_until_the_end(mut watcher: Watcher) -> Vec<u64> {
    let mut told = Vec::new();
    loop {
        let event = event(&mut watcher).await;
        assert_eq!(event.number, 0, "of revision {}", event.revision);
        told.push(event.revision);
        if event.entry.is_some_and(|entry| entry.value == "end") {
            return told;
        }
    }
}

/// A thousand watchers on twenty connections were a thousand answers a change, of which 980 said nothing new.
#[tokio::test]
async fn watchers_of_one_client_that_wait_alike_are_one_call() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.put("/w", "", soon()).await.unwrap();
    let client = session.client();
    let mut watchers: Vec<Watcher> = (0..50).map(|_| client.watch("/w", Place::after(1))).collect();
    let mut waiting: Vec<_> = watchers.iter_mut().map(|watcher| Box::pin(event(watcher))).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    // It asks on the same connection, behind them.
    let mut last = client.watch("/x", Place::after(1));
    let told = tokio::spawn(async move { event(&mut last).await.revision });
    until("it waits, or has it", async || watchers_at(&cluster).await > 0).await;
    session.put("/x", "", soon()).await.unwrap();
    assert_eq!(told.await.unwrap(), 2);
    assert!(watchers_at(&cluster).await <= 1);
    // Whoever began the call gives up; it goes on for the others.
    drop(waiting.remove(0));
    session.put("/w", "", soon()).await.unwrap();
    for one in waiting {
        assert_eq!(one.await.revision, 3);
    }
    cluster.shutdown().await;
}

/// Calls that wait.
async fn watchers_at(cluster: &Cluster) -> u64 {
    let statuses = cluster.client().statuses(PATIENCE).await;
    statuses.into_iter().map(|(_, status)| status.unwrap().watchers).sum()
}

#[tokio::test]
async fn who_comes_too_late_is_told_so_and_can_go_on() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    session.change(What::SetHistory(SetHistory { events_max: 10, bytes_max: 0 }), soon()).await.unwrap();
    // More than a member keeps in memory either.
    let mut slow = session.client().watch("/", Place::after(0));
    for n in 0..50_u32 {
        session.put("/n", n.to_string(), soon()).await.unwrap();
    }
    let mut other = cluster.client().watch("/", Place::after(45));
    assert_eq!(event(&mut other).await.revision, 46);
    let cluster = restarted(cluster).await;
    let Watched::HistoryLost { first } = slow.next().await.unwrap() else { panic!("history was kept") };
    assert!((2..=41).contains(&first), "{first}");
    assert_eq!(slow.newest(), 50, "it knows how far it is behind");
    slow.go_on(Place { revision: first, number: 0 });
    assert_eq!(event(&mut slow).await.revision, first);
    cluster.shutdown().await;
}

/// What is kept in memory is gone.
async fn restarted(mut cluster: Cluster) -> Cluster {
    cluster.stop_one(1).await;
    cluster.start_one(1).await;
    cluster
}

#[tokio::test]
async fn a_member_that_is_alone_says_so_and_the_watcher_asks_another() {
    let mut cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    session.put("/w", "", soon()).await.unwrap();
    let mut watcher = session.client().watch("/w", Place::after(1));
    let waiting = tokio::spawn(async move { event(&mut watcher).await.revision });
    // Whichever member it waits at: two that are left go on.
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    session.put("/w", "", soon()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 2);
    // Of three only one is left: it must not keep anybody waiting in silence.
    let last = *cluster.running.keys().next().unwrap();
    let others: Vec<u64> = cluster.running.keys().copied().filter(|id| *id != last).collect();
    for id in others {
        cluster.crash(id).await;
    }
    let alone = nuwa_api::proto::NuwaClient::new(kuafu::Client::new(
        cluster.address(last),
        crate::fixture::transport(),
    ));
    until("it says that it is alone", async || {
        let request = nuwa_api::proto::WatchRequest {
            path: "/w".to_owned(),
            from_revision: 3,
            wait_ms: 50,
            ..nuwa_api::proto::WatchRequest::default()
        };
        let answer = alone.watch(&request, &kuafu::CallOptions::within(Duration::from_secs(5))).await;
        matches!(answer, Err(status) if status.code == kuafu::Code::Unavailable)
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_path_that_is_none_ends_the_watch() {
    let cluster = Cluster::start(1).await;
    let mut watcher = cluster.client().watch("x", Place::NOW);
    let error = watcher.next().await.unwrap_err();
    assert!(error.to_string().contains("a path begins with /"), "{error}");
    cluster.shutdown().await;
}
