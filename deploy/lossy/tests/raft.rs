//! The raft kit on a disk that loses power: small segments and snapshots, so that each round crosses what a real
//! cluster does once in hours (segments begun and retired, snapshots made, installed, and deleted).
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coord_raft::testing::{Ledger, TestCluster};
use coord_raft::{Proposal, RaftNode};
use deploy_lossy::{Loss, LossyDisk, Options};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Proposals on their way at a time, each to a counter of its own.
const PROPOSERS: usize = 8;
const MEMBERS: u64 = 3;
/// Bytes of a counter's name: fills segments.
const NAME_BYTES: usize = 3000;

fn name(proposer: usize) -> String {
    format!("{proposer:0NAME_BYTES$}")
}

/// Adds to its counter until the member stops; what was confirmed is in `confirmed`.
async fn propose(node: RaftNode, proposer: usize, confirmed: Arc<AtomicU64>) {
    loop {
        let proposal = Proposal { stamp: None, command: Ledger::add(&name(proposer), 1) };
        let Ok(reply) = node.propose(proposal, Instant::now() + Duration::from_secs(5)).await else { return };
        confirmed.store(Ledger::value(&reply), Ordering::SeqCst);
    }
}

struct Scene {
    disk: LossyDisk,
    cluster: TestCluster<Ledger>,
    random: StdRng,
    confirmed: Vec<Arc<AtomicU64>>,
}

impl Scene {
    async fn round(&mut self, round: u64) {
        let leader = self.cluster.leader().await;
        let node = self.cluster.node(leader).clone();
        let proposers: Vec<_> = (0..PROPOSERS)
            .map(|n| tokio::spawn(propose(node.clone(), n, Arc::clone(&self.confirmed[n]))))
            .collect();
        if round % 3 == 2 {
            // A follower that comes back gets a snapshot.
            let follower = leader % MEMBERS + 1;
            self.cluster.crash(follower).await;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(100..300))).await;
            self.cluster.launch(follower).await;
        }
        tokio::time::sleep(Duration::from_millis(self.random.random_range(20..600))).await;
        let loss = if self.random.random() { Loss::All } else { Loss::Subset(self.random.random()) };
        self.disk.freeze();
        let sure: Vec<u64> = self.confirmed.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let report = self.disk.cut(loss).unwrap();
        for id in self.cluster.running() {
            self.cluster.crash(id).await;
        }
        drop(node);
        for proposer in proposers {
            proposer.await.unwrap();
        }
        println!("round {round}: {} confirmed, {loss:?}: {report:?}", sure.iter().sum::<u64>());
        self.disk.power_on();
        for id in 1..=MEMBERS {
            self.cluster.launch(id).await;
        }
        self.check(&sure).await;
    }

    /// What was confirmed is there, on every member, and they agree.
    async fn check(&self, sure: &[u64]) {
        self.cluster.leader().await;
        self.cluster.propose(None, Ledger::add("after", 1)).await;
        self.cluster.settle().await;
        let mut counts: BTreeMap<Vec<u64>, Vec<u64>> = BTreeMap::new();
        for id in 1..=MEMBERS {
            let view = self.cluster.node(id).view();
            let count = |n| Ledger::counter(&view, &name(n)).unwrap();
            counts.entry((0..PROPOSERS).map(count).collect()).or_default().push(id);
        }
        assert_eq!(counts.len(), 1, "members differ: {counts:?}");
        let (counts, _) = counts.first_key_value().unwrap();
        for (count, sure) in counts.iter().zip(sure) {
            // One proposal of each was on its way.
            assert!((*sure..=sure + 1).contains(count), "{count} of {sure} confirmed");
        }
    }
}

async fn rounds(seed: u64, rounds: u64) {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("no /dev/fuse: not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [point, backing] = ["disk", "backing"].map(|name| folder.path().join(name));
    fs::create_dir(&point).unwrap();
    fs::create_dir(&backing).unwrap();
    let disk = LossyDisk::mount(&point, &backing, Options { sync_delay: Duration::from_millis(1) }).unwrap();
    let settings = move |config: &mut coord_raft::RaftConfig| {
        config.data_dir = point.join(config.node_id.to_string());
        config.segment_bytes = 192 << 10;
        config.spare_segments = 1;
        config.snapshot_after_entries = 40;
        config.keep_entries = 10;
    };
    let cluster = TestCluster::start_with(MEMBERS, Ledger::default, settings).await;
    let confirmed = (0..PROPOSERS).map(|_| Arc::default()).collect();
    let mut scene = Scene { disk, cluster, random: StdRng::seed_from_u64(seed), confirmed };
    println!("seed {seed}");
    for round in 1..=rounds {
        scene.round(round).await;
    }
    for id in scene.cluster.running() {
        scene.cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_raft_confirmed_survives_power_cuts() {
    let full = std::env::var_os("FEITIAN_FULL").is_some();
    for seed in if full { 1..=20 } else { 1..=2 } {
        rounds(seed, if full { 10 } else { 5 }).await;
    }
}
