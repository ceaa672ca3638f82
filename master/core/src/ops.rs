//! The operations, one a file, and what several of them share.
//!
//! Each takes a [`State`], checks everything, then changes it; the errors are the ones POSIX and Linux ask for. Permissions
//! are looked at before ([`crate::access`], and the kernel of the caller), not here.

pub mod commit_write;
pub mod create;
pub mod fence;
pub mod forget;
pub mod getattr;
pub mod link;
pub mod lookup;
pub mod mkdir;
pub mod mknod;
pub mod readdir;
pub mod rename;
pub mod resolve;
pub mod rmdir;
pub mod setattr;
pub mod statfs;
pub mod symlink;
pub mod truncate;
pub mod unlink;
pub mod xattr;

use coord_kv::Read;
use coord_types::{DataId, Fence, InodeId};
use master_model::{Answer, Attr, Errno, EventKind, Mutated, Mutation, Name, Query, mode};

use crate::error::OpResult;
use crate::events::Change;
use crate::inode::Inode;
use crate::keys;
use crate::names::{self, Place};
use crate::state::{Entry, State};

/// Names of one file, and subdirectories of one directory; what fits the signed number some programs keep it in.
pub const LINKS_MAX: u32 = i32::MAX.cast_unsigned();

/// Does what a client asked for.
///
/// # Errors
/// The file system's answer, or a store that failed; either way `state` must be dropped.
pub fn mutate(state: &mut State<'_>, mutation: &Mutation) -> OpResult<Mutated> {
    match mutation {
        Mutation::Create(op) => create::create(state, op),
        Mutation::Mkdir(op) => mkdir::mkdir(state, op),
        Mutation::Mknod(op) => mknod::mknod(state, op),
        Mutation::Symlink(op) => symlink::symlink(state, op),
        Mutation::Link(op) => link::link(state, op),
        Mutation::Unlink(op) => unlink::unlink(state, op),
        Mutation::Rmdir(op) => rmdir::rmdir(state, op),
        Mutation::Rename(op) => rename::rename(state, op),
        Mutation::SetAttr(op) => setattr::setattr(state, op),
        Mutation::CommitWrite(op) => commit_write::commit_write(state, op),
        Mutation::SetXattr(op) => xattr::set(state, op),
        Mutation::RemoveXattr(op) => xattr::remove(state, op),
        Mutation::RaiseFence(op) => fence::raise(state, op),
        Mutation::Forget(inos) => forget::forget(state, inos),
    }
}

/// Answers a question from the store.
///
/// # Errors
/// The file system's answer, or a store that failed.
pub fn query(read: &dyn Read, query: &Query) -> OpResult<Answer> {
    match query {
        Query::Lookup { parent, name } => lookup::lookup(read, *parent, name),
        Query::GetAttr(ino) => getattr::getattr(read, *ino),
        Query::ReadLink(ino) => symlink::readlink(read, *ino),
        Query::ReadDir(op) => readdir::readdir(read, op),
        Query::GetXattr { ino, name } => xattr::get(read, *ino, name),
        Query::ListXattr(ino) => xattr::list(read, *ino),
        Query::StatFs => statfs::statfs(read),
        Query::Resolve(path) => resolve::resolve(read, path),
    }
}

/// A node to be made.
struct NewNode<'a> {
    parent: InodeId,
    name: &'a Name,
    /// Type and permissions.
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    target: Option<&'a [u8]>,
}

