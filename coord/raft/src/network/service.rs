//! What the other members call. Holds gate (b) of the parallel flush: an append is answered only when this member's
//! log is durable. Also holds the gate of the lease: a member that restarted votes for nobody until a promise it may have
//! given before is over.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kuafu::{Request, Response, Status};
use openraft::CommittedLeaderId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteResponse};
use openraft::storage::Snapshot;
use parking_lot::Mutex;

use crate::joining::Joining;
use crate::lease::Lease;
use crate::log::LogStore;
use crate::network::convert;
use crate::network::given_up::GivenUp;
use crate::network::receive::Incoming;
use crate::pb::{self, RaftPeer};
use crate::snapshot::{SnapshotHandle, SnapshotStore};
use crate::types::{LogId, Raft, Vote};

/// Answers the other members.
#[derive(Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

/// Whoever reads from a follower comes again within this, or needs no hurry.
const CLOSELY: Duration = Duration::from_secs(2);

struct Inner {
    node_id: u64,
    raft: OnceLock<Raft>,
    log: LogStore,
    lease: Arc<Lease>,
    given_up: Arc<GivenUp>,
    snapshots: Arc<SnapshotStore>,
    joining: Arc<Joining>,
    promise: Duration,
    /// When this member last accepted something from a leader; a little late rather than early.
    heard: Mutex<Option<Instant>>,
    /// Until then this member wants to be told at once what is committed.
    closely_until: Mutex<Option<Instant>>,
    /// No votes before this, for what was promised under this vote before a restart.
    votes_from: Option<(Instant, Vote)>,
    incoming: Arc<tokio::sync::Mutex<Option<Incoming>>>,
}

impl std::fmt::Debug for PeerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerService").field("node_id", &self.inner.node_id).finish_non_exhaustive()
    }
}

/// What the service works on.
pub(crate) struct PeerParts {
    pub(crate) node_id: u64,
    pub(crate) log: LogStore,
    pub(crate) lease: Arc<Lease>,
    pub(crate) given_up: Arc<GivenUp>,
    pub(crate) joining: Arc<Joining>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    /// How long a member that heard a leader votes for no other.
    pub(crate) promise: Duration,
}

