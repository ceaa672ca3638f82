//! One line a case: who asks for what, and what Linux says. Many are from the spirit of pjdfstest's chmod, chown, link, mkdir, open,
//! rename, symlink, truncate, unlink and utimensat.

use bytes::Bytes;
use coord_types::{DataId, Fence, InodeId};
use master_model::{
    Changes, CommitWrite, Create, Errno, Link, Mkdir, Mknod, Mutation, Query, RaiseFence, ReadDir,
    RemoveXattr, Rename, RenameFlags, Rmdir, SetAttr, SetXattr, Symlink, SymlinkTarget, Time, TimeSet,
    Unlink, XattrFlags, XattrName, mode,
};

use super::*;
use crate::error::{OpError, OpResult};
use crate::testing::{Tree, name};

const ROOT_DIR: InodeId = InodeId::ROOT;
const ALICE: u32 = 1000;
const BOB: u32 = 1001;
/// A group of Alice's and Bob's.
const TEAM: u32 = 50;

const OK: Result<(), Errno> = Ok(());
const EACCES: Result<(), Errno> = Err(Errno::EACCES);
const EPERM: Result<(), Errno> = Err(Errno::EPERM);
const ENOENT: Result<(), Errno> = Err(Errno::ENOENT);
const ENOTDIR: Result<(), Errno> = Err(Errno::ENOTDIR);
const ENODATA: Result<(), Errno> = Err(Errno::ENODATA);

fn root() -> Identity {
    Identity::new(0, vec![0], Root::Superuser)
}

fn alice() -> Identity {
    Identity::new(ALICE, vec![ALICE, TEAM], Root::Nobody)
}

fn bob() -> Identity {
    Identity::new(BOB, vec![BOB, TEAM], Root::Nobody)
}

/// Of no group that owns anything.
fn carol() -> Identity {
    Identity::new(1002, vec![1002], Root::Nobody)
}

/// A tree whose inodes have owners and modes.
struct World {
    tree: Tree,
}

impl World {
    fn new() -> Self {
        Self { tree: Tree::new() }
    }

    fn dir(&mut self, parent: InodeId, text: &str, mode: u32, uid: u32, gid: u32) -> InodeId {
        let made = self.tree.mutate(Mutation::Mkdir(Mkdir { parent, name: name(text), mode, uid, gid }));
        self.set(made.unwrap().attr.unwrap().ino, mode, uid, gid)
    }

    fn file(&mut self, parent: InodeId, text: &str, mode: u32, uid: u32, gid: u32) -> InodeId {
        let ino = self.tree.create(parent, text).unwrap().attr.unwrap().ino;
        self.set(ino, mode, uid, gid)
    }

    fn link(&mut self, parent: InodeId, text: &str, target: &str, uid: u32) -> InodeId {
        let ino = self.tree.symlink(parent, text, target).unwrap().attr.unwrap().ino;
        self.set(ino, 0o777, uid, uid)
    }

    fn set(&mut self, ino: InodeId, mode: u32, uid: u32, gid: u32) -> InodeId {
        let changes = Changes { mode: Some(mode), uid: Some(uid), gid: Some(gid), ..Changes::default() };
        self.tree.setattr(ino, changes).unwrap();
        ino
    }

    fn asked<'a>(&self, who: &Identity, op: impl Into<Op<'a>>) -> Result<(), Errno> {
        answer(permit(self.tree.kv(), who, op))
    }

    fn cases(&self, cases: &[(&str, Identity, Mutation, Result<(), Errno>)]) {
        for (what, who, mutation, expected) in cases {
            assert_eq!(self.asked(who, mutation), *expected, "{what}: {mutation:?}");
            assert_eq!(
                self.asked(&root(), mutation).err().filter(|_| expected.is_ok()),
                None,
                "root: {what}"
            );
        }
    }

    fn acted(&self, who: &Identity, mut mutation: Mutation) -> Mutation {
        act_for(self.tree.kv(), who, &mut mutation).unwrap();
        mutation
    }
}

fn answer(result: OpResult<()>) -> Result<(), Errno> {
    match result {
        Ok(()) => Ok(()),
        Err(OpError::Errno(errno)) => Err(errno),
        Err(OpError::Store(error)) => panic!("{error}"),
    }
}

// ---- operations, short enough for a line ----

fn create(parent: InodeId, text: &str) -> Mutation {
    Mutation::Create(Create { parent, name: name(text), mode: 0o644, uid: 7, gid: 7, exclusive: false })
}

