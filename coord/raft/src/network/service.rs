//! What the other members call. Holds gate (b) of the parallel flush: an append is answered only when this member's
//! log is durable. Also holds the gate of the lease: a member that restarted votes for nobody until a promise it may have
//! given before is over.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kuafu::{Request, Response, Status};
use openraft::raft::{AppendEntriesResponse, VoteResponse};
use openraft::storage::Snapshot;

use crate::joining::Joining;
use crate::log::LogStore;
use crate::network::convert;
use crate::network::receive::Incoming;
use crate::pb::{self, RaftPeer};
use crate::snapshot::{SnapshotHandle, SnapshotStore};
use crate::types::Raft;

/// Answers the other members.
#[derive(Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

struct Inner {
    node_id: u64,
    raft: OnceLock<Raft>,
    log: LogStore,
    snapshots: Arc<SnapshotStore>,
    joining: Arc<Joining>,
    /// No votes before this.
    votes_from: Option<Instant>,
    incoming: Arc<tokio::sync::Mutex<Option<Incoming>>>,
}

impl std::fmt::Debug for PeerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerService").field("node_id", &self.inner.node_id).finish_non_exhaustive()
    }
}

impl PeerService {
    /// `promise`: how long a member that heard a leader votes for no other.
    pub(crate) fn new(
        node_id: u64,
        log: LogStore,
        joining: Arc<Joining>,
        snapshots: Arc<SnapshotStore>,
        promise: Duration,
    ) -> Self {
        // A member that never voted nor held an entry has promised nothing.
        let votes_from = (!log.is_fresh()).then(|| Instant::now() + promise);
        let inner = Inner {
            node_id,
            raft: OnceLock::new(),
            log,
            snapshots,
            joining,
            votes_from,
            incoming: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The core exists: calls may be passed to it.
    pub(crate) fn start(&self, raft: Raft) {
        let _ = self.inner.raft.set(raft);
    }

    fn raft(&self, target: u64) -> Result<&Raft, Status> {
        if target != self.inner.node_id {
            let text = format!("this is member {}, member {target} was meant", self.inner.node_id);
            return Err(Status::invalid_argument(text));
        }
        self.inner.raft.get().ok_or_else(|| Status::unavailable("the member is starting"))
    }

    fn may_vote(&self, request: &pb::VoteRequest) -> bool {
        let in_promise = self.inner.votes_from.is_some_and(|from| Instant::now() < from);
        let forms_cluster = request.last_log_id.as_ref().is_some_and(|last| last.index == 0);
        !in_promise && (forms_cluster || !self.inner.joining.is_on())
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
        if !self.may_vote(&request.message) {
            let (vote, last_log_id) = self.inner.log.vote_and_last();
            let refused = VoteResponse { vote: vote.unwrap_or_default(), vote_granted: false, last_log_id };
            return Ok(Response::new(convert::vote_reply(&refused)));
        }
        let response =
            raft.vote(convert::vote_request(&request.message)?).await.map_err(|error| stopped(&error))?;
        Ok(Response::new(convert::vote_reply(&response)))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendReply>, Status> {
        let raft = self.raft(request.message.target)?;
        let rpc = convert::append_request(&request.message, request.payload)?;
        let response = raft.append_entries(rpc).await.map_err(|error| stopped(&error))?;
        if matches!(response, AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)) {
            // Gate (b).
            let submission = self.inner.log.submitted();
            self.inner.log.durable(submission).await.map_err(|error| stopped(&error))?;
            self.joined(raft, request.message.leader_commit.as_ref())?;
        }
        Ok(Response::new(convert::append_reply(&response)))
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
        let response = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| stopped(&error))?;
        Ok(Response::new(pb::SnapshotFinishReply { vote: Some(convert::vote_to_wire(response.vote)) }))
    }
}
