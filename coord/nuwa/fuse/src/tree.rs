//! Answers the kernel: each call is looked up in `docs/mount.md`, asked of Nuwa, and its answer translated.

mod locks;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::{
    Caller, DirEntry, Entry as Shown, Errno, FileAttr, HandleId, Op, OpReply, OpResult, OpenMode, SetAttr,
    SetTime, StatFs,
};
use fs_mount::Handler;
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Delete, Entry, List, Rename};
use nuwa_api::{ClientError, NuwaClient, Path, PathError, ops};
use parking_lot::Mutex;
use zhongkui::Resource;
use zhongkui_access::Access;

use crate::descriptors;
use crate::errno::errno;
use crate::feed::{Feed, feed_named};
use crate::file::{Mode, OpenFile};
use crate::inodes::{Inodes, Node};
use crate::keeper::Keeper;
use crate::xattr::{self, Attribute};

/// Nothing is believed without asking.
const TTL: Duration = Duration::ZERO;
const FILE_MODE: u32 = libc::S_IFREG | 0o644;
const DIRECTORY_MODE: u32 = libc::S_IFDIR | 0o755;
const FEED_MODE: u32 = libc::S_IFREG | 0o444;

/// Who owns everything on the mount.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<[DirEntry]>),
    Feed(Arc<Feed>),
}

/// See the module.
#[derive(Debug)]
pub struct Tree {
    keeper: Keeper,
    owner: Owner,
    inodes: Inodes,
    handles: Mutex<HashMap<HandleId, Handle>>,
    next_handle: AtomicU64,
    /// The next lock's, of whichever file.
    next_claim: AtomicU64,
    /// Those the client shows.
    keys: Option<Access>,
}

impl Handler for Tree {
    async fn handle(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        match op {
            Op::Lookup { parent, name } => self.look_up(parent, name).await,
            Op::Forget { ino, lookups } => {
                self.inodes.forget(ino, lookups);
                Ok(OpReply::Ok)
            }
            Op::GetAttr { ino, handle } => {
                Ok(OpReply::Attr { attr: self.attributes(ino, handle).await?, ttl: TTL })
            }
            Op::SetAttr { ino, changes } => self.set_attributes(ino, &changes).await,
            Op::Mkdir { parent, name, .. } => self.make_directory(parent, name).await,
            Op::Unlink { parent, name } => self.delete(self.child(parent, name, false)?).await,
            Op::Rmdir { parent, name } => self.delete(self.child(parent, name, true)?).await,
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                self.rename((parent, name), (new_parent, new_name), flags).await
            }
            Op::Create { parent, name, flags, .. } => self.create(caller, parent, name, flags).await,
            Op::Open { ino, flags } => self.open(caller, ino, flags).await,
            Op::Read { handle, offset_bytes, len_bytes, .. } => match self.handle_of(handle)? {
                Handle::File(file) => {
                    file.claims.check()?;
                    Ok(OpReply::Bytes(file.read(offset_bytes, len_bytes).await))
                }
                Handle::Feed(feed) => Ok(OpReply::Bytes(feed.read(len_bytes as usize).await)),
                Handle::Directory(_) => Err(Errno::EISDIR),
            },
            Op::Write { handle, offset_bytes, data, .. } => {
                let file = self.file(handle)?;
                file.claims.check()?;
                Ok(OpReply::Written(file.write(offset_bytes, data).await?))
            }
            Op::Flush { handle, .. } => match self.handle_of(handle)? {
                Handle::File(file) => self.flush(caller, &file).await,
                Handle::Feed(_) | Handle::Directory(_) => Ok(OpReply::Ok),
            },
            Op::Fsync { handle, .. } => {
                let file = self.file(handle)?;
                file.claims.check()?;
                self.put_all(&file).await?;
                Ok(OpReply::Ok)
            }
            Op::Release { handle, .. } => self.release(handle).await,
            Op::OpenDir { ino } => self.open_directory(ino).await,
            Op::ReadDir { handle, offset, limit, attributes, .. } => {
                self.read_directory(handle, offset, limit, attributes)
            }
            Op::ReleaseDir { handle, .. } => {
                self.handles.lock().remove(&handle);
                Ok(OpReply::Ok)
            }
            // A change is durable before it is answered.
            Op::FsyncDir { .. } => Ok(OpReply::Ok),
            Op::StatFs => Ok(OpReply::StatFs(StatFs::default())),
            Op::SetXattr { ino, name, value, .. } => self.set_xattr(ino, name, value).await,
            Op::GetXattr { ino, name } => self.get_xattr(ino, name).await,
            Op::ListXattr { ino } => self.list_xattr(ino).await,
            Op::RemoveXattr { .. } => Err(Errno::EPERM),
            Op::Flock { handle, lock, wait, .. } => self.flock(&*self.file(handle)?, lock, wait).await,
            Op::Poll { handle, again, .. } => {
                let ready = match self.handle_of(handle)? {
                    Handle::Feed(feed) => {
                        if feed.poll(again) {
                            libc::POLLIN | libc::POLLRDNORM
                        } else {
                            0
                        }
                    }
                    Handle::File(_) | Handle::Directory(_) => {
                        libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM
                    }
                };
                Ok(OpReply::Ready(u32::from(ready.cast_unsigned())))
            }
            Op::Link { .. } | Op::Symlink { .. } | Op::Mknod { .. } => {
                tracing::debug!(pid = caller.pid, "there are only files and directories");
                Err(Errno::EPERM)
            }
            Op::ReadLink { .. } | Op::Seek { .. } => Err(Errno::EINVAL),
            Op::Fallocate { .. } => Err(Errno::EOPNOTSUPP),
        }
    }
}

