//! The control files in front of a file system: operations on them are answered here, all others go behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::chunks::ErrorRecord;
use fs_client::{
    Caller, DirEntry, Entry, Errno, FileAttr, FileSystem, HandleId, Op, OpReply, OpResult, OpenMode, Rooted,
    SetAttr, Usage,
};
use fs_mount::Handler;
use master_api::model::{Attr, Name, ReadDir};
use master_api::proto::WhereReply;
use parking_lot::Mutex;
use zhongkui::Timestamp;
use zhongkui_access::Access;

use crate::node::{File, Node, TOP_NAME, server_entries, top_entries};
use crate::show;
use crate::view::{Cluster, Freshness, View};

/// How long the kernel may believe names and attributes.
const TTL: Duration = Duration::from_secs(1);
/// Set in the number of an open control file.
const OURS: u64 = 1 << 63;
/// Entries of a mirrored directory asked for at a time.
const PAGE: u32 = 1000;
/// Offsets 0 and 1 are "." and ".."; beyond, where reading goes on is what the entries say.
const DOTS: u64 = 2;

/// Every file of the mount has it, and no list of names shows it, so that no copy of a file takes it along. Its value is
/// what `where/PATH` says.
const WHERE_XATTR: &[u8] = b"user.pangu.where";

/// What `ctl` tells a reader.
const CTL_HELP: &str = "\
write one of these, a line:
  drain    move everything off this chunkserver; `status` and `recovery` tell when it is safe to pull
  undrain  take that back
";

/// What a mount knows of itself.
pub trait Local {
    /// Why reads and writes failed, oldest first.
    fn errors(&self) -> Vec<ErrorRecord>;

    fn usage(&self) -> Usage;

    /// Which directory is shown as the root.
    fn rooted(&self) -> Rooted;
}

impl Local for FileSystem {
    fn errors(&self) -> Vec<ErrorRecord> {
        Self::errors(self).records()
    }

    fn usage(&self) -> Usage {
        Self::usage(self)
    }

    fn rooted(&self) -> Rooted {
        Self::rooted(self)
    }
}

/// What is mounted, for the control files to name.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What the cluster is called.
    pub name: String,
    /// The file that describes it.
    pub description: String,
    /// Whose `ctl` files are.
    pub uid: u32,
    pub gid: u32,
    /// The keys that requests are made with. They may change while it is mounted.
    pub access: Access,
    /// Nothing can be changed through it.
    pub read_only: bool,
}

/// An open control file or directory.
#[derive(Clone, Debug)]
enum Open {
    Text(Bytes),
    Dir,
}

/// The control files, and behind them the file system.
#[derive(Debug)]
pub struct ControlFiles<H> {
    inner: H,
    mount: Mount,
    view: View,
    open: Mutex<HashMap<u64, Open>>,
    opened: AtomicU64,
    counters: Counters,
    since: SystemTime,
}

impl<H: Handler + Local> ControlFiles<H> {
    #[must_use]
    pub fn new(inner: H, cluster: Arc<dyn Cluster>, mount: Mount) -> Self {
        let view = View::new(cluster, inner.rooted());
        Self {
            inner,
            mount,
            view,
            open: Mutex::default(),
            opened: AtomicU64::default(),
            counters: Counters::default(),
            since: SystemTime::now(),
        }
    }

