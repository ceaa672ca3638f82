//! openraft's types as the kit uses them. Nothing outside the kit sees them.

use std::sync::Arc;

use bytes::Bytes;
use openraft::BasicNode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::propose::EntryWaiters;
use crate::snapshot::SnapshotHandle;

openraft::declare_raft_types!(
    /// The types of every Raft group of the kit.
    pub(crate) TypeConfig:
        D = EntryData,
        R = EntryReplies,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotHandle,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;

/// The core's handle, with a `Debug`.
#[derive(Clone)]
pub(crate) struct Raft(pub(crate) openraft::Raft<TypeConfig>);

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raft")
    }
}

impl std::ops::Deref for Raft {
    type Target = openraft::Raft<TypeConfig>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// What a normal entry holds: a batch of commands, encoded once by its proposer ([`crate::batch`]).
#[derive(Clone, Default)]
pub(crate) struct EntryData {
    pub(crate) bytes: Bytes,
    /// Who waits for the replies, on the member that proposed it and while the entry is in memory.
    pub(crate) waiters: Option<Arc<EntryWaiters>>,
}

/// One reply per command of an entry; empty for entries without commands.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryReplies(pub(crate) Vec<Result<Bytes, Refusal>>);

/// Why a command of an entry was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    SessionExpired,
    ReplyGone { seq: u64 },
}

impl std::fmt::Debug for EntryData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryData({} bytes)", self.bytes.len())
    }
}

// openraft asks for serde on these; the log and the wire have their own encoding and never use it.
impl Serialize for EntryData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for EntryData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(Self { bytes: bytes.into(), waiters: None })
    }
}

impl Serialize for EntryReplies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for EntryReplies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::default())
    }
}
