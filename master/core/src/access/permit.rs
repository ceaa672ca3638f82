//! May this identity do that: as the VFS of Linux decides by owner, group and mode, in its order and with its errno.
//!
//! What the operation itself refuses whoever asks (a name that is taken, or is not there) is left to it, where Linux looks at that
//! first: so a missing file is ENOENT in a directory one may search and not write.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{
    Attr, Changes, Errno, Link, Mknod, Mutation, Name, Query, Rename, RenameFlags, SetAttr, TimeSet,
    XattrName, mode,
};

use super::identity::{EXECUTE, READ, WRITE, is_privileged};
use super::{Identity, Op};
use crate::error::OpResult;
use crate::state::{Entry, read_entry, read_inode};

/// What a file's data is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataUse {
    pub read: bool,
    pub write: bool,
    /// It is open already, as when a right is renewed, or was just made by who asks. Then the owner passes whatever the mode says (it
    /// may be 0444 from the beginning); so it is with NFS. False: the check of open(2).
    pub opened_before: bool,
}

/// Whether the data of a regular file may be read or written.
///
/// # Errors
/// EACCES; ENOENT, EISDIR, EINVAL if it is no regular file; a store that failed.
pub fn permit_data(read: &dyn Read, identity: &Identity, ino: InodeId, usage: DataUse) -> OpResult<()> {
    let attr = inode(read, ino)?;
    if !attr.is_regular() {
        return Err(if attr.is_directory() { Errno::EISDIR } else { Errno::EINVAL }.into());
    }
    if usage.opened_before && identity.owns(&attr) {
        return Ok(());
    }
    let wanted = if usage.read { READ } else { 0 } | if usage.write { WRITE } else { 0 };
    must(identity, &attr, wanted)
}

/// Whether an operation may be done.
///
/// # Errors
/// EACCES or EPERM if not; ENOENT or ENOTDIR if what it is about is not there; ENODATA for attributes that are hidden; a store that
/// failed.
pub fn permit<'a>(read: &dyn Read, identity: &Identity, op: impl Into<Op<'a>>) -> OpResult<()> {
    let by = By { read, identity };
    match op.into() {
        Op::Query(query) => by.query(query),
        Op::Mutation(mutation) => by.mutation(mutation),
    }
}

fn inode(read: &dyn Read, ino: InodeId) -> OpResult<Attr> {
    Ok(read_inode(read, ino)?.ok_or(Errno::ENOENT)?.attr)
}

fn must(identity: &Identity, attr: &Attr, wanted: u32) -> OpResult<()> {
    if identity.may(attr, wanted) { Ok(()) } else { Err(Errno::EACCES.into()) }
}

