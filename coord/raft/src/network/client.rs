//! openraft's network: calls to the other members. Holds gate (a) of the parallel flush: an answer counts only when
//! what it confirms is durable here too.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{Address, Bytes, CallOptions, Client, ClientConfig, Status};
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AnyError, BasicNode, OptionalSend};
use parking_lot::Mutex;

use crate::lease::Lease;
use crate::log::LogStore;
use crate::log::record::encode_wire;
use crate::network::convert;
use crate::network::given_up::GivenUp;
use crate::network::thrift::{LINGER, Thrift};
use crate::pb::{self, RaftPeerClient};
use crate::snapshot::SnapshotDir;
use crate::types::{LogId, TypeConfig, Vote};

/// One piece of a snapshot's file: large requests cost a third of the CPU of small ones.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// The receiver copies, syncs and opens a store.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// When a cluster is formed, for each other member.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// A member that cannot be reached is tried again after these, the last one over and over.
const BACKOFF_MS: [u64; 5] = [10, 20, 50, 100, 200];
/// openraft tells every follower of every commit by a request without entries: with one command at a time that is
/// as many messages and wake-ups again as the command itself took. A follower that answered a request sent this
/// recently is not told: the next entries, or the next heartbeat, carry the commit. Far below the heartbeat, so that
/// followers hear the leader at least once in one and a fifth of it. One that is read from says so in its answers, and is
/// told.
const QUIET: Duration = Duration::from_millis(50);

type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;

/// Makes a [`Peer`] per call; connections are kept and shared.
#[derive(Debug)]
pub(crate) struct Network {
    log: LogStore,
    lease: Arc<Lease>,
    given_up: Arc<GivenUp>,
    connections: HashMap<String, RaftPeerClient>,
    thrift: Arc<Mutex<Thrift>>,
    away: Arc<Mutex<BTreeSet<u64>>>,
    transport: ClientConfig,
}

impl Network {
    pub(crate) fn new(
        node_id: u64,
        log: LogStore,
        lease: Arc<Lease>,
        given_up: Arc<GivenUp>,
        transport: ClientConfig,
    ) -> Self {
        let thrift = Arc::new(Mutex::new(Thrift::new(node_id)));
        Self { log, lease, given_up, connections: HashMap::new(), thrift, away: Arc::default(), transport }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let client = match self.connections.get(&node.addr) {
            Some(client) => Ok(client.clone()),
            None => node.addr.parse::<Address>().map(|address| {
                let client = RaftPeerClient::new(Client::new(address, self.transport.clone()));
                self.connections.insert(node.addr.clone(), client.clone());
                client
            }),
        };
        let client = client.map_err(|error| {
            tracing::error!(%error, member = target, "the address of a member is wrong");
            Status::invalid_argument(error.to_string())
        });
        Peer {
            target,
            client,
            log: self.log.clone(),
            lease: Arc::clone(&self.lease),
            given_up: Arc::clone(&self.given_up),
            thrift: Arc::clone(&self.thrift),
            confirmed: None,
            follows_closely: false,
            away: Arc::clone(&self.away),
        }
    }
}

/// The last log index of another member (0 if it has no log), if it answers at once. Asked by a vote request that nobody
/// grants: of term 0.
pub(crate) async fn last_log_index(id: u64, address: &str, transport: &ClientConfig) -> Option<u64> {
    let client = RaftPeerClient::new(Client::new(address.parse().ok()?, transport.clone()));
    let message =
        pb::VoteRequest { target: id, vote: Some(pb::Vote::default()), last_log_id: None, given_up: None };
    let reply = client.vote(&message, &CallOptions::within(ASK_TIMEOUT)).await.ok()?;
    Some(reply.message.last_log_id.map_or(0, |last| last.index))
}

