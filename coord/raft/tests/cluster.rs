//! Three members in one process: what the kit promises, under crashes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coord_raft::testing::cluster::{PATIENCE, wait_for};
use coord_raft::testing::{Ledger, TestCluster};
use coord_raft::{Leadership, Proposal, ProposalStamp, ProposeError, RaftConfig, ReadError};
use coord_types::SessionId;

const SESSION: SessionId = SessionId(9);

fn stamp(seq: u64) -> Option<ProposalStamp> {
    Some(ProposalStamp { session: SESSION, seq, acknowledged_below: seq.saturating_sub(4) })
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[tokio::test]
async fn commands_are_applied_in_one_order_on_all_members() {
    let cluster = TestCluster::start(3, Ledger::default).await;
    let all = (0..200).map(|_| cluster.propose(None, Ledger::add("x", 1)));
    let mut replies: Vec<u64> =
        futures::future::join_all(all).await.iter().map(|reply| Ledger::value(reply)).collect();
    replies.sort_unstable();
    assert_eq!(
        replies,
        (1..=200).collect::<Vec<u64>>(),
        "each command was applied once and answered with its own reply"
    );
    cluster.assert_same_history().await;
    let times: Vec<_> = Ledger::history(&cluster.node(1).view())
        .unwrap()
        .iter()
        .map(|change| change.0[16..].to_vec())
        .collect();
    assert!(times.is_sorted(), "time went back");
}

#[tokio::test]
async fn commands_that_wait_share_an_entry() {
    let cluster = TestCluster::start(1, Ledger::default).await;
    cluster.leader().await;
    let before = cluster.node(1).status().last_log_index;
    let all = (0..500).map(|_| cluster.propose(None, Ledger::add("x", 1)));
    futures::future::join_all(all).await;
    let entries = cluster.node(1).status().last_log_index - before;
    assert!(entries < 100, "{entries} entries for 500 commands");
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let cluster = TestCluster::start(3, Ledger::default).await;
    let leader = cluster.leader().await;
    let follower = cluster.running().into_iter().find(|id| *id != leader).unwrap();
    let knows = || matches!(cluster.node(follower).leadership(), Leadership::Follower { leader: Some(_) });
    wait_for("the follower to know the leader", knows).await;
    let proposal = Proposal { stamp: None, command: Ledger::add("x", 1) };
    let error = cluster.node(follower).propose(proposal, soon()).await.unwrap_err();
    let ProposeError::NotLeader { leader: Some(named) } = error else { panic!("{error}") };
    assert_eq!((named.id, named.address), (leader, cluster.address(leader).to_string()));
    let error = cluster.node(follower).read_barrier(soon()).await.unwrap_err();
    assert!(matches!(error, ReadError::NotLeader { leader: Some(named) } if named.id == leader));
}

#[tokio::test]
async fn a_command_is_applied_once_whatever_is_killed() {
    let mut cluster = TestCluster::start(3, Ledger::default).await;
    cluster.propose(None, Ledger::register(SESSION)).await;
    let mut expected = 0;
    for round in 0..3 {
        for seq in 1..=20 {
            expected += 1;
            let seq = round * 20 + seq;
            let reply = cluster.propose(stamp(seq), Ledger::add("x", 1)).await;
            assert_eq!(Ledger::value(&reply), expected);
        }
        let leader = cluster.leader().await;
        cluster.crash(leader).await;
        // The same command again, at another leader: the first answer, and no second application.
        let reply = cluster.propose(stamp((round + 1) * 20), Ledger::add("x", 1)).await;
        assert_eq!(Ledger::value(&reply), expected);
        cluster.launch(leader).await;
    }
    cluster.assert_same_history().await;
    assert_eq!(Ledger::counter(&cluster.node(1).view(), "x").unwrap(), expected);
}

#[tokio::test]
async fn an_unknown_session_is_refused() {
    let cluster = TestCluster::start(1, Ledger::default).await;
    let refused = cluster.try_propose(stamp(1), Ledger::add("x", 1)).await;
    assert!(matches!(refused, Err(ProposeError::SessionExpired)), "{refused:?}");
    cluster.propose(None, Ledger::register(SESSION)).await;
    cluster.propose(stamp(10), Ledger::add("x", 1)).await;
    let gone = cluster.try_propose(stamp(2), Ledger::add("x", 1)).await;
    assert!(matches!(gone, Err(ProposeError::ReplyGone { seq: 2 })), "{gone:?}");
    cluster.propose(None, Ledger::forget(SESSION)).await;
    let refused = cluster.try_propose(stamp(11), Ledger::add("x", 1)).await;
    assert!(matches!(refused, Err(ProposeError::SessionExpired)), "{refused:?}");
    assert_eq!(Ledger::counter(&cluster.node(1).view(), "x").unwrap(), 1);
}

#[tokio::test]
async fn everything_stops_at_once_and_comes_back() {
    for members in [1, 3] {
        let mut cluster = TestCluster::start(members, Ledger::default).await;
        for _ in 0..50 {
            cluster.propose(None, Ledger::add("x", 1)).await;
        }
        for id in 1..=members {
            cluster.crash(id).await;
        }
        for id in 1..=members {
            cluster.launch(id).await;
        }
        let reply = cluster.propose(None, Ledger::add("x", 1)).await;
        assert_eq!(Ledger::value(&reply), 51, "with {members} members");
        cluster.assert_same_history().await;
    }
}

#[tokio::test]
async fn a_member_that_lagged_catches_up_by_log_or_by_snapshot() {
    let small = |config: &mut RaftConfig| {
        config.snapshot_after_entries = 100;
        config.keep_entries = 20;
    };
    for (missed, by_snapshot) in [(10, false), (600, true)] {
        let mut cluster = TestCluster::start_with(3, Ledger::default, small).await;
        let leader = cluster.leader().await;
        let lagging = cluster.running().into_iter().find(|id| *id != leader).unwrap();
        cluster.propose(None, Ledger::add("x", 1)).await;
        cluster.settle().await;
        let held = cluster.node(lagging).status().last_log_index;
        cluster.stop(lagging).await;
        for _ in 0..missed {
            cluster.propose(None, Ledger::add("x", 1)).await;
        }
        if by_snapshot {
            let leader = cluster.leader().await;
            let purged = || cluster.node(leader).status().purged_index > held;
            wait_for("the leader to purge what the other misses", purged).await;
        }
        cluster.launch(lagging).await;
        cluster.assert_same_history().await;
        assert_eq!(Ledger::counter(&cluster.node(lagging).view(), "x").unwrap(), missed + 1);
        assert_eq!(cluster.node(lagging).status().purged_index > held, by_snapshot);
        // And what it received survives.
        cluster.crash(lagging).await;
        cluster.launch(lagging).await;
        cluster.propose(None, Ledger::add("x", 1)).await;
        cluster.assert_same_history().await;
    }
}

#[tokio::test]
async fn members_are_added_removed_and_replaced() {
    let mut cluster = TestCluster::start(3, Ledger::default).await;
    cluster.propose(None, Ledger::add("x", 1)).await;
    let leader = cluster.leader().await;
    let dead = cluster.running().into_iter().find(|id| *id != leader).unwrap();
    cluster.crash(dead).await;
    cluster.launch(4).await;
    let address = cluster.address(4).to_string();
    cluster.node(leader).replace_member(dead, 4, address, soon()).await.unwrap();
    let members = cluster.node(leader).status().members;
    assert!(members[&4].voter && !members.contains_key(&dead), "{members:?}");
    cluster.propose(None, Ledger::add("x", 1)).await;
    cluster.assert_same_history().await;

    // The other old follower loses everything and comes back under its old id.
    let wiped = *members.keys().find(|id| **id != leader && **id != 4).unwrap();
    cluster.crash(wiped).await;
    std::fs::remove_dir_all(cluster.data_dir(wiped)).unwrap();
    cluster.launch(wiped).await;
    let leader = cluster.leader().await;
    let address = cluster.address(wiped).to_string();
    cluster.node(leader).replace_member(wiped, wiped, address, soon()).await.unwrap();
    cluster.propose(None, Ledger::add("x", 1)).await;
    cluster.assert_same_history().await;

    // Down to one voter, which then goes on alone, after a restart too.
    for id in cluster.running() {
        if id != leader {
            cluster.node(leader).remove_member(id, soon()).await.unwrap();
            cluster.stop(id).await;
        }
    }
    cluster.propose(None, Ledger::add("x", 1)).await;
    cluster.crash(leader).await;
    cluster.launch(leader).await;
    assert_eq!(Ledger::value(&cluster.propose(None, Ledger::add("x", 1)).await), 5);
}

#[tokio::test]
async fn a_deposed_leader_answers_no_reads_and_the_new_one_shows_every_answer() {
    let mut cluster = TestCluster::start(3, Ledger::default).await;
    for round in 1..=3 {
        let leader = cluster.leader().await;
        cluster.propose(None, Ledger::add("x", 1)).await;
        cluster.node(leader).read_barrier(soon()).await.unwrap();
        assert_eq!(Ledger::counter(&cluster.node(leader).view(), "x").unwrap(), round);
        cluster.crash(leader).await;
        let next = cluster.leader().await;
        cluster.node(next).read_barrier(soon()).await.unwrap();
        assert_eq!(Ledger::counter(&cluster.node(next).view(), "x").unwrap(), round);
        cluster.launch(leader).await;
    }
}

#[tokio::test]
async fn a_leader_without_a_majority_soon_answers_neither_reads_nor_writes() {
    let mut cluster = TestCluster::start(3, Ledger::default).await;
    let leader = cluster.leader().await;
    for id in cluster.running() {
        if id != leader {
            cluster.crash(id).await;
        }
    }
    let node = cluster.node(leader).clone();
    let patience = Instant::now() + PATIENCE;
    loop {
        match node.read_barrier(Instant::now() + Duration::from_millis(300)).await {
            Ok(()) => assert!(Instant::now() < patience, "the lease never ends"),
            // It may also have made way for the last of the others before that one was gone.
            Err(error) => {
                break assert!(matches!(error, ReadError::Timeout | ReadError::NotLeader { .. }), "{error}");
            }
        }
        tokio::task::yield_now().await;
    }
    let proposal = Proposal { stamp: None, command: Ledger::add("x", 1) };
    let error = node.propose(proposal, Instant::now() + Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Timeout | ProposeError::NotLeader { .. }), "{error}");
}

