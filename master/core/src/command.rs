//! What can be applied: clients' mutations, byte for byte as they came, and the master's own commands.
//!
//! A command is either a `MutateRequest` (a protobuf message never begins with a zero byte) or a zero byte and an
//! [`Internal`] message. Applying is deterministic: the same bytes, time and store give the same batch and reply on
//! every replica. Time comes in with the command.

use bytes::Bytes;
use coord_kv::{Batch, KvError, Read};
use coord_types::{DataId, DiskId, Fence, InodeId, SessionId};
use master_model::convert::Invalid;
use master_model::{Attr, Errno, Mutated, Mutation, Time, mode, proto};
use prost::Message;

use crate::error::{OpError, OpResult};
use crate::events::Change;
use crate::inode::Inode;
use crate::keys;
use crate::names;
use crate::ops;
use crate::records::{self, ClusterRecord, Counters};
use crate::session::{self, Ended};
use crate::state::State;
use crate::table::change::{self, Changed, GroupChange};
use crate::table::drain;
use crate::table::groups::{self, Formed};
use crate::table::register::{self, Registered};
use crate::table::replicas;
use crate::{deletion, state};

/// First byte of the master's own commands.
const INTERNAL: u8 = 0;

/// What comes in with a command.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The leader's clock when it proposed, in nanoseconds since 1970; never less than with an earlier command.
    pub time_nanos: u64,
}

/// What applying a command gives.
#[derive(Debug)]
pub struct Applied {
    pub batch: Batch,
    /// A `MutateReply` for a client's command, a [`CommandReply`] for the master's own.
    pub reply: Bytes,
    pub session: SessionEffect,
    /// In directories, for whoever watches them. None is from the master's own commands: they change no names.
    pub changes: Vec<Change>,
}

/// What the table of sessions, which is not ours, must learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEffect {
    None,
    Opened(SessionId),
    Ended(SessionId),
}

/// The master's own commands.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The first of all; later ones change nothing.
    Initialize(Initialize),
    OpenSession {
        description: String,
        /// Whose it is, at most [`session::OWNER_MAX_BYTES`]; empty: an older release did not ask.
        owner: String,
    },
    /// Closed by its client, or its lease ran out.
    EndSession {
        session: SessionId,
    },
    RegisterServer(proto::RegisterServerRequest),
    /// Makes the groups that are missing.
    FormGroups,
    DeletionsDone {
        data: Vec<DataId>,
    },
    /// Members leave, come back, are replaced. Each change is skipped if its group has moved on.
    ChangeGroups {
        changes: Vec<GroupChange>,
    },
    /// Disks are to be emptied, or not any more.
    DrainDisks {
        disks: Vec<DiskId>,
        draining: bool,
    },
    /// The state is an older copy: nothing that may have been given out since is given out again.
    NewEpoch,
    /// How many copies there are to be, and how many a write must reach.
    SetReplicas {
        replicas: u32,
        min_replicas: u32,
    },
    /// Goes on with what a store of an older release lacks: where its files have their names.
    FillParents {
        /// Directory entries looked at, at most [`names::FILL_ENTRIES_MAX`].
        entries: u32,
    },
}

/// How a cluster begins.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Initialize {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(uint32, tag = "2")]
    pub replicas: u32,
    #[prost(uint32, tag = "3")]
    pub min_replicas: u32,
    #[prost(uint32, tag = "4")]
    pub groups_per_disk: u32,
    /// Owner and permissions of the root directory.
    #[prost(uint32, tag = "5")]
    pub root_uid: u32,
    #[prost(uint32, tag = "6")]
    pub root_gid: u32,
    #[prost(uint32, tag = "7")]
    pub root_mode: u32,
}

/// What the master's own commands answer.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandReply {
    /// The cluster's identity, new or not.
    Initialized {
        cluster_id: String,
    },
    SessionOpened(SessionId),
    SessionEnded(Ended),
    Registered(Registered),
    Formed(Formed),
    Done,
    /// The command means nothing here: why.
    Refused(String),
    /// The cluster's first command, `Initialize`, is not applied yet: ask again.
    TooEarly,
    Changed(Changed),
    /// The cluster epoch from now on.
    Epoch(u64),
}

mod wire;