/// Makes a node under a name that is known to be free.
fn make_node(state: &mut State<'_>, node: &NewNode<'_>) -> OpResult<Mutated> {
    let parent = &state.directory(node.parent)?.attr;
    let is_directory = node.mode & mode::TYPE == mode::DIRECTORY;
    if is_directory && parent.nlink >= LINKS_MAX {
        return Err(Errno::EMLINK.into());
    }
    // In a set-group-id directory everything belongs to its group, and directories hand the bit on.
    let inherits = parent.mode & mode::SGID != 0;
    let gid = if inherits { parent.gid } else { node.gid };
    let inherited = if inherits && is_directory { mode::SGID } else { 0 };
    let ino = InodeId(state.next_id()?);
    let (data, layout) = if node.mode & mode::TYPE == mode::REGULAR {
        // The inode's own number serves as the data's first: both come from one counter.
        let (data, layout) = state.new_data(DataId(ino.0))?;
        (data, Some(layout))
    } else {
        (DataId(0), None)
    };
    let now = state.now();
    let attr = Attr {
        ino,
        mode: node.mode & (mode::TYPE | mode::PERMISSIONS) | inherited,
        nlink: if is_directory { 2 } else { 1 },
        uid: node.uid,
        gid,
        rdev: node.rdev,
        size_bytes: node.target.map_or(0, |target| target.len() as u64),
        allocated_bytes: 0,
        atime: now,
        mtime: now,
        ctime: now,
        data,
        layout,
        garbage_end_bytes: 0,
        change: 1,
        has_xattrs: false,
        fence: Fence::NONE,
    };
    let target = node.target.map(bytes::Bytes::copy_from_slice);
    state.add_inode(Inode { attr: attr.clone(), parent: Some(node.parent), target })?;
    state.add_entry(node.parent, node.name, Entry { ino, kind: attr.kind() })?;
    if is_directory {
        state.inode_mut(node.parent)?.attr.nlink += 1;
    }
    tell(state, EventKind::Created, Place { parent: node.parent, name: node.name }, ino);
    Ok(Mutated { attr: Some(attr), made: true, parent: Some(state.attr(node.parent)?), ..Mutated::default() })
}

/// Whoever watches the directory is told of a name in it.
fn tell(state: &mut State<'_>, kind: EventKind, place: Place<'_>, ino: InodeId) {
    state.tell(Change { directory: place.parent, kind, ino, name: Some(place.name.clone()) });
}

/// EEXIST if the name is taken, ENOTDIR or ENOENT if there is no such directory.
fn must_be_free(state: &mut State<'_>, parent: InodeId, name: &Name) -> OpResult<()> {
    state.directory(parent)?;
    match state.entry(parent, name)? {
        Some(_) => Err(Errno::EEXIST.into()),
        None => Ok(()),
    }
}

/// The entry of a name that must exist.
fn must_exist(state: &mut State<'_>, parent: InodeId, name: &Name) -> OpResult<Entry> {
    state.directory(parent)?;
    Ok(state.entry(parent, name)?.ok_or(Errno::ENOENT)?)
}

/// An inode that is no directory loses a name, the one at `place`. With the last one it goes, or is kept for the session
/// that has it open. Gives its state afterwards, and whether it is held.
fn drop_link(
    state: &mut State<'_>,
    ino: InodeId,
    place: Place<'_>,
    hold: Option<InodeId>,
) -> OpResult<(Attr, bool)> {
    names::removed(state, ino, place)?;
    let now = state.now();
    let inode = state.inode_mut(ino)?;
    inode.attr.nlink = inode.attr.nlink.saturating_sub(1);
    inode.attr.ctime = now;
    if inode.attr.nlink > 0 {
        return Ok((inode.attr.clone(), false));
    }
    if hold == Some(ino) {
        let attr = inode.attr.clone();
        state.put(keys::ORPHANS, keys::orphan(state.session(), ino), []);
        return Ok((attr, true));
    }
    Ok((state.free_inode(ino)?, false))
}

/// An empty directory loses its name, and with it its life. Gives its last state, with nlink 0.
fn drop_directory(state: &mut State<'_>, parent: InodeId, ino: InodeId) -> OpResult<Attr> {
    if state.directory(ino)?.attr.size_bytes > 0 {
        return Err(Errno::ENOTEMPTY.into());
    }
    let mut attr = state.free_inode(ino)?;
    state.tell(Change { directory: ino, kind: EventKind::Gone, ino, name: None });
    attr.nlink = 0;
    attr.ctime = state.now();
    let parent = state.inode_mut(parent)?;
    parent.attr.nlink = parent.attr.nlink.saturating_sub(1);
    Ok(attr)
}
