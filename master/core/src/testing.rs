//! A master without servers or Raft, for tests: commands applied to a store in memory, one after another.

use coord_kv::{Durability, Kv as _, MemKv};
use coord_types::{DataId, InodeId, SessionId};
use master_model::{
    Answer, Attr, Changes, CommitWrite, Create, Errno, Link, Mkdir, Mknod, Mutated, Mutation, Name, Query,
    RemoveXattr, Rename, RenameFlags, Rmdir, SetAttr, SetXattr, Symlink, SymlinkTarget, Time, Unlink,
    XattrFlags, XattrName, convert, proto,
};
use prost::Message as _;

use crate::command::{Command, CommandReply, Context, Initialize, apply};
use crate::error::OpError;
use crate::events::Change;
use crate::inode::Inode;
use crate::keys;
use crate::session::Ended;
use crate::{check, deletion, ops};

/// See the module.
pub(crate) struct Tree {
    kv: MemKv,
    time_nanos: u64,
    sequence: u64,
    session: SessionId,
    /// What the last command told.
    told: Vec<Change>,
}

/// A name that is one.
pub(crate) fn name(name: &str) -> Name {
    Name::try_from(name.as_bytes()).unwrap()
}

/// A server and its disks, each known by a number.
pub(crate) fn server(number: u8, location: &str, disks: &[u8]) -> proto::RegisterServerRequest {
    let disk = |number: &u8| proto::Disk {
        uuid: vec![*number; 16].into(),
        capacity_bytes: 1 << 40,
        ..proto::Disk::default()
    };
    proto::RegisterServerRequest {
        uuid: vec![number; 16].into(),
        address: format!("tcp://10.0.0.{number}:1"),
        location: location.to_owned(),
        disks: disks.iter().map(disk).collect(),
        incarnation: 1,
        cluster_id: String::new(),
    }
}

impl Tree {
    pub(crate) const CLUSTER: &'static str = "test cluster";

    /// Three servers in three racks, their groups, and one session.
    pub(crate) fn new() -> Self {
        let mut tree = Self::without_groups();
        for (number, rack) in [(1, "a"), (2, "b"), (3, "c")] {
            tree.apply(&Command::RegisterServer(server(number, &format!("/r/{rack}/h"), &[number])));
        }
        tree.apply(&Command::FormGroups);
        tree
    }

    pub(crate) fn without_groups() -> Self {
        let mut tree = Self {
            kv: MemKv::new(),
            time_nanos: 1_700_000_000_000_000_000,
            sequence: 0,
            session: SessionId(0),
            told: Vec::new(),
        };
        tree.apply(&Command::Initialize(Initialize {
            cluster_id: Self::CLUSTER.to_owned(),
            replicas: 3,
            min_replicas: 2,
            groups_per_disk: 64,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        }));
        match tree.apply(&Command::OpenSession { description: "test".into(), owner: String::new() }) {
            CommandReply::SessionOpened(session) => tree.session = session,
            other => panic!("{other:?}"),
        }
        tree
    }

    /// What the last command told watchers.
    pub(crate) fn told(&self) -> &[Change] {
        &self.told
    }

    pub(crate) fn kv(&self) -> &MemKv {
        &self.kv
    }