    async fn ours(&self, op: Op<'_>) -> OpResult {
        match op {
            Op::Lookup { parent, name } => self.look_up(parent, name).await,
            Op::GetAttr { ino, .. } => Ok(OpReply::Attr { attr: self.attr(node(ino)?).await?, ttl: TTL }),
            Op::SetAttr { ino, changes } => self.set_attr(node(ino)?, &changes).await,
            Op::Open { ino, flags } => self.open(node(ino)?, flags).await,
            Op::Read { handle, offset_bytes, len_bytes, .. } => self.read(handle, offset_bytes, len_bytes),
            Op::Write { ino, data, .. } => self.write(node(ino)?, data).await,
            Op::OpenDir { .. } => {
                Ok(OpReply::Opened { handle: self.add(Open::Dir), mode: OpenMode::default() })
            }
            Op::ReadDir { ino, offset, limit, attributes, .. } => {
                self.read_dir(node(ino)?, (offset, limit), attributes).await
            }
            Op::Release { handle, .. } | Op::ReleaseDir { handle, .. } => {
                self.open.lock().remove(&handle.0);
                Ok(OpReply::Ok)
            }
            Op::Forget { .. } | Op::Flush { .. } | Op::Fsync { .. } | Op::FsyncDir { .. } => Ok(OpReply::Ok),
            Op::GetXattr { ino, name: WHERE_XATTR } if !Node::is_ours(ino) => {
                let (freshness, place) = self.view.place(ino).await?;
                let mode = place.attr.as_ref().map_or(0, |attr| attr.mode);
                if mode & libc::S_IFMT != libc::S_IFREG {
                    return Err(Errno::ENODATA);
                }
                Ok(OpReply::Bytes(described(freshness, &place).into()))
            }
            Op::SetXattr { ino, .. } | Op::RemoveXattr { ino, .. } if !Node::is_ours(ino) => {
                Err(Errno::EPERM)
            }
            Op::GetXattr { .. } => Err(Errno::ENODATA),
            Op::ListXattr { .. } => Ok(OpReply::Names(Vec::new())),
            Op::SetXattr { .. } | Op::RemoveXattr { .. } | Op::Fallocate { .. } => Err(Errno::EOPNOTSUPP),
            Op::ReadLink { .. } | Op::Seek { .. } | Op::Flock { .. } | Op::Poll { .. } => Err(Errno::EINVAL),
            // Something is to be made where nothing is made, or the name of the directory itself is touched.
            Op::Create { name, .. }
            | Op::Mkdir { name, .. }
            | Op::Mknod { name, .. }
            | Op::Symlink { name, .. } => Err(if name == TOP_NAME { Errno::EEXIST } else { Errno::EPERM }),
            Op::Link { new_name, .. } => Err(if new_name == TOP_NAME { Errno::EEXIST } else { Errno::EPERM }),
            Op::Rename { parent, name, new_parent, new_name, .. } => {
                let taken = is_top(new_parent, new_name) && !is_top(parent, name) && !Node::is_ours(parent);
                Err(if taken { Errno::EEXIST } else { Errno::EPERM })
            }
            Op::Unlink { .. } | Op::Rmdir { .. } => Err(Errno::EPERM),
            Op::StatFs => Err(Errno::EIO),
        }
    }

    async fn look_up(&self, parent: InodeId, name: &[u8]) -> OpResult {
        let found = match Node::of(parent) {
            // Of the root only this name comes here.
            None => Node::Top,
            Some(Node::Top) => {
                let found = top_entries().find(|(known, _)| *known == name);
                found.map(|(_, node)| node).ok_or(Errno::ENOENT)?
            }
            Some(Node::Servers) => {
                let id =
                    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(Errno::ENOENT)?;
                // "007" is not another name of 7.
                let known = self.servers().await.contains(&id) && id.to_string().as_bytes() == name;
                known.then_some(Node::Server(id)).ok_or(Errno::ENOENT)?
            }
            Some(Node::Server(id)) => {
                let entries = server_entries(id);
                let found = entries.iter().find(|(known, _)| *known == name);
                found.map(|(_, node)| *node).ok_or(Errno::ENOENT)?
            }
            Some(Node::Mirror(parent)) => {
                let attr = self.view.look_up(parent, Name::try_from(name)?).await?;
                return Ok(OpReply::Entry(entry(self.mirrored(&attr))));
            }
            Some(Node::File(_)) => return Err(Errno::ENOTDIR),
        };
        Ok(OpReply::Entry(entry(self.attr(found).await?)))
    }

    async fn servers(&self) -> Vec<u32> {
        let (_, status) = self.view.status().await;
        status.table.iter().flat_map(|table| &table.servers).map(|server| server.id).collect()
    }

