//! The file system: one operation in, one answer out.

use std::sync::{Arc, OnceLock};

use master_api::MasterClient;
use master_api::model::Name;
use tokio::runtime::Handle;

use crate::bare::Bare;
use crate::chunks::{Chunks, ClusterMembers, ErrorLog, Files, ReplicatedChunks, RetryPauses};
use crate::client::Client;
use crate::directory::Wanted;
use crate::handle::Handles;
use crate::inode_table::InodeTable;
use crate::known::Known;
use crate::meta::Meta;
use crate::rooted::{self, Rooted};
use crate::shape::Allocation;
use crate::write::flush::{Depth, Flusher};
use crate::write::memory::Memory;
use crate::write::writeback::{Attempt, Input};
use crate::{Caller, ClientConfig, ConnectError, Errno, Op, OpReply, OpResult};

/// A file system without a kernel. Cheap to clone; all clones are one client.
#[derive(Clone, Debug)]
pub struct FileSystem {
    client: Arc<Client>,
    errors: Arc<ErrorLog>,
    rooted: Rooted,
}

/// What a client holds: [`FileSystem::usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// For written data on its way to the chunkservers.
    pub memory_budget_bytes: u64,
    pub memory_used_bytes: u64,
    /// Files and directories.
    pub open_handles: u64,
    /// Files that are open or have something to be sent.
    pub inodes_in_use: u64,
}