fn mkdir(parent: InodeId, text: &str) -> Mutation {
    Mutation::Mkdir(Mkdir { parent, name: name(text), mode: 0o755, uid: 7, gid: 7 })
}

fn mknod(parent: InodeId, text: &str, mode: u32) -> Mutation {
    Mutation::Mknod(Mknod { parent, name: name(text), mode, uid: 7, gid: 7, rdev: 1 })
}

fn symlink(parent: InodeId, text: &str) -> Mutation {
    let target = SymlinkTarget::new("x").unwrap();
    Mutation::Symlink(Symlink { parent, name: name(text), target, uid: 7, gid: 7 })
}

fn link(ino: InodeId, parent: InodeId, text: &str) -> Mutation {
    Mutation::Link(Link { ino, parent, name: name(text) })
}

fn unlink(parent: InodeId, text: &str) -> Mutation {
    Mutation::Unlink(Unlink { parent, name: name(text), hold: None })
}

fn rmdir(parent: InodeId, text: &str) -> Mutation {
    Mutation::Rmdir(Rmdir { parent, name: name(text) })
}

fn rename(parent: InodeId, from: &str, new_parent: InodeId, to: &str) -> Mutation {
    rename_with(parent, from, new_parent, to, RenameFlags::Replace)
}

fn rename_with(parent: InodeId, from: &str, new_parent: InodeId, to: &str, flags: RenameFlags) -> Mutation {
    let (name, new_name) = (name(from), name(to));
    Mutation::Rename(Rename { parent, name, new_parent, new_name, flags, hold: None })
}

fn set(ino: InodeId, changes: Changes) -> Mutation {
    Mutation::SetAttr(SetAttr { ino, changes })
}

fn chmod(ino: InodeId, bits: u32) -> Mutation {
    set(ino, Changes { mode: Some(bits), ..Changes::default() })
}

fn chown(ino: InodeId, uid: Option<u32>, gid: Option<u32>) -> Mutation {
    set(ino, Changes { uid, gid, ..Changes::default() })
}

fn truncate(ino: InodeId, fence: Option<u64>) -> Mutation {
    set(ino, Changes { size_bytes: Some(5), fence: fence.map(Fence), ..Changes::default() })
}

fn utimes(ino: InodeId, atime: Option<TimeSet>, mtime: Option<TimeSet>) -> Mutation {
    set(ino, Changes { atime, mtime, ..Changes::default() })
}

fn commit(ino: InodeId, attributes: Option<Changes>) -> Mutation {
    Mutation::CommitWrite(CommitWrite {
        ino,
        data: DataId(ino.0),
        size_at_least_bytes: 1,
        allocated_delta_bytes: 0,
        garbage_cleared: false,
        attributes,
    })
}

fn xattr(text: &'static str) -> XattrName {
    XattrName::new(text).unwrap()
}

fn setx(ino: InodeId, text: &'static str) -> Mutation {
    let value = Bytes::from_static(b"v");
    Mutation::SetXattr(SetXattr { ino, name: xattr(text), value, flags: XattrFlags::Any })
}

fn removex(ino: InodeId, text: &'static str) -> Mutation {
    Mutation::RemoveXattr(RemoveXattr { ino, name: xattr(text) })
}

fn fence(ino: InodeId) -> Mutation {
    Mutation::RaiseFence(RaiseFence { ino, fence: Fence(1) })
}

fn lookup(parent: InodeId, text: &str) -> Query {
    Query::Lookup { parent, name: name(text) }
}

fn readdir(ino: InodeId) -> Query {
    Query::ReadDir(ReadDir { ino, after_cookie: 0, limit: 10, with_attributes: true })
}

// ---- touches ----

#[test]
fn what_is_touched() {
    let (a, b) = (InodeId(7), InodeId(8));
    let (read, write) = (vec![(a, Access::Read)], vec![(a, Access::Write)]);
    let both = |first, second| vec![(first, Access::Write), (second, Access::Write)];
    let queries = [
        (lookup(a, "x"), &read),
        (Query::GetAttr(a), &read),
        (Query::ReadLink(a), &read),
        (readdir(a), &read),
        (Query::GetXattr { ino: a, name: xattr("user.a") }, &read),
        (Query::ListXattr(a), &read),
        (Query::StatFs, &vec![]),
        (Query::Resolve("/x/y".into()), &vec![(ROOT_DIR, Access::Read)]),
    ];
    for (query, expected) in queries {
        assert_eq!(touches(&query).into_iter().collect::<Vec<_>>(), *expected, "{query:?}");
    }
    let mutations = [
        (create(a, "x"), &write),
        (mkdir(a, "x"), &write),
        (mknod(a, "x", mode::FIFO), &write),
        (symlink(a, "x"), &write),
        (unlink(a, "x"), &write),
        (rmdir(a, "x"), &write),
        (rename(a, "x", b, "y"), &both(a, b)),
        (link(b, a, "x"), &both(b, a)),
        (truncate(a, None), &write),
        (commit(a, None), &write),
        (setx(a, "user.a"), &write),
        (removex(a, "user.a"), &write),
        (fence(a), &write),
        (Mutation::Forget(vec![a, b]), &vec![]),
    ];
    for (mutation, expected) in mutations {
        assert_eq!(touches(&mutation).into_iter().collect::<Vec<_>>(), *expected, "{mutation:?}");
    }
}

