//! Sessions: kept by renewing, over leaders that come and go, and ended when nobody renews them.

use std::time::Duration;

use nuwa_api::SessionState;
use nuwa_api::client::Freshness;
use nuwa_api::ops::put;
use nuwa_api::proto::{Put, RefusalCode};

use crate::fixture::{Cluster, refused, soon, until};

fn owned(path: &str) -> Put {
    Put { owned: true, ..put(path, "mine") }
}

#[tokio::test]
async fn what_a_session_owns_goes_with_it_and_not_before() {
    let mut cluster = Cluster::start(3).await;
    let short = cluster.client().open_session(Duration::from_secs(2), "short", soon()).await.unwrap();
    let ended = cluster.session().await;
    let watching = cluster.client();
    short.change_one(owned("/short"), soon()).await.unwrap();
    ended.change_one(owned("/ended"), soon()).await.unwrap();
    let is_there =
        async |path: &str| watching.get(path, Freshness::Linearizable, soon()).await.unwrap().is_some();
    ended.end(soon()).await.unwrap();
    assert!(!is_there("/ended").await);
    // Leaders come and go; it is renewed all the while.
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.crash(leader).await;
        assert!(is_there("/short").await);
        cluster.start_one(leader).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(is_there("/short").await);
    }
    let (id, state) = (short.id(), short.watch_state());
    drop(short);
    until("the session's end", async || !is_there("/short").await).await;
    assert_eq!(*state.borrow(), SessionState::Open, "nobody was there to be told");
    assert!(id > 0);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_session_that_is_over_refuses_and_says_so() {
    let cluster = Cluster::start(1).await;
    let session = cluster.session().await;
    let other = cluster.session().await;
    let end = nuwa_api::proto::EndSession { session: session.id() };
    other.change(nuwa_api::proto::command::What::EndSession(end), soon()).await.unwrap();
    let late = session.put("/x", "", soon()).await;
    assert_eq!(late.as_ref().unwrap_err().refusal(), Some(RefusalCode::SessionOver));
    assert!(refused(late).contains("is over: open another"));
    assert_eq!(session.state(), SessionState::Lost);
    assert_eq!(cluster.client().get("/x", Freshness::Linearizable, soon()).await.unwrap(), None);
    let wrong = cluster.client().open_session(Duration::from_millis(10), "", soon()).await;
    assert!(refused(wrong).contains("1000 to 600000 ms"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_change_is_made_once_however_often_it_is_asked_for() {
    let mut cluster = Cluster::start(3).await;
    let session = cluster.session().await;
    session.put("/n", "", soon()).await.unwrap();
    // Each put is asked for at leaders that die under it; the version counts how often it was made.
    let mut done = 1;
    for _ in 0..4 {
        let leader = cluster.leader().await;
        let puts = async {
            for _ in 0..40 {
                session.put("/n", "", soon()).await.unwrap();
            }
        };
        let (_, ()) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                cluster.crash(leader).await;
            },
            puts
        );
        done += 40;
        cluster.start_one(leader).await;
    }
    let entry = session.client().get("/n", Freshness::Linearizable, soon()).await.unwrap().unwrap();
    assert_eq!(entry.version, done);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_client_without_a_cluster_is_in_doubt_and_then_open_again() {
    let mut cluster = Cluster::start(1).await;
    let session = cluster.client().open_session(Duration::from_secs(1), "", soon()).await.unwrap();
    let mut state = session.watch_state();
    cluster.crash(1).await;
    state.wait_for(|state| *state == SessionState::InDoubt).await.unwrap();
    cluster.start_one(1).await;
    // The new leader gives everybody their full time.
    state.wait_for(|state| *state == SessionState::Open).await.unwrap();
    session.put("/x", "", soon()).await.unwrap();
    cluster.shutdown().await;
}
