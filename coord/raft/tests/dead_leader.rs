//! A leader whose process has ended is replaced without waiting for any timeout; one that is merely silent is not.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use coord_raft::testing::cluster::{PATIENCE, wait_for};
use coord_raft::testing::{Ledger, TestCluster};
use coord_raft::{Leadership, Proposal, RaftConfig};

/// Whoever waits for an election timeout waits longer than any test.
fn no_timeouts(config: &mut RaftConfig) {
    config.election_timeout_min = Duration::from_secs(100);
    config.election_timeout_max = Duration::from_secs(200);
}

/// The leader, when all follow it and have caught up: before that a new member does not vote.
async fn settled(cluster: &TestCluster<Ledger>) -> u64 {
    let leader = cluster.leader().await;
    let knows = |id: u64| cluster.node(id).status().leader.is_some_and(|known| known.id == leader);
    wait_for("everybody to follow", || cluster.running().into_iter().all(knows)).await;
    cluster.settle().await;
    leader
}

#[tokio::test]
async fn the_others_do_not_wait() {
    for members in [3, 5] {
        let mut cluster = TestCluster::start_with(members, Ledger::default, no_timeouts).await;
        for round in 1..=4 {
            let leader = settled(&cluster).await;
            cluster.crash(leader).await;
            assert_eq!(Ledger::value(&cluster.propose(None, Ledger::add("x", 1)).await), round);
            // What it promised before, to a leader that has ended too, does not keep it from voting in the next round.
            cluster.launch(leader).await;
        }
        cluster.assert_same_history().await;
    }
}

/// The followers do not hold the same when their leader ends: whoever holds more leads, whoever stands first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_makes_room_for_who_does_not() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, no_timeouts).await;
    for _ in 0..8 {
        let leader = settled(&cluster).await;
        let node = cluster.node(leader).clone();
        let goal = node.status().last_log_index + 20;
        let burst = tokio::spawn({
            let node = node.clone();
            async move {
                let deadline = Instant::now() + PATIENCE;
                for _ in 0..10_000 {
                    let proposal = Proposal { stamp: None, command: Ledger::add("y", 1) };
                    if node.propose(proposal, deadline).await.is_err() {
                        return;
                    }
                }
            }
        });
        wait_for("some commands", || node.status().last_log_index >= goal || burst.is_finished()).await;
        cluster.crash(leader).await;
        burst.await.unwrap();
        cluster.propose(None, Ledger::add("x", 1)).await;
        cluster.launch(leader).await;
    }
    cluster.assert_same_history().await;
}

#[tokio::test]
async fn a_member_that_ended_is_no_leader_that_ended() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, no_timeouts).await;
    let leader = settled(&cluster).await;
    let term = cluster.node(leader).status().term;
    let other = cluster.running().into_iter().find(|id| *id != leader).unwrap();
    cluster.crash(other).await;
    cluster.propose(None, Ledger::add("x", 1)).await;
    cluster.launch(other).await;
    assert_eq!(settled(&cluster).await, leader);
    assert_eq!(cluster.node(leader).leadership(), Leadership::Leader { term });
}