// ---- queries ----

#[test]
fn names_and_what_is_behind_them() {
    let mut world = World::new();
    let open = world.dir(ROOT_DIR, "open", 0o755, ALICE, TEAM);
    let search = world.dir(ROOT_DIR, "search", 0o711, ALICE, TEAM);
    let list = world.dir(ROOT_DIR, "list", 0o744, ALICE, TEAM);
    let team = world.dir(open, "team", 0o070, ALICE, TEAM);
    let file = world.file(team, "f", 0o640, ALICE, TEAM);
    let secret = world.link(team, "l", "f", ALICE);
    let user = |ino| Query::GetXattr { ino, name: xattr("user.a") };
    let trusted = |ino| Query::GetXattr { ino, name: xattr("trusted.a") };
    let security = |ino| Query::GetXattr { ino, name: xattr("security.a") };
    let resolve = |path: &'static str| Query::Resolve(path.into());
    for (what, who, query, expected) in [
        ("look up where all may search", carol(), lookup(search, "x"), OK),
        ("look up where all may only list", carol(), lookup(list, "x"), EACCES),
        ("look up as the owner", alice(), lookup(list, "x"), OK),
        ("the owner is not one of the group", alice(), lookup(team, "f"), EACCES),
        ("look up as one of the group", bob(), lookup(team, "f"), OK),
        ("look up as another", carol(), lookup(team, "f"), EACCES),
        ("look up as the superuser", root(), lookup(team, "f"), OK),
        ("look up in a file", bob(), lookup(file, "f"), ENOTDIR),
        ("look up in nothing", bob(), lookup(InodeId(999), "f"), ENOENT),
        ("list where all may only search", carol(), readdir(search), EACCES),
        ("list where all may list", carol(), readdir(list), OK),
        ("list a file", alice(), readdir(file), ENOTDIR),
        ("attributes of what one cannot reach", carol(), Query::GetAttr(file), OK),
        ("target of what one cannot reach", carol(), Query::ReadLink(secret), OK),
        ("names of attributes", carol(), Query::ListXattr(file), OK),
        ("the file system", carol(), Query::StatFs, OK),
        ("a user's attribute with a right to read", bob(), user(file), OK),
        ("a user's attribute without", carol(), user(file), EACCES),
        ("a user's attribute of a link", alice(), user(secret), ENODATA),
        ("a trusted attribute", alice(), trusted(file), ENODATA),
        ("a trusted attribute as the superuser", root(), trusted(file), OK),
        ("a security attribute", carol(), security(file), OK),
        ("a path", bob(), resolve("/open/team/f"), OK),
        ("a path through what one may not search", carol(), resolve("/open/team/f"), EACCES),
        ("a path that ends there", carol(), resolve("/open/team"), OK),
        ("a path to nothing", carol(), resolve("/open/none/f"), OK),
        ("a path through a file", bob(), resolve("/open/team/f/x"), ENOTDIR),
    ] {
        assert_eq!(world.asked(&who, &query), expected, "{what}");
    }
}