    /// The time of the last command.
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(self.time_nanos)
    }

    pub(crate) fn apply(&mut self, command: &Command) -> CommandReply {
        CommandReply::decode(&self.apply_bytes(&command.encode())).unwrap()
    }

    fn apply_bytes(&mut self, command: &[u8]) -> bytes::Bytes {
        self.time_nanos += 1_000_001;
        let applied = apply(&self.kv, Context { time_nanos: self.time_nanos }, command).unwrap();
        self.kv.write(applied.batch, Durability::Logged).unwrap();
        self.told = applied.changes;
        applied.reply
    }

    pub(crate) fn mutate(&mut self, mutation: Mutation) -> Result<Mutated, Errno> {
        self.sequence += 1;
        let request = proto::MutateRequest {
            session: self.session.0,
            sequence: self.sequence,
            acknowledged_below: self.sequence,
            op: Some(mutation.into()),
        };
        let reply = self.apply_bytes(&request.encode_to_vec());
        convert::mutated(proto::MutateReply::decode(reply).unwrap()).unwrap()
    }

    pub(crate) fn query(&self, query: &Query) -> Result<Answer, Errno> {
        match ops::query(&self.kv, query) {
            Ok(answer) => Ok(answer),
            Err(OpError::Errno(errno)) => Err(errno),
            Err(OpError::Store(error)) => panic!("{error}"),
        }
    }

    /// All invariants hold.
    pub(crate) fn check(&self) {
        assert_eq!(check::check(&self.kv).unwrap(), Vec::<String>::new());
    }

    /// Changes a record behind everybody's back.
    pub(crate) fn edit(&self, ino: InodeId, change: impl FnOnce(&mut Inode)) {
        let mut inode = crate::state::read_inode(&self.kv, ino).unwrap().unwrap();
        change(&mut inode);
        let mut batch = coord_kv::Batch::new();
        batch.put(keys::INODES, keys::inode(ino), inode.encode());
        self.kv.write(batch, Durability::Logged).unwrap();
    }

    pub(crate) fn deletions(&self) -> Vec<DataId> {
        let all = deletion::deletions(&self.kv, None, usize::MAX).unwrap();
        all.into_iter().map(|deletion| deletion.data).collect()
    }

    pub(crate) fn end_session_once(&mut self) -> Ended {
        match self.apply(&Command::EndSession { session: self.session }) {
            CommandReply::SessionEnded(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end_session(&mut self) {
        while self.end_session_once() == Ended::More {}
    }

    // ---- shorthands ----

    pub(crate) fn get(&self, ino: InodeId) -> Result<Attr, Errno> {
        self.query(&Query::GetAttr(ino)).map(|answer| answer.attr.unwrap())
    }

    pub(crate) fn getattr(&self, ino: InodeId) -> Attr {
        self.get(ino).unwrap()
    }

    pub(crate) fn lookup(&self, parent: InodeId, text: &str) -> Result<Attr, Errno> {
        self.query(&Query::Lookup { parent, name: name(text) }).map(|answer| answer.attr.unwrap())
    }

    pub(crate) fn create(&mut self, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Create(Create {
            parent,
            name: name(text),
            mode: 0o644,
            uid: 0,
            gid: 0,
            exclusive: false,
        }))
    }

    pub(crate) fn create_exclusive(&mut self, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Create(Create {
            parent,
            name: name(text),
            mode: 0o644,
            uid: 0,
            gid: 0,
            exclusive: true,
        }))
    }

    pub(crate) fn mkdir(&mut self, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Mkdir(Mkdir { parent, name: name(text), mode: 0o755, uid: 0, gid: 0 }))
    }

    pub(crate) fn mknod(
        &mut self,
        parent: InodeId,
        text: &str,
        mode: u32,
        rdev: u32,
    ) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Mknod(Mknod { parent, name: name(text), mode, uid: 0, gid: 0, rdev }))
    }

    pub(crate) fn symlink(&mut self, parent: InodeId, text: &str, target: &str) -> Result<Mutated, Errno> {
        let target = SymlinkTarget::try_from(target.as_bytes()).unwrap();
        self.mutate(Mutation::Symlink(Symlink { parent, name: name(text), target, uid: 0, gid: 0 }))
    }

    pub(crate) fn link(&mut self, ino: InodeId, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Link(Link { ino, parent, name: name(text) }))
    }

    pub(crate) fn unlink(&mut self, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Unlink(Unlink { parent, name: name(text), hold: None }))
    }

    pub(crate) fn unlink_held(
        &mut self,
        parent: InodeId,
        text: &str,
        hold: InodeId,
    ) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Unlink(Unlink { parent, name: name(text), hold: Some(hold) }))
    }

    pub(crate) fn rmdir(&mut self, parent: InodeId, text: &str) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Rmdir(Rmdir { parent, name: name(text) }))
    }

    pub(crate) fn rename(
        &mut self,
        parent: InodeId,
        from: &str,
        new_parent: InodeId,
        to: &str,
    ) -> Result<Mutated, Errno> {
        self.rename_with(parent, from, new_parent, to, RenameFlags::Replace, None)
    }

    pub(crate) fn rename_with(
        &mut self,
        parent: InodeId,
        from: &str,
        new_parent: InodeId,
        to: &str,
        flags: RenameFlags,
        hold: Option<InodeId>,
    ) -> Result<Mutated, Errno> {
        let (from, to) = (name(from), name(to));
        self.mutate(Mutation::Rename(Rename { parent, name: from, new_parent, new_name: to, flags, hold }))
    }

    pub(crate) fn setattr(&mut self, ino: InodeId, changes: Changes) -> Result<Mutated, Errno> {
        self.mutate(Mutation::SetAttr(SetAttr { ino, changes }))
    }

    pub(crate) fn chmod(&mut self, ino: InodeId, mode: u32) -> Result<Mutated, Errno> {
        self.setattr(ino, Changes { mode: Some(mode), ..Changes::default() })
    }

    pub(crate) fn chown(
        &mut self,
        ino: InodeId,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Mutated, Errno> {
        self.setattr(ino, Changes { uid, gid, ..Changes::default() })
    }

    pub(crate) fn truncate(&mut self, ino: InodeId, size_bytes: u64) -> Result<Mutated, Errno> {
        self.setattr(ino, Changes { size_bytes: Some(size_bytes), ..Changes::default() })
    }

    pub(crate) fn commit(
        &mut self,
        ino: InodeId,
        data: DataId,
        size_at_least_bytes: u64,
        allocated_delta_bytes: i64,
    ) -> Result<Mutated, Errno> {
        self.mutate(Mutation::CommitWrite(CommitWrite {
            ino,
            data,
            size_at_least_bytes,
            allocated_delta_bytes,
            garbage_cleared: false,
            attributes: None,
        }))
    }

    pub(crate) fn set_xattr(
        &mut self,
        ino: InodeId,
        text: &str,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<Mutated, Errno> {
        let name = XattrName::try_from(text.as_bytes()).unwrap();
        let value = bytes::Bytes::copy_from_slice(value);
        self.mutate(Mutation::SetXattr(SetXattr { ino, name, value, flags }))
    }

    pub(crate) fn remove_xattr(&mut self, ino: InodeId, text: &str) -> Result<Mutated, Errno> {
        let name = XattrName::try_from(text.as_bytes()).unwrap();
        self.mutate(Mutation::RemoveXattr(RemoveXattr { ino, name }))
    }

    pub(crate) fn forget(&mut self, inos: &[InodeId]) -> Result<Mutated, Errno> {
        self.mutate(Mutation::Forget(inos.to_vec()))
    }
}