impl Tree {
    /// `description`: what the mount's session says of itself.
    #[must_use]
    pub fn new(client: NuwaClient, ttl: Duration, description: String, owner: Owner) -> Self {
        Self {
            keeper: Keeper::new(client, ttl, description),
            owner,
            inodes: Inodes::new(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            next_claim: AtomicU64::new(1),
            keys: None,
        }
    }

    /// Directories that lead to what these keys open can be walked through, though not be listed.
    #[must_use]
    pub fn with_keys(self, keys: Access) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// Waits until Nuwa answers.
    ///
    /// # Errors
    /// Nuwa refuses.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.keeper.session().await.map(drop)
    }

    /// The mount has ended: its session does, too.
    pub async fn end(&self, patience: Duration) {
        self.keeper.end(patience).await;
    }

    // ---- names ----

    /// What is in the tree under a name, or may be put there: never `.events`.
    fn child(&self, parent: InodeId, name: &[u8], is_directory: bool) -> Result<Path, Errno> {
        if feed_named(name).is_some() {
            return Err(Errno::EPERM);
        }
        let parent = self.inodes.path(parent)?;
        let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
        let slash = if is_directory { "/" } else { "" };
        Path::new(format!("{parent}{name}{slash}")).map_err(|error| match error {
            PathError::NameTooLong | PathError::TooLong => Errno::ENAMETOOLONG,
            _ => Errno::EINVAL,
        })
    }

    async fn get(&self, path: &Path) -> Result<Option<Entry>, Errno> {
        let entry = self.keeper.client().get(path.as_str(), Freshness::Linearizable, None).await;
        entry.map_err(|error| errno(&error))
    }

    /// What a name stands for: a file, a directory, or nothing.
    async fn find(&self, parent: InodeId, name: &[u8]) -> Result<Option<(Path, Entry)>, Errno> {
        let (file, directory) = (self.child(parent, name, false)?, self.child(parent, name, true)?);
        let (as_file, as_directory) = tokio::join!(self.get(&file), self.get(&directory));
        Ok(match (as_file, as_directory) {
            (Ok(Some(entry)), _) => Some((file, entry)),
            (_, Ok(Some(entry))) => Some((directory, entry)),
            (Ok(None), Ok(None)) => None,
            // The file may be looked at, and is not there. If it cannot be there either, whoever makes it hears of it.
            (Ok(None), Err(Errno::EACCES)) => None,
            (Err(Errno::EACCES), Err(Errno::EACCES)) if self.leads_on(&directory) => {
                let entry = unseen(&directory);
                Some((directory, entry))
            }
            (Err(errno), _) | (_, Err(errno)) => return Err(errno),
        })
    }

    /// Whether a directory that may not be looked at is on the way to something that is granted: that it is there is then no secret.
    fn leads_on(&self, directory: &Path) -> bool {
        let Some(keys) = &self.keys else { return false };
        keys.keyring().capability().terms().all(|terms| {
            terms.grants().iter().any(|grant| match grant.resource() {
                Resource::Nuwa(path) => path.as_str().starts_with(directory.as_str()),
                Resource::Everything
                | Resource::Directory(_)
                | Resource::File(_)
                | Resource::Queue(_)
                | Resource::Action(_)
                | Resource::Service(_) => false,
            })
        })
    }