#[test]
fn data() {
    let mut world = World::new();
    let file = |world: &mut World, bits: u32| world.file(ROOT_DIR, &format!("{bits:o}"), bits, ALICE, TEAM);
    let of = |read, write, opened_before| DataUse { read, write, opened_before };
    let (r, w, rw) = (of(true, false, false), of(false, true, false), of(true, true, false));
    let (all, team, mine, none) =
        (file(&mut world, 0o666), file(&mut world, 0o060), file(&mut world, 0o604), file(&mut world, 0));
    let run = file(&mut world, 0o711);
    for (what, who, ino, usage, expected) in [
        ("all may", carol(), all, rw, OK),
        ("the group may", bob(), team, rw, OK),
        ("the owner may not though the group may", alice(), team, r, EACCES),
        ("others may not", carol(), team, r, EACCES),
        ("others may read", carol(), mine, r, OK),
        ("others may not write", carol(), mine, w, EACCES),
        ("others may not do both", carol(), mine, rw, EACCES),
        ("the group may not though others may", bob(), mine, r, EACCES),
        ("nobody may, the owner neither", alice(), none, r, EACCES),
        ("the superuser may", root(), none, rw, OK),
        ("execution is not reading", carol(), run, r, EACCES),
        ("the owner had opened it before", alice(), none, of(true, true, true), OK),
        ("others have to be allowed still", carol(), none, of(true, false, true), EACCES),
        ("a directory", root(), ROOT_DIR, r, Err(Errno::EISDIR)),
        ("nothing", root(), InodeId(999), r, ENOENT),
    ] {
        let got = answer(permit_data(world.tree.kv(), &who, ino, usage));
        assert_eq!(got, expected, "{what}");
    }
    let fifo = world.tree.mknod(ROOT_DIR, "p", mode::FIFO | 0o666, 0).unwrap().attr.unwrap().ino;
    assert_eq!(answer(permit_data(world.tree.kv(), &root(), fifo, r)), Err(Errno::EINVAL));
}

// ---- names ----

#[test]
fn making_names() {
    let mut world = World::new();
    let all = world.dir(ROOT_DIR, "all", 0o777, 0, 0);
    let mine = world.dir(ROOT_DIR, "mine", 0o755, ALICE, ALICE);
    let team = world.dir(ROOT_DIR, "team", 0o775, ALICE, TEAM);
    let write = world.dir(ROOT_DIR, "write", 0o722, ALICE, ALICE);
    let closed = world.dir(ROOT_DIR, "closed", 0o700, ALICE, ALICE);
    let file = world.file(mine, "f", 0o644, ALICE, ALICE);
    let device = mode::CHARACTER | 0o600;
    world.cases(&[
        ("create where all may write", carol(), create(all, "x"), OK),
        ("create in one's own", alice(), create(mine, "x"), OK),
        ("create in another's", bob(), create(mine, "x"), EACCES),
        ("create in the group's", bob(), create(team, "x"), OK),
        ("create where one may write, not search", bob(), create(write, "x"), EACCES),
        ("what is there needs no right to write", bob(), create(mine, "f"), OK),
        ("create in a file", alice(), create(file, "x"), ENOTDIR),
        ("create in nothing", alice(), create(InodeId(999), "x"), ENOENT),
        ("mkdir in another's", bob(), mkdir(mine, "x"), EACCES),
        ("mkdir in one's own", alice(), mkdir(mine, "x"), OK),
        ("mkdir of what is there is EEXIST's business", bob(), mkdir(mine, "f"), OK),
        ("mkdir in what one may not search", bob(), mkdir(closed, "f"), EACCES),
        ("symlink in another's", bob(), symlink(mine, "x"), EACCES),
        ("symlink where all may write", bob(), symlink(all, "x"), OK),
        ("mknod of a fifo", bob(), mknod(all, "x", mode::FIFO | 0o600), OK),
        ("mknod of a fifo in another's", bob(), mknod(mine, "x", mode::FIFO | 0o600), EACCES),
        ("mknod of a socket", bob(), mknod(all, "x", mode::SOCKET | 0o600), OK),
        ("mknod of a device", alice(), mknod(mine, "x", device), EPERM),
        ("mknod of a block device", alice(), mknod(mine, "x", mode::BLOCK), EPERM),
        ("mknod of a device that is there", alice(), mknod(mine, "f", device), OK),
        ("mknod of a device in another's", bob(), mknod(mine, "x", device), EACCES),
        ("mknod of a device as the superuser", root(), mknod(mine, "x", device), OK),
        ("forgetting", carol(), Mutation::Forget(vec![file]), OK),
    ]);
}