pub use wire::DecodeError;

/// Applies a command.
///
/// # Errors
/// The store failed: this replica cannot go on.
pub fn apply(read: &dyn Read, context: Context, command: &[u8]) -> Result<Applied, KvError> {
    if command.first() == Some(&INTERNAL) {
        internal(read, context, command)
    } else {
        client(read, context, command)
    }
}

fn client(read: &dyn Read, context: Context, command: &[u8]) -> Result<Applied, KvError> {
    let mut changes = Vec::new();
    let (result, batch) = match decode(command) {
        Ok((session, mutation)) => {
            let mut state = State::new(read, context.time_nanos, session);
            match ops::mutate(&mut state, &mutation) {
                Ok(done) => {
                    changes = state.take_changes();
                    (Ok(done), state.finish())
                }
                Err(OpError::Errno(errno)) => (Err(errno), Batch::new()),
                Err(OpError::Store(error)) => return Err(error),
            }
        }
        Err(errno) => (Err::<Mutated, _>(errno), Batch::new()),
    };
    let reply = proto::MutateReply::from(result).encode_to_vec().into();
    Ok(Applied { batch, reply, session: SessionEffect::None, changes })
}

fn decode(command: &[u8]) -> Result<(SessionId, Mutation), Errno> {
    let request = proto::MutateRequest::decode(command).map_err(|_| Errno::EINVAL)?;
    let op = request.op.ok_or(Errno::EINVAL)?;
    let mutation = Mutation::try_from(op).map_err(|invalid: Invalid| invalid.errno())?;
    Ok((SessionId(request.session), mutation))
}

fn internal(read: &dyn Read, context: Context, command: &[u8]) -> Result<Applied, KvError> {
    let unchanged = |reply: CommandReply| Applied {
        batch: Batch::new(),
        reply: reply.encode(),
        session: SessionEffect::None,
        changes: Vec::new(),
    };
    let command = match Command::decode(command) {
        Ok(command) => command,
        Err(error) => return Ok(unchanged(CommandReply::Refused(error.to_string()))),
    };
    let session = match &command {
        Command::EndSession { session } => *session,
        _ => SessionId(0),
    };
    let mut state = State::new(read, context.time_nanos, session);
    match execute(&mut state, command) {
        Ok(reply) => {
            let effect = match &reply {
                CommandReply::SessionOpened(session) => SessionEffect::Opened(*session),
                CommandReply::SessionEnded(Ended::Gone) => SessionEffect::Ended(session),
                _ => SessionEffect::None,
            };
            let (batch, reply) = (state.finish(), reply.encode());
            Ok(Applied { batch, reply, session: effect, changes: Vec::new() })
        }
        // No internal command asks for space, so the counters are what is missing.
        Err(OpError::Errno(Errno::EAGAIN)) => Ok(unchanged(CommandReply::TooEarly)),
        Err(OpError::Errno(errno)) => Ok(unchanged(CommandReply::Refused(errno.to_string()))),
        Err(OpError::Store(error)) => Err(error),
    }
}

fn execute(state: &mut State<'_>, command: Command) -> OpResult<CommandReply> {
    Ok(match command {
        Command::Initialize(op) => CommandReply::Initialized { cluster_id: initialize(state, op)? },
        Command::OpenSession { description, owner } => {
            CommandReply::SessionOpened(session::open(state, description, owner)?)
        }
        Command::EndSession { .. } => CommandReply::SessionEnded(session::end(state)?),
        Command::RegisterServer(request) => match register::register(state, &request)? {
            Ok(registered) => CommandReply::Registered(registered),
            Err(refusal) => CommandReply::Refused(refusal.to_string()),
        },
        Command::FormGroups => CommandReply::Formed(groups::form(state)?),
        Command::DeletionsDone { data } => {
            deletion::done(state, &data)?;
            CommandReply::Done
        }
        Command::DrainDisks { disks, draining } => match drain::drain(state, &disks, draining)? {
            Ok(()) => CommandReply::Done,
            Err(unknown) => CommandReply::Refused(unknown.to_string()),
        },
        Command::NewEpoch => CommandReply::Epoch(crate::table::lineage::new_epoch(state)?),
        Command::SetReplicas { replicas, min_replicas } => {
            match replicas::set(state, replicas, min_replicas)? {
                Ok(()) => CommandReply::Done,
                Err(wrong) => CommandReply::Refused(wrong.to_string()),
            }
        }
        Command::FillParents { entries } => {
            names::fill(state, entries)?;
            CommandReply::Done
        }
        Command::ChangeGroups { changes } => CommandReply::Changed(change::apply(state, &changes)?),
    })
}