    async fn look_up(&self, parent: InodeId, name: &[u8]) -> OpResult {
        if let Some(from) = feed_named(name) {
            let directory = self.inodes.path(parent)?;
            let ino = self.inodes.look_up_feed(directory, from?);
            return Ok(OpReply::Entry(shown(self.feed_attributes(ino, None))));
        }
        if let Some((path, entry)) = self.find(parent, name).await? {
            let ino = self.inodes.look_up(&path);
            return Ok(OpReply::Entry(shown(self.with_change(self.entry_attributes(ino, &entry)))));
        }
        // Made by this mount, and not put yet.
        let path = self.child(parent, name, false)?;
        let new = self.files().into_iter().find(|file| {
            file.size_of_change().is_some() && self.inodes.path(file.ino).is_ok_and(|known| known == path)
        });
        match new {
            Some(_) => {
                let ino = self.inodes.look_up(&path);
                Ok(OpReply::Entry(shown(self.with_change(self.entry_attributes(ino, &Entry::default())))))
            }
            None => Err(Errno::ENOENT),
        }
    }

    async fn make_directory(&self, parent: InodeId, name: &[u8]) -> OpResult {
        let path = self.child(parent, name, true)?;
        let result = self.change(ops::make_directory(path.as_str())).await.map_err(|error| match error {
            // POSIX does not tell whether a file or a directory is in the way.
            Errno::ENOTDIR | Errno::EISDIR => Errno::EEXIST,
            error => error,
        });
        let entry = result?.entry.unwrap_or_default();
        let ino = self.inodes.look_up(&path);
        Ok(OpReply::Entry(shown(self.entry_attributes(ino, &entry))))
    }

    async fn delete(&self, path: Path) -> OpResult {
        self.change(Delete { path: path.to_string(), ..Delete::default() }).await?;
        self.inodes.gone(&path);
        Ok(OpReply::Ok)
    }