#[test]
fn removing_names() {
    let mut world = World::new();
    let all = world.dir(ROOT_DIR, "all", 0o777, 0, 0);
    let mine = world.dir(ROOT_DIR, "mine", 0o755, ALICE, ALICE);
    let tmp = world.dir(ROOT_DIR, "tmp", 0o1777, 0, 0);
    let hers = world.dir(ROOT_DIR, "hers", 0o1777, ALICE, ALICE);
    let closed = world.dir(ROOT_DIR, "closed", 0o1700, ALICE, ALICE);
    for dir in [all, mine, tmp, hers, closed] {
        world.file(dir, "a", 0o666, ALICE, TEAM);
        world.file(dir, "b", 0o000, BOB, TEAM);
        world.dir(dir, "da", 0o777, ALICE, TEAM);
        world.dir(dir, "db", 0o700, BOB, TEAM);
    }
    world.cases(&[
        ("anything where all may write", carol(), unlink(all, "b"), OK),
        ("of another's file in one's own", alice(), unlink(mine, "b"), OK),
        ("of one's own file in another's", bob(), unlink(mine, "b"), EACCES),
        ("sticky: one's own file", bob(), unlink(tmp, "b"), OK),
        ("sticky: another's file", bob(), unlink(tmp, "a"), EPERM),
        ("sticky: the group does not help", alice(), unlink(tmp, "b"), EPERM),
        ("sticky: another's file in one's own", alice(), unlink(hers, "b"), OK),
        ("sticky: the superuser", root(), unlink(tmp, "a"), OK),
        ("sticky, and no right to write", bob(), unlink(closed, "a"), EACCES),
        ("what is not there is ENOENT's business", bob(), unlink(mine, "x"), OK),
        ("unless one may not search", bob(), unlink(closed, "x"), EACCES),
        ("rmdir where all may write", carol(), rmdir(all, "db"), OK),
        ("rmdir in another's", bob(), rmdir(mine, "db"), EACCES),
        ("rmdir, sticky: one's own", bob(), rmdir(tmp, "db"), OK),
        ("rmdir, sticky: another's", bob(), rmdir(tmp, "da"), EPERM),
        ("rmdir, sticky: another's in one's own", alice(), rmdir(hers, "db"), OK),
    ]);
}

#[test]
fn renaming() {
    let mut world = World::new();
    let all = world.dir(ROOT_DIR, "all", 0o777, 0, 0);
    let mine = world.dir(ROOT_DIR, "mine", 0o755, ALICE, ALICE);
    let tmp = world.dir(ROOT_DIR, "tmp", 0o1777, 0, 0);
    for dir in [all, mine, tmp] {
        world.file(dir, "a", 0o666, ALICE, TEAM);
        let b = world.file(dir, "b", 0o000, BOB, TEAM);
        world.tree.link(b, dir, "again").unwrap();
        world.dir(dir, "da", 0o555, ALICE, TEAM);
        world.dir(dir, "db", 0o755, BOB, TEAM);
    }
    let exchange = |a, from: &str, b, to: &str| rename_with(a, from, b, to, RenameFlags::Exchange);
    let keep = |a, from: &str, b, to: &str| rename_with(a, from, b, to, RenameFlags::NoReplace);
    world.cases(&[
        ("within what all may write", carol(), rename(all, "a", all, "x"), OK),
        ("within one's own", alice(), rename(mine, "b", mine, "x"), OK),
        ("within another's", bob(), rename(mine, "b", mine, "x"), EACCES),
        ("out of another's", bob(), rename(mine, "b", all, "x"), EACCES),
        ("into another's", bob(), rename(all, "b", mine, "x"), EACCES),
        ("over what is in another's", bob(), rename(all, "b", mine, "a"), EACCES),
        ("what is not there is ENOENT's business", bob(), rename(mine, "x", mine, "y"), OK),
        ("two names of one file", bob(), rename(mine, "b", mine, "again"), OK),
        ("sticky: one's own file", bob(), rename(tmp, "b", tmp, "x"), OK),
        ("sticky: another's file", bob(), rename(tmp, "a", tmp, "x"), EPERM),
        ("sticky: out of it", bob(), rename(tmp, "a", all, "x"), EPERM),
        ("sticky: into it, over nothing", bob(), rename(all, "a", tmp, "x"), OK),
        ("sticky: over another's file", bob(), rename(tmp, "b", tmp, "a"), EPERM),
        ("sticky: over one's own", bob(), rename(all, "a", tmp, "b"), OK),
        ("sticky: the superuser", root(), rename(tmp, "a", tmp, "b"), OK),
        ("a directory within one", alice(), rename(all, "da", all, "x"), OK),
        ("a directory one may not write to another", alice(), rename(all, "da", mine, "x"), EACCES),
        ("a directory one may write to another", bob(), rename(all, "db", tmp, "x"), OK),
        ("another's directory to another", alice(), rename(all, "db", mine, "x"), EACCES),
        ("exchange within one", carol(), exchange(all, "a", all, "b"), OK),
        ("exchange with nothing is ENOENT's business", bob(), exchange(mine, "a", mine, "x"), OK),
        ("exchange with a directory one may not write", bob(), exchange(all, "b", tmp, "da"), EPERM),
        ("exchange turns both directories", alice(), exchange(mine, "a", all, "da"), EACCES),
        ("exchange, sticky: another's", bob(), exchange(all, "b", tmp, "a"), EPERM),
        ("no replacing is EEXIST's business", bob(), keep(mine, "a", mine, "b"), OK),
        ("no replacing of nothing", bob(), keep(all, "a", mine, "x"), EACCES),
    ]);
}

