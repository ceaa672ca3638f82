//! Random operations on the master's core and on a simple tree in memory: results and trees are compared after each, and
//! every invariant of the store is checked.
//!
//! The model keeps names in nested maps and link counts by looking, so it shares nothing with the records and
//! counters it checks. Errors are compared by their errno. In a second run the store becomes an older release's on the way, and
//! is filled in between the operations that follow.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::collections::BTreeMap;

use coord_kv::{Batch, Durability, Kv as _, MemKv, Range, Read as _};
use coord_types::{DataId, InodeId, SessionId};
use master_core::command::Initialize;
use master_core::inode::Inode;
use master_core::{
    Command, CommandReply, Context, OpError, apply, check, fill_parents_pending, keys, query, within,
};
use master_model::{
    Answer, Changes, CommitWrite, Create, Errno, Link, Mkdir, Mutated, Mutation, Name, Query, ReadDir,
    Rename, RenameFlags, Rmdir, SetAttr, Symlink, SymlinkTarget, Unlink, convert, mode, proto,
};
use proptest::prelude::*;
use prost::Message as _;

/// A path of few names: collisions are what is interesting.
type Path = Vec<u8>;

#[derive(Clone, Debug)]
enum Op {
    Create { path: Path, exclusive: bool },
    Mkdir(Path),
    Symlink(Path),
    Link { from: Path, to: Path },
    Unlink { path: Path, hold: bool },
    Rmdir(Path),
    Rename { from: Path, to: Path, flags: u8, hold: bool },
    Truncate { path: Path, size: u64 },
    Write { path: Path, end: u64, cleared: bool },
    Chmod { path: Path, mode: u32 },
    ForgetAll,
    EndSession,
}

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(0_u8..4, 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (path(), any::<bool>()).prop_map(|(path, exclusive)| Op::Create { path, exclusive }),
        5 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Symlink),
        2 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        3 => (path(), any::<bool>()).prop_map(|(path, hold)| Op::Unlink { path, hold }),
        2 => path().prop_map(Op::Rmdir),
        6 => (path(), path(), 0_u8..3, any::<bool>())
            .prop_map(|(from, to, flags, hold)| Op::Rename { from, to, flags, hold }),
        2 => (path(), 0_u64..5).prop_map(|(path, size)| Op::Truncate { path, size: size * 1000 }),
        2 => (path(), 0_u64..5, any::<bool>())
            .prop_map(|(path, end, cleared)| Op::Write { path, end: end * 1000, cleared }),
        1 => (path(), 0_u32..=0o7777).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        1 => Just(Op::ForgetAll),
        1 => Just(Op::EndSession),
    ]
}

// ---- the model ----

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Directory(BTreeMap<u8, usize>),
    File { size: u64, garbage: u64 },
    Symlink,
}

/// Nodes by a number of the model's own, never reused; 0 is the root.
#[derive(Debug)]
struct Model {
    nodes: BTreeMap<usize, Node>,
    modes: BTreeMap<usize, u32>,
    next: usize,
    held: Vec<usize>,
}

impl Model {
    fn new() -> Self {
        Self {
            nodes: [(0, Node::Directory(BTreeMap::new()))].into(),
            modes: [(0, 0o755)].into(),
            next: 1,
            held: Vec::new(),
        }
    }