/// Asks a member to stand for election in the place of the leader that gave up `vote`. True: it does.
pub(crate) async fn hand_over(
    (id, address): (u64, &str),
    vote: Vote,
    last_log_id: Option<LogId>,
    timeout: Duration,
    transport: &ClientConfig,
) -> Result<bool, Status> {
    let address = address.parse::<Address>().map_err(|error| Status::invalid_argument(error.to_string()))?;
    let client = RaftPeerClient::new(Client::new(address, transport.clone()));
    let message = pb::HandOverRequest {
        target: id,
        vote: Some(convert::vote_to_wire(vote)),
        last_log_id: last_log_id.map(convert::log_id_to_wire),
    };
    client.hand_over(&message, &CallOptions::within(timeout)).await.map(|reply| reply.message.accepted)
}

/// Keeps a call open at the leader of `vote` for as long as it leads, at most for half of `timeout`. An error says that the
/// call could not be made, or broke off.
pub(crate) async fn attend(
    client: &RaftPeerClient,
    leader: u64,
    vote: Vote,
    timeout: Duration,
) -> Result<(), Status> {
    let message = pb::AttendRequest { target: leader, vote: Some(convert::vote_to_wire(vote)) };
    client.attend(&message, &CallOptions::within(timeout)).await.map(|_| ())
}

/// Another member.
#[derive(Debug)]
pub(crate) struct Peer {
    target: u64,
    client: Result<RaftPeerClient, Status>,
    log: LogStore,
    lease: Arc<Lease>,
    given_up: Arc<GivenUp>,
    thrift: Arc<Mutex<Thrift>>,
    confirmed: Option<Confirmed>,
    /// By its last answer it wants to be told at once what is committed.
    follows_closely: bool,
    /// Whom the last attempt did not reach. Of all peers there are: openraft makes new ones whenever a read asks a majority.
    away: Arc<Mutex<BTreeSet<u64>>>,
}

/// What the member last confirmed to hold, under which vote, and when it was asked.
#[derive(Debug)]
struct Confirmed {
    vote: Vote,
    log_id: LogId,
    /// What it was told is committed.
    commit: Option<LogId>,
    sent_at: Instant,
}

impl Confirmed {
    /// Whether `rpc` would only repeat what was confirmed just now. It is answered without being sent then: it says
    /// nothing new about the member's log, and the lease learns of requests that were really sent only.
    fn covers(&self, rpc: &AppendEntriesRequest<TypeConfig>, closely: bool, now: Instant) -> bool {
        let is_news = closely && rpc.leader_commit > self.commit;
        !is_news
            && rpc.entries.is_empty()
            && rpc.vote == self.vote
            && rpc.prev_log_id == Some(self.log_id)
            && now.saturating_duration_since(self.sent_at) < QUIET
    }
}

/// Not `Network`: openraft tries those again at once, over and over.
fn unreachable<E: std::error::Error + 'static>(error: &E) -> Unreachable {
    Unreachable::new(error)
}

impl Peer {
    /// Says once that the member is away, and once that it is back. openraft's own lines, one for each attempt, are
    /// not shown unless asked for.
    fn note_reach(&self, failed: Option<&Unreachable>) {
        match failed {
            Some(error) if self.away.lock().insert(self.target) => {
                tracing::warn!(member = self.target, %error, "a member cannot be reached; trying again");
            }
            None if self.away.lock().remove(&self.target) => {
                tracing::info!(member = self.target, "a member is back");
            }
            _ => {}
        }
    }

    fn client(&self) -> Result<&RaftPeerClient, Unreachable> {
        self.client.as_ref().map_err(unreachable)
    }

    /// Lets a spare follower's entries wait for more. True: they did.
    async fn linger(&self, rpc: &AppendEntriesRequest<TypeConfig>, now: Instant) -> bool {
        let Some(last) = rpc.entries.last() else { return false };
        if self.follows_closely {
            return false;
        }
        let membership = self.log.effective_membership();
        let entries = rpc.entries.len();
        if !self.thrift.lock().lingers(&rpc.vote, membership.as_deref(), self.target, entries, now) {
            return false;
        }
        tokio::time::sleep(LINGER).await;
        self.thrift.lock().lingered(membership.as_deref(), last.log_id.index, Instant::now());
        true
    }

