//! The master's own commands and replies as bytes. Append-only: a log written by an older master is applied by a newer.

use bytes::Bytes;
use coord_types::{DataId, DiskId, Epoch, GroupId, ServerId, SessionId};
use master_model::proto;
use prost::{Message, Oneof};

use super::{Command, CommandReply, INTERNAL, Initialize};
use crate::session::Ended;
use crate::table::change::{Change, Changed, GroupChange};
use crate::table::groups::Formed;
use crate::table::register::Registered;

/// A command or reply that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("decode the command: {0}")]
    Message(#[from] prost::DecodeError),
    #[error("the command is of a kind this version does not know")]
    Unknown,
}

#[derive(Clone, PartialEq, Message)]
struct Internal {
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    op: Option<Op>,
    /// Of the session that is opened. Not within the operation, so that a master which does not know it opens the session all
    /// the same: the numbers of sessions stay in step while masters are replaced one by one.
    #[prost(string, tag = "12")]
    owner: String,
}

#[derive(Clone, PartialEq, Oneof)]
enum Op {
    #[prost(message, tag = "1")]
    Initialize(Initialize),
    #[prost(string, tag = "2")]
    OpenSession(String),
    #[prost(uint64, tag = "3")]
    EndSession(u64),
    #[prost(message, tag = "4")]
    RegisterServer(proto::RegisterServerRequest),
    #[prost(bool, tag = "5")]
    FormGroups(bool),
    #[prost(message, tag = "6")]
    DeletionsDone(Ids),
    #[prost(message, tag = "7")]
    ChangeGroups(Changes),
    #[prost(message, tag = "8")]
    DrainDisks(DrainMessage),
    #[prost(bool, tag = "9")]
    NewEpoch(bool),
    #[prost(message, tag = "10")]
    SetReplicas(ReplicasMessage),
    #[prost(uint32, tag = "11")]
    FillParents(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ReplicasMessage {
    #[prost(uint32, tag = "1")]
    replicas: u32,
    #[prost(uint32, tag = "2")]
    min_replicas: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct DrainMessage {
    #[prost(uint32, repeated, tag = "1")]
    disks: Vec<u32>,
    #[prost(bool, tag = "2")]
    draining: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Changes {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeMessage>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ChangeMessage {
    #[prost(uint32, tag = "1")]
    group: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint32, tag = "3")]
    disk: u32,
    /// 1 out, 2 sync, 3 join, 4 settle, 5 replace, 6 lead, 7 lost, 8 add, 9 drop.
    #[prost(uint32, tag = "4")]
    kind: u32,
    /// Replace only: the disk that takes the place.
    #[prost(uint32, tag = "5")]
    spare: u32,
}

impl From<&GroupChange> for ChangeMessage {
    fn from(change: &GroupChange) -> Self {
        let (kind, disk, spare) = match change.change {
            Change::Out(disk) => (1, disk.0, 0),
            Change::Sync(disk) => (2, disk.0, 0),
            Change::Join(disk) => (3, disk.0, 0),
            Change::Settle(disk) => (4, disk.0, 0),
            Change::Replace { absent, spare } => (5, absent.0, spare.0),
            Change::Lead(disk) => (6, disk.0, 0),
            Change::Lost(disk) => (7, disk.0, 0),
            Change::Add(disk) => (8, disk.0, 0),
            Change::Drop(disk) => (9, disk.0, 0),
        };
        Self { group: change.group.0, epoch: change.epoch.0, disk, kind, spare }
    }
}

impl TryFrom<ChangeMessage> for GroupChange {
    type Error = DecodeError;

    fn try_from(message: ChangeMessage) -> Result<Self, DecodeError> {
        let disk = DiskId(message.disk);
        let change = match message.kind {
            1 => Change::Out(disk),
            2 => Change::Sync(disk),
            3 => Change::Join(disk),
            4 => Change::Settle(disk),
            5 => Change::Replace { absent: disk, spare: DiskId(message.spare) },
            6 => Change::Lead(disk),
            7 => Change::Lost(disk),
            8 => Change::Add(disk),
            9 => Change::Drop(disk),
            _ => return Err(DecodeError::Unknown),
        };
        Ok(Self { group: GroupId(message.group), epoch: Epoch(message.epoch), change })
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Ids {
    #[prost(uint64, repeated, tag = "1")]
    ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Answer {
    #[prost(string, tag = "1")]
    Initialized(String),
    #[prost(uint64, tag = "2")]
    SessionOpened(u64),
    /// Whether orphans are left.
    #[prost(bool, tag = "3")]
    SessionEnded(bool),
    #[prost(message, tag = "4")]
    Registered(RegisteredMessage),
    #[prost(message, tag = "5")]
    Formed(FormedMessage),
    #[prost(bool, tag = "6")]
    Done(bool),
    #[prost(string, tag = "7")]
    Refused(String),
    #[prost(message, tag = "8")]
    Changed(ChangedMessage),
    #[prost(bool, tag = "9")]
    TooEarly(bool),
    #[prost(uint64, tag = "10")]
    Epoch(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ChangedMessage {
    #[prost(uint32, tag = "1")]
    done: u32,
    #[prost(uint32, tag = "2")]
    skipped: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RegisteredMessage {
    #[prost(uint32, tag = "1")]
    server: u32,
    #[prost(uint32, repeated, tag = "2")]
    disks: Vec<u32>,
    #[prost(string, tag = "3")]
    cluster_id: String,
    #[prost(string, repeated, tag = "4")]
    warnings: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct FormedMessage {
    #[prost(uint32, tag = "1")]
    made: u32,
    #[prost(bool, tag = "2")]
    more: bool,
}

impl Command {
    /// As it goes into the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut of = String::new();
        let op = match self.clone() {
            Self::Initialize(op) => Op::Initialize(op),
            Self::OpenSession { description, owner } => {
                of = owner;
                Op::OpenSession(description)
            }
            Self::EndSession { session } => Op::EndSession(session.0),
            Self::RegisterServer(request) => Op::RegisterServer(request),
            Self::FormGroups => Op::FormGroups(true),
            Self::DeletionsDone { data } => {
                Op::DeletionsDone(Ids { ids: data.into_iter().map(|data| data.0).collect() })
            }
            Self::NewEpoch => Op::NewEpoch(true),
            Self::FillParents { entries } => Op::FillParents(entries),
            Self::SetReplicas { replicas, min_replicas } => {
                Op::SetReplicas(ReplicasMessage { replicas, min_replicas })
            }
            Self::ChangeGroups { changes } => {
                Op::ChangeGroups(Changes { changes: changes.iter().map(Into::into).collect() })
            }
            Self::DrainDisks { disks, draining } => {
                Op::DrainDisks(DrainMessage { disks: disks.iter().map(|disk| disk.0).collect(), draining })
            }
        };
        let message = Internal { op: Some(op), owner: of };
        let mut out = Vec::with_capacity(1 + message.encoded_len());
        out.push(INTERNAL);
        message.encode(&mut out).expect("a Vec grows as needed");
        out.into()
    }

    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = bytes.strip_prefix(&[INTERNAL]).ok_or(DecodeError::Unknown)?;
        let Internal { op, owner } = Internal::decode(message)?;
        Ok(match op.ok_or(DecodeError::Unknown)? {
            Op::Initialize(op) => Self::Initialize(op),
            Op::OpenSession(description) => Self::OpenSession { description, owner },
            Op::EndSession(session) => Self::EndSession { session: SessionId(session) },
            Op::RegisterServer(request) => Self::RegisterServer(request),
            Op::FormGroups(_) => Self::FormGroups,
            Op::DeletionsDone(Ids { ids }) => {
                Self::DeletionsDone { data: ids.into_iter().map(DataId).collect() }
            }
            Op::NewEpoch(_) => Self::NewEpoch,
            Op::FillParents(entries) => Self::FillParents { entries },
            Op::SetReplicas(ReplicasMessage { replicas, min_replicas }) => {
                Self::SetReplicas { replicas, min_replicas }
            }
            Op::ChangeGroups(Changes { changes }) => Self::ChangeGroups {
                changes: changes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Op::DrainDisks(DrainMessage { disks, draining }) => {
                Self::DrainDisks { disks: disks.into_iter().map(DiskId).collect(), draining }
            }
        })
    }
}

impl CommandReply {
    /// As it is kept and sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let answer = match self.clone() {
            Self::Initialized { cluster_id } => Answer::Initialized(cluster_id),
            Self::SessionOpened(session) => Answer::SessionOpened(session.0),
            Self::SessionEnded(ended) => Answer::SessionEnded(ended == Ended::More),
            Self::Registered(registered) => Answer::Registered(RegisteredMessage {
                server: registered.server.0,
                disks: registered.disks.into_iter().map(|disk| disk.0).collect(),
                cluster_id: registered.cluster_id,
                warnings: registered.warnings,
            }),
            Self::Formed(Formed { made, more }) => Answer::Formed(FormedMessage { made, more }),
            Self::Done => Answer::Done(true),
            Self::Refused(why) => Answer::Refused(why),
            Self::TooEarly => Answer::TooEarly(true),
            Self::Epoch(epoch) => Answer::Epoch(epoch),
            Self::Changed(Changed { done, skipped }) => Answer::Changed(ChangedMessage { done, skipped }),
        };
        Reply { answer: Some(answer) }.encode_to_vec().into()
    }

    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(match Reply::decode(bytes)?.answer.ok_or(DecodeError::Unknown)? {
            Answer::Initialized(cluster_id) => Self::Initialized { cluster_id },
            Answer::SessionOpened(session) => Self::SessionOpened(SessionId(session)),
            Answer::SessionEnded(more) => Self::SessionEnded(if more { Ended::More } else { Ended::Gone }),
            Answer::Registered(registered) => Self::Registered(Registered {
                server: ServerId(registered.server),
                disks: registered.disks.into_iter().map(DiskId).collect(),
                cluster_id: registered.cluster_id,
                warnings: registered.warnings,
            }),
            Answer::Formed(FormedMessage { made, more }) => Self::Formed(Formed { made, more }),
            Answer::Done(_) => Self::Done,
            Answer::Refused(why) => Self::Refused(why),
            Answer::TooEarly(_) => Self::TooEarly,
            Answer::Epoch(epoch) => Self::Epoch(epoch),
            Answer::Changed(ChangedMessage { done, skipped }) => Self::Changed(Changed { done, skipped }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_survive() {
        for command in [
            Command::Initialize(Initialize { cluster_id: "c".into(), replicas: 3, ..Initialize::default() }),
            Command::OpenSession { description: "d".into(), owner: String::new() },
            Command::OpenSession { description: "d".into(), owner: "alice".into() },
            Command::EndSession { session: SessionId(4) },
            Command::RegisterServer(proto::RegisterServerRequest {
                address: "unix:///x".into(),
                ..proto::RegisterServerRequest::default()
            }),
            Command::FormGroups,
            Command::DeletionsDone { data: vec![DataId(1), DataId(2)] },
            Command::ChangeGroups {
                changes: [
                    Change::Out(DiskId(1)),
                    Change::Sync(DiskId(2)),
                    Change::Join(DiskId(3)),
                    Change::Settle(DiskId(4)),
                    Change::Replace { absent: DiskId(5), spare: DiskId(6) },
                    Change::Lead(DiskId(7)),
                    Change::Lost(DiskId(8)),
                    Change::Add(DiskId(9)),
                    Change::Drop(DiskId(10)),
                ]
                .map(|change| GroupChange { group: GroupId(8), epoch: Epoch(9), change })
                .to_vec(),
            },
            Command::DrainDisks { disks: vec![DiskId(3), DiskId(4)], draining: true },
            Command::NewEpoch,
            Command::SetReplicas { replicas: 3, min_replicas: 2 },
            Command::FillParents { entries: 1000 },
        ] {
            assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }
        for reply in [
            CommandReply::Initialized { cluster_id: "c".into() },
            CommandReply::SessionOpened(SessionId(1)),
            CommandReply::SessionEnded(Ended::More),
            CommandReply::SessionEnded(Ended::Gone),
            CommandReply::Registered(Registered {
                server: ServerId(1),
                disks: vec![DiskId(2)],
                cluster_id: "c".into(),
                warnings: vec!["w".into()],
            }),
            CommandReply::Formed(Formed { made: 3, more: true }),
            CommandReply::Done,
            CommandReply::Refused("no".into()),
            CommandReply::TooEarly,
            CommandReply::Changed(Changed { done: 4, skipped: 5 }),
            CommandReply::Epoch(6),
        ] {
            assert_eq!(CommandReply::decode(&reply.encode()).unwrap(), reply);
        }
        let older = Command::OpenSession { description: "d".into(), owner: String::new() };
        assert_eq!(older.encode(), b"\x00\x12\x01d".as_slice(), "as in logs of older releases");
        assert!(matches!(Command::decode(b"\x00"), Err(DecodeError::Unknown)));
        for kind in [0, u32::MAX] {
            let change = ChangeMessage { group: 1, epoch: 1, disk: 1, kind, spare: 0 };
            let changes = Op::ChangeGroups(Changes { changes: vec![change] });
            let newer =
                [vec![INTERNAL], Internal { op: Some(changes), owner: String::new() }.encode_to_vec()]
                    .concat();
            assert!(matches!(Command::decode(&newer), Err(DecodeError::Unknown)), "kind {kind}");
        }
    }
}