impl FileSystem {
    /// Opens a session with the masters. Must be called inside a tokio runtime, which then carries all
    /// background work of this client.
    ///
    /// # Errors
    /// [`ConnectError`] if the configuration is unusable, the masters belong to another cluster, or the root is no directory that may be
    /// looked at. A master that is away is waited for.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        if config.masters.is_empty() {
            return Err(ConnectError::NoMasters);
        }
        let mut settings = master_api::ClientConfig::new(config.masters.clone(), config.description.clone());
        settings.transport = config.access.transport();
        let master = MasterClient::new(settings).map_err(ConnectError::Master)?;
        Self::over(master, config).await
    }

    /// The same, over a client of the masters that the caller uses for other things too.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn over(master: MasterClient, config: ClientConfig) -> Result<Self, ConnectError> {
        config.validate()?;
        master.ready().await.map_err(ConnectError::Master)?;
        rooted::check(config.root, master.get_attr(config.root).await)?;
        let errors = Arc::<ErrorLog>::default();
        let pauses = RetryPauses { min: config.retry_pause_min, max: config.retry_pause_max };
        let files = Files::default();
        let transport = config.access.transport();
        let members = ClusterMembers::new(master.clone(), Handle::current(), transport, Arc::clone(&files));
        let chunks = ReplicatedChunks::new(members, pauses, Arc::clone(&errors));
        let client = Self::new(Arc::new(master), Arc::new(chunks), errors, config)?;
        files.get_or_init(|| Arc::downgrade(&client.client.inodes));
        Ok(client)
    }

    /// A client of any namespace and any data. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`] if the configuration is unusable.
    pub fn new(
        meta: Arc<dyn Meta>,
        chunks: Arc<dyn Chunks>,
        errors: Arc<ErrorLog>,
        config: ClientConfig,
    ) -> Result<Self, ConnectError> {
        config.validate()?;
        let inodes = Arc::<InodeTable>::default();
        // What others change shows through it, so it is short; our own next change renews it.
        let known_for = config.ttl / 10;
        let rooted = Rooted::at(config.root);
        let lost = Arc::clone(&inodes);
        meta.on_session(Box::new(move |previous, _| {
            if previous.is_some() {
                lost.session_lost();
            }
        }));
        let client = Arc::new(Client {
            meta,
            chunks,
            runtime: Handle::current(),
            memory: Memory::new(config.memory_bytes),
            inodes,
            handles: Handles::default(),
            known: Known::new(known_for),
            bare: Bare::new(config.ttl),
            flusher: Arc::new(Flusher::default()),
            unlinks: tokio::sync::RwLock::default(),
            flushing: OnceLock::new(),
            config,
        });
        let flusher = Arc::clone(&client.flusher).run(Arc::downgrade(&client));
        let task = client.runtime.spawn(flusher).abort_handle();
        client.flushing.get_or_init(|| task);
        Ok(Self { client, errors, rooted })
    }

    /// Why the last data errors happened: which chunk, which members, what each said.
    #[must_use]
    pub fn errors(&self) -> &ErrorLog {
        &self.errors
    }

    /// Which directory is the root.
    #[must_use]
    pub const fn rooted(&self) -> Rooted {
        self.rooted
    }

    /// What this client holds just now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let client = &self.client;
        Usage {
            memory_budget_bytes: client.memory.budget_bytes(),
            memory_used_bytes: client.memory.budget_bytes() - client.memory.free_bytes(),
            open_handles: client.handles.count() as u64,
            inodes_in_use: client.inodes.count() as u64,
        }
    }

    /// Answers one operation.
    ///
    /// The future may be polled first outside the runtime (with its handle entered) and later on it, and may be
    /// dropped at any time: an operation half done then goes on in the background or was not begun.
    ///
    /// # Errors
    /// The errno the caller is to see.
    pub async fn handle(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        self.rooted.reply(self.answer(caller, self.rooted.op(op)).await)
    }

    /// The same with the cluster's numbers, as all below.
    async fn answer(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        let client = &self.client;
        match op {
            Op::Lookup { parent, name } => client.lookup(parent, Name::try_from(name)?).await,
            Op::Forget { ino, .. } => {
                client.inodes.forget(ino);
                Ok(OpReply::Ok)
            }
            Op::GetAttr { ino, .. } => client.get_attr(ino).await,
            Op::SetAttr { ino, changes } => client.set_attr(caller, ino, changes).await,
            Op::ReadLink { ino } => client.read_link(ino).await,
            Op::Mknod { parent, name, mode, rdev } => {
                client.mknod(caller, (parent, Name::try_from(name)?), (mode, rdev)).await
            }
            Op::Mkdir { parent, name, mode } => {
                client.mkdir(caller, parent, Name::try_from(name)?, mode).await
            }
            Op::Symlink { parent, name, target } => {
                client.symlink(caller, parent, Name::try_from(name)?, target).await
            }
            Op::Unlink { parent, name } => client.unlink(parent, Name::try_from(name)?).await,
            Op::Rmdir { parent, name } => client.rmdir(parent, Name::try_from(name)?).await,
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                let old = (parent, Name::try_from(name)?);
                client.rename(old, (new_parent, Name::try_from(new_name)?), flags).await
            }
            Op::Link { ino, new_parent, new_name } => {
                client.link(ino, new_parent, Name::try_from(new_name)?).await
            }
            Op::Create { parent, name, mode, flags } => {
                client.create(caller, (parent, Name::try_from(name)?), mode, flags).await
            }
            Op::Open { ino, flags } => client.open(caller, ino, flags).await,
            Op::Read { handle, offset_bytes, len_bytes, .. } => {
                let file = client.handles.file(handle)?;
                client.read(&file, offset_bytes, len_bytes).await
            }
            Op::Write { handle, offset_bytes, data, kill_privileges, mapped, .. } => {
                let file = client.handles.file(handle)?;
                client.write(&file, Input { offset: offset_bytes, data, kill_privileges, mapped }).await
            }
            Op::Flush { handle, .. } => client.flush_handle(handle).await,
            Op::Release { handle, .. } => {
                client.release(handle);
                Ok(OpReply::Ok)
            }
            Op::Fsync { handle, data_only, .. } => {
                client.fsync(handle, if data_only { Depth::Size } else { Depth::All }).await
            }
            Op::OpenDir { ino } => Ok(client.open_dir(ino)),
            Op::ReadDir { handle, offset, limit, attributes, .. } => {
                let dir = client.handles.dir(handle)?;
                client.read_dir(&dir, Wanted { offset, limit, attributes }).await
            }
            Op::ReleaseDir { handle, .. } => {
                client.handles.remove(handle);
                Ok(OpReply::Ok)
            }
            // A change of a name is durable before it is answered.
            Op::FsyncDir { .. } => Ok(OpReply::Ok),
            Op::StatFs => client.stat_fs().await,
            Op::SetXattr { ino, name, value, flags } => client.set_xattr(ino, name, value, flags).await,
            Op::GetXattr { ino, name } => match client.get_xattr_now(ino, name) {
                Some(answer) => answer,
                None => client.get_xattr(ino, name).await,
            },
            Op::ListXattr { ino } => client.list_xattr(ino).await,
            Op::RemoveXattr { ino, name } => client.remove_xattr(ino, name).await,
            Op::Fallocate { handle, offset_bytes, len_bytes, mode, .. } => {
                let file = client.handles.file(handle)?;
                client.fallocate(&file, Allocation { offset: offset_bytes, len: len_bytes, mode }).await
            }
            Op::Seek { handle, offset_bytes, whence, .. } => {
                let file = client.handles.file(handle)?;
                client.seek(&file, offset_bytes, whence).await
            }
            // The mount does not ask for them: the kernel keeps locks itself, and files are always ready.
            Op::Flock { .. } | Op::Poll { .. } => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The same, if it needs no waiting at all; `None` if it does, and then nothing was done: hand the operation to
    /// [`handle`](Self::handle). Lets a transport answer a buffered write straight from its own receive buffer.
    pub fn try_now(&self, _caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        if self.rooted.is_whole() {
            return self.answer_now(op);
        }
        let op = self.rooted.op(op.clone());
        self.answer_now(&op).map(|result| self.rooted.reply(result))
    }

    fn answer_now(&self, op: &Op<'_>) -> Option<OpResult> {
        let client = &self.client;
        match *op {
            Op::Write { handle, offset_bytes, data, kill_privileges, mapped, .. } => {
                let input = Input { offset: offset_bytes, data, kill_privileges, mapped };
                client.write_now(handle, input)
            }
            Op::Read { handle, offset_bytes, len_bytes, .. } => {
                let file = client.handles.file(handle).ok()?;
                client.read_now(&file, offset_bytes, len_bytes)
            }
            Op::GetAttr { ino, .. } => client.get_attr_now(ino),
            Op::Lookup { parent, name } => client.lookup_now(parent, name),
            Op::GetXattr { ino, name } => client.get_xattr_now(ino, name),
            Op::Flush { handle, .. } => client.flush_now(handle),
            Op::Forget { ino, .. } => {
                client.inodes.forget(ino);
                Some(Ok(OpReply::Ok))
            }
            Op::Release { handle, .. } => {
                client.release(handle);
                Some(Ok(OpReply::Ok))
            }
            Op::OpenDir { ino } => Some(Ok(client.open_dir(ino))),
            Op::ReleaseDir { handle, .. } => {
                client.handles.remove(handle);
                Some(Ok(OpReply::Ok))
            }
            Op::FsyncDir { .. } => Some(Ok(OpReply::Ok)),
            _ => None,
        }
    }

    /// Sends all written data, commits it and closes the session.
    ///
    /// # Errors
    /// The first error of written data that nobody was told of.
    pub async fn shutdown(&self) -> Result<(), Errno> {
        let mut result = Ok(());
        for pin in self.client.inodes.all() {
            let before = pin.lock().failures;
            self.client.flush(&pin, Depth::All).await;
            if let Some(errno) = pin.lock().failures.since(before.count) {
                result = result.and(Err(errno));
            }
        }
        self.client.meta.close().await;
        result
    }
}

impl Client {
    fn write_now(self: &Arc<Self>, handle: crate::HandleId, input: Input<'_>) -> Option<OpResult> {
        let file = self.handles.file(handle).ok()?;
        let small = !input.data.is_empty() && input.data.len() <= coord_types::WRITE_SIZE_MAX;
        let buffered = file.through == crate::handle::Through::Buffered;
        if !file.writable
            || !small
            || !buffered
            || input.offset.checked_add(input.data.len() as u64).is_none()
        {
            return None;
        }
        let _shared = file.inode.ops.try_read().ok()?;
        match self.buffer(&file, input, &mut None) {
            Attempt::Done => Some(Ok(OpReply::Written(u32::try_from(input.data.len()).ok()?))),
            Attempt::Failed(errno) => Some(Err(errno)),
            Attempt::Memory(_) | Attempt::Backlog | Attempt::Gap => None,
        }
    }

    fn flush_now(&self, handle: crate::HandleId) -> Option<OpResult> {
        let file = self.handles.file(handle).ok()?;
        let state = file.inode.lock();
        let nothing = !file.writable || state.is_clean();
        (nothing && !file.has_error(&state)).then_some(Ok(OpReply::Ok))
    }
}