    async fn rename(&self, from: (InodeId, &[u8]), to: (InodeId, &[u8]), flags: u32) -> OpResult {
        let no_replace = flags & libc::RENAME_NOREPLACE != 0;
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(Errno::EINVAL);
        }
        let (source, _) = self.find(from.0, from.1).await?.ok_or(Errno::ENOENT)?;
        let target = self.child(to.0, to.1, source.is_directory())?;
        let rename = Rename { from: source.to_string(), to: target.to_string(), no_replace };
        let mut operations = Vec::new();
        // An empty directory gives way to another; one that is not empty refuses.
        if source.is_directory() && !no_replace && source != target && self.get(&target).await?.is_some() {
            operations.push(ops::delete(target.as_str()).into());
        }
        operations.push(rename.into());
        let session = self.keeper.session().await.map_err(|error| errno(&error))?;
        let done = session.txn(Vec::new(), operations, Vec::new(), None).await;
        done.map_err(|error| errno(&error))?;
        self.inodes.renamed(&source, &target);
        Ok(OpReply::Ok)
    }

    /// One operation, under the mount's session.
    async fn change(
        &self,
        operation: impl Into<nuwa_api::proto::Operation>,
    ) -> Result<nuwa_api::proto::OperationResult, Errno> {
        let session = self.keeper.session().await.map_err(|error| errno(&error))?;
        session.change_one(operation, None).await.map_err(|error| errno(&error))
    }

    // ---- attributes ----

    async fn attributes(&self, ino: InodeId, handle: Option<HandleId>) -> Result<FileAttr, Errno> {
        let path = match self.inodes.node(ino)? {
            Node::Entry(path) => path,
            Node::Feed { opened, .. } => {
                // Named by its handle it is looked at by whoever seeks its end.
                if let Some(handle) = handle
                    && let Handle::Feed(feed) = self.handle_of(handle)?
                {
                    feed.end_is_looked_for();
                }
                return Ok(self.feed_attributes(ino, opened));
            }
        };
        let entry = match self.get(&path).await {
            Err(Errno::EACCES) if path.is_directory() && self.leads_on(&path) => Some(unseen(&path)),
            entry => entry?,
        };
        let changed = self.files().into_iter().any(|file| file.ino == ino);
        match entry {
            Some(entry) => Ok(self.with_change(self.entry_attributes(ino, &entry))),
            // Not put yet, or deleted while it is open.
            None if changed => Ok(self.with_change(self.entry_attributes(ino, &Entry::default()))),
            None => Err(Errno::ENOENT),
        }
    }

    async fn set_attributes(&self, ino: InodeId, changes: &SetAttr) -> OpResult {
        let others = |asked: Option<u32>, ours: u32| asked.is_some_and(|asked| asked != ours);
        if others(changes.uid, self.owner.uid) || others(changes.gid, self.owner.gid) {
            return Err(Errno::EPERM);
        }
        let touched = matches!(changes.mtime, Some(SetTime::Now));
        let open = changes.handle.map(|handle| self.file(handle)).transpose()?;
        // The kernel does not always say through which file; one that is not put yet is found all the same.
        let open =
            open.or_else(|| self.files().into_iter().find(|file| file.ino == ino && file.is_to_be_made()));
        if let Some(file) = open {
            file.claims.check()?;
            if let Some(size) = changes.size_bytes {
                file.truncate(size).await?;
            }
            if touched {
                self.put_all(&file).await?;
            }
        } else if changes.size_bytes.is_some() || touched {
            let path = self.inodes.path(ino)?;
            if !path.is_directory() {
                let entry = self.get(&path).await?.ok_or(Errno::ENOENT)?;
                let file = OpenFile::new(ino, Mode::default(), Some(entry));
                match changes.size_bytes {
                    Some(size) => file.truncate(size).await?,
                    // As it is, once more.
                    None => file.write(0, &file.read(0, u32::MAX).await).await.map(drop)?,
                }
                self.put_all(&file).await?;
            }
        }
        Ok(OpReply::Attr { attr: self.attributes(ino, None).await?, ttl: TTL })
    }

    fn entry_attributes(&self, ino: InodeId, entry: &Entry) -> FileAttr {
        let is_directory = entry.path.ends_with('/');
        let time = UNIX_EPOCH + Duration::from_nanos(entry.modified_unix_nanos);
        let mode = if is_directory { DIRECTORY_MODE } else { FILE_MODE };
        self.attr(ino, mode, entry.value.len() as u64, time)
    }

    fn feed_attributes(&self, ino: InodeId, opened: Option<HandleId>) -> FileAttr {
        let (size, last) = match opened.and_then(|handle| self.handles.lock().get(&handle).cloned()) {
            Some(Handle::Feed(feed)) => feed.size(),
            _ => (0, SystemTime::now()),
        };
        self.attr(ino, FEED_MODE, size, last)
    }

    fn attr(&self, ino: InodeId, mode: u32, size_bytes: u64, time: SystemTime) -> FileAttr {
        FileAttr {
            ino,
            mode,
            nlink: if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 },
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: 0,
            size_bytes,
            allocated_bytes: size_bytes,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    /// As this mount has it: with what was written and not put yet.
    fn with_change(&self, attr: FileAttr) -> FileAttr {
        let changed = self.files().into_iter().filter(|file| file.ino == attr.ino);
        let size = changed.filter_map(|file| file.size_of_change()).last();
        FileAttr { size_bytes: size.unwrap_or(attr.size_bytes), ..attr }
    }

    // ---- open files ----

    fn keep(&self, handle: Handle) -> HandleId {
        let id = HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed));
        self.handles.lock().insert(id, handle);
        id
    }

    fn keep_file(&self, caller: &Caller, mut file: OpenFile) -> HandleId {
        file.opened_by(caller.pid);
        self.keep(Handle::File(Arc::new(file)))
    }

    fn handle_of(&self, handle: HandleId) -> Result<Handle, Errno> {
        self.handles.lock().get(&handle).cloned().ok_or(Errno::EBADF)
    }

    fn file(&self, handle: HandleId) -> Result<Arc<OpenFile>, Errno> {
        match self.handle_of(handle)? {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) | Handle::Feed(_) => Err(Errno::EINVAL),
        }
    }

    fn files(&self) -> Vec<Arc<OpenFile>> {
        let handles = self.handles.lock();
        let files = handles.values().filter_map(|handle| match handle {
            Handle::File(file) => Some(Arc::clone(file)),
            Handle::Directory(_) | Handle::Feed(_) => None,
        });
        files.collect()
    }

    async fn create(&self, caller: &Caller, parent: InodeId, name: &[u8], flags: i32) -> OpResult {
        if feed_named(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let path = self.child(parent, name, false)?;
        let entry = if flags & libc::O_EXCL != 0 {
            let created = self.change(ops::create(path.as_str(), Bytes::new())).await;
            // What is in the way may be a directory.
            let created = created.map_err(|error| if error == Errno::EISDIR { Errno::EEXIST } else { error });
            created?.entry
        } else {
            match self.find(parent, name).await? {
                Some((found, _)) if found.is_directory() => return Err(Errno::EISDIR),
                Some((_, entry)) => Some(entry),
                None => {
                    // Its directory must be there, as for any file.
                    let directory = self.inodes.path(parent)?;
                    self.get(&directory).await?.ok_or(Errno::ENOENT)?;
                    None
                }
            }
        };
        let ino = self.inodes.look_up(&path);
        let attr = self.entry_attributes(ino, &entry.clone().unwrap_or_default());
        let mode = Mode { create: true, ..mode(flags) };
        let handle = self.keep_file(caller, OpenFile::new(ino, mode, entry));
        Ok(OpReply::Created { entry: shown(self.with_change(attr)), handle, mode: around_the_cache() })
    }

    async fn open(&self, caller: &Caller, ino: InodeId, flags: i32) -> OpResult {
        let handle = match self.inodes.node(ino)? {
            Node::Entry(path) => {
                let entry = match self.get(&path).await? {
                    Some(entry) => Some(entry),
                    // Another file of this mount is about to make it.
                    None if self.files().iter().any(|file| file.ino == ino) => None,
                    None => return Err(Errno::ENOENT),
                };
                self.keep_file(caller, OpenFile::new(ino, mode(flags), entry))
            }
            Node::Feed { directory, from, .. } => {
                if flags & libc::O_ACCMODE != libc::O_RDONLY {
                    return Err(Errno::EACCES);
                }
                let feed = Feed::open(&self.keeper, &directory, from).await?;
                let handle = self.keep(Handle::Feed(Arc::new(feed)));
                self.inodes.feed_opened(ino, handle);
                handle
            }
        };
        Ok(OpReply::Opened { handle, mode: around_the_cache() })
    }

    /// A `close`, of one of perhaps several descriptors. What was only made or emptied is put by the one that ends it for who opened it:
    /// before, something may be written, and nobody is to see the file empty in between.
    async fn flush(&self, caller: &Caller, file: &OpenFile) -> OpResult {
        let path = self.inodes.path(file.ino)?;
        if file.is_only_opened().await {
            let is_opener =
                file.opener().is_some_and(|opener| descriptors::process_of(caller.pid) == Some(opener));
            let name = path.split().map_or("", |(_, name)| name);
            if !is_opener || descriptors::has_open(caller.pid, file.ino, name) != Some(false) {
                return Ok(OpReply::Ok);
            }
        }
        file.put_all(&self.keeper, &path).await?;
        Ok(OpReply::Ok)
    }

    async fn put_all(&self, file: &OpenFile) -> Result<(), Errno> {
        let path = self.inodes.path(file.ino)?;
        file.put_all(&self.keeper, &path).await
    }

    async fn release(&self, handle: HandleId) -> OpResult {
        let Some(released) = self.handles.lock().get(&handle).cloned() else { return Ok(OpReply::Ok) };
        if let Handle::File(file) = released {
            // Nobody waits for this any more, but it is what was asked for.
            let put = match self.inodes.path(file.ino) {
                Ok(path) => file.put_at_last(&self.keeper, &path).await,
                Err(error) => Err(error),
            };
            self.handles.lock().remove(&handle);
            if let Err(error) = put {
                tracing::error!(%error, "what no close has put could not be put");
            }
            self.give_back(&file).await?;
        } else {
            self.handles.lock().remove(&handle);
        }
        Ok(OpReply::Ok)
    }

    // ---- directories ----

    async fn open_directory(&self, ino: InodeId) -> OpResult {
        let path = self.inodes.path(ino)?;
        let mut entries =
            vec![self.dot(".", &path), self.dot("..", &path.parent().unwrap_or_else(Path::root))];
        let mut after = String::new();
        loop {
            let list = List { path: path.to_string(), after, ..List::default() };
            let listed = self.keeper.client().list(list, Freshness::Linearizable, None).await;
            let listed = listed.map_err(|error| errno(&error))?;
            for entry in &listed.entries {
                let Ok(path) = Path::new(entry.path.clone()) else { continue };
                let Some((_, name)) = path.split() else { continue };
                let kind = if path.is_directory() { libc::S_IFDIR } else { libc::S_IFREG };
                entries.push(self.dir_entry(name.trim_end_matches('/'), &path, kind));
            }
            match listed.entries.last().and_then(|last| last.path.strip_prefix(path.as_str())) {
                Some(last) if listed.more => after = last.to_owned(),
                _ => break,
            }
        }
        for (offset, entry) in (1..).zip(&mut entries) {
            entry.next_offset = offset;
        }
        let handle = self.keep(Handle::Directory(entries.into()));
        Ok(OpReply::Opened { handle, mode: OpenMode::default() })
    }

    fn dot(&self, name: &'static str, path: &Path) -> DirEntry {
        self.dir_entry(name, path, libc::S_IFDIR)
    }

    fn dir_entry(&self, name: &str, path: &Path, kind: u32) -> DirEntry {
        let name = Bytes::copy_from_slice(name.as_bytes());
        DirEntry { ino: self.inodes.shown(path), name, kind, next_offset: 0, entry: None }
    }

    /// Without attributes, whatever is asked for: each name's would have to be asked for again.
    fn read_directory(&self, handle: HandleId, offset: u64, limit: u32, _attributes: bool) -> OpResult {
        let Handle::Directory(entries) = self.handle_of(handle)? else { return Err(Errno::ENOTDIR) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(entries.len());
        let to = from.saturating_add(limit as usize).min(entries.len());
        Ok(OpReply::Entries(entries[from..to].into()))
    }

    // ---- extended attributes ----

    async fn get_xattr(&self, ino: InodeId, name: &[u8]) -> OpResult {
        let attribute = Attribute::named(name).ok_or(Errno::ENODATA)?;
        let path = self.inodes.path(ino).map_err(|_| Errno::ENODATA)?;
        let entry = self.get(&path).await?.ok_or(Errno::ENOENT)?;
        let fence = if attribute == Attribute::Fence { self.fence(ino, &path).await? } else { None };
        attribute.value(&entry, fence).map(OpReply::Bytes).ok_or(Errno::ENODATA)
    }

    async fn list_xattr(&self, ino: InodeId) -> OpResult {
        let Ok(path) = self.inodes.path(ino) else { return Ok(OpReply::Names(Vec::new())) };
        let entry = self.get(&path).await?.ok_or(Errno::ENOENT)?;
        let fence = match self.fence(ino, &path).await {
            // Of a lock that is lost: whoever asks for it is told.
            Err(Errno::EIO) => None,
            fence => fence?,
        };
        let names = Attribute::ALL.into_iter().filter(|attribute| attribute.value(&entry, fence).is_some());
        Ok(OpReply::Names(names.map(|attribute| attribute.name().into()).collect()))
    }

    async fn set_xattr(&self, ino: InodeId, name: &[u8], value: &[u8]) -> OpResult {
        if !xattr::is_cas(name) {
            return Err(if Attribute::named(name).is_some() { Errno::EPERM } else { Errno::EOPNOTSUPP });
        }
        let (version, value) = xattr::parse_cas(value)?;
        let path = self.inodes.path(ino)?;
        let session = self.keeper.session().await.map_err(|error| errno(&error))?;
        let compares = vec![ops::version_is(path.as_str(), version)];
        let then = vec![ops::put(path.as_str(), value).into()];
        let done = session.txn(compares, then, Vec::new(), None).await.map_err(|error| errno(&error))?;
        // Not EAGAIN, of which Linux makes EOPNOTSUPP here.
        if done.succeeded { Ok(OpReply::Ok) } else { Err(Errno::ESTALE) }
    }
}

fn mode(flags: i32) -> Mode {
    Mode { append: flags & libc::O_APPEND != 0, truncate: flags & libc::O_TRUNC != 0, create: false }
}

fn around_the_cache() -> OpenMode {
    OpenMode { direct_io: true, keep_cache: false }
}

/// A directory of which nothing is known but its name.
fn unseen(path: &Path) -> Entry {
    Entry { path: path.to_string(), ..Entry::default() }
}

fn shown(attr: FileAttr) -> Shown {
    Shown { attr, entry_ttl: TTL, attr_ttl: TTL }
}