fn must_own(identity: &Identity, attr: &Attr) -> OpResult<()> {
    if identity.owns(attr) { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// Who asks, about which state.
struct By<'a> {
    read: &'a dyn Read,
    identity: &'a Identity,
}

impl By<'_> {
    fn query(&self, query: &Query) -> OpResult<()> {
        match query {
            Query::Lookup { parent, .. } => self.search(*parent).map(drop),
            // The attributes that come along are what a mounting kernel caches for its own checks; it asks for no right to search.
            Query::ReadDir(op) => must(self.identity, &self.directory(op.ino)?, READ),
            Query::GetXattr { ino, name } => self.read_xattr(*ino, name),
            Query::Resolve(path) => self.walk(path),
            Query::GetAttr(_) | Query::ReadLink(_) | Query::ListXattr(_) | Query::StatFs => Ok(()),
        }
    }

    fn mutation(&self, mutation: &Mutation) -> OpResult<()> {
        match mutation {
            Mutation::Create(op) => self.make(op.parent, &op.name),
            Mutation::Mkdir(op) => self.make(op.parent, &op.name),
            Mutation::Symlink(op) => self.make(op.parent, &op.name),
            Mutation::Mknod(op) => self.mknod(op),
            Mutation::Link(op) => self.link(op),
            Mutation::Unlink(op) => self.remove(op.parent, &op.name),
            Mutation::Rmdir(op) => self.remove(op.parent, &op.name),
            Mutation::Rename(op) => self.rename(op),
            Mutation::SetAttr(op) => self.setattr(op),
            Mutation::CommitWrite(op) => {
                let attr = inode(self.read, op.ino)?;
                self.opened_for_writing(&attr)?;
                op.attributes.as_ref().map_or(Ok(()), |changes| self.ownership(&attr, changes))
            }
            Mutation::SetXattr(op) => self.write_xattr(op.ino, &op.name),
            Mutation::RemoveXattr(op) => self.write_xattr(op.ino, &op.name),
            // It is a user's attribute to who sets it.
            Mutation::RaiseFence(op) => must(self.identity, &inode(self.read, op.ino)?, WRITE),
            Mutation::Forget(_) => Ok(()),
        }
    }

    // ---- directories ----

    /// ENOTDIR if it is something else.
    fn directory(&self, ino: InodeId) -> OpResult<Attr> {
        let attr = inode(self.read, ino)?;
        if attr.is_directory() { Ok(attr) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// Names may be looked up in it.
    fn search(&self, ino: InodeId) -> OpResult<Attr> {
        let attr = self.directory(ino)?;
        must(self.identity, &attr, EXECUTE)?;
        Ok(attr)
    }

    fn entry(&self, parent: InodeId, name: &Name) -> OpResult<Option<Entry>> {
        read_entry(self.read, parent, name.as_slice())
    }

    /// The path's directories. What is not there the operation says.
    fn walk(&self, path: &[u8]) -> OpResult<()> {
        let mut at = InodeId::ROOT;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            self.search(at)?;
            match read_entry(self.read, at, part)? {
                Some(entry) => at = entry.ino,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// A name that is taken needs no right to write: the operation answers with EEXIST, or opens the file.
    fn make(&self, parent: InodeId, name: &Name) -> OpResult<()> {
        let directory = self.search(parent)?;
        if self.entry(parent, name)?.is_some() {
            return Ok(());
        }
        must(self.identity, &directory, WRITE)
    }

    fn mknod(&self, op: &Mknod) -> OpResult<()> {
        self.make(op.parent, &op.name)?;
        let is_device = matches!(op.mode & mode::TYPE, mode::CHARACTER | mode::BLOCK);
        if is_device && !self.identity.superuser && self.entry(op.parent, &op.name)?.is_none() {
            return Err(Errno::EPERM.into());
        }
        Ok(())
    }

    fn remove(&self, parent: InodeId, name: &Name) -> OpResult<()> {
        let directory = self.search(parent)?;
        match self.entry(parent, name)? {
            Some(entry) => self.remove_entry(&directory, entry),
            None => Ok(()),
        }
    }

    /// A name may go, or be another's. In a sticky directory it takes the owner of the inode or of the directory.
    fn remove_entry(&self, directory: &Attr, entry: Entry) -> OpResult<()> {
        must(self.identity, directory, WRITE)?;
        if directory.mode & mode::STICKY == 0 || self.identity.owns(directory) {
            return Ok(());
        }
        must_own(self.identity, &inode(self.read, entry.ino)?)
    }

    fn rename(&self, op: &Rename) -> OpResult<()> {
        let (old, new) = (self.search(op.parent)?, self.search(op.new_parent)?);
        let Some(source) = self.entry(op.parent, &op.name)? else { return Ok(()) };
        let target = self.entry(op.new_parent, &op.new_name)?;
        match (op.flags, target) {
            (RenameFlags::NoReplace, Some(_)) | (RenameFlags::Exchange, None) => return Ok(()),
            // Nothing is done.
            (_, Some(target)) if target.ino == source.ino => return Ok(()),
            _ => {}
        }
        self.remove_entry(&old, source)?;
        match target {
            Some(target) => self.remove_entry(&new, target)?,
            None => must(self.identity, &new, WRITE)?,
        }
        if op.parent == op.new_parent {
            return Ok(());
        }
        self.turn_around(source)?;
        match (op.flags, target) {
            (RenameFlags::Exchange, Some(target)) => self.turn_around(target),
            _ => Ok(()),
        }
    }

    /// A directory that comes under another one has its ".." written.
    fn turn_around(&self, entry: Entry) -> OpResult<()> {
        if entry.kind == mode::DIRECTORY {
            must(self.identity, &inode(self.read, entry.ino)?, WRITE)?;
        }
        Ok(())
    }

    /// As with `fs.protected_hardlinks`, which all distributions set: no link to what one could not have written oneself.
    fn link(&self, op: &Link) -> OpResult<()> {
        let attr = inode(self.read, op.ino)?;
        let directory = self.search(op.parent)?;
        if self.entry(op.parent, &op.name)?.is_some() {
            return Ok(());
        }
        let harmless = attr.is_regular() && !is_privileged(attr.mode);
        if !(harmless && self.identity.may(&attr, READ | WRITE)) {
            must_own(self.identity, &attr)?;
        }
        must(self.identity, &directory, WRITE)
    }

    // ---- attributes ----

    fn setattr(&self, op: &SetAttr) -> OpResult<()> {
        let attr = inode(self.read, op.ino)?;
        let changes = &op.changes;
        // Directories the operation refuses.
        if changes.size_bytes.is_some() && !attr.is_directory() {
            match changes.fence {
                Some(_) => self.opened_for_writing(&attr)?,
                None => must(self.identity, &attr, WRITE)?,
            }
        }
        self.ownership(&attr, changes)?;
        let times = [changes.atime, changes.mtime];
        // With a size or a fence come the times of writes that were held back.
        if changes.size_bytes.is_some() || changes.fence.is_some() {
            return if times.iter().any(Option::is_some) { self.opened_for_writing(&attr) } else { Ok(()) };
        }
        if times.iter().any(|time| matches!(time, Some(TimeSet::At(_)))) {
            return must_own(self.identity, &attr);
        }
        // Linux asks for both times at once; one alone does no more harm, and comes with what was read or written.
        if times.iter().any(Option::is_some) && !self.identity.owns(&attr) {
            return must(self.identity, &attr, WRITE);
        }
        Ok(())
    }

    /// What comes through an open file needs no right now. But anybody can say that he has it open: as with NFS the owner is believed, and
    /// others are asked.
    fn opened_for_writing(&self, attr: &Attr) -> OpResult<()> {
        if self.identity.owns(attr) { Ok(()) } else { must(self.identity, attr, WRITE) }
    }

    /// What only owners change, and superusers.
    fn ownership(&self, attr: &Attr, changes: &Changes) -> OpResult<()> {
        let identity = self.identity;
        if identity.superuser {
            return Ok(());
        }
        if changes.uid.is_some_and(|uid| uid != attr.uid) {
            return Err(Errno::EPERM.into());
        }
        if changes.gid.is_some_and(|gid| gid != attr.gid && !identity.is_in(gid)) {
            return Err(Errno::EPERM.into());
        }
        if changes.uid.is_some() || changes.gid.is_some() || changes.mode.is_some() {
            return must_own(identity, attr);
        }
        Ok(())
    }

    // ---- extended attributes ----

    fn read_xattr(&self, ino: InodeId, name: &XattrName) -> OpResult<()> {
        match Space::of(name) {
            Space::System | Space::Security => Ok(()),
            Space::Trusted if self.identity.superuser => Ok(()),
            Space::Trusted => Err(Errno::ENODATA.into()),
            Space::User => {
                let attr = inode(self.read, ino)?;
                if !has_user_xattrs(&attr) {
                    return Err(Errno::ENODATA.into());
                }
                must(self.identity, &attr, READ)
            }
            Space::Other => must(self.identity, &inode(self.read, ino)?, READ),
        }
    }

    fn write_xattr(&self, ino: InodeId, name: &XattrName) -> OpResult<()> {
        match Space::of(name) {
            Space::System => Ok(()),
            Space::Security | Space::Trusted if self.identity.superuser => Ok(()),
            Space::Security | Space::Trusted => Err(Errno::EPERM.into()),
            Space::User => {
                let attr = inode(self.read, ino)?;
                if !has_user_xattrs(&attr) {
                    return Err(Errno::EPERM.into());
                }
                if attr.is_directory() && attr.mode & mode::STICKY != 0 {
                    must_own(self.identity, &attr)?;
                }
                must(self.identity, &attr, WRITE)
            }
            Space::Other => must(self.identity, &inode(self.read, ino)?, WRITE),
        }
    }
}

/// What an extended attribute's name begins with.
enum Space {
    /// The operation refuses them.
    System,
    Security,
    Trusted,
    User,
    Other,
}

impl Space {
    fn of(name: &XattrName) -> Self {
        let spaces: [(&[u8], Self); 4] = [
            (b"system.", Self::System),
            (b"security.", Self::Security),
            (b"trusted.", Self::Trusted),
            (b"user.", Self::User),
        ];
        let name = name.as_slice();
        spaces
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Other, |(_, space)| space)
    }
}

/// Links' and devices' modes say nothing about who may fill the disk with attributes.
const fn has_user_xattrs(attr: &Attr) -> bool {
    attr.is_regular() || attr.is_directory()
}