#[tokio::test]
async fn a_new_leader_answers_within_two_seconds() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, |config| {
        let defaults = RaftConfig::new(1, "", "");
        config.heartbeat = defaults.heartbeat;
        config.election_timeout_min = defaults.election_timeout_min;
        config.election_timeout_max = defaults.election_timeout_max;
    })
    .await;
    cluster.propose(None, Ledger::add("x", 1)).await;
    let leader = cluster.leader().await;
    let killed = Instant::now();
    cluster.crash(leader).await;
    cluster.propose(None, Ledger::add("x", 1)).await;
    let gap = killed.elapsed();
    assert!(gap < Duration::from_secs(2), "the gap was {gap:?}");
}

#[tokio::test]
async fn bounds_are_answered_not_queued() {
    let cluster = TestCluster::start_with(1, Ledger::default, |config| config.proposals_max = 4).await;
    cluster.leader().await;
    let node = cluster.node(1);
    let large = Proposal { stamp: None, command: vec![b'?'; 65 << 10].into() };
    assert!(matches!(node.propose(large, soon()).await, Err(ProposeError::TooLarge { .. })));
    let all = (0..100).map(|_| node.propose(Proposal { stamp: None, command: Ledger::add("x", 1) }, soon()));
    let results = futures::future::join_all(all).await;
    let busy = results.iter().filter(|result| matches!(result, Err(ProposeError::Busy { .. }))).count();
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert!(busy > 0 && done > 0 && busy + done == 100, "{busy} busy, {done} done");
    assert_eq!(Ledger::counter(&node.view(), "x").unwrap(), done as u64);
}