#[test]
fn linking() {
    let mut world = World::new();
    let all = world.dir(ROOT_DIR, "all", 0o777, 0, 0);
    let mine = world.dir(ROOT_DIR, "mine", 0o755, ALICE, ALICE);
    let own = world.file(all, "own", 0o000, BOB, BOB);
    let open = world.file(all, "open", 0o666, ALICE, ALICE);
    let readable = world.file(all, "readable", 0o644, ALICE, ALICE);
    let suid = world.file(all, "suid", 0o4666, ALICE, ALICE);
    let sgid = world.file(all, "sgid", 0o2676, ALICE, ALICE);
    let locking = world.file(all, "locking", 0o2666, ALICE, ALICE);
    let soft = world.link(all, "soft", "x", ALICE);
    world.cases(&[
        ("one's own, unreadable as it is", bob(), link(own, all, "x"), OK),
        ("what one may read and write", bob(), link(open, all, "x"), OK),
        ("what one may only read", bob(), link(readable, all, "x"), EPERM),
        ("a program that is somebody else's", bob(), link(suid, all, "x"), EPERM),
        ("or a group's", bob(), link(sgid, all, "x"), EPERM),
        ("mandatory locking is no program", bob(), link(locking, all, "x"), OK),
        ("another's symbolic link", bob(), link(soft, all, "x"), EPERM),
        ("one's own program", alice(), link(suid, all, "x"), OK),
        ("into another's directory", bob(), link(own, mine, "x"), EACCES),
        ("onto what is there is EEXIST's business", bob(), link(readable, all, "own"), OK),
        ("what is not there", bob(), link(InodeId(999), all, "x"), ENOENT),
    ]);
}

// ---- attributes ----

#[test]
fn changing_attributes() {
    let mut world = World::new();
    let file = world.file(ROOT_DIR, "f", 0o664, ALICE, TEAM);
    let locked = world.file(ROOT_DIR, "locked", 0o444, ALICE, TEAM);
    let dir = world.dir(ROOT_DIR, "d", 0o755, ALICE, TEAM);
    let at = Some(TimeSet::At(Time::new(5, 0).unwrap()));
    let now = Some(TimeSet::Now);
    let with_mode = Changes { mode: Some(0o600), size_bytes: Some(0), ..Changes::default() };
    world.cases(&[
        ("chmod by the owner", alice(), chmod(file, 0o600), OK),
        ("chmod by one of the group", bob(), chmod(file, 0o600), EPERM),
        ("chmod by another", carol(), chmod(dir, 0o777), EPERM),
        ("chmod of nothing", alice(), chmod(InodeId(999), 0), ENOENT),
        ("chown by the owner", alice(), chown(file, Some(BOB), None), EPERM),
        ("chown to whom it is", alice(), chown(file, Some(ALICE), None), OK),
        ("chown to whom it is, by another", bob(), chown(file, Some(ALICE), None), EPERM),
        ("chown by the superuser", root(), chown(file, Some(BOB), Some(BOB)), OK),
        ("chgrp by the owner to an own group", alice(), chown(file, None, Some(ALICE)), OK),
        ("chgrp by the owner to the same", alice(), chown(file, Some(ALICE), Some(TEAM)), OK),
        ("chgrp by the owner to a foreign group", alice(), chown(file, None, Some(BOB)), EPERM),
        ("chgrp by one of the group to an own group", bob(), chown(file, None, Some(BOB)), EPERM),
        ("chown of nothing at all", carol(), chown(file, None, None), OK),
        ("truncation with a right to write", bob(), truncate(file, None), OK),
        ("truncation without", carol(), truncate(file, None), EACCES),
        ("truncation by the owner without", alice(), truncate(locked, None), EACCES),
        ("truncation of an open file by its owner", alice(), truncate(locked, Some(0)), OK),
        ("truncation of what somebody says he has open", carol(), truncate(locked, Some(0)), EACCES),
        ("truncation of a directory is EISDIR's business", carol(), truncate(dir, None), OK),
        ("truncation that takes a chmod along", bob(), set(file, with_mode), EPERM),
        ("times by the owner", alice(), utimes(locked, at, at), OK),
        ("times with a right to write", bob(), utimes(file, at, at), EPERM),
        ("one time with a right to write", bob(), utimes(file, now, at), EPERM),
        ("touch with a right to write", bob(), utimes(file, now, now), OK),
        ("touch without", carol(), utimes(file, now, now), EACCES),
        ("touch by the owner without", alice(), utimes(locked, now, now), OK),
        ("touch by the superuser", root(), utimes(locked, now, now), OK),
    ]);
}

