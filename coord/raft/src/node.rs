//! One member: open, propose, read, membership, status.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coord_kv::Kv;
use coord_types::SessionId;
use kuafu::ClientConfig;
use openraft::error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod attend;
pub(crate) mod checkpoint;
mod form;
mod hand_over;
mod members;

pub use form::Formed;
pub use members::{Newcomer, Removal};

use crate::config::RaftConfig;
use crate::error::{Leader, MembershipError, OpenError, ProposeError, ReadError};
use crate::joining::Joining;
use crate::lease::Lease;
use crate::log::{LogOptions, LogStore};
use crate::machine::{Machine, State, View};
use crate::network::client::{Network, last_log_index};
use crate::network::given_up::GivenUp;
use crate::network::service::{PeerParts, PeerService};
use crate::pb::RaftPeerServer;
use crate::propose::{Proposer, ProposerLimits, leader_of};
use crate::read::Reads;
use crate::snapshot::SnapshotStore;
use crate::state_machine::StateMachine;
use crate::types::{LogId, Raft};

/// Between two looks how far a new member is.
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);

/// A command for the state machine.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Names the command, so that a retry of it gets the first answer. Without it a retry is applied again.
    pub stamp: Option<ProposalStamp>,
    pub command: Bytes,
}

/// Which command of which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalStamp {
    pub session: SessionId,
    /// Counts per session, from 1; each command has its own.
    pub seq: u64,
    /// The session has the replies of all commands numbered below this: they may be dropped.
    pub acknowledged_below: u64,
}

/// What this member is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Candidate,
    Follower,
    Learner,
    Stopped,
}

/// Who leads, as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This member leads and has applied all that earlier leaders committed.
    Leader { term: u64 },
    /// Another member leads, or nobody is known to.
    Follower { leader: Option<Leader> },
    /// This member has stopped (shut down, or its disk failed).
    Stopped,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub address: String,
    pub voter: bool,
    /// Last index this member is known to hold durably; known on the leader only.
    pub matched_index: Option<u64>,
    /// How long it has been silent; known on the leader only.
    pub silence: Option<Duration>,
}

/// A look inside.
#[derive(Clone, Debug)]
pub struct RaftStatus {
    pub node_id: u64,
    pub term: u64,
    pub role: Role,
    pub leader: Option<Leader>,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub members: BTreeMap<u64, MemberStatus>,
    /// Why the member stopped by itself.
    pub failure: Option<String>,
}

/// One member. Cheap to clone; [`shutdown`](Self::shutdown) stops it.
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    node_id: u64,
    transport: ClientConfig,
    raft: Raft,
    log: LogStore,
    state: Arc<State>,
    snapshots: Arc<SnapshotStore>,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    lease: Arc<Lease>,
    peers: PeerService,
    joining: Arc<Joining>,
    given_up: Arc<GivenUp>,
    applied: watch::Receiver<Option<LogId>>,
    leadership: watch::Sender<Leadership>,
    members_index: watch::Sender<u64>,
    failure: Mutex<Option<String>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Clone for RaftNode {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftNode").field("node_id", &self.inner.node_id).finish_non_exhaustive()
    }
}