impl PeerService {
    pub(crate) fn new(parts: PeerParts) -> Self {
        let PeerParts { node_id, log, lease, given_up, joining, snapshots, promise } = parts;
        // A member that never voted nor held an entry has promised nothing.
        let promised = log.vote_and_last().0.unwrap_or_default();
        let votes_from = (!log.is_fresh()).then(|| (Instant::now() + promise, promised));
        let inner = Inner {
            node_id,
            raft: OnceLock::new(),
            log,
            lease,
            given_up,
            snapshots,
            joining,
            promise,
            heard: Mutex::default(),
            closely_until: Mutex::default(),
            votes_from,
            incoming: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The core exists: calls may be passed to it.
    pub(crate) fn start(&self, raft: Raft) {
        let _ = self.inner.raft.set(raft);
    }

    /// See [`RaftNode::follow_closely`](crate::RaftNode::follow_closely).
    pub(crate) fn follow_closely(&self) {
        *self.inner.closely_until.lock() = Some(Instant::now() + CLOSELY);
    }

    fn follows_closely(&self) -> bool {
        self.inner.closely_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn raft(&self, target: u64) -> Result<&Raft, Status> {
        if target != self.inner.node_id {
            let text = format!("this is member {}, member {target} was meant", self.inner.node_id);
            return Err(Status::invalid_argument(text));
        }
        self.inner.raft.get().ok_or_else(|| Status::unavailable("the member is starting"))
    }

    fn may_vote(&self, request: &pb::VoteRequest) -> bool {
        let binds =
            |(until, to): &(Instant, Vote)| Instant::now() < *until && !self.inner.given_up.covers(to);
        let in_promise = self.inner.votes_from.as_ref().is_some_and(binds);
        let forms_cluster = request.last_log_id.as_ref().is_some_and(|last| last.index == 0);
        !in_promise && (forms_cluster || !self.inner.joining.is_on())
    }

    /// Whether the candidate knows that the leader that this member follows leads no more. It is noted: the promise made to that
    /// leader binds no more.
    fn learn_over(&self, request: &pb::VoteRequest) -> Result<bool, Status> {
        let Some(over) = &request.given_up else { return Ok(false) };
        let over = convert::vote_from_wire(Some(over))?;
        let own_word = over.leader_id.node_id != self.inner.node_id || self.inner.lease.has_given_up(&over);
        let followed = over.committed && own_word && self.inner.log.vote_and_last().0 == Some(over);
        if followed {
            self.inner.given_up.note(over);
        }
        Ok(followed)
    }

    /// The vote asked for, if this member may leave its leader for it. A candidate that lacks an entry would not be voted for.
    fn released_for(&self, request: &pb::VoteRequest) -> Result<Option<Vote>, Status> {
        let asked = convert::vote_from_wire(request.vote.as_ref())?;
        let (own, last) = self.inner.log.vote_and_last();
        let released = !asked.committed
            && asked.leader_id.node_id != self.inner.node_id
            && Some(asked) > own
            && request.last_log_id.as_ref().map(convert::log_id_from_wire) >= last;
        Ok(released.then_some(asked))
    }

    /// The vote of a candidate that this member refused for want of entries, if nobody leads any more, or this member is a
    /// candidate too: then it stands (again), at once and in a later term, and does not let two more timeouts pass. It is the
    /// usual case after a leader's death, as followers that no majority needs lag a little.
    fn better_than(
        &self,
        request: &pb::VoteRequest,
        refusal: &VoteResponse<u64>,
    ) -> Result<Option<Vote>, Status> {
        let asked = convert::vote_from_wire(request.vote.as_ref())?;
        let (own, last) = self.inner.log.vote_and_last();
        let Some(own) = own.filter(|own| *own == refusal.vote && asked > *own) else { return Ok(None) };
        let unheard = || self.inner.heard.lock().is_none_or(|heard| heard.elapsed() > self.inner.promise);
        let led_by_nobody = match (own.committed, own.leader_id.node_id == self.inner.node_id) {
            (true, false) => self.inner.given_up.covers(&own) || unheard(),
            (false, true) => true,
            (true, true) | (false, false) => false,
        };
        let stands = led_by_nobody
            && !asked.committed
            && last > request.last_log_id.as_ref().map(convert::log_id_from_wire)
            && !self.inner.joining.is_on();
        Ok(stands.then_some(asked))
    }

    /// Makes the core leave the leader it follows, and with it the lease: it takes `vote`, which is newer and nobody's
    /// leadership yet. Openraft has no call for it; an append request carries a vote in, and one that asks about an entry
    /// that no log has does nothing else.
    async fn leave_leader(&self, raft: &Raft, vote: Vote) -> Result<(), Status> {
        let (term, node) = (vote.leader_id.term, vote.leader_id.node_id);
        let nowhere = LogId::new(CommittedLeaderId::new(term, node), u64::MAX - 1);
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: Some(nowhere),
            entries: Vec::new(),
            leader_commit: None,
        };
        raft.append_entries(request).await.map(|_| ()).map_err(|error| stopped(&error))
    }

    /// A member that joins has caught up once it holds, durably, all its leader says is committed.
    fn joined(&self, raft: &Raft, leader_commit: Option<&pb::LogId>) -> Result<(), Status> {
        if !self.inner.joining.is_on() {
            return Ok(());
        }
        let last = self.inner.log.vote_and_last().1.map(|id| id.index);
        if leader_commit.is_some_and(|commit| last >= Some(commit.index)) {
            self.inner.joining.end().map_err(|error| stopped(&error))?;
            raft.runtime_config().elect(true);
            tracing::info!(member = self.inner.node_id, "this member has caught up and votes from now on");
        }
        Ok(())
    }

    /// Pieces are written on a thread that may block.
    async fn with_incoming<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<Incoming>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let mut incoming = Arc::clone(&self.inner.incoming).lock_owned().await;
        tokio::task::spawn_blocking(move || work(&mut incoming))
            .await
            .map_err(|panic| Status::internal(panic.to_string()))?
    }
}

fn stopped(error: &dyn std::error::Error) -> Status {
    Status::unavailable(format!("the member has stopped: {error}"))
}

impl RaftPeer for PeerService {
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let over = self.learn_over(&request.message)?;
        if !self.may_vote(&request.message) {
            let (vote, last_log_id) = self.inner.log.vote_and_last();
            let refused = VoteResponse { vote: vote.unwrap_or_default(), vote_granted: false, last_log_id };
            return Ok(Response::new(convert::vote_reply(&refused)));
        }
        if over && let Some(vote) = self.released_for(&request.message)? {
            self.leave_leader(raft, vote).await?;
        }
        let response =
            raft.vote(convert::vote_request(&request.message)?).await.map_err(|error| stopped(&error))?;
        if !response.vote_granted
            && let Some(vote) = self.better_than(&request.message, &response)?
        {
            tracing::debug!(
                member = self.inner.node_id,
                "a candidate lacks what this member holds: standing too"
            );
            self.leave_leader(raft, vote).await?;
            raft.trigger().elect().await.map_err(|error| stopped(&error))?;
        }
        Ok(Response::new(convert::vote_reply(&response)))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let rpc = convert::append_request(&request.message, request.payload)?;
        let response = raft.append_entries(rpc).await.map_err(|error| stopped(&error))?;
        if matches!(response, AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)) {
            *self.inner.heard.lock() = Some(Instant::now());
            // Gate (b).
            let submission = self.inner.log.submitted();
            self.inner.log.durable(submission).await.map_err(|error| stopped(&error))?;
            self.joined(raft, request.message.leader_commit.as_ref())?;
        }
        let follows_closely = self.follows_closely();
        Ok(Response::new(pb::AppendReply { follows_closely, ..convert::append_reply(&response) }))
    }

    async fn attend(&self, request: Request<pb::AttendRequest>) -> Result<Response<pb::AttendReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let vote = convert::vote_from_wire(request.message.vote.as_ref())?;
        let mut server = raft.server_metrics();
        let over = server.wait_for(|now| now.vote != vote);
        // Whichever comes first: the caller asks again if it still follows.
        let _ = tokio::time::timeout(request.remaining() / 2, over).await;
        Ok(Response::new(pb::AttendReply {}))
    }

    async fn hand_over(
        &self,
        request: Request<pb::HandOverRequest>,
    ) -> Result<Response<pb::HandOverReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let given_up = convert::vote_from_wire(request.message.vote.as_ref())?;
        let (own, last) = self.inner.log.vote_and_last();
        let accepted = given_up.committed
            && own == Some(given_up)
            && given_up.leader_id.node_id != self.inner.node_id
            && last >= request.message.last_log_id.as_ref().map(convert::log_id_from_wire)
            && !self.inner.joining.is_on();
        if accepted {
            tracing::info!(from = given_up.leader_id.node_id, "the leader gives up in favour of this member");
            self.inner.given_up.note(given_up);
            raft.trigger().elect().await.map_err(|error| stopped(&error))?;
        }
        Ok(Response::new(pb::HandOverReply { accepted }))
    }

    async fn snapshot_begin(
        &self,
        request: Request<pb::SnapshotBeginRequest>,
    ) -> Result<Response<pb::SnapshotBeginReply>, Status> {
        self.raft(request.message.target)?;
        let vote = convert::vote_from_wire(request.message.vote.as_ref())?;
        let own = self.inner.log.vote_and_last().0;
        if let Some(own) = own.filter(|own| *own > vote) {
            let reply = pb::SnapshotBeginReply { higher_vote: Some(convert::vote_to_wire(own)) };
            return Ok(Response::new(reply));
        }
        let snapshots = Arc::clone(&self.inner.snapshots);
        self.with_incoming(move |incoming| {
            *incoming = None;
            *incoming = Some(Incoming::begin(&snapshots, &request.message, &request.payload)?);
            Ok(())
        })
        .await?;
        Ok(Response::new(pb::SnapshotBeginReply::default()))
    }

    async fn snapshot_piece(
        &self,
        request: Request<pb::SnapshotPieceRequest>,
    ) -> Result<Response<pb::SnapshotPieceReply>, Status> {
        self.raft(request.message.target)?;
        self.with_incoming(move |incoming| match incoming {
            Some(incoming) if incoming.id == request.message.id => {
                incoming.piece(&request.message, &request.payload)
            }
            _ => Err(Status::not_found("this snapshot is not being received")),
        })
        .await?;
        Ok(Response::new(pb::SnapshotPieceReply {}))
    }

    async fn snapshot_finish(
        &self,
        request: Request<pb::SnapshotFinishRequest>,
    ) -> Result<Response<pb::SnapshotFinishReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let vote = convert::vote_from_wire(request.message.vote.as_ref())?;
        let received = self
            .with_incoming(move |slot| match slot.take() {
                Some(incoming) if incoming.id == request.message.id => {
                    incoming.finish(&request.message.crc32c)
                }
                other => {
                    *slot = other;
                    Err(Status::not_found("this snapshot is not being received"))
                }
            })
            .await?;
        let snapshot = Snapshot { meta: received.0, snapshot: Box::new(SnapshotHandle(Some(received.1))) };
        let (log, raft) = (self.inner.log.clone(), raft.clone());
        // In a task of its own: once openraft has it, it goes on even if the caller has gone.
        let installing = tokio::spawn(async move {
            log.snapshot_under_way(snapshot.meta.last_log_id.map_or(0, |last| last.index));
            let response = raft.install_full_snapshot(vote, snapshot).await;
            log.snapshot_ended();
            response
        });
        let response = installing.await.map_err(|error| stopped(&error))?.map_err(|error| stopped(&error))?;
        *self.inner.heard.lock() = Some(Instant::now());
        Ok(Response::new(pb::SnapshotFinishReply { vote: Some(convert::vote_to_wire(response.vote)) }))
    }
}
