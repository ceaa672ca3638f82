//! Sessions: kept by renewing, over leaders that come and go, and ended when nobody renews them.

use std::time::Duration;

use nuwa_api::client::Freshness;
use nuwa_api::ops::{make_directory, put};
use nuwa_api::proto::grpc::nuwa_client::NuwaClient as Grpc;
use nuwa_api::proto::{EndSession, List, NUWA_METHODS, Put, RefusalCode, RenewRequest, command, reply};
use nuwa_api::{Session, SessionState};

use crate::fixture::{Cluster, grpc_request, refused, soon, until};

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

/// Files of a session, in `/d/`: more than two commands let go of.
const MUCH: usize = 2500;

/// A session that is to live for minutes, and owns that much; and somebody else.
async fn owns_much(cluster: &Cluster) -> (Session, Session) {
    let (session, other) = (cluster.session().await, cluster.session().await);
    other.change_one(make_directory("/d/"), soon()).await.unwrap();
    let puts = (0..MUCH).map(|n| owned(&format!("/d/{n}")).into()).collect();
    session.txn(Vec::new(), puts, Vec::new(), soon()).await.unwrap();
    (session, other)
}

/// The first of the commands that end a session, as by a client that then goes away.
async fn begin_to_end(session: Session, other: &Session) {
    let end = command::What::EndSession(EndSession { session: session.id() });
    drop(session);
    let reply = other.change(end, soon()).await.unwrap();
    assert_eq!(reply.what, Some(reply::What::More(true)));
}

async fn nothing_is_left(other: &Session) {
    until("the end of all it owned", async || {
        let list = List { path: "/d/".to_owned(), ..List::default() };
        other.client().list(list, Freshness::Linearizable, soon()).await.unwrap().entries.is_empty()
    })
    .await;
}

/// The leader forgot a session with the first command that ended it. If no other followed, the rest of its files and locks stayed
/// until somebody else led.
#[tokio::test]
async fn the_leader_ends_what_a_client_only_began_to_end() {
    let cluster = Cluster::start(1).await;
    let (session, other) = owns_much(&cluster).await;
    begin_to_end(session, &other).await;
    nothing_is_left(&other).await;
    cluster.shutdown().await;
}

/// A new leader gave such a session its full time first, minutes here, in which others waited for its locks.
#[tokio::test]
async fn a_new_leader_ends_at_once_what_another_began_to_end() {
    let mut cluster = Cluster::start(1).await;
    let (session, other) = owns_much(&cluster).await;
    begin_to_end(session, &other).await;
    cluster.crash(1).await;
    cluster.start_one(1).await;
    nothing_is_left(&other).await;
    cluster.shutdown().await;
}

/// More than the leader ends at a time.
#[tokio::test]
async fn many_sessions_end_whose_time_is_over() {
    const MANY: usize = 100;
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let is_empty = async || {
        let list = List { path: "/".to_owned(), ..List::default() };
        client.list(list, Freshness::Linearizable, soon()).await.unwrap().entries.is_empty()
    };
    let sessions: Vec<_> = (0..MANY)
        .map(|n| {
            let client = client.clone();
            async move {
                let session = client.open_session(Duration::from_secs(1), "short", soon()).await.unwrap();
                session.change_one(owned(&format!("/{n}")), soon()).await.unwrap();
                session
            }
        })
        .collect();
    let sessions = futures::future::join_all(sessions).await;
    assert!(!is_empty().await);
    drop(sessions);
    until("the end of all sessions", is_empty).await;
    cluster.shutdown().await;
}

/// A client by gRPC was told the leader's address for frames only, as if it could ask there.
#[tokio::test]
async fn a_member_that_does_not_lead_tells_grpc_which_address_it_names() {
    let cluster = Cluster::start_with(3, |config| config.grpc = Some(([127, 0, 0, 1], 0).into())).await;
    let leader = cluster.leader().await;
    let other = cluster.running.iter().find(|(id, _)| **id != leader).unwrap().1;
    let mut asked = Grpc::connect(format!("http://{}", other.grpc_address().unwrap())).await.unwrap();
    let [.., renew] = &NUWA_METHODS;
    let status = asked.renew(grpc_request(renew, RenewRequest { session: 1 })).await.unwrap_err();
    assert_eq!(
        status.message(),
        format!(
            "this member does not lead; the leader's address for frames is {}: whoever speaks gRPC asks that member's port for gRPC",
            cluster.address(leader)
        )
    );
    cluster.shutdown().await;
}