    fn entries(&self, node: usize) -> Result<&BTreeMap<u8, usize>, Errno> {
        match &self.nodes[&node] {
            Node::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, node: usize) -> &mut BTreeMap<u8, usize> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(entries)) => entries,
            other => panic!("{node} is {other:?}"),
        }
    }

    /// The directory a path's last name is in.
    fn parent(&self, path: &[u8]) -> Result<(usize, u8), Errno> {
        let (last, directories) = path.split_last().expect("paths are not empty");
        let mut at = 0;
        for name in directories {
            at = *self.entries(at)?.get(name).ok_or(Errno::ENOENT)?;
        }
        self.entries(at)?;
        Ok((at, *last))
    }

    fn find(&self, path: &[u8]) -> Result<usize, Errno> {
        let (parent, name) = self.parent(path)?;
        self.entries(parent)?.get(&name).copied().ok_or(Errno::ENOENT)
    }

    fn names(&self, node: usize) -> usize {
        self.nodes
            .values()
            .filter_map(|other| if let Node::Directory(entries) = other { Some(entries) } else { None })
            .flat_map(BTreeMap::values)
            .filter(|named| **named == node)
            .count()
    }

    fn add(&mut self, parent: usize, name: u8, node: Node, mode: u32) {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.modes.insert(number, mode);
        self.entries_mut(parent).insert(name, number);
    }

    fn drop_name(&mut self, node: usize, hold: bool) {
        if self.names(node) == 0 {
            if hold {
                self.held.push(node);
            } else {
                self.nodes.remove(&node);
            }
        }
    }

    fn is_directory(&self, node: usize) -> bool {
        matches!(self.nodes[&node], Node::Directory(_))
    }

    fn below(&self, node: usize, above: usize) -> bool {
        node == above
            || matches!(&self.nodes[&above], Node::Directory(entries)
                if entries.values().any(|child| self.below(node, *child)))
    }

    fn rename(&mut self, from: &[u8], to: &[u8], flags: RenameFlags, hold: bool) -> Result<(), Errno> {
        let (parent, name) = self.parent(from)?;
        let source = *self.entries(parent)?.get(&name).ok_or(Errno::ENOENT)?;
        let (new_parent, new_name) = self.parent(to)?;
        let target = self.entries(new_parent)?.get(&new_name).copied();
        match (flags, target) {
            (RenameFlags::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameFlags::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if self.is_directory(source) && self.below(new_parent, source) {
            return Err(Errno::EINVAL);
        }
        if let (RenameFlags::Exchange, Some(target)) = (flags, target)
            && self.is_directory(target)
            && self.below(parent, target)
        {
            return Err(Errno::EINVAL);
        }
        if target == Some(source) {
            return Ok(());
        }
        if let (RenameFlags::Exchange, Some(target)) = (flags, target) {
            self.entries_mut(parent).insert(name, target);
            self.entries_mut(new_parent).insert(new_name, source);
            return Ok(());
        }
        if let Some(target) = target {
            match (self.is_directory(source), self.is_directory(target)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.entries(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.entries_mut(parent).remove(&name);
        self.entries_mut(new_parent).insert(new_name, source);
        if let Some(target) = target {
            let hold = hold && !self.is_directory(target);
            self.drop_name(target, hold);
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8]) -> Result<(&mut u64, &mut u64), Errno> {
        let node = self.find(path)?;
        match self.nodes.get_mut(&node) {
            Some(Node::File { size, garbage }) => Ok((size, garbage)),
            Some(Node::Directory(_)) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        let free = |model: &Self, path: &[u8]| {
            let (parent, name) = model.parent(path)?;
            if model.entries(parent)?.contains_key(&name) { Err(Errno::EEXIST) } else { Ok((parent, name)) }
        };
        match op {
            Op::Create { path, exclusive } => match self.find(path) {
                Ok(_) if *exclusive => Err(Errno::EEXIST),
                Ok(node) => match self.nodes[&node] {
                    Node::File { .. } => Ok(()),
                    Node::Directory(_) => Err(Errno::EISDIR),
                    Node::Symlink => Err(Errno::ESTALE),
                },
                Err(_) => {
                    let (parent, name) = self.parent(path)?;
                    self.add(parent, name, Node::File { size: 0, garbage: 0 }, 0o644);
                    Ok(())
                }
            },
            Op::Mkdir(path) => {
                let (parent, name) = free(self, path)?;
                let inherited = self.modes[&parent] & mode::SGID;
                self.add(parent, name, Node::Directory(BTreeMap::new()), 0o755 | inherited);
                Ok(())
            }
            Op::Symlink(path) => {
                let (parent, name) = free(self, path)?;
                self.add(parent, name, Node::Symlink, 0o777);
                Ok(())
            }
            Op::Link { from, to } => {
                let node = self.find(from)?;
                if self.is_directory(node) {
                    return Err(Errno::EPERM);
                }
                let (parent, name) = free(self, to)?;
                self.entries_mut(parent).insert(name, node);
                Ok(())
            }
            Op::Unlink { path, hold } => {
                let node = self.find(path)?;
                if self.is_directory(node) {
                    return Err(Errno::EISDIR);
                }
                let (parent, name) = self.parent(path)?;
                self.entries_mut(parent).remove(&name);
                self.drop_name(node, *hold);
                Ok(())
            }
            Op::Rmdir(path) => {
                let node = self.find(path)?;
                if !self.entries(node)?.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                let (parent, name) = self.parent(path)?;
                self.entries_mut(parent).remove(&name);
                self.nodes.remove(&node);
                Ok(())
            }
            Op::Rename { from, to, flags, hold } => self.rename(from, to, rename_flags(*flags), *hold),
            Op::Truncate { path, size } => {
                let (old, garbage) = self.file(path)?;
                *garbage = match *size {
                    0 => 0,
                    size if size < *old => (*garbage).max(*old),
                    size if size >= *garbage => 0,
                    _ => *garbage,
                };
                *old = *size;
                Ok(())
            }
            Op::Write { path, end, cleared } => {
                let node = self.find(path)?;
                let Some(Node::File { size, garbage }) = self.nodes.get_mut(&node) else {
                    return Err(Errno::EINVAL);
                };
                *size = (*size).max(*end);
                if *cleared || *garbage <= *size {
                    *garbage = 0;
                }
                Ok(())
            }
            Op::Chmod { path, mode } => {
                let node = self.find(path)?;
                self.modes.insert(node, *mode);
                Ok(())
            }
            Op::ForgetAll | Op::EndSession => {
                for node in std::mem::take(&mut self.held) {
                    self.nodes.remove(&node);
                }
                Ok(())
            }
        }
    }
}

const fn rename_flags(number: u8) -> RenameFlags {
    match number {
        0 => RenameFlags::Replace,
        1 => RenameFlags::NoReplace,
        _ => RenameFlags::Exchange,
    }
}

// ---- the master ----

struct Master {
    kv: MemKv,
    time_nanos: u64,
    session: SessionId,
    sequence: u64,
    held: Vec<InodeId>,
}

fn name(name: u8) -> Name {
    Name::new(vec![b'a' + name]).unwrap()
}

impl Master {
    fn new() -> Self {
        let mut master =
            Self { kv: MemKv::new(), time_nanos: 1, session: SessionId(0), sequence: 0, held: Vec::new() };
        master.command(&Command::Initialize(Initialize { root_mode: 0o755, ..Initialize::default() }));
        master.command(&Command::RegisterServer(proto::RegisterServerRequest {
            uuid: vec![1; 16].into(),
            address: "unix:///cs".into(),
            location: "/r/a/h".into(),
            disks: vec![proto::Disk { uuid: vec![1; 16].into(), ..proto::Disk::default() }],
            ..proto::RegisterServerRequest::default()
        }));
        master.command(&Command::FormGroups);
        master.open();
        master
    }

    fn open(&mut self) {
        match self.command(&Command::OpenSession { description: String::new(), owner: String::new() }) {
            CommandReply::SessionOpened(session) => self.session = session,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, command: &[u8]) -> bytes::Bytes {
        self.time_nanos += 1_000_000_007;
        let applied = apply(&self.kv, Context { time_nanos: self.time_nanos }, command).unwrap();
        self.kv.write(applied.batch, Durability::Logged).unwrap();
        applied.reply
    }

    fn command(&mut self, command: &Command) -> CommandReply {
        CommandReply::decode(&self.apply(&command.encode())).unwrap()
    }

    /// As if all had been made by a release that did not know where files have their names.
    fn forget_parents(&self) {
        let mut batch = Batch::new();
        batch.delete(keys::SETTINGS, keys::PARENTS_KEY);
        batch.delete_range(keys::NAMES, Range::prefix(&[]));
        for (key, value) in self.kv.scan(keys::INODES, &Range::prefix(&[]), usize::MAX).unwrap() {
            let mut inode = Inode::decode(InodeId(keys::split_id(&key).unwrap()), &value).unwrap();
            if !inode.attr.is_directory() {
                inode.parent = None;
                batch.put(keys::INODES, key, inode.encode());
            }
        }
        self.kv.write(batch, Durability::Logged).unwrap();
    }

    fn mutate(&mut self, mutation: Mutation) -> Result<Mutated, Errno> {
        self.sequence += 1;
        let request = proto::MutateRequest {
            session: self.session.0,
            sequence: self.sequence,
            acknowledged_below: 0,
            op: Some(mutation.into()),
        };
        let reply = self.apply(&request.encode_to_vec());
        convert::mutated(proto::MutateReply::decode(reply).unwrap()).unwrap()
    }

    fn query(&self, question: &Query) -> Result<Answer, Errno> {
        match query(&self.kv, question) {
            Ok(answer) => Ok(answer),
            Err(OpError::Errno(errno)) => Err(errno),
            Err(OpError::Store(error)) => panic!("{error}"),
        }
    }

    fn parent(&self, path: &[u8]) -> Result<(InodeId, Name), Errno> {
        let (last, directories) = path.split_last().unwrap();
        let mut at = InodeId::ROOT;
        for part in directories {
            at = self.lookup(at, name(*part))?;
        }
        // The last step's own check, as the kernel makes it.
        if !self.query(&Query::GetAttr(at))?.attr.unwrap().is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok((at, name(*last)))
    }

    fn lookup(&self, parent: InodeId, name: Name) -> Result<InodeId, Errno> {
        Ok(self.query(&Query::Lookup { parent, name })?.attr.unwrap().ino)
    }

    fn find(&self, path: &[u8]) -> Result<InodeId, Errno> {
        let (parent, name) = self.parent(path)?;
        self.lookup(parent, name)
    }

    fn hold(&self, path: &[u8], hold: bool) -> Option<InodeId> {
        if hold { self.find(path).ok() } else { None }
    }

    fn run(&mut self, op: &Op) -> Result<(), Errno> {
        let (uid, gid) = (0, 0);
        let done = match op {
            Op::Create { path, exclusive } => {
                let (parent, name) = self.parent(path)?;
                let exclusive = *exclusive;
                self.mutate(Mutation::Create(Create { parent, name, mode: 0o644, uid, gid, exclusive }))
            }
            Op::Mkdir(path) => {
                let (parent, name) = self.parent(path)?;
                self.mutate(Mutation::Mkdir(Mkdir { parent, name, mode: 0o755, uid, gid }))
            }
            Op::Symlink(path) => {
                let (parent, name) = self.parent(path)?;
                let target = SymlinkTarget::new("target").unwrap();
                self.mutate(Mutation::Symlink(Symlink { parent, name, target, uid, gid }))
            }
            Op::Link { from, to } => {
                let ino = self.find(from)?;
                if self.query(&Query::GetAttr(ino))?.attr.unwrap().is_directory() {
                    let (parent, name) = self.parent(from)?;
                    // Whatever the new name: a directory is refused first.
                    return self.mutate(Mutation::Link(Link { ino, parent, name })).map(drop);
                }
                let (parent, name) = self.parent(to)?;
                self.mutate(Mutation::Link(Link { ino, parent, name }))
            }
            Op::Unlink { path, hold } => {
                let (parent, name) = self.parent(path)?;
                let hold = self.hold(path, *hold);
                self.mutate(Mutation::Unlink(Unlink { parent, name, hold }))
            }
            Op::Rmdir(path) => {
                let (parent, name) = self.parent(path)?;
                self.mutate(Mutation::Rmdir(Rmdir { parent, name }))
            }
            Op::Rename { from, to, flags, hold } => {
                let (parent, name) = self.parent(from)?;
                self.lookup(parent, name.clone())?;
                let (new_parent, new_name) = self.parent(to)?;
                let hold = self.hold(to, *hold);
                let flags = rename_flags(*flags);
                self.mutate(Mutation::Rename(Rename { parent, name, new_parent, new_name, flags, hold }))
            }
            Op::Truncate { path, size } => {
                let changes = Changes { size_bytes: Some(*size), ..Changes::default() };
                let ino = self.find(path)?;
                self.mutate(Mutation::SetAttr(SetAttr { ino, changes }))
            }
            Op::Write { path, end, cleared } => {
                let ino = self.find(path)?;
                let data = self.query(&Query::GetAttr(ino))?.attr.map_or(DataId(0), |attr| attr.data);
                self.mutate(Mutation::CommitWrite(CommitWrite {
                    ino,
                    data,
                    size_at_least_bytes: *end,
                    allocated_delta_bytes: 4096,
                    garbage_cleared: *cleared,
                    attributes: None,
                }))
            }
            Op::Chmod { path, mode } => {
                let changes = Changes { mode: Some(*mode), ..Changes::default() };
                let ino = self.find(path)?;
                self.mutate(Mutation::SetAttr(SetAttr { ino, changes }))
            }
            Op::ForgetAll => {
                let held = std::mem::take(&mut self.held);
                self.mutate(Mutation::Forget(held))
            }
            Op::EndSession => {
                self.held.clear();
                let session = self.session;
                assert!(matches!(
                    self.command(&Command::EndSession { session }),
                    CommandReply::SessionEnded(master_core::session::Ended::Gone)
                ));
                self.open();
                Ok(Mutated::default())
            }
        }?;
        if done.held {
            self.held.push(done.attr.unwrap().ino);
        }
        Ok(())
    }
}

/// Both trees from the root; link counts, sizes, modes and what is below what included. Inodes are matched up as they are met.
fn compare(model: &Model, master: &Master) {
    let mut pairs = BTreeMap::new();
    compare_node(model, master, 0, InodeId::ROOT, &mut pairs);
    let listed = master.query(&Query::StatFs).unwrap().stat_fs.unwrap().inodes_used;
    assert_eq!(listed, model.nodes.len() as u64, "inodes");
    if fill_parents_pending(&master.kv).unwrap() {
        return;
    }
    for (node, ino) in &pairs {
        for (above, directory) in &pairs {
            let got = within(&master.kv, *ino, *directory, None).unwrap();
            assert_eq!(got, model.below(*node, *above), "node {node} below node {above}");
        }
    }
    for ino in &master.held {
        let held_by = |session| within(&master.kv, *ino, InodeId::ROOT, session).unwrap();
        assert!(held_by(Some(master.session)) && !held_by(None), "{ino} has no name");
    }
}

fn compare_node(
    model: &Model,
    master: &Master,
    node: usize,
    ino: InodeId,
    pairs: &mut BTreeMap<usize, InodeId>,
) {
    if let Some(known) = pairs.insert(node, ino) {
        assert_eq!(known, ino, "two names of node {node} name two inodes");
        return;
    }
    let attr = master.query(&Query::GetAttr(ino)).unwrap().attr.unwrap();
    assert_eq!(attr.mode & 0o7777, model.modes[&node], "mode of node {node}");
    match &model.nodes[&node] {
        Node::Directory(entries) => {
            let subdirectories = entries.values().filter(|child| model.is_directory(**child)).count();
            assert_eq!(attr.nlink as usize, 2 + subdirectories, "links of node {node}");
            let page = ReadDir { ino, after_cookie: 0, limit: 100, with_attributes: false };
            let listed: BTreeMap<u8, InodeId> = master
                .query(&Query::ReadDir(page))
                .unwrap()
                .entries
                .iter()
                .map(|entry| (entry.name[0] - b'a', entry.ino))
                .collect();
            assert_eq!(
                listed.keys().collect::<Vec<_>>(),
                entries.keys().collect::<Vec<_>>(),
                "entries of node {node}"
            );
            for (name, child) in entries {
                compare_node(model, master, *child, listed[name], pairs);
            }
        }
        Node::File { size, garbage } => {
            assert_eq!(attr.kind(), mode::REGULAR);
            assert_eq!((attr.size_bytes, attr.garbage_end_bytes), (*size, *garbage), "size of node {node}");
            assert_eq!(attr.nlink as usize, model.names(node), "links of node {node}");
        }
        Node::Symlink => {
            assert_eq!((attr.kind(), attr.nlink as usize), (mode::SYMLINK, model.names(node)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_master_does_what_a_simple_tree_does(ops in prop::collection::vec(op(), 1..60)) {
        let (mut model, mut master) = (Model::new(), Master::new());
        for op in &ops {
            let expected = model.apply(op);
            let got = master.run(op);
            prop_assert_eq!(got, expected, "{:?}", op);
            compare(&model, &master);
            prop_assert_eq!(check::check(&master.kv).unwrap(), Vec::<String>::new(), "after {:?}", op);
        }
    }

    #[test]
    fn an_older_store_becomes_as_a_new_one(
        before in prop::collection::vec(op(), 1..30),
        after in prop::collection::vec((op(), 0_u32..3), 1..40),
    ) {
        let (mut model, mut master) = (Model::new(), Master::new());
        for op in &before {
            prop_assert_eq!(master.run(op), model.apply(op), "{:?}", op);
        }
        master.forget_parents();
        for (op, entries) in &after {
            if *entries > 0 {
                master.command(&Command::FillParents { entries: *entries });
            }
            prop_assert_eq!(master.run(op), model.apply(op), "{:?}", op);
            prop_assert_eq!(check::check(&master.kv).unwrap(), Vec::<String>::new(), "after {:?}", op);
            compare(&model, &master);
        }
        while fill_parents_pending(&master.kv).unwrap() {
            master.command(&Command::FillParents { entries: 2 });
        }
        compare(&model, &master);
        prop_assert_eq!(check::check(&master.kv).unwrap(), Vec::<String>::new());
    }
}