/// The root directory, the counters, and who we are.
fn initialize(state: &mut State<'_>, op: Initialize) -> OpResult<String> {
    if let Some(cluster) = crate::table::cluster(state.read())? {
        return Ok(cluster.cluster_id);
    }
    let replicas = op.replicas.max(1);
    let record = ClusterRecord {
        cluster_id: op.cluster_id.clone(),
        replicas,
        min_replicas: op.min_replicas.clamp(1, replicas),
        groups_per_disk: op.groups_per_disk.max(1),
        epoch: 0,
        min_replicas_wanted: 0,
    };
    state.put(keys::SETTINGS, keys::CLUSTER_KEY, records::encode(&record));
    state.start_counters(Counters {
        next_id: InodeId::ROOT.0 + 1,
        next_session: 1,
        next_server: 1,
        next_disk: 1,
        groups: 0,
        table_version: 1,
        inodes: 0,
        allocated_bytes: 0,
        deletions_pending: 0,
        sessions: 0,
    });
    names::born_filled(state);
    let now = state.now();
    state.add_inode(root(&op, now))?;
    Ok(op.cluster_id)
}

fn root(op: &Initialize, now: Time) -> Inode {
    let attr = Attr {
        ino: InodeId::ROOT,
        mode: mode::DIRECTORY | op.root_mode & mode::PERMISSIONS,
        nlink: 2,
        uid: op.root_uid,
        gid: op.root_gid,
        rdev: 0,
        size_bytes: 0,
        allocated_bytes: 0,
        atime: now,
        mtime: now,
        ctime: now,
        data: DataId(0),
        layout: None,
        garbage_end_bytes: 0,
        change: 1,
        has_xattrs: false,
        fence: Fence::NONE,
    };
    Inode { attr, parent: Some(InodeId::ROOT), target: None }
}

/// The counters; `None` before the cluster is initialised.
///
/// # Errors
/// A store that failed.
pub fn counters(read: &dyn Read) -> OpResult<Option<Counters>> {
    state::read_counters(read)
}

#[cfg(test)]
mod tests {
    use master_model::convert;

    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_second_beginning_changes_nothing() {
        let mut tree = Tree::new();
        tree.create(InodeId::ROOT, "f").unwrap();
        let again = Initialize { cluster_id: "other".into(), ..Initialize::default() };
        let reply = tree.apply(&Command::Initialize(again));
        assert_eq!(reply, CommandReply::Initialized { cluster_id: Tree::CLUSTER.into() });
        assert!(tree.lookup(InodeId::ROOT, "f").is_ok());
    }

    #[test]
    fn nonsense_is_answered_and_changes_nothing() {
        let tree = Tree::new();
        for command in [b"".as_slice(), b"\xff\xff", b"\x00", b"\x00\xff\xff", b"\x08\x01"] {
            let applied = apply(tree.kv(), Context { time_nanos: 1 }, command).unwrap();
            assert!(applied.batch.is_empty(), "{command:?}");
            if command.first() == Some(&0) {
                assert!(matches!(CommandReply::decode(&applied.reply), Ok(CommandReply::Refused(_))));
            } else {
                let reply = proto::MutateReply::decode(applied.reply).unwrap();
                assert_eq!(convert::mutated(reply), Ok(Err(Errno::EINVAL)));
            }
        }
    }

    #[test]
    fn before_the_beginning_nothing_can_be_made() {
        let kv = coord_kv::MemKv::new();
        let command = Command::OpenSession { description: "early".into(), owner: String::new() };
        let applied = apply(&kv, Context { time_nanos: 1 }, &command.encode()).unwrap();
        assert!(matches!(CommandReply::decode(&applied.reply), Ok(CommandReply::TooEarly)));
        assert!(counters(&kv).unwrap().is_none());
    }
}