    async fn attr(&self, node: Node) -> Result<FileAttr, Errno> {
        Ok(match node {
            Node::Mirror(ino) if node != Node::WHERE => self.mirrored(&self.view.attr(ino).await?),
            Node::Top | Node::Servers | Node::Server(_) | Node::Mirror(_) => {
                self.made(node, libc::S_IFDIR | 0o555)
            }
            Node::File(File::Ctl(_)) => self.made(node, libc::S_IFREG | 0o600),
            Node::File(_) => self.made(node, libc::S_IFREG | 0o444),
        })
    }

    fn made(&self, node: Node, mode: u32) -> FileAttr {
        FileAttr {
            ino: node.ino(),
            mode,
            nlink: if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 },
            uid: self.mount.uid,
            gid: self.mount.gid,
            rdev: 0,
            size_bytes: 0,
            allocated_bytes: 0,
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
        }
    }

    /// A directory of the tree is one here, and all else a file with its replicas. Who may look is as there.
    fn mirrored(&self, attr: &Attr) -> FileAttr {
        let readable = attr.mode & 0o555;
        let mode = if attr.is_directory() { libc::S_IFDIR | readable } else { libc::S_IFREG | 0o444 };
        FileAttr { uid: attr.uid, gid: attr.gid, ..self.made(Node::Mirror(attr.ino), mode) }
    }

    /// A shell empties a file it writes to: of `ctl` that means nothing.
    async fn set_attr(&self, node: Node, changes: &SetAttr) -> OpResult {
        let only_size = changes.mode.is_none() && changes.uid.is_none() && changes.gid.is_none();
        if !matches!(node, Node::File(File::Ctl(_))) || !only_size {
            return Err(Errno::EPERM);
        }
        Ok(OpReply::Attr { attr: self.attr(node).await?, ttl: TTL })
    }

    async fn open(&self, node: Node, flags: i32) -> OpResult {
        let writing = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if writing && !matches!(node, Node::File(File::Ctl(_))) {
            return Err(Errno::EACCES);
        }
        let text = match node {
            Node::File(File::Ctl(_)) => CTL_HELP.to_owned(),
            Node::File(file) => self.text(file).await?,
            Node::Mirror(ino) => {
                let (freshness, place) = self.view.place(ino).await?;
                described(freshness, &place)
            }
            Node::Top | Node::Servers | Node::Server(_) => return Err(Errno::EISDIR),
        };
        let handle = self.add(Open::Text(text.into()));
        Ok(OpReply::Opened { handle, mode: OpenMode { direct_io: true, keep_cache: false } })
    }

    async fn text(&self, file: File) -> Result<String, Errno> {
        match file {
            File::Metrics => {
                let errors = self.inner.errors().len();
                return Ok(show::metrics(&self.inner.usage(), errors, &self.counters.all()));
            }
            File::Errors => return Ok(show::errors(&self.inner.errors(), SystemTime::now())),
            File::Whoami => return Ok(self.whoami()),
            _ => {}
        }
        let (freshness, status) = self.view.status().await;
        let text = match file {
            // It says in its own words how old it is.
            File::Health => return Ok(show::health(&status, freshness)),
            File::Cluster => show::cluster(&self.mount.name, &self.mount.description, &status),
            File::Groups => show::groups(&status),
            File::Recovery => show::recovery(&status),
            File::Status(id) => show::chunkserver(&status, id).ok_or(Errno::ENOENT)?,
            File::Ctl(_) | File::Metrics | File::Errors | File::Whoami => String::new(),
        };
        Ok(noted(freshness.note(), text))
    }

    /// By the keys that are in use now.
    fn whoami(&self) -> String {
        let Mount { name, description, access, read_only, .. } = &self.mount;
        let capability = access.keyring().capability();
        let valid = zhongkui::decide::valid(&capability, Timestamp::from(SystemTime::now()));
        let good = valid.and_then(|()| zhongkui::decide::not_revoked(&capability, &access.revoked().get()));
        show::whoami(&show::Whoami {
            cluster: name,
            description,
            capability: &capability,
            refusal: good.err().as_ref(),
            root: self.inner.rooted().root(),
            read_only: *read_only,
        })
    }

    fn add(&self, open: Open) -> HandleId {
        let id = OURS | self.opened.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, open);
        HandleId(id)
    }

    fn read(&self, handle: HandleId, offset_bytes: u64, len_bytes: u32) -> OpResult {
        match self.open.lock().get(&handle.0) {
            Some(Open::Text(text)) => {
                let from = usize::try_from(offset_bytes).unwrap_or(usize::MAX).min(text.len());
                let to = from.saturating_add(len_bytes as usize).min(text.len());
                Ok(OpReply::Data(vec![text.slice(from..to)]))
            }
            Some(Open::Dir) => Err(Errno::EISDIR),
            None => Err(Errno::EBADF),
        }
    }

    async fn write(&self, node: Node, data: &[u8]) -> OpResult {
        let Node::File(File::Ctl(server)) = node else { return Err(Errno::EACCES) };
        let draining = match data.trim_ascii() {
            b"drain" => true,
            b"undrain" => false,
            _ => return Err(Errno::EINVAL),
        };
        self.view.drain(server, draining).await?;
        u32::try_from(data.len()).map(OpReply::Written).map_err(|_| Errno::EINVAL)
    }

    async fn read_dir(&self, node: Node, (offset, limit): (u64, u32), attributes: bool) -> OpResult {
        let mut entries = Vec::new();
        for (at, name) in [(0, "."), (1, "..")] {
            if at >= offset {
                let (ino, kind) = (node.ino(), libc::S_IFDIR);
                entries.push(DirEntry { ino, name: name.into(), kind, next_offset: at + 1, entry: None });
            }
        }
        let after = offset.max(DOTS);
        if let Node::Mirror(ino) = node {
            let after_cookie = if after == DOTS { 0 } else { after };
            let page = ReadDir { ino, after_cookie, limit: limit.min(PAGE), with_attributes: true };
            let answer = self.view.read_dir(page).await?;
            entries.extend(answer.entries.iter().filter_map(|found| {
                let attr = self.mirrored(found.attr.as_ref()?);
                Some(listed(found.name.clone(), attr, found.cookie, attributes))
            }));
        } else {
            let nodes: Vec<(Bytes, Node)> = match node {
                Node::Top => top_entries().map(|(name, node)| (Bytes::from_static(name), node)).collect(),
                Node::Servers => {
                    let servers = self.servers().await;
                    servers.into_iter().map(|id| (id.to_string().into(), Node::Server(id))).collect()
                }
                Node::Server(id) => {
                    server_entries(id).map(|(name, node)| (Bytes::from_static(name), node)).to_vec()
                }
                Node::File(_) | Node::Mirror(_) => return Err(Errno::ENOTDIR),
            };
            for (at, (name, node)) in (DOTS..).zip(nodes).filter(|(at, _)| *at >= after) {
                let attr = self.attr(node).await?;
                entries.push(listed(name, attr, at + 1, attributes));
            }
        }
        entries.truncate(limit as usize);
        Ok(OpReply::Entries(entries.into()))
    }
}

