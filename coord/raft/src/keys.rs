//! All keys and values of the kit's own families. Numbers in keys are big-endian, so that byte order is their order;
//! in values little-endian.

use coord_kv::{Family, FamilySpec, KvError, Range};
use coord_types::SessionId;
use openraft::CommittedLeaderId;

use crate::types::LogId;

/// The kit's families, which stand behind the service's in the store.
pub(crate) const KIT_FAMILIES: [FamilySpec; 3] = [
    FamilySpec { name: "raft_meta", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "raft_sessions", bloom: true, prefix_len_bytes: None },
    FamilySpec { name: "raft_replies", bloom: true, prefix_len_bytes: Some(8) },
];

/// Where the kit's families are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KitFamilies {
    pub(crate) meta: Family,
    pub(crate) sessions: Family,
    pub(crate) replies: Family,
}

impl KitFamilies {
    /// Behind `service` families of the service.
    pub(crate) fn behind(service: usize) -> Self {
        let at = |i: usize| Family(u8::try_from(service + i).expect("a store has at most 255 families"));
        Self { meta: at(0), sessions: at(1), replies: at(2) }
    }
}

/// Log id of the last entry in the state.
pub(crate) const APPLIED: &[u8] = b"applied";
/// openraft's stored membership, JSON.
pub(crate) const MEMBERSHIP: &[u8] = b"membership";
/// Time of the last command.
pub(crate) const TIME: &[u8] = b"time";

pub(crate) fn log_id_value(id: LogId) -> Vec<u8> {
    [id.leader_id.term, id.leader_id.node_id, id.index].iter().flat_map(|field| field.to_le_bytes()).collect()
}

pub(crate) fn parse_log_id(value: &[u8]) -> Result<LogId, KvError> {
    let field =
        |at: usize| value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match (value.len(), field(0), field(8), field(16)) {
        (24, Some(term), Some(node), Some(index)) => {
            Ok(LogId::new(CommittedLeaderId::new(term, node), index))
        }
        _ => Err(corrupt("the applied log id has a wrong length")),
    }
}

pub(crate) fn parse_number(value: &[u8]) -> Result<u64, KvError> {
    value.try_into().map(u64::from_le_bytes).map_err(|_| corrupt("a number has a wrong length"))
}

pub(crate) fn corrupt(reason: &str) -> KvError {
    KvError::Corrupt { path: "raft state".to_owned(), reason: reason.to_owned() }
}

/// Value: everything below this sequence number was acknowledged.
pub(crate) fn session_key(session: SessionId) -> [u8; 8] {
    session.0.to_be_bytes()
}

/// Value: the reply.
pub(crate) fn reply_key(session: SessionId, seq: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&session.0.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(crate) fn split_reply_key(key: &[u8]) -> Option<(u64, u64)> {
    let (session, number) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*session), u64::from_be_bytes(number.try_into().ok()?)))
}

/// Replies of a session numbered `from..below`.
pub(crate) fn reply_range(session: SessionId, from: u64, below: u64) -> Range {
    Range {
        start: reply_key(session, from).to_vec(),
        end_exclusive: Some(reply_key(session, below).to_vec()),
    }
}

/// All replies of a session.
pub(crate) fn replies_of(session: SessionId) -> Range {
    Range::prefix(&session.0.to_be_bytes())
}
