//! Locks and elections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nuwa_api::LockRequest;
use nuwa_api::client::Freshness;
use nuwa_api::proto::RefusalCode;

use crate::fixture::{Cluster, soon, until};

fn request(value: Option<&'static str>) -> LockRequest {
    let value = value.map(Into::into);
    LockRequest { path: "/locks/x".to_owned(), value, with_file: true, ..LockRequest::default() }
}

#[tokio::test]
async fn one_holds_it_at_a_time_and_fences_ascend() {
    let mut cluster = Cluster::start(3).await;
    let (held, highest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let session = cluster.session().await;
        let (held, highest) = (Arc::clone(&held), Arc::clone(&highest));
        takers.spawn(async move {
            for _ in 0..10 {
                let locked = session.lock(&request(None), soon()).await.unwrap();
                assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                let before = highest.swap(locked.fence, Ordering::SeqCst);
                assert!(before < locked.fence, "fence {} after {before}", locked.fence);
                tokio::task::yield_now().await;
                held.fetch_sub(1, Ordering::SeqCst);
                session.unlock("/locks/x", 0, soon()).await.unwrap();
            }
        });
    }
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    while let Some(taker) = takers.join_next().await {
        taker.unwrap();
    }
    cluster.start_one(leader).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn who_leads_says_so_and_the_next_takes_over() {
    let cluster = Cluster::start(1).await;
    let first = cluster.client().open_session(Duration::from_secs(1), "first", soon()).await.unwrap();
    let second = cluster.session().await;
    let elected = first.lock(&request(Some("first")), soon()).await.unwrap();
    assert_eq!(second.try_lock(&request(Some("second")), soon()).await.unwrap(), None);
    let says = async || {
        let entry = cluster.client().get("/locks/x", Freshness::Linearizable, soon()).await.unwrap();
        String::from_utf8(entry.unwrap().value.to_vec()).unwrap()
    };
    assert_eq!(says().await, "first");
    // The first does not renew any more.
    drop(first);
    let next = second.lock(&request(Some("second")), soon()).await.unwrap();
    assert!(next.fence > elected.fence);
    assert_eq!(says().await, "second");
    let again = second.lock(&request(Some("second")), soon()).await.unwrap();
    assert_eq!(again, next, "asked for again it is the same");
    second.unlock("/locks/x", 0, soon()).await.unwrap();
    let twice = second.unlock("/locks/x", 0, soon()).await;
    assert_eq!(twice.unwrap_err().refusal(), Some(RefusalCode::NotHeld));
    cluster.shutdown().await;
}

#[tokio::test]
async fn who_waits_no_more_leaves_the_line() {
    let cluster = Cluster::start(1).await;
    let (first, second) = (cluster.session().await, cluster.session().await);
    first.lock(&request(None), soon()).await.unwrap();
    let patience = Some(std::time::Instant::now() + Duration::from_millis(100));
    let impatient = second.lock(&request(None), patience).await;
    assert!(impatient.unwrap_err().to_string().contains("others hold the lock"));
    let client = cluster.client();
    let waiters = async || client.lock_state("/locks/x", soon()).await.unwrap().waiters;
    until("the line is empty", async || waiters().await == 0).await;
    cluster.shutdown().await;
}