#[test]
fn committing_writes() {
    let mut world = World::new();
    let file = world.file(ROOT_DIR, "f", 0o600, ALICE, TEAM);
    let at = Some(TimeSet::At(Time::new(5, 0).unwrap()));
    let shared = world.file(ROOT_DIR, "g", 0o660, ALICE, TEAM);
    let held_of = |file, changes: Changes| commit(file, Some(changes));
    let held = |changes: Changes| held_of(file, changes);
    let none = Changes::default();
    world.cases(&[
        ("what the owner has written", alice(), commit(file, None), OK),
        ("with its times", alice(), held(Changes { mtime: at, atime: at, ..none }), OK),
        ("and what a write takes", alice(), held(Changes { kill_privileges: true, ..none }), OK),
        ("what somebody says he has open", carol(), commit(file, None), EACCES),
        ("its times", carol(), held(Changes { mtime: at, ..none }), EACCES),
        ("with a right to write", bob(), commit(shared, None), OK),
        ("and its times", bob(), held_of(shared, Changes { mtime: at, ..none }), OK),
        ("a chmod", bob(), held_of(shared, Changes { mode: Some(0o666), ..none }), EPERM),
        ("a chmod by the owner", alice(), held(Changes { mode: Some(0o666), ..none }), OK),
        ("a chown", alice(), held(Changes { uid: Some(BOB), ..none }), EPERM),
        ("a chgrp", alice(), held(Changes { gid: Some(BOB), ..none }), EPERM),
        ("a chgrp to an own group", alice(), held(Changes { gid: Some(ALICE), ..none }), OK),
        ("nothing", carol(), commit(InodeId(999), None), ENOENT),
        ("attributes of nothing", carol(), commit(InodeId(999), Some(none)), ENOENT),
    ]);
}

#[test]
fn extended_attributes_and_fences() {
    let mut world = World::new();
    let file = world.file(ROOT_DIR, "f", 0o664, ALICE, TEAM);
    let dir = world.dir(ROOT_DIR, "d", 0o777, ALICE, TEAM);
    let tmp = world.dir(ROOT_DIR, "tmp", 0o1777, ALICE, TEAM);
    let soft = world.link(ROOT_DIR, "soft", "x", ALICE);
    world.cases(&[
        ("a user's with a right to write", bob(), setx(file, "user.a"), OK),
        ("a user's without", carol(), setx(file, "user.a"), EACCES),
        ("a user's, removed without", carol(), removex(file, "user.a"), EACCES),
        ("a user's of a directory", carol(), setx(dir, "user.a"), OK),
        ("a user's of a sticky directory", bob(), setx(tmp, "user.a"), EPERM),
        ("a user's of a sticky directory of one's own", alice(), setx(tmp, "user.a"), OK),
        ("a user's of a link", bob(), setx(soft, "user.a"), EPERM),
        ("trusted, by the owner", alice(), setx(file, "trusted.a"), EPERM),
        ("trusted, removed by the owner", alice(), removex(file, "trusted.a"), EPERM),
        ("trusted, by the superuser", root(), setx(file, "trusted.a"), OK),
        ("security, by the owner", alice(), setx(file, "security.capability"), EPERM),
        ("security, by the superuser", root(), setx(file, "security.capability"), OK),
        ("system is EOPNOTSUPP's business", carol(), setx(file, "system.posix_acl_access"), OK),
        ("of no space", carol(), setx(file, "a"), EACCES),
        ("a fence with a right to write", bob(), fence(file), OK),
        ("a fence without", carol(), fence(file), EACCES),
    ]);
}

// ---- who it is ----

