//! getattr and setattr.
//!
//! What this client has pending is what it answers. A setattr of a file it has open for writing, or that has
//! something pending, is held back and goes with the next commit: `tar`, `cp -p` and `rsync` set modes and times of
//! every file they write, just before they close it.

use std::sync::Arc;
use std::time::Instant;

use coord_types::InodeId;
use master_api::model::attr::mode;
use master_api::model::{Attr, Changes, Mutation, SetAttr, TimeSet};

use crate::client::Client;
use crate::inode::{Source, file_attr};
use crate::inode_table::Pin;
use crate::op::{self, SetTime};
use crate::{Caller, Errno, OpReply, OpResult};

impl Client {
    /// The answer, if the master need not be asked.
    pub(crate) fn get_attr_now(&self, ino: InodeId) -> Option<OpResult> {
        if let Some((attr, at)) = self.known.attr(ino, Instant::now()) {
            let ttl = self.config.ttl.saturating_sub(at.elapsed());
            return Some(Ok(OpReply::Attr { attr: file_attr(&attr), ttl }));
        }
        let pin = self.inodes.find(ino)?;
        let state = pin.lock();
        let ours = state.orphan || state.writers > 0 || !state.is_clean();
        if !ours || !state.is_fresh(self.config.ttl) {
            return None;
        }
        // Together, the kernel's belief and ours last one time to live.
        let ttl = state.ttl(self.config.ttl.saturating_sub(state.attr_at.elapsed()));
        Some(Ok(OpReply::Attr { attr: state.shown(), ttl }))
    }

    pub(crate) async fn get_attr(&self, ino: InodeId) -> OpResult {
        if let Some(answer) = self.get_attr_now(ino) {
            return answer;
        }
        match self.ask(ino).await {
            Ok(attr) => Ok(self.attr_reply(&attr, Source::Question)),
            Err(Errno::ENOENT) => self.unlinked_elsewhere(ino),
            Err(errno) => Err(errno),
        }
    }

    /// Another mount unlinked it. Who has it open here may go on asking what it is.
    fn unlinked_elsewhere(&self, ino: InodeId) -> OpResult {
        let pin = self.inodes.find(ino).ok_or(Errno::ENOENT)?;
        let mut attr = pin.lock().shown();
        attr.nlink = 0;
        Ok(OpReply::Attr { attr, ttl: self.config.ttl })
    }

    fn attr_reply(&self, attr: &Attr, source: Source) -> OpReply {
        let (attr, ttl) = self.shown(attr, source);
        OpReply::Attr { attr, ttl }
    }

    pub(crate) async fn set_attr(
        self: &Arc<Self>,
        caller: &Caller,
        ino: InodeId,
        asked: op::SetAttr,
    ) -> OpResult {
        let time = |set: SetTime| match set {
            SetTime::Now => TimeSet::Now,
            SetTime::At(at) => TimeSet::At(at.into()),
        };
        let changes = Changes {
            mode: asked.mode.map(|bits| bits & mode::PERMISSIONS),
            uid: asked.uid,
            gid: asked.gid,
            size_bytes: asked.size_bytes,
            atime: asked.atime.map(time),
            mtime: asked.mtime.map(time),
            kill_privileges: asked.size_bytes.is_some() && caller.uid != 0,
            fence: None,
        };
        if changes.size_bytes.is_some() {
            let opened = asked.handle.map(|handle| self.handles.file(handle)).transpose()?;
            let fence = opened.map(|file| file.fence);
            let pin = self.pin_regular(ino).await?;
            let done = self.truncate(&pin, Changes { fence, ..changes }).await;
            if done == Err(Errno::ESTALE) && fence.is_none() {
                // By name: what this client knew of the file's fence was old.
                self.learn_fence(&pin).await;
                self.truncate(&pin, changes).await?;
            } else {
                done?;
            }
            let state = pin.lock();
            return Ok(OpReply::Attr { attr: state.shown(), ttl: state.ttl(self.config.ttl) });
        }
        let Some(pin) = self.inodes.find(ino) else {
            return self.set_attr_at_once(ino, changes).await;
        };
        {
            let mut state = pin.lock();
            if state.orphan || state.writers > 0 || !state.is_clean() {
                state.pending.change(&changes);
                self.flusher.note(&pin, &mut state, self.config.flush_age);
                return Ok(OpReply::Attr { attr: state.shown(), ttl: state.ttl(self.config.ttl) });
            }
        }
        let _turn = pin.commit.lock().await;
        self.set_attr_at_once(ino, changes).await
    }

    async fn set_attr_at_once(&self, ino: InodeId, changes: Changes) -> OpResult {
        let mutated = self.mutate(Mutation::SetAttr(SetAttr { ino, changes })).await?;
        let attr = mutated.attr.ok_or(Errno::EIO)?;
        Ok(self.attr_reply(&attr, Source::OurChange))
    }

    /// Pins a regular file whether it is open or not.
    async fn pin_regular(&self, ino: InodeId) -> Result<Pin, Errno> {
        let pin = match self.inodes.find(ino) {
            Some(pin) => pin,
            None => self.inodes.pin(self.ask(ino).await?),
        };
        let kind = pin.lock().attr.kind();
        match kind {
            mode::REGULAR => Ok(pin),
            mode::DIRECTORY => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }
}