    async fn send_append(
        &mut self,
        rpc: &AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<AppendEntriesResponse<u64>, Unreachable> {
        let message = pb::AppendRequest {
            target: self.target,
            vote: Some(convert::vote_to_wire(rpc.vote)),
            prev_log_id: rpc.prev_log_id.map(convert::log_id_to_wire),
            leader_commit: rpc.leader_commit.map(convert::log_id_to_wire),
            count: u32::try_from(rpc.entries.len()).expect("a few hundred entries at most"),
        };
        let payload = encode_wire(&rpc.entries);
        let options = CallOptions::within(timeout);
        let sent_at = Instant::now();
        // What the request carries was read from the log, so it was submitted before this.
        let submission = self.log.submitted();
        let reply = self.client()?.append_with_payload(&message, payload, &options).await;
        let reply = reply.map_err(|status| unreachable(&status))?.message;
        self.follows_closely = reply.follows_closely;
        let response = convert::append_response(&reply).map_err(|status| unreachable(&status))?;
        match &response {
            AppendEntriesResponse::HigherVote(_) => {}
            AppendEntriesResponse::Conflict => self.lease.answered(&rpc.vote, self.target, sent_at),
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
                self.lease.answered(&rpc.vote, self.target, sent_at);
                // Gate (a).
                self.log.durable(submission).await.map_err(|error| unreachable(&error))?;
            }
        }
        Ok(response)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: &SnapshotDir) -> Result<Vote, Unreachable> {
        let client = self.client()?;
        let status = |status: Status| unreachable(&status);
        let files = &snapshot.manifest.files;
        let id = &snapshot.manifest.meta.snapshot_id;
        let begin = pb::SnapshotBeginRequest {
            target: self.target,
            vote: Some(convert::vote_to_wire(vote)),
            id: id.clone(),
            files: files
                .iter()
                .map(|file| pb::SnapshotFile { name: file.name.clone(), len: file.len })
                .collect(),
        };
        let meta = serde_json::to_vec(&snapshot.manifest.meta).map_err(|error| unreachable(&error))?;
        let options = CallOptions::within(PIECE_TIMEOUT);
        let begun =
            client.snapshot_begin_with_payload(&begin, meta.into(), &options).await.map_err(status)?;
        if let Some(higher) = &begun.message.higher_vote {
            return convert::vote_from_wire(Some(higher)).map_err(status);
        }
        let mut crc32c = Vec::with_capacity(files.len());
        for (i, file) in files.iter().enumerate() {
            crc32c.push(self.send_file(snapshot, i, file.len).await?);
        }
        let finish = pb::SnapshotFinishRequest {
            target: self.target,
            vote: Some(convert::vote_to_wire(vote)),
            id: id.clone(),
            crc32c,
        };
        let options = CallOptions::within(INSTALL_TIMEOUT);
        let finished = client.snapshot_finish(&finish, &options).await.map_err(status)?;
        convert::vote_from_wire(finished.message.vote.as_ref()).map_err(status)
    }