fn node(ino: InodeId) -> Result<Node, Errno> {
    Node::of(ino).ok_or(Errno::ESTALE)
}

fn entry(attr: FileAttr) -> Entry {
    Entry { attr, entry_ttl: TTL, attr_ttl: TTL }
}

fn listed(name: Bytes, attr: FileAttr, next_offset: u64, attributes: bool) -> DirEntry {
    let kind = attr.mode & libc::S_IFMT;
    DirEntry { ino: attr.ino, name, kind, next_offset, entry: attributes.then(|| entry(attr)) }
}

/// Where the replicas of a file are.
fn described(freshness: Freshness, place: &WhereReply) -> String {
    noted(freshness.note(), show::place("this file", place))
}

fn noted(note: Option<String>, text: String) -> String {
    note.map_or_else(|| text.clone(), |note| format!("{note}\n{text}"))
}

fn is_top(parent: InodeId, name: &[u8]) -> bool {
    parent == InodeId::ROOT && name == TOP_NAME
}

/// Whether an operation is about a control file.
fn is_ours(op: &Op<'_>) -> bool {
    match *op {
        Op::Lookup { parent, name }
        | Op::Create { parent, name, .. }
        | Op::Mkdir { parent, name, .. }
        | Op::Mknod { parent, name, .. }
        | Op::Symlink { parent, name, .. }
        | Op::Unlink { parent, name }
        | Op::Rmdir { parent, name } => Node::is_ours(parent) || is_top(parent, name),
        Op::Rename { parent, name, new_parent, new_name, .. } => {
            Node::is_ours(parent)
                || Node::is_ours(new_parent)
                || is_top(parent, name)
                || is_top(new_parent, new_name)
        }
        Op::Link { ino, new_parent, new_name } => {
            Node::is_ours(ino) || Node::is_ours(new_parent) || is_top(new_parent, new_name)
        }
        Op::Forget { ino, .. }
        | Op::GetAttr { ino, .. }
        | Op::SetAttr { ino, .. }
        | Op::ReadLink { ino }
        | Op::Open { ino, .. }
        | Op::Read { ino, .. }
        | Op::Write { ino, .. }
        | Op::Flush { ino, .. }
        | Op::Release { ino, .. }
        | Op::Fsync { ino, .. }
        | Op::OpenDir { ino }
        | Op::ReadDir { ino, .. }
        | Op::ReleaseDir { ino, .. }
        | Op::FsyncDir { ino }
        | Op::ListXattr { ino }
        | Op::Fallocate { ino, .. }
        | Op::Seek { ino, .. }
        | Op::Flock { ino, .. }
        | Op::Poll { ino, .. } => Node::is_ours(ino),
        Op::SetXattr { ino, name, .. } | Op::GetXattr { ino, name } | Op::RemoveXattr { ino, name } => {
            Node::is_ours(ino) || name == WHERE_XATTR
        }
        Op::StatFs => false,
    }
}

