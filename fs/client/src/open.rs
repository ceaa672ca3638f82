//! Opening, creating and closing files, and keeping those that lose their last name while open.
//!
//! An open and an unlink of the same file may run at the same moment. The unlink asks the master to hold the file for
//! us only if it is open here, so it must not miss one that is being opened: an open first counts itself, then waits for
//! the unlinks under way, then looks whether its file is still there.

use std::sync::Arc;

use coord_types::{Fence, InodeId};
use master_api::model::{Changes, Create, Mutated, Mutation, Name, Query, Rename, RenameFlags, Unlink};

use crate::client::Client;
use crate::handle::FileHandle;
use crate::inode::{CacheToken, Pending, Source};
use crate::inode_table::Pin;
use crate::write::flush::{Depth, flush};
use crate::{Caller, Errno, HandleId, OpReply, OpResult, OpenMode};

const fn truncates(flags: i32) -> bool {
    flags & libc::O_TRUNC != 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

impl Client {
    pub(crate) async fn open(self: &Arc<Self>, caller: &Caller, ino: InodeId, flags: i32) -> OpResult {
        let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
        let known = self.inodes.find(ino).filter(|pin| {
            let state = pin.lock();
            // Under which fence it writes, only the master can say.
            state.orphan || (reads && state.writers > 0 && state.is_fresh(self.config.ttl))
        });
        // Close-to-open: what another client did before it closed the file is seen from here on.
        let pin = match known {
            Some(pin) => pin,
            None => self.inodes.pin(self.ask(ino).await?),
        };
        let opened = self.admit(caller, pin, flags).await?;
        let (handle, mode) = self.opened(opened);
        Ok(OpReply::Opened { handle, mode })
    }

    pub(crate) async fn create(
        self: &Arc<Self>,
        caller: &Caller,
        (parent, name): (InodeId, Name),
        mode: u32,
        flags: i32,
    ) -> OpResult {
        let exclusive = flags & libc::O_EXCL != 0;
        let create = Create {
            parent,
            name,
            mode: mode & master_api::model::mode::PERMISSIONS,
            uid: caller.uid,
            gid: caller.gid,
            exclusive,
        };
        let mutated = self.mutate(Mutation::Create(create)).await?;
        let attr = mutated.attr.ok_or(Errno::EIO)?;
        let pin = self.inodes.pin(attr);
        let file = if mutated.made {
            pin.lock().made_here = true;
            FileHandle::new(pin, flags)
        } else {
            self.admit(caller, pin, flags).await?
        };
        let attr = file.inode.lock().shown();
        let entry = crate::Entry { attr, entry_ttl: self.config.ttl, attr_ttl: self.config.ttl };
        let (handle, mode) = self.opened(file);
        Ok(OpReply::Created { entry, handle, mode })
    }

    /// Opens what was there before.
    async fn admit(self: &Arc<Self>, caller: &Caller, pin: Pin, flags: i32) -> Result<FileHandle, Errno> {
        {
            let state = pin.lock();
            if state.attr.is_directory() {
                return Err(Errno::EISDIR);
            }
            if !state.attr.is_regular() {
                return Err(Errno::ENXIO);
            }
        }
        // Counted from here on; uncounted again if this is given up.
        let counted = Counted::new(self, FileHandle::new(pin.clone(), flags));
        if self.unlinks.try_write().is_err() {
            drop(self.unlinks.write().await);
        }
        if pin.lock().gone {
            return Err(Errno::ESTALE);
        }
        if truncates(flags) {
            let kill_privileges = caller.uid != 0;
            let fence = Some(counted.fence());
            let changes = Changes { size_bytes: Some(0), kill_privileges, fence, ..Changes::default() };
            self.truncate(&pin, changes).await?;
        }
        Ok(counted.keep())
    }

    /// Gives an open file its number, and the kernel its instructions.
    fn opened(&self, file: FileHandle) -> (HandleId, OpenMode) {
        let mode = {
            let mut state = file.inode.lock();
            let token = CacheToken { data: state.attr.data, change: state.attr.change };
            let keep_cache = !file.direct && state.cached == Some(token);
            if !file.direct {
                state.cached = Some(token);
            }
            OpenMode { direct_io: file.direct, keep_cache }
        };
        (self.handles.add_file(file), mode)
    }

    /// close(2) of one descriptor: everything is sent and told, and this handle hears of errors.
    pub(crate) async fn flush_handle(self: &Arc<Self>, id: HandleId) -> OpResult {
        let file = self.handles.file(id)?;
        if file.writable {
            self.flush(&file.inode, Depth::All).await;
        }
        file.take_error(&file.inode.lock())?;
        Ok(OpReply::Ok)
    }

    pub(crate) async fn fsync(self: &Arc<Self>, id: HandleId, depth: Depth) -> OpResult {
        let file = self.handles.file(id)?;
        self.flush(&file.inode, depth).await;
        file.take_error(&file.inode.lock())?;
        Ok(OpReply::Ok)
    }

    /// The last descriptor of a handle is gone.
    pub(crate) fn release(self: &Arc<Self>, id: HandleId) {
        if let Some(file) = self.handles.remove(id) {
            self.uncount(&file);
        }
    }

    fn uncount(self: &Arc<Self>, file: &FileHandle) {
        let pin = &file.inode;
        let (last_of_orphan, clean) = {
            let mut state = pin.lock();
            file.close(&mut state);
            (state.orphan && state.opens == 0, state.is_clean())
        };
        if last_of_orphan {
            self.let_go(pin.clone());
        } else if !clean && file.writable {
            // Written through a mapping after the last close; nobody is left to hear of errors.
            self.detach(Box::pin(flush(Arc::clone(self), pin.clone(), Depth::All)));
        }
    }

    /// Nobody can reach the file any more: drops its data and tells the master.
    fn let_go(self: &Arc<Self>, pin: Pin) {
        {
            let mut state = pin.lock();
            state.dirty.truncate(0);
            state.pending = Pending::default();
            state.cached = None;
        }
        pin.notify();
        let client = Arc::clone(self);
        self.detach(Box::pin(async move {
            // A write landing after the data was freed would leave a chunk nobody knows.
            pin.until(|state| state.flights.is_empty().then_some(())).await;
            if pin.lock().gone {
                return;
            }
            if let Err(errno) = client.mutate(Mutation::Forget(vec![pin.ino])).await {
                tracing::warn!(ino = %pin.ino, %errno, "forget an unlinked file; it goes with the session");
            }
        }));
    }

    pub(crate) async fn unlink(self: &Arc<Self>, parent: InodeId, name: Name) -> OpResult {
        let client = Arc::clone(self);
        self.to_the_end(async move {
            let _counted = client.unlinks.read().await;
            let held = client.held(parent, &name).await?;
            let hold = held.as_ref().map(|pin| pin.ino);
            let mutated = client.mutate(Mutation::Unlink(Unlink { parent, name, hold })).await?;
            client.lost_name(mutated);
            Ok(OpReply::Ok)
        })
        .await
    }

    pub(crate) async fn rename(
        self: &Arc<Self>,
        (parent, name): (InodeId, Name),
        (new_parent, new_name): (InodeId, Name),
        flags: u32,
    ) -> OpResult {
        let flags = match flags {
            0 => RenameFlags::Replace,
            libc::RENAME_NOREPLACE => RenameFlags::NoReplace,
            libc::RENAME_EXCHANGE => RenameFlags::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let client = Arc::clone(self);
        self.to_the_end(async move {
            let _counted = client.unlinks.read().await;
            let held = match flags {
                RenameFlags::Replace => client.held(new_parent, &new_name).await?,
                RenameFlags::NoReplace | RenameFlags::Exchange => None,
            };
            let hold = held.as_ref().map(|pin| pin.ino);
            let rename = Rename { parent, name, new_parent, new_name, flags, hold };
            let mutated = client.mutate(Mutation::Rename(rename)).await?;
            client.lost_name(mutated);
            Ok(OpReply::Ok)
        })
        .await
    }

    /// The file a name stands for, if it is open here.
    async fn held(&self, parent: InodeId, name: &Name) -> Result<Option<Pin>, Errno> {
        if self.inodes.is_empty() {
            return Ok(None);
        }
        let answer = match self.meta.query(Query::Lookup { parent, name: name.clone() }).await {
            Ok(answer) => answer,
            // Unlink has to find that out in its own way; for rename there is nothing to replace.
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let pin = answer.attr.and_then(|attr| self.inodes.find(attr.ino));
        Ok(pin.filter(|pin| pin.lock().opens > 0))
    }

    /// An inode lost a name; perhaps its last.
    fn lost_name(self: &Arc<Self>, mutated: Mutated) {
        let Some(attr) = mutated.attr else { return };
        let Some(pin) = self.inodes.find(attr.ino) else {
            if mutated.held {
                // Closed meanwhile, and nobody else will let it go.
                self.let_go(self.inodes.pin(attr));
            }
            return;
        };
        let let_go = {
            let mut state = pin.lock();
            let last = attr.nlink == 0 && !attr.is_directory();
            state.refresh(attr, Source::OurChange);
            state.orphan |= last && mutated.held;
            state.gone |= last && !mutated.held;
            state.orphan && state.opens == 0
        };
        if let_go {
            self.let_go(pin);
        }
    }
}

/// An open that may still be given up.
struct Counted<'a> {
    client: &'a Arc<Client>,
    file: Option<FileHandle>,
}

impl<'a> Counted<'a> {
    fn new(client: &'a Arc<Client>, file: FileHandle) -> Self {
        Self { client, file: Some(file) }
    }

    fn fence(&self) -> Fence {
        self.file.as_ref().map_or(Fence::NONE, |file| file.fence)
    }

    fn keep(mut self) -> FileHandle {
        self.file.take().expect("taken here only")
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.client.uncount(&file);
        }
    }
}