#[test]
fn uid_0_is_what_it_is_said_to_be() {
    assert!(Identity::new(0, vec![0, 5], Root::Superuser).superuser);
    let squashed = Identity { uid: NOBODY, gids: vec![NOBODY], superuser: false };
    assert_eq!(Identity::new(0, vec![0, 5], Root::Nobody), squashed);
    assert!(!Identity::new(7, vec![7], Root::Superuser).superuser);
    let world = World::new();
    assert_eq!(world.asked(&squashed, &create(ROOT_DIR, "x")), EACCES);
}

#[test]
fn what_is_made_is_the_identitys() {
    let mut world = World::new();
    for mutation in [
        create(ROOT_DIR, "c"),
        mkdir(ROOT_DIR, "m"),
        symlink(ROOT_DIR, "s"),
        mknod(ROOT_DIR, "n", mode::FIFO),
    ] {
        let acted = world.acted(&alice(), mutation);
        let attr = world.tree.mutate(acted).unwrap().attr.unwrap();
        assert_eq!((attr.uid, attr.gid), (ALICE, ALICE));
    }
    let before = rename(ROOT_DIR, "c", ROOT_DIR, "d");
    assert_eq!(world.acted(&alice(), before.clone()), before);
    let groupless = Identity { gids: Vec::new(), ..alice() };
    assert!(matches!(world.acted(&groupless, mkdir(ROOT_DIR, "x")), Mutation::Mkdir(op) if op.gid == NOBODY));
}

#[test]
fn set_group_id_only_with_a_group_of_ones_own() {
    let mut world = World::new();
    let team = world.dir(ROOT_DIR, "team", 0o2777, ALICE, TEAM);
    let file = world.file(ROOT_DIR, "f", 0o755, ALICE, TEAM);
    let foreign = world.file(ROOT_DIR, "foreign", 0o755, ALICE, BOB);
    let regroup = |gid| set(file, Changes { mode: Some(0o2755), gid: Some(gid), ..Changes::default() });
    let held = Some(Changes { mode: Some(0o6755), ..Changes::default() });
    let made = |parent, bits| {
        Mutation::Create(Create { parent, name: name("x"), mode: bits, uid: 0, gid: 0, exclusive: true })
    };
    for (what, who, mutation, expected) in [
        ("chmod with a group of one's own", alice(), chmod(file, 0o6755), 0o6755),
        ("chmod with a foreign group", alice(), chmod(foreign, 0o6755), 0o4755),
        ("chmod of it as the superuser", root(), chmod(foreign, 0o6755), 0o6755),
        ("chmod without the bit", alice(), chmod(foreign, 0o4755), 0o4755),
        ("together with the group", alice(), regroup(ALICE), 0o2755),
        ("together with a foreign group", alice(), regroup(BOB), 0o755),
        ("held back", alice(), commit(foreign, held), 0o4755),
        ("made in a directory that hands its group on", bob(), made(team, 0o2775), 0o2775),
        ("made there by another", carol(), made(team, 0o2775), 0o775),
        ("made there without execution", carol(), made(team, 0o2664), 0o2664),
        ("made elsewhere", carol(), made(ROOT_DIR, 0o2775), 0o2775),
    ] {
        let got = match world.acted(&who, mutation) {
            Mutation::SetAttr(op) => op.changes.mode,
            Mutation::CommitWrite(op) => op.attributes.unwrap().mode,
            Mutation::Create(op) => Some(op.mode),
            other => panic!("{other:?}"),
        };
        assert_eq!(got, Some(expected), "{what}");
    }
}

#[test]
fn writes_and_truncations_take_privileges() {
    let mut world = World::new();
    let program = world.file(ROOT_DIR, "program", 0o4777, ALICE, TEAM);
    let plain = world.file(ROOT_DIR, "plain", 0o777, ALICE, TEAM);
    for (what, who, mutation, expected) in [
        ("truncation", bob(), truncate(program, None), 0o777),
        ("truncation by the owner", alice(), truncate(program, Some(0)), 0o777),
        ("truncation by the superuser", root(), truncate(program, None), 0o4777),
        ("a write", bob(), commit(program, None), 0o777),
        ("a write by the superuser", root(), commit(program, None), 0o4777),
        ("a touch", bob(), utimes(program, None, Some(TimeSet::Now)), 0o4777),
    ] {
        world.set(program, 0o4777, ALICE, TEAM);
        let acted = world.acted(&who, mutation);
        world.tree.mutate(acted).unwrap();
        assert_eq!(world.tree.getattr(program).mode & mode::PERMISSIONS, expected, "{what}");
    }
    assert_eq!(world.acted(&bob(), commit(plain, None)), commit(plain, None));
}