impl<H: Handler + Local> Handler for ControlFiles<H> {
    async fn handle(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        if is_ours(&op) {
            return self.ours(op).await;
        }
        let kind = Kind::of(&op);
        let result = self.inner.handle(caller, op).await;
        self.counters.note(kind, &result);
        result
    }

    fn try_now(&self, caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        if is_ours(op) {
            return None;
        }
        let result = self.inner.try_now(caller, op)?;
        self.counters.note(Kind::of(op), &result);
        Some(result)
    }
}

/// Operations are counted by these.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Lookup,
    Attr,
    Change,
    Open,
    Read,
    Write,
    Sync,
    List,
    Other,
}

impl Kind {
    const NAMES: [&str; 9] = ["lookup", "attr", "change", "open", "read", "write", "sync", "list", "other"];

    const fn of(op: &Op<'_>) -> Self {
        match op {
            Op::Lookup { .. } => Self::Lookup,
            Op::GetAttr { .. } | Op::GetXattr { .. } | Op::ListXattr { .. } | Op::ReadLink { .. } => {
                Self::Attr
            }
            Op::SetAttr { .. }
            | Op::Mknod { .. }
            | Op::Mkdir { .. }
            | Op::Symlink { .. }
            | Op::Unlink { .. }
            | Op::Rmdir { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Create { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::Fallocate { .. } => Self::Change,
            Op::Open { .. } => Self::Open,
            Op::Read { .. } => Self::Read,
            Op::Write { .. } => Self::Write,
            Op::Flush { .. } | Op::Fsync { .. } | Op::FsyncDir { .. } => Self::Sync,
            Op::OpenDir { .. } | Op::ReadDir { .. } => Self::List,
            Op::Forget { .. }
            | Op::Release { .. }
            | Op::ReleaseDir { .. }
            | Op::StatFs
            | Op::Seek { .. }
            | Op::Flock { .. }
            | Op::Poll { .. } => Self::Other,
        }
    }
}

/// Operations answered, and those with an error, by kind.
#[derive(Debug, Default)]
struct Counters {
    asked: [AtomicU64; Kind::NAMES.len()],
    failed: [AtomicU64; Kind::NAMES.len()],
}

impl Counters {
    fn note(&self, kind: Kind, result: &OpResult) {
        self.asked[kind as usize].fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.failed[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn all(&self) -> Vec<(&'static str, u64, u64)> {
        let load = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let counts = self.asked.iter().zip(&self.failed);
        Kind::NAMES
            .into_iter()
            .zip(counts)
            .map(|(name, (asked, failed))| (name, load(asked), load(failed)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
