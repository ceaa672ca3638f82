//! Leadership is handed over without waiting for any timeout, and without losing or repeating a command.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coord_raft::testing::cluster::{PATIENCE, wait_for};
use coord_raft::testing::{Ledger, TestCluster};
use coord_raft::{Proposal, ProposalStamp, RaftConfig};
use coord_types::SessionId;

const SESSION: SessionId = SessionId(9);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Whoever waits for an election timeout waits longer than any test.
fn no_timeouts(config: &mut RaftConfig) {
    config.election_timeout_min = Duration::from_secs(100);
    config.election_timeout_max = Duration::from_secs(200);
}

#[tokio::test]
async fn another_member_leads_at_once_and_knows_everything() {
    let cluster = TestCluster::start_with(3, Ledger::default, no_timeouts).await;
    for round in 1..=6 {
        let leader = cluster.leader().await;
        cluster.propose(None, Ledger::add("x", 1)).await;
        let heir = cluster.node(leader).hand_over(soon()).await.expect("a follower takes over");
        assert_ne!(heir.id, leader);
        let leads = || cluster.node(heir.id).status().leader.is_some_and(|known| known.id == heir.id);
        wait_for("the heir to lead", leads).await;
        cluster.node(heir.id).read_barrier(soon()).await.unwrap();
        assert_eq!(Ledger::counter(&cluster.node(heir.id).view(), "x").unwrap(), round);
        assert!(cluster.node(leader).hand_over(soon()).await.is_none(), "it leads no more");
    }
}

#[tokio::test]
async fn a_leader_that_stopped_is_not_missed_and_may_come_back() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, no_timeouts).await;
    for round in 1..=3 {
        let leader = cluster.leader().await;
        cluster.node(leader).hand_over(soon()).await.expect("a follower takes over");
        cluster.stop(leader).await;
        let reply = cluster.propose(None, Ledger::add("x", 1)).await;
        assert_eq!(Ledger::value(&reply), round);
        cluster.launch(leader).await;
        cluster.settle().await;
    }
}

#[tokio::test]
async fn members_that_restarted_are_free_too() {
    let mut cluster = TestCluster::start_with(4, Ledger::default, no_timeouts).await;
    let leader = cluster.leader().await;
    cluster.propose(None, Ledger::add("x", 1)).await;
    cluster.settle().await;
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    cluster.crash(others[0]).await;
    for id in &others[1..] {
        cluster.crash(*id).await;
        cluster.launch(*id).await;
    }
    // Three of four: everybody's vote is needed, and two of them have just started.
    cluster.propose(None, Ledger::add("x", 1)).await;
    let heir = cluster.node(leader).hand_over(soon()).await.expect("one of the restarted takes over");
    assert!(others[1..].contains(&heir.id));
    assert_eq!(Ledger::value(&cluster.propose(None, Ledger::add("x", 1)).await), 3);
}

#[tokio::test]
async fn without_another_voter_or_without_leading_nothing_happens() {
    let alone = TestCluster::start(1, Ledger::default).await;
    alone.leader().await;
    assert!(alone.node(1).hand_over(soon()).await.is_none());
    assert_eq!(Ledger::value(&alone.propose(None, Ledger::add("x", 1)).await), 1);

    let mut cluster = TestCluster::start(3, Ledger::default).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.running().into_iter().filter(|id| *id != leader).collect();
    assert!(cluster.node(others[0]).hand_over(soon()).await.is_none(), "it follows");
    cluster.propose(None, Ledger::add("x", 1)).await;
    for id in &others {
        cluster.crash(*id).await;
    }
    let proposal = Proposal { stamp: None, command: Ledger::add("x", 1) };
    let lost = cluster.node(leader).propose(proposal, Instant::now() + Duration::from_millis(50)).await;
    assert!(lost.is_err(), "nobody is there to commit it");
    let given = cluster.node(leader).hand_over(Instant::now() + Duration::from_millis(200)).await;
    assert!(given.is_none(), "nobody is there");
    for id in others {
        cluster.launch(id).await;
    }
    cluster.propose(None, Ledger::add("x", 1)).await;
}

/// A writer and a reader go on while leadership moves about: no command is lost or applied twice, and no read shows less than
/// was answered before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_reads_go_on_while_leadership_moves() {
    let cluster = Arc::new(TestCluster::start_with(3, Ledger::default, no_timeouts).await);
    cluster.propose(None, Ledger::register(SESSION)).await;
    let answered = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (cluster, answered, stop) = (Arc::clone(&cluster), Arc::clone(&answered), Arc::clone(&stop));
        async move {
            let mut seq = 0;
            while !stop.load(Ordering::SeqCst) {
                seq += 1;
                let stamp = ProposalStamp { session: SESSION, seq, acknowledged_below: seq };
                let reply = cluster.propose(Some(stamp), Ledger::add("x", 1)).await;
                assert_eq!(Ledger::value(&reply), seq, "lost or applied twice");
                answered.store(seq, Ordering::SeqCst);
            }
            seq
        }
    });
    let reader = tokio::spawn({
        let (cluster, answered, stop) = (Arc::clone(&cluster), Arc::clone(&answered), Arc::clone(&stop));
        async move {
            let mut current = 0;
            while !stop.load(Ordering::SeqCst) {
                for id in cluster.running() {
                    let before = answered.load(Ordering::SeqCst);
                    let node = cluster.node(id);
                    if node.read_barrier(Instant::now() + Duration::from_millis(200)).await.is_ok() {
                        let shown = Ledger::counter(&node.view(), "x").unwrap();
                        assert!(shown >= before, "member {id} showed {shown} after {before} was answered");
                        current += 1;
                    }
                }
                tokio::task::yield_now().await;
            }
            current
        }
    });
    for _ in 0..40 {
        let leader = cluster.leader().await;
        let goal = answered.load(Ordering::SeqCst) + 5;
        wait_for("some commands", || answered.load(Ordering::SeqCst) >= goal || writer.is_finished()).await;
        cluster.node(leader).hand_over(soon()).await.expect("a follower takes over");
    }
    stop.store(true, Ordering::SeqCst);
    let (written, reads) = (writer.await.unwrap(), reader.await.unwrap());
    assert!(written >= 200 && reads > 0, "{written} commands, {reads} reads");
    let leader = cluster.leader().await;
    cluster.node(leader).read_barrier(soon()).await.unwrap();
    assert_eq!(Ledger::counter(&cluster.node(leader).view(), "x").unwrap(), written);
}