#[tokio::test]
async fn a_stopped_member_says_so() {
    let mut cluster = TestCluster::start(1, Ledger::default).await;
    cluster.leader().await;
    let node = cluster.node(1).clone();
    cluster.stop(1).await;
    let proposal = Proposal { stamp: None, command: Ledger::add("x", 1) };
    assert!(matches!(node.propose(proposal, soon()).await, Err(ProposeError::Stopped)));
    assert!(matches!(node.read_barrier(soon()).await, Err(ReadError::Stopped)));
    assert_eq!(node.leadership(), Leadership::Stopped);
    assert!(Ledger::counter(&node.view(), "x").is_err());
}

/// Two looks at the same lock from one thread stand still if somebody writes between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_inside_does_not_get_in_the_way() {
    let cluster = TestCluster::start(1, Ledger::default).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader).clone();
    let (looks, enough) = (node.clone(), Arc::new(AtomicBool::new(false)));
    let looking = tokio::task::spawn_blocking({
        let enough = enough.clone();
        move || {
            while !enough.load(Ordering::Relaxed) {
                assert_eq!(looks.status().members.len(), 1);
            }
        }
    });
    for _ in 0..2000 {
        cluster.propose(None, Ledger::add("x", 1)).await;
    }
    enough.store(true, Ordering::Relaxed);
    looking.await.unwrap();
}