impl RaftNode {
    /// Opens the member's data and starts it. A member without data waits for [`initialize`](Self::initialize), or
    /// for a leader to add it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: RaftConfig, state_machine: impl StateMachine) -> Result<Self, OpenError> {
        Self::open_shared(config, Arc::new(state_machine)).await
    }

    /// The same. Nothing below is generic over the service: openraft is compiled once, here, and not again in every
    /// program and test that opens a member.
    async fn open_shared(config: RaftConfig, service: Arc<dyn StateMachine>) -> Result<Self, OpenError> {
        config.validate()?;
        let node_id = config.node_id;
        // The state first: RocksDB's lock keeps a second process from the log, too.
        let state = Arc::new(State::open(config.data_dir.join("state"), service.families(), &config.store)?);
        let lease = Arc::new(Lease::new(node_id, config.lease()));
        let options = LogOptions {
            node_id,
            segment_bytes: config.segment_bytes,
            spare_segments: config.spare_segments,
            tail_bytes: config.tail_bytes,
        };
        let log = LogStore::open(&config.data_dir.join("log"), options, Arc::clone(&lease))?;
        let snapshots = Arc::new(SnapshotStore::open(&config.data_dir.join("snapshots"))?);
        let joining = Arc::new(Joining::open(&config.data_dir, log.is_fresh())?);
        let given_up = Arc::new(GivenUp::default());
        let peers = PeerService::new(PeerParts {
            node_id,
            log: log.clone(),
            lease: Arc::clone(&lease),
            given_up: Arc::clone(&given_up),
            joining: Arc::clone(&joining),
            snapshots: Arc::clone(&snapshots),
            promise: config.lease(),
        });
        let proposer = Proposer::new(ProposerLimits {
            waiting_max: config.proposals_max,
            entry_bytes_max: config.entry_bytes_max,
            command_bytes_max: config.command_bytes_max,
        });
        let machine = Machine::new(
            service,
            Arc::clone(&state),
            log.clone(),
            Arc::clone(&snapshots),
            Arc::clone(&proposer),
        )?;
        let applied = machine.watch_applied();
        let network = Network::new(
            node_id,
            log.clone(),
            Arc::clone(&lease),
            Arc::clone(&given_up),
            config.transport.clone(),
        );
        let raft =
            openraft::Raft::new(node_id, Arc::new(core_config(&config)?), network, log.clone(), machine)
                .await
                .map(Raft)
                .map_err(|error| OpenError::Core(Arc::new(error)))?;
        proposer.start(raft.clone());
        peers.start(raft.clone());
        let reads = Reads::new(raft.clone(), Arc::clone(&lease), log.clone(), applied.clone());
        let inner = Arc::new(Inner {
            node_id,
            transport: config.transport.clone(),
            raft,
            log,
            state,
            snapshots,
            proposer,
            reads,
            lease,
            peers,
            joining,
            given_up,
            applied,
            leadership: watch::Sender::new(Leadership::Follower { leader: None }),
            members_index: watch::Sender::new(0),
            failure: Mutex::default(),
            tasks: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(Arc::clone(&inner).watch_leadership()),
            tokio::spawn(Arc::clone(&inner).attend_leaders()),
            tokio::spawn(Arc::clone(&inner).stop_when_the_log_fails()),
            tokio::spawn(Arc::clone(&inner).flush_now_and_then(config.flush_interval)),
        ];
        inner.tasks.lock().extend(tasks);
        Ok(Self { inner })
    }

    /// What the other members call: register it on the server that listens on this member's address.
    #[must_use]
    pub fn service(&self) -> RaftPeerServer<PeerService> {
        RaftPeerServer::new(Arc::new(self.inner.peers.clone()))
    }

    /// Makes a cluster of fresh members, given with their addresses. Call it on any of them, or on all: with the
    /// same members that is safe. A member that lost its data and finds its cluster at work does not form another.
    ///
    /// # Errors
    /// [`MembershipError::AlreadyInitialized`] if this member has data, or another one has entries.
    pub async fn initialize(&self, members: BTreeMap<u64, String>) -> Result<(), MembershipError> {
        let others = members.iter().filter(|(id, _)| **id != self.inner.node_id);
        let asked = others.map(|(id, address)| last_log_index(*id, address, &self.inner.transport));
        if futures::future::join_all(asked).await.into_iter().flatten().any(|last| last > 0) {
            return Err(MembershipError::AlreadyInitialized);
        }
        let members: BTreeMap<u64, BasicNode> =
            members.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
        let formed = self.inner.raft.initialize(members).await.map_err(|error| match error {
            RaftError::Fatal(_) => MembershipError::Stopped,
            RaftError::APIError(InitializeError::NotAllowed(_)) => MembershipError::AlreadyInitialized,
            RaftError::APIError(error @ InitializeError::NotInMembers(_)) => {
                MembershipError::Refused { reason: error.to_string() }
            }
        });
        if formed.is_ok() {
            let reason = |error: crate::log::LogError| MembershipError::Refused { reason: error.to_string() };
            self.inner.joining.end().map_err(reason)?;
            self.inner.raft.runtime_config().elect(true);
        }
        formed
    }

    /// Whether this member belongs to a cluster already: has voted or holds entries.
    ///
    /// # Errors
    /// [`MembershipError::Stopped`].
    pub async fn is_initialized(&self) -> Result<bool, MembershipError> {
        self.inner.raft.is_initialized().await.map_err(|_| MembershipError::Stopped)
    }

    /// Reads through this member ask a majority from now on. For one that is about to close its listener, which the others take
    /// for its end (docs/dead-leader.md).
    pub fn give_lease_up(&self) {
        let _ = self.inner.lease.give_up();
    }

    /// Has a command applied; the reply is the state machine's.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, proposal: Proposal, deadline: Instant) -> Result<Bytes, ProposeError> {
        self.inner.proposer.propose(proposal, deadline).await
    }

    /// After it returned, [`view`](Self::view) shows everything whose reply anybody had when it was called. Costs
    /// next to nothing while the lease is fresh, else one round trip shared by all who wait.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), ReadError> {
        self.inner.reads.barrier(deadline).await
    }

    /// For the next two seconds this member, if it follows, is to be told at once what is committed. Otherwise it hears of it with the
    /// next entries or the next heartbeat, which saves the leader a message for each command where nobody reads from followers.
    pub fn follow_closely(&self) {
        self.inner.peers.follow_closely();
    }

    /// The applied state of this member, as it is at each call: current only after a
    /// [`read_barrier`](Self::read_barrier).
    #[must_use]
    pub fn view(&self) -> View {
        View { state: Arc::clone(&self.inner.state) }
    }

    /// Makes `id` a member that receives the log but does not vote, and waits until it has caught up.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_learner(
        &self,
        id: u64,
        address: String,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let add = self.inner.raft.add_learner(id, BasicNode::new(address), true);
        within(deadline, add).await
    }

    /// Makes `id` a voter: a learner first, until it holds what there was when it was asked for. Calling it again after it
    /// failed goes on where it stopped.
    ///
    /// # Errors
    /// See [`MembershipError`]; [`MembershipError::Timeout`] leaves it a learner that goes on catching up.
    pub async fn add_member(
        &self,
        id: u64,
        address: String,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        if !self.inner.members().contains_key(&id) {
            let add = self.inner.raft.add_learner(id, BasicNode::new(address), false);
            within(deadline, add).await?;
        }
        let goal = self.status().last_log_index;
        loop {
            if !matches!(self.leadership(), Leadership::Leader { .. }) {
                return Err(MembershipError::NotLeader { leader: self.status().leader });
            }
            if self.inner.members().get(&id).is_some_and(|member| member.matched_index >= Some(goal)) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(MembershipError::Timeout);
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        within(deadline, self.inner.raft.change_membership(voter, false)).await
    }

    /// Makes exactly `voters` the voting members. Each must be a member already (see
    /// [`add_learner`](Self::add_learner)); voters left out are removed from the cluster.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn change_members(
        &self,
        voters: BTreeSet<u64>,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        within(deadline, self.inner.raft.change_membership(voters, false)).await
    }

    /// This member is reached elsewhere from now on. Only of the one member of a cluster: others would look for it where it was.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn set_address(&self, address: String, deadline: Instant) -> Result<(), MembershipError> {
        let id = self.inner.node_id;
        if self.inner.members().keys().any(|member| *member != id) {
            let reason = "it has other members, who would not find it".to_owned();
            return Err(MembershipError::Refused { reason });
        }
        let here = ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))]));
        within(deadline, self.inner.raft.change_membership(here, true)).await
    }

    /// Removes a member, voter or not. Removing one that is none already is no error.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove_member(&self, id: u64, deadline: Instant) -> Result<(), MembershipError> {
        if self.inner.members().get(&id).is_some_and(|member| member.voter) {
            let without = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            within(deadline, self.inner.raft.change_membership(without, false)).await?;
        }
        if self.inner.members().contains_key(&id) {
            let without = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            within(deadline, self.inner.raft.change_membership(without, false)).await?;
        }
        Ok(())
    }

    /// Puts the new member `id` in the place of the member `dead`: removes the dead one, adds the new one, waits
    /// until it has caught up and makes it a voter. `id` may be `dead`: a member that lost its data comes back.
    /// Calling it again after it failed goes on where it stopped.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn replace_member(
        &self,
        dead: u64,
        id: u64,
        address: String,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let back = self.inner.members().get(&id).is_some_and(|member| member.address == address);
        if dead != id || back {
            // What the leader remembers of its log must go, or it would count what is not there any more.
            self.remove_member(dead, deadline).await?;
        }
        self.add_learner(id, address, deadline).await?;
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        within(deadline, self.inner.raft.change_membership(voter, false)).await
    }

    /// A look inside.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let applied = *self.inner.applied.borrow();
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        RaftStatus {
            node_id: self.inner.node_id,
            term: metrics.current_term,
            role: role(metrics.state),
            leader: leader(metrics.current_leader, metrics.membership_config.membership()),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: index(applied),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            members: self.inner.members_of(&metrics),
            failure: self.inner.failure.lock().clone(),
        }
    }

    /// Who leads now.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.inner.leadership.borrow().clone()
    }

    /// Tells of every change of who leads.
    #[must_use]
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The index of the entry that says who the members are: it grows when they change.
    #[must_use]
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.inner.members_index.subscribe()
    }

    /// Makes a snapshot soon, whatever the settings say.
    pub async fn trigger_snapshot(&self) {
        // It fails only when the core has stopped, which the caller sees by itself.
        let _ = self.inner.raft.trigger().snapshot().await;
    }

    /// Stops the member: proposals and reads fail with `Stopped`, the state is flushed, files are closed.
    pub async fn shutdown(&self) {
        self.stop().await;
        let state = Arc::clone(&self.inner.state);
        let flushed = tokio::task::spawn_blocking(move || {
            let flushed = state.store().and_then(|store| store.flush());
            state.close();
            flushed
        });
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!(%error, "the state could not be flushed; the next start applies more of the log");
        }
    }

    /// Stops as a crash would: nothing is flushed that the protocol does not ask for.
    #[doc(hidden)]
    pub async fn crash(&self) {
        self.stop().await;
        let state = Arc::clone(&self.inner.state);
        if tokio::task::spawn_blocking(move || state.close()).await.is_err() {
            tracing::error!("closing the state panicked");
        }
    }

    async fn stop(&self) {
        self.inner.proposer.close();
        self.inner.reads.close();
        self.inner.stop_core().await;
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        let log = self.inner.log.clone();
        // The threads of the log end within one write.
        if tokio::task::spawn_blocking(move || log.close()).await.is_err() {
            tracing::error!("closing the log panicked");
        }
    }
}

