//! Names: one question or one change of the master each, but for what our own last changes told (`known`). The kernel
//! keeps what it is told for a time to live.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coord_types::InodeId;
use master_api::model::{
    Attr, Link, Mkdir, Mknod, Mutation, Name, NameError, Query, RemoveXattr, Rmdir, SetXattr, Symlink,
    SymlinkTarget, XattrFlags, XattrName,
};

use crate::client::Client;
use crate::fence;
use crate::inode::Source;
use crate::known::Absence;
use crate::{Caller, Errno, OpReply, OpResult, StatFs};

/// Inodes are made as needed; this many are shown as free.
const INODES_SHOWN_FREE: u64 = 1 << 40;

impl From<NameError> for Errno {
    fn from(error: NameError) -> Self {
        error.errno().into()
    }
}

impl Client {
    /// The answer, if the name surely does not exist: who is about to make it asks first.
    pub(crate) fn lookup_now(&self, parent: InodeId, name: &[u8]) -> Option<OpResult> {
        let name = Name::try_from(name).ok()?;
        (self.known.absence(parent, &name, Instant::now()) == Absence::Certain).then_some(Err(Errno::ENOENT))
    }

    pub(crate) async fn lookup(&self, parent: InodeId, name: Name) -> OpResult {
        match self.known.absence(parent, &name, Instant::now()) {
            Absence::Certain => return Err(Errno::ENOENT),
            Absence::IfStillAt(change) if self.ask(parent).await?.change == change => {
                return Err(Errno::ENOENT);
            }
            Absence::IfStillAt(_) => self.known.forget_names(parent),
            Absence::Unknown => {}
        }
        let asked_at = Instant::now();
        let answer = self.meta.query(Query::Lookup { parent, name }).await?;
        let attr = answer.attr.ok_or(Errno::EIO)?;
        self.told(&attr, asked_at);
        if let Some(parent) = &answer.parent {
            self.told(parent, asked_at);
        }
        if attr.is_directory() {
            self.inodes.note_parent(attr.ino, parent);
        }
        Ok(OpReply::Entry(self.entry(&attr, Source::Question)))
    }

    /// A change that makes or names an inode.
    async fn make(&self, mutation: Mutation) -> Result<Attr, Errno> {
        self.mutate(mutation).await?.attr.ok_or(Errno::EIO)
    }

    pub(crate) async fn mknod(
        &self,
        caller: &Caller,
        (parent, name): (InodeId, Name),
        (mode, rdev): (u32, u32),
    ) -> OpResult {
        let node = Mknod { parent, name, mode, uid: caller.uid, gid: caller.gid, rdev };
        let attr = self.make(Mutation::Mknod(node)).await?;
        Ok(OpReply::Entry(self.entry(&attr, Source::OurChange)))
    }

    pub(crate) async fn mkdir(&self, caller: &Caller, parent: InodeId, name: Name, mode: u32) -> OpResult {
        let mode = mode & master_api::model::mode::PERMISSIONS;
        let directory = Mkdir { parent, name, mode, uid: caller.uid, gid: caller.gid };
        let attr = self.make(Mutation::Mkdir(directory)).await?;
        self.inodes.note_parent(attr.ino, parent);
        Ok(OpReply::Entry(self.entry(&attr, Source::OurChange)))
    }

    pub(crate) async fn symlink(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: Name,
        target: &[u8],
    ) -> OpResult {
        let target = SymlinkTarget::try_from(target)?;
        let link = Symlink { parent, name, target, uid: caller.uid, gid: caller.gid };
        let attr = self.make(Mutation::Symlink(link)).await?;
        Ok(OpReply::Entry(self.entry(&attr, Source::OurChange)))
    }

    pub(crate) async fn link(&self, ino: InodeId, parent: InodeId, name: Name) -> OpResult {
        let attr = self.make(Mutation::Link(Link { ino, parent, name })).await?;
        Ok(OpReply::Entry(self.entry(&attr, Source::OurChange)))
    }

    pub(crate) async fn rmdir(&self, parent: InodeId, name: Name) -> OpResult {
        self.mutate(Mutation::Rmdir(Rmdir { parent, name })).await?;
        Ok(OpReply::Ok)
    }

    pub(crate) async fn read_link(&self, ino: InodeId) -> OpResult {
        Ok(OpReply::Bytes(self.meta.query(Query::ReadLink(ino)).await?.value))
    }

    pub(crate) async fn stat_fs(&self) -> OpResult {
        let answer = self.meta.query(Query::StatFs).await?.stat_fs.ok_or(Errno::EIO)?;
        Ok(OpReply::StatFs(StatFs {
            total_bytes: answer.total_bytes,
            free_bytes: answer.total_bytes.saturating_sub(answer.used_bytes),
            inodes: answer.inodes_used.saturating_add(INODES_SHOWN_FREE),
            inodes_free: INODES_SHOWN_FREE,
        }))
    }

    /// The kernel asks for `security.capability` before writes of an open file: mostly there is nothing, and the
    /// attributes said so.
    pub(crate) fn get_xattr_now(&self, ino: InodeId, name: &[u8]) -> Option<OpResult> {
        if name == fence::XATTR {
            return None;
        }
        if self.bare.is(ino, Instant::now()) {
            return Some(Err(Errno::ENODATA));
        }
        let pin = self.inodes.find(ino)?;
        let state = pin.lock();
        (!state.attr.has_xattrs && state.is_fresh(self.config.ttl)).then_some(Err(Errno::ENODATA))
    }

    pub(crate) async fn get_xattr(&self, ino: InodeId, name: &[u8]) -> OpResult {
        if name == fence::XATTR {
            return self.get_fence(ino).await;
        }
        let name = XattrName::try_from(name)?;
        Ok(OpReply::Bytes(self.meta.query(Query::GetXattr { ino, name }).await?.value))
    }

    pub(crate) async fn list_xattr(&self, ino: InodeId) -> OpResult {
        Ok(OpReply::Names(self.meta.query(Query::ListXattr(ino)).await?.names))
    }

    pub(crate) async fn set_xattr(
        self: &Arc<Self>,
        ino: InodeId,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> OpResult {
        if name == fence::XATTR {
            return self.set_fence(ino, value, flags).await;
        }
        let flags = match flags {
            0 => XattrFlags::Any,
            libc::XATTR_CREATE => XattrFlags::Create,
            libc::XATTR_REPLACE => XattrFlags::Replace,
            _ => return Err(Errno::EINVAL),
        };
        let (name, value) = (XattrName::try_from(name)?, Bytes::copy_from_slice(value));
        self.change_xattrs(ino, Mutation::SetXattr(SetXattr { ino, name, value, flags })).await
    }

    pub(crate) async fn remove_xattr(self: &Arc<Self>, ino: InodeId, name: &[u8]) -> OpResult {
        let name = XattrName::try_from(name)?;
        self.change_xattrs(ino, Mutation::RemoveXattr(RemoveXattr { ino, name })).await
    }

    /// Goes on without its caller: until the answer is here, the attributes of an open file may still say that there
    /// is nothing to ask for.
    async fn change_xattrs(self: &Arc<Self>, ino: InodeId, mutation: Mutation) -> OpResult {
        let client = Arc::clone(self);
        self.to_the_end(async move {
            let answer = client.mutate(mutation).await;
            client.bare.set(Instant::now());
            let mutated = answer?;
            if let (Some(attr), Some(pin)) = (mutated.attr, client.inodes.find(ino)) {
                pin.lock().refresh(attr, Source::OurChange);
            }
            Ok(OpReply::Ok)
        })
        .await
    }
}