    async fn send_file(&self, snapshot: &SnapshotDir, index: usize, len: u64) -> Result<u32, Unreachable> {
        let path = snapshot.path.join(&snapshot.manifest.files[index].name);
        let source = Arc::new(std::fs::File::open(&path).map_err(|error| unreachable(&error))?);
        let (mut offset, mut crc) = (0, 0);
        while offset < len {
            let piece_len = usize::try_from(len - offset).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
            let source = Arc::clone(&source);
            let piece = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; piece_len];
                source.read_exact_at(&mut piece, offset).map(|()| Bytes::from(piece))
            })
            .await
            .map_err(|error| unreachable(&error))?
            .map_err(|error| unreachable(&error))?;
            crc = crc32c::crc32c_append(crc, &piece);
            let message = pb::SnapshotPieceRequest {
                target: self.target,
                id: snapshot.manifest.meta.snapshot_id.clone(),
                file: u32::try_from(index).expect("a store has fewer files"),
                offset,
            };
            let options = CallOptions::within(PIECE_TIMEOUT);
            let sent = self.client()?.snapshot_piece_with_payload(&message, piece, &options).await;
            sent.map_err(|status| unreachable(&status))?;
            offset += piece_len as u64;
        }
        Ok(crc)
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let sent_at = Instant::now();
        if self
            .confirmed
            .as_ref()
            .is_some_and(|confirmed| confirmed.covers(&rpc, self.follows_closely, sent_at))
        {
            return Ok(AppendEntriesResponse::Success);
        }
        self.confirmed = None;
        let sent_at = if self.linger(&rpc, sent_at).await { Instant::now() } else { sent_at };
        let response = self.send_append(&rpc, option.hard_ttl()).await;
        self.note_reach(response.as_ref().err());
        let response = response.map_err(RPCError::Unreachable)?;
        if response == AppendEntriesResponse::Success {
            let log_id = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
            if let Some(last) = rpc.entries.last() {
                let now = Instant::now();
                let took = now.saturating_duration_since(sent_at);
                self.thrift.lock().answered(&rpc.vote, self.target, last.log_id.index, took, now);
            }
            let (vote, commit) = (rpc.vote, rpc.leader_commit);
            self.confirmed = log_id.map(|log_id| Confirmed { vote, log_id, commit, sent_at });
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let message = pb::VoteRequest {
            target: self.target,
            vote: Some(convert::vote_to_wire(rpc.vote)),
            last_log_id: rpc.last_log_id.map(convert::log_id_to_wire),
            given_up: self.given_up.before(&rpc.vote).map(convert::vote_to_wire),
        };
        let options = CallOptions::within(option.hard_ttl());
        let reply = self.client().map_err(RPCError::Unreachable)?.vote(&message, &options).await;
        let reply = reply.and_then(|reply| convert::vote_response(&reply.message));
        reply.map_err(|status| RPCError::Unreachable(unreachable(&status)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let Some(dir) = snapshot.snapshot.0.clone() else {
            let empty = AnyError::error("the snapshot has no files");
            return Err(StreamingError::Unreachable(Unreachable::from(empty)));
        };
        tokio::select! {
            sent = self.send_snapshot(vote, &dir) => {
                sent.map(SnapshotResponse::new).map_err(StreamingError::Unreachable)
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    #[test]
    fn only_a_fresh_repetition_is_left_unsent() {
        let log_id = |index| LogId::new(CommittedLeaderId::new(1, 1), index);
        let vote = Vote::new_committed(1, 1);
        let sent_at = Instant::now();
        let confirmed = Confirmed { vote, log_id: log_id(7), commit: Some(log_id(6)), sent_at };
        let rpc = |vote, prev| AppendEntriesRequest::<TypeConfig> {
            vote,
            prev_log_id: Some(log_id(prev)),
            entries: Vec::new(),
            leader_commit: Some(log_id(prev)),
        };
        let covers = |rpc, after| confirmed.covers(&rpc, false, sent_at + after);
        assert!(covers(rpc(vote, 7), QUIET / 2));
        assert!(!covers(rpc(vote, 7), QUIET), "a heartbeat must be sent");
        assert!(!covers(rpc(vote, 6), Duration::ZERO), "it asks about another index");
        assert!(!covers(rpc(Vote::new_committed(2, 1), 7), Duration::ZERO), "another leadership");
        assert!(!confirmed.covers(&rpc(vote, 7), true, sent_at), "whoever wants to know is told");
        let told = Confirmed { commit: Some(log_id(7)), ..confirmed };
        assert!(told.covers(&rpc(vote, 7), true, sent_at), "once");
    }
}
