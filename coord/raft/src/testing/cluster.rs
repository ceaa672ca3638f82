//! Members of one cluster in one process, over Unix sockets in a directory of their own.
//!
//! ```no_run
//! # use coord_raft::testing::{Ledger, TestCluster};
//! # async fn example() {
//! let mut cluster = TestCluster::start(3, Ledger::default).await;
//! let leader = cluster.leader().await;
//! cluster.propose(None, Ledger::add("x", 1)).await;
//! cluster.crash(leader).await;
//! cluster.propose(None, Ledger::add("x", 1)).await; // answered by another leader
//! # }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kuafu::{Address, CancellationToken, Server};
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use crate::{Leadership, Proposal, ProposalStamp, ProposeError, RaftConfig, RaftNode, StateMachine};

/// A test that waits longer for something has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

static CLUSTERS: AtomicU64 = AtomicU64::new(0);

/// A cluster. Its directory is deleted when it is dropped.
pub struct TestCluster<S> {
    dir: PathBuf,
    make: Box<dyn Fn() -> S + Send + Sync>,
    settings: Box<dyn Fn(&mut RaftConfig) + Send + Sync>,
    members: BTreeMap<u64, Running>,
}

struct Running {
    node: RaftNode,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl<S> std::fmt::Debug for TestCluster<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCluster").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<S: StateMachine> TestCluster<S> {
    /// Members 1 to `count`, all voters.
    ///
    /// # Panics
    /// Like everything here, if something does not go as it should: this is for tests.
    pub async fn start(count: u64, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self::start_with(count, make, |_| {}).await
    }

    /// The same with settings changed.
    pub async fn start_with(
        count: u64,
        make: impl Fn() -> S + Send + Sync + 'static,
        settings: impl Fn(&mut RaftConfig) + Send + Sync + 'static,
    ) -> Self {
        let number = CLUSTERS.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("raft-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let mut cluster =
            Self { dir, make: Box::new(make), settings: Box::new(settings), members: BTreeMap::new() };
        for id in 1..=count {
            cluster.launch(id).await;
        }
        let members = (1..=count).map(|id| (id, cluster.address(id).to_string())).collect();
        cluster.node(1).initialize(members).await.expect("a fresh member can be initialized");
        cluster
    }

    /// Starts a member: a new one, or one that was stopped.
    pub async fn launch(&mut self, id: u64) {
        let mut config = RaftConfig::new(id, self.address(id).to_string(), self.data_dir(id));
        // Small, so that tests cross the bounds: segments end, entries leave memory.
        config.segment_bytes = 256 << 10;
        config.entry_bytes_max = 32 << 10;
        config.command_bytes_max = 64 << 10;
        config.tail_bytes = 64 << 10;
        config.heartbeat = Duration::from_millis(100);
        config.election_timeout_min = Duration::from_millis(300);
        config.election_timeout_max = Duration::from_millis(600);
        config.store.cache_bytes = 4 << 20;
        config.store.write_buffer_bytes = 4 << 20;
        (self.settings)(&mut config);
        let node = RaftNode::open(config, (self.make)()).await.expect("the member opens");
        let server = Server::builder().service(node.service()).build();
        let bound = server.bind(&self.address(id)).await.expect("the socket is free");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(bound.serve(shutdown.clone()));
        self.members.insert(id, Running { node, shutdown, server });
    }

    #[must_use]
    pub fn address(&self, id: u64) -> Address {
        Address::Unix(self.dir.join(format!("{id}.sock")))
    }

    #[must_use]
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A running member.
    #[must_use]
    pub fn node(&self, id: u64) -> &RaftNode {
        &self.members.get(&id).expect("the member runs").node
    }

    /// Members that run.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Waits until a running member leads.
    pub async fn leader(&self) -> u64 {
        let leads = || {
            let mut nodes = self.members.iter();
            nodes
                .find(|(_, member)| matches!(member.node.leadership(), Leadership::Leader { .. }))
                .map(|(id, _)| *id)
        };
        wait_for("a leader", || leads().is_some()).await;
        leads().expect("just seen")
    }

    /// The member is gone at once; what was not durable may be lost.
    pub async fn crash(&mut self, id: u64) {
        let member = self.take_down(id).await;
        member.node.crash().await;
        drop(member);
    }

    /// The member ends in order.
    pub async fn stop(&mut self, id: u64) {
        let member = self.take_down(id).await;
        member.node.shutdown().await;
    }

    async fn take_down(&mut self, id: u64) -> Running {
        let mut member = self.members.remove(&id).expect("the member runs");
        member.shutdown.cancel();
        (&mut member.server).await.expect("the server does not panic");
        member
    }

    /// Proposes until somebody answers, with the same stamp each time.
    pub async fn propose(&self, stamp: Option<ProposalStamp>, command: Bytes) -> Bytes {
        self.try_propose(stamp, command).await.expect("the command is applied")
    }

    /// The same; errors that no retry can change are given back.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn try_propose(
        &self,
        stamp: Option<ProposalStamp>,
        command: Bytes,
    ) -> Result<Bytes, ProposeError> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            let deadline = Instant::now() + Duration::from_secs(2);
            let proposal = Proposal { stamp, command: command.clone() };
            match self.node(leader).propose(proposal, deadline).await {
                Err(error) if error.retryable() && Instant::now() < give_up => tokio::task::yield_now().await,
                result => return result,
            }
        }
    }

    /// Waits until all running members have applied what the leader has.
    pub async fn settle(&self) {
        let leader = self.leader().await;
        let index = self.node(leader).status().applied_index;
        for (id, member) in &self.members {
            wait_for(&format!("member {id} to apply {index}"), || {
                member.node.status().applied_index >= index
            })
            .await;
        }
    }
}

impl TestCluster<Ledger> {
    /// Settles, and compares what the members hold.
    ///
    /// # Panics
    /// If their histories differ.
    pub async fn assert_same_history(&self) {
        self.settle().await;
        let histories: Vec<_> = self
            .running()
            .into_iter()
            .map(|id| Ledger::history(&self.node(id).view()).expect("the store of a test can be read"))
            .collect();
        assert!(histories.windows(2).all(|pair| pair[0] == pair[1]), "the members' histories differ");
    }
}

impl<S> Drop for TestCluster<S> {
    fn drop(&mut self) {
        for member in self.members.values() {
            member.shutdown.cancel();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits for a condition.
///
/// # Panics
/// If it does not come about within [`PATIENCE`].
pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
