//! The log and the snapshots stay small however much is done; who was away for long is sent a snapshot, and a transfer that breaks
//! off leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use coord_kv::{Family, Range, Read};
use coord_raft::testing::cluster::wait_for;
use coord_raft::testing::{Ledger, TestCluster};
use coord_raft::{Leadership, Proposal, ProposeError, RaftConfig};

/// Of one command: the test's history keeps it, so the state grows by it.
const COMMAND: usize = 16 << 10;

/// What a snapshot is made after, what is kept behind it, and the 256 entries that are trimmed at a time, in commands of this size;
/// less than the test writes.
const LOG_MAX: u64 = 8 << 20;

fn small(config: &mut RaftConfig) {
    config.snapshot_after_entries = 50;
    config.keep_entries = 10;
}

fn command() -> Bytes {
    let mut command = Ledger::add("x", 1).to_vec();
    command.resize(COMMAND, b'.');
    command.into()
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            entry.metadata().map_or(0, |meta| if meta.is_dir() { size(&entry.path()) } else { meta.len() })
        })
        .sum()
}

fn snapshots(cluster: &TestCluster<Ledger>, id: u64) -> usize {
    std::fs::read_dir(cluster.data_dir(id).join("snapshots")).unwrap().count()
}

#[tokio::test]
async fn log_and_snapshots_stay_bounded() {
    let cluster = TestCluster::start_with(3, Ledger::default, small).await;
    for _ in 0..600 {
        cluster.propose(None, command()).await;
    }
    cluster.settle().await;
    for id in cluster.running() {
        let log = cluster.data_dir(id).join("log");
        wait_for("the log to be trimmed", || size(&log) <= LOG_MAX).await;
        wait_for("old snapshots to go", || snapshots(&cluster, id) <= 2).await;
    }
    cluster.assert_same_history().await;
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_harmless() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, small).await;
    let leader = cluster.leader().await;
    let away = cluster.running().into_iter().find(|id| *id != leader).unwrap();
    cluster.propose(None, command()).await;
    cluster.settle().await;
    let held = cluster.node(away).status().last_log_index;
    cluster.crash(away).await;
    for _ in 0..400 {
        cluster.propose(None, command()).await;
    }
    let leader = cluster.leader().await;
    wait_for("the leader to trim what the other misses", || {
        cluster.node(leader).status().purged_index > held
    })
    .await;
    // The receiver dies, earlier and later in the transfer of 6 MiB.
    for pause_ms in [2, 10, 20, 30, 40, 60] {
        cluster.launch(away).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        cluster.crash(away).await;
    }
    // The sender dies, and the next one begins anew.
    cluster.launch(away).await;
    tokio::time::sleep(Duration::from_millis(15)).await;
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    cluster.launch(leader).await;
    cluster.propose(None, command()).await;
    cluster.assert_same_history().await;
    assert!(cluster.node(away).status().purged_index > held, "it was sent a snapshot");
    for id in cluster.running() {
        wait_for("what was half received to go", || snapshots(&cluster, id) <= 2).await;
    }
}

/// A checkpoint stays what it was, whatever is applied and whichever member has it, and goes with its last handle.
#[tokio::test]
async fn a_checkpoint_stays_as_it_was() {
    let cluster = TestCluster::start_with(1, Ledger::default, small).await;
    let id = cluster.running()[0];
    cluster.propose(None, command()).await;
    let all = |read: &dyn Read| read.scan(Family(0), &Range::prefix(b""), usize::MAX).unwrap();
    let node = cluster.node(id);
    let before = all(&node.view());
    let checkpoint = node.checkpoint().await.unwrap();
    for _ in 0..200 {
        cluster.propose(None, command()).await;
    }
    let later = node.checkpoint().await.unwrap();
    assert_eq!(all(&checkpoint), before);
    assert!(all(&later) != before && all(&later) == all(&node.view()));
    let directories = || {
        let names = std::fs::read_dir(cluster.data_dir(id).join("snapshots")).unwrap();
        names
            .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp-check"))
            .count()
    };
    assert_eq!(directories(), 2);
    drop((checkpoint, later));
    assert_eq!(directories(), 0);
}

/// A member on a thread of its own, which can be made to stand still, as a machine does that is paused.
struct Pausable {
    runtime: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pausable {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { runtime: handle, stop: Some(stop), thread: Some(thread) }
    }

    /// It stands still until what is given back is dropped.
    fn pause(&self) -> std::sync::mpsc::SyncSender<()> {
        let (go_on, wait) = std::sync::mpsc::sync_channel(0);
        let (stands, stood) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            stands.send(()).unwrap();
            let _ = wait.recv();
        });
        stood.recv().unwrap();
        go_on
    }
}

impl Drop for Pausable {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A leader stood still, with entries under way that nobody had. Others led, and threw away the part of the log that would have told it
/// so, and it was sent a snapshot. The core never said what had become of those entries: their places stayed taken, and
/// the member proposed nothing any more, not when it led again, and did not even say that it did not lead.
#[tokio::test]
async fn a_leader_that_was_replaced_by_a_snapshot_proposes_again() {
    let mut cluster = TestCluster::start_with(3, Ledger::default, small).await;
    cluster.leader().await;
    cluster.crash(1).await;
    let pausable = Pausable::new();
    {
        let _there = pausable.runtime.enter();
        cluster.launch(1).await;
    }
    cluster.settle().await;
    while cluster.leader().await != 1 {
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        cluster.launch(leader).await;
        cluster.settle().await;
    }
    cluster.propose(None, command()).await;
    cluster.settle().await;
    cluster.crash(2).await;
    cluster.crash(3).await;
    let held = cluster.node(1).status().last_log_index;
    let long = std::time::Instant::now() + Duration::from_secs(300);
    let proposal = || Proposal { stamp: None, command: command() };
    let mut under_way = Vec::new();
    for sent in 1..=2 {
        let node = cluster.node(1).clone();
        under_way.push(tokio::spawn(async move { node.propose(proposal(), long).await }));
        wait_for("an entry to be under way", || cluster.node(1).status().last_log_index == held + sent).await;
    }
    let stands = pausable.pause();
    cluster.launch(2).await;
    cluster.launch(3).await;
    let leads = |id| matches!(cluster.node(id).leadership(), Leadership::Leader { .. });
    let mut proposed = 0;
    while proposed < 400 {
        wait_for("another leader", || leads(2) || leads(3)).await;
        let leader = if leads(2) { 2 } else { 3 };
        let soon = std::time::Instant::now() + Duration::from_secs(2);
        proposed += u32::from(cluster.node(leader).propose(proposal(), soon).await.is_ok());
    }
    let purged = |id| cluster.node(id).status().purged_index > held + 2;
    wait_for("the others to throw away what it misses", || purged(2) || purged(3)).await;
    drop(stands);
    wait_for("the snapshot to be there", || purged(1)).await;
    for proposed in under_way {
        let told = tokio::time::timeout(Duration::from_secs(20), proposed).await;
        let error = told.expect("whoever waited is told").unwrap().unwrap_err();
        assert!(error.retryable(), "{error}");
    }
    // It answers at once, as a follower or as a leader.
    let soon = std::time::Instant::now() + Duration::from_secs(10);
    match cluster.node(1).propose(proposal(), soon).await {
        Ok(_) | Err(ProposeError::NotLeader { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    cluster.assert_same_history().await;
}
