//! Wire types to openraft's and back. What came from the network is checked here.

use kuafu::Status;
use openraft::CommittedLeaderId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use crate::log::record::decode_wire;
use crate::pb;
use crate::pb::append_reply::Outcome;
use crate::types::{LogId, TypeConfig, Vote};

pub(crate) fn log_id_to_wire(id: LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_from_wire(id: &pb::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

pub(crate) fn vote_to_wire(vote: Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: Option<&pb::Vote>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| Status::invalid_argument("the vote is missing"))?;
    let mut out = Vote::new(vote.term, vote.node);
    out.committed = vote.committed;
    Ok(out)
}

pub(crate) fn vote_request(message: &pb::VoteRequest) -> Result<VoteRequest<u64>, Status> {
    Ok(VoteRequest {
        vote: vote_from_wire(message.vote.as_ref())?,
        last_log_id: message.last_log_id.as_ref().map(log_id_from_wire),
    })
}

pub(crate) fn vote_reply(response: &VoteResponse<u64>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_wire(response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id_to_wire),
    }
}

pub(crate) fn vote_response(message: &pb::VoteReply) -> Result<VoteResponse<u64>, Status> {
    Ok(VoteResponse {
        vote: vote_from_wire(message.vote.as_ref())?,
        vote_granted: message.granted,
        last_log_id: message.last_log_id.as_ref().map(log_id_from_wire),
    })
}

pub(crate) fn append_request(
    message: &pb::AppendRequest,
    payload: kuafu::Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries = decode_wire(payload).map_err(Status::invalid_argument)?;
    let prev_log_id = message.prev_log_id.as_ref().map(log_id_from_wire);
    let expected = prev_log_id.map_or(0, |id| id.index + 1)..;
    if entries.iter().zip(expected).any(|(entry, expected)| entry.log_id.index != expected) {
        return Err(Status::invalid_argument("the entries are not consecutive"));
    }
    if entries.len() != message.count as usize {
        return Err(Status::invalid_argument("the number of entries is not what was announced"));
    }
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(message.vote.as_ref())?,
        prev_log_id,
        entries,
        leader_commit: message.leader_commit.as_ref().map(log_id_from_wire),
    })
}

pub(crate) fn append_reply(response: &AppendEntriesResponse<u64>) -> pb::AppendReply {
    let mut reply = pb::AppendReply::default();
    match response {
        AppendEntriesResponse::Success => reply.set_outcome(Outcome::Success),
        AppendEntriesResponse::PartialSuccess(matching) => {
            reply.set_outcome(Outcome::Partial);
            reply.matching = matching.map(log_id_to_wire);
        }
        AppendEntriesResponse::Conflict => reply.set_outcome(Outcome::Conflict),
        AppendEntriesResponse::HigherVote(vote) => {
            reply.set_outcome(Outcome::HigherVote);
            reply.vote = Some(vote_to_wire(*vote));
        }
    }
    reply
}

pub(crate) fn append_response(message: &pb::AppendReply) -> Result<AppendEntriesResponse<u64>, Status> {
    match message.outcome() {
        Outcome::Success => Ok(AppendEntriesResponse::Success),
        Outcome::Partial => {
            Ok(AppendEntriesResponse::PartialSuccess(message.matching.as_ref().map(log_id_from_wire)))
        }
        Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
        Outcome::HigherVote => Ok(AppendEntriesResponse::HigherVote(vote_from_wire(message.vote.as_ref())?)),
        Outcome::Unspecified => Err(Status::internal("the peer answered an append with no outcome")),
    }
}