impl Inner {
    async fn stop_core(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the Raft core panicked");
        }
        self.leadership.send_replace(Leadership::Stopped);
    }

    fn members(&self) -> BTreeMap<u64, MemberStatus> {
        self.members_of(&self.raft.metrics().borrow())
    }

    /// For whoever looks at the metrics already: borrowed once more by the same thread, they would be waited for for ever
    /// if the core is about to change them.
    fn members_of(&self, metrics: &RaftMetrics<u64, BasicNode>) -> BTreeMap<u64, MemberStatus> {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let matched = |id: u64| metrics.replication.as_ref()?.get(&id).copied()?.map(|id: LogId| id.index);
        let now = Instant::now();
        let status = |(id, node): (&u64, &BasicNode)| {
            let member = MemberStatus {
                address: node.addr.clone(),
                voter: voters.contains(id),
                matched_index: matched(*id),
                silence: self.lease.silence(*id, now),
            };
            (*id, member)
        };
        membership.nodes().map(status).collect()
    }

    /// Keeps [`RaftNode::leadership`] true, and tells waiting proposals when this member leads no more.
    async fn watch_leadership(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        let mut applied = self.applied.clone();
        loop {
            let now = {
                let server = server.borrow_and_update();
                let own_term_applied =
                    applied.borrow().is_some_and(|id| id.leader_id == server.vote.leader_id);
                match server.state {
                    ServerState::Shutdown => Leadership::Stopped,
                    ServerState::Leader if own_term_applied => {
                        Leadership::Leader { term: server.vote.leader_id.term }
                    }
                    ServerState::Leader => Leadership::Follower { leader: None },
                    ServerState::Follower | ServerState::Candidate | ServerState::Learner => {
                        Leadership::Follower {
                            leader: leader(server.current_leader, server.membership_config.membership()),
                        }
                    }
                }
            };
            if let Leadership::Follower { leader } = &now
                && server.borrow().state != ServerState::Leader
                // Whoever takes over is known in a moment, and then they can be told.
                && (leader.is_some() || !self.proposer.is_paused())
            {
                self.proposer.fail_waiting(&ProposeError::NotLeader { leader: leader.clone() });
            }
            let members = server.borrow().membership_config.log_id().map_or(0, |id| id.index);
            self.members_index.send_if_modified(|known| std::mem::replace(known, members) != members);
            let becoming =
                server.borrow().state == ServerState::Leader && !matches!(now, Leadership::Leader { .. });
            self.leadership.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            let gone = tokio::select! {
                changed = server.changed() => changed.is_err(),
                changed = applied.changed(), if becoming => changed.is_err(),
            };
            if gone {
                self.leadership.send_replace(Leadership::Stopped);
                self.proposer.close();
                self.reads.close();
                return;
            }
        }
    }

    async fn stop_when_the_log_fails(self: Arc<Self>) {
        let reason = self.log.failed().await;
        tracing::error!(%reason, member = self.node_id, "this member stops: its log cannot be written");
        *self.failure.lock() = Some(reason.to_string());
        self.proposer.close();
        self.reads.close();
        self.stop_core().await;
    }

    /// Bounds what a restart has to apply again.
    async fn flush_now_and_then(self: Arc<Self>, interval: Duration) {
        let mut flushed: Option<LogId> = None;
        loop {
            tokio::time::sleep(interval).await;
            let applied = *self.applied.borrow();
            if applied == flushed {
                continue;
            }
            let state = Arc::clone(&self.state);
            let result =
                tokio::task::spawn_blocking(move || state.store().and_then(|store| store.flush())).await;
            match result {
                Ok(Ok(())) => flushed = applied,
                Ok(Err(error)) => tracing::error!(%error, "the state could not be flushed"),
                Err(panic) => tracing::error!(%panic, "flushing the state panicked"),
            }
        }
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn leader(id: Option<u64>, membership: &crate::types::Membership) -> Option<Leader> {
    let id = id?;
    Some(Leader { id, address: membership.get_node(&id)?.addr.clone() })
}

async fn within<T>(
    deadline: Instant,
    change: impl Future<Output = Result<T, RaftError<u64, ClientWriteError<u64, BasicNode>>>>,
) -> Result<(), MembershipError> {
    let result =
        tokio::time::timeout_at(deadline.into(), change).await.map_err(|_| MembershipError::Timeout)?;
    result.map(|_| ()).map_err(|error| match error {
        RaftError::Fatal(_) => MembershipError::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: leader_of(&forward) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
            _,
        ))) => MembershipError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(refused)) => {
            MembershipError::Refused { reason: refused.to_string() }
        }
    })
}

/// openraft's settings. A follower stands for election when it heard nothing for openraft's lease (its
/// `election_timeout_max`) and then a random time between its two bounds: so openraft gets half of ours.
fn core_config(config: &RaftConfig) -> Result<openraft::Config, OpenError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let heartbeat = millis(config.heartbeat);
    let lease = millis(config.lease());
    let random_min =
        millis(config.election_timeout_min).saturating_sub(lease).clamp(heartbeat + 1, lease - 1);
    let core = openraft::Config {
        cluster_name: format!("member {}", config.node_id),
        heartbeat_interval: heartbeat,
        election_timeout_min: random_min,
        election_timeout_max: lease,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: 256,
        replication_lag_threshold: 1000,
        ..openraft::Config::default()
    };
    core.validate().map_err(|error| OpenError::Core(Arc::new(error)))
}
