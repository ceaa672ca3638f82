//! A file system in memory: the simplest handler that can stand behind a mount. Not a model of Pangu; it only has to
//! be right enough that a system call through the kernel shows whether the transport translated it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::{
    Caller, DirEntry, Entry, Errno, FileAttr, HandleId, Op, OpReply, OpResult, OpenMode, SetAttr, SetTime,
    StatFs,
};
use fs_mount::Handler;
use parking_lot::Mutex;
use tokio::sync::watch;

const TTL: Duration = Duration::from_secs(1);

pub(crate) struct MemoryFs {
    state: Mutex<State>,
    /// Closed: operations on names and files that begin with "held" wait.
    gate: watch::Sender<bool>,
    /// Operations that wait at the gate.
    waiting: AtomicUsize,
    /// Answer what can be through `try_now`.
    eager: bool,
}

/// Counts one waiting operation, until it goes on or is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct State {
    inodes: HashMap<u64, Inode>,
    next: u64,
    lookups: HashMap<u64, u64>,
    seen: Vec<String>,
}

struct Inode {
    attr: FileAttr,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, u64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    held: bool,
}

impl MemoryFs {
    pub(crate) fn new(eager: bool) -> Arc<Self> {
        let mut state = State { next: 2, ..State::default() };
        let caller = Caller::default();
        state.inodes.insert(1, Inode::new(1, libc::S_IFDIR | 0o755, &caller));
        Arc::new(Self {
            state: Mutex::new(state),
            gate: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            eager,
        })
    }

    /// Lets held operations wait (`false`) or go on (`true`).
    pub(crate) fn open_gate(&self, open: bool) {
        self.gate.send_replace(open);
    }

    /// How many operations wait at the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The operations answered so far, by name and what matters of them.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().seen.clone()
    }

    /// How often the kernel still counts this inode as looked up.
    pub(crate) fn lookups(&self) -> HashMap<u64, u64> {
        self.state.lock().lookups.clone()
    }

    /// Makes many files without the kernel.
    pub(crate) fn fill(&self, prefix: &str, count: usize) {
        let mut state = self.state.lock();
        for n in 0..count {
            state
                .make(1, format!("{prefix}{n}").as_bytes(), libc::S_IFREG | 0o644, &Caller::default())
                .expect("the names are new");
        }
    }

    fn holds(&self, op: &Op<'_>) -> bool {
        let state = self.state.lock();
        let of = |ino: &InodeId| state.inodes.get(&ino.0).is_some_and(|inode| inode.held);
        match op {
            Op::Lookup { name, .. } | Op::Create { name, .. } | Op::Mkdir { name, .. } => {
                name.starts_with(b"heldname")
            }
            Op::Open { ino, .. } | Op::Read { ino, .. } | Op::Flush { ino, .. } | Op::Fsync { ino, .. } => {
                of(ino)
            }
            Op::StatFs | Op::GetAttr { ino: InodeId::ROOT, .. } => true,
            _ => false,
        }
    }
}

impl Handler for MemoryFs {
    async fn handle(&self, caller: &Caller, op: Op<'_>) -> OpResult {
        if self.holds(&op) {
            // Those that are answered from memory are not what a test waits for.
            let counts = !matches!(op, Op::StatFs | Op::GetAttr { .. });
            let _waits = counts.then(|| Waits::begin(&self.waiting));
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.map_err(|_| Errno::EIO)?;
        }
        // At least one turn through the executor, so that every operation takes both of its paths.
        tokio::task::yield_now().await;
        self.state.lock().answer(caller, op)
    }

    fn try_now(&self, caller: &Caller, op: &Op<'_>) -> Option<OpResult> {
        (self.eager && !self.holds(op)).then(|| self.state.lock().answer(caller, op.clone()))
    }
}

impl Inode {
    fn new(ino: u64, mode: u32, caller: &Caller) -> Self {
        let now = SystemTime::now();
        let attr = FileAttr {
            ino: InodeId(ino),
            mode,
            nlink: if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 },
            uid: caller.uid,
            gid: caller.gid,
            rdev: 0,
            size_bytes: 0,
            allocated_bytes: 0,
            atime: now,
            mtime: now,
            ctime: now,
        };
        Self { attr, data: Vec::new(), children: BTreeMap::new(), xattrs: BTreeMap::new(), held: false }
    }

    fn resize(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.attr.size_bytes = len as u64;
        self.attr.allocated_bytes = (len as u64).next_multiple_of(4096);
    }
}

impl State {
    fn inode(&mut self, ino: InodeId) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    fn child(&mut self, parent: InodeId, name: &[u8]) -> Result<u64, Errno> {
        self.inode(parent)?.children.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn make(&mut self, parent: u64, name: &[u8], mode: u32, caller: &Caller) -> Result<u64, Errno> {
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        let ino = self.next;
        let children = &mut self.inode(InodeId(parent))?.children;
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        children.insert(name.to_vec(), ino);
        self.next += 1;
        let mut inode = Inode::new(ino, mode, caller);
        inode.held = name.starts_with(b"held");
        self.inodes.insert(ino, inode);
        Ok(ino)
    }

    fn looked_up(&mut self, ino: u64) -> Result<Entry, Errno> {
        *self.lookups.entry(ino).or_default() += 1;
        Ok(Entry { attr: self.inode(InodeId(ino))?.attr, entry_ttl: TTL, attr_ttl: TTL })
    }

    fn entry(&mut self, ino: u64) -> OpResult {
        self.looked_up(ino).map(OpReply::Entry)
    }

    fn unlink(&mut self, parent: InodeId, name: &[u8]) -> Result<(), Errno> {
        let ino = self.child(parent, name)?;
        self.inode(parent)?.children.remove(name);
        self.inode(InodeId(ino))?.attr.nlink -= 1;
        Ok(())
    }

    fn answer(&mut self, caller: &Caller, op: Op<'_>) -> OpResult {
        self.seen.push(describe(&op));
        match op {
            Op::Lookup { parent, name } => {
                let ino = self.child(parent, name)?;
                self.entry(ino)
            }
            Op::Forget { ino, lookups } => {
                let left = self.lookups.entry(ino.0).or_default();
                *left = left.checked_sub(lookups).expect("never forgotten more often than looked up");
                Ok(OpReply::Ok)
            }
            Op::GetAttr { ino, .. } => Ok(OpReply::Attr { attr: self.inode(ino)?.attr, ttl: TTL }),
            Op::SetAttr { ino, changes } => self.set_attr(ino, changes),
            Op::ReadLink { ino } => Ok(OpReply::Bytes(Bytes::from(self.inode(ino)?.data.clone()))),
            Op::Mknod { parent, name, mode, rdev } => {
                let ino = self.make(parent.0, name, mode, caller)?;
                self.inode(InodeId(ino))?.attr.rdev = rdev;
                self.entry(ino)
            }
            Op::Mkdir { parent, name, mode } => {
                let ino = self.make(parent.0, name, libc::S_IFDIR | mode, caller)?;
                self.entry(ino)
            }
            Op::Symlink { parent, name, target } => {
                let ino = self.make(parent.0, name, libc::S_IFLNK | 0o777, caller)?;
                let link = self.inode(InodeId(ino))?;
                link.data = target.to_vec();
                link.attr.size_bytes = target.len() as u64;
                self.entry(ino)
            }
            Op::Unlink { parent, name } => self.unlink(parent, name).map(|()| OpReply::Ok),
            Op::Rmdir { parent, name } => {
                let ino = self.child(parent, name)?;
                if !self.inode(InodeId(ino))?.children.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.unlink(parent, name).map(|()| OpReply::Ok)
            }
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                self.rename(parent, name, new_parent, new_name, flags)
            }
            Op::Link { ino, new_parent, new_name } => {
                self.inode(new_parent)?.children.insert(new_name.to_vec(), ino.0);
                self.inode(ino)?.attr.nlink += 1;
                self.entry(ino.0)
            }
            Op::Create { parent, name, mode, flags } => {
                let ino = match self.child(parent, name) {
                    Ok(_) if flags & libc::O_EXCL != 0 => return Err(Errno::EEXIST),
                    Ok(ino) => ino,
                    Err(_) => self.make(parent.0, name, libc::S_IFREG | mode, caller)?,
                };
                let entry = self.looked_up(ino)?;
                Ok(OpReply::Created { entry, handle: HandleId(ino), mode: mode_of(flags) })
            }
            Op::Open { ino, flags } => {
                let inode = self.inode(ino)?;
                if flags & libc::O_TRUNC != 0 {
                    inode.resize(0);
                }
                Ok(OpReply::Opened { handle: HandleId(ino.0), mode: mode_of(flags) })
            }
            Op::Read { ino, offset_bytes, len_bytes, .. } => {
                let data = &self.inode(ino)?.data;
                let from = (offset_bytes as usize).min(data.len());
                let to = (from + len_bytes as usize).min(data.len());
                // In two pieces, as a read across chunks comes.
                let middle = from + (to - from) / 2;
                let piece = |from: usize, to: usize| Bytes::copy_from_slice(&data[from..to]);
                Ok(OpReply::Data(vec![piece(from, middle), piece(middle, to)]))
            }
            Op::Write { ino, offset_bytes, data, .. } => {
                let inode = self.inode(ino)?;
                let from = offset_bytes as usize;
                if inode.data.len() < from + data.len() {
                    inode.resize(from + data.len());
                }
                inode.data[from..from + data.len()].copy_from_slice(data);
                Ok(OpReply::Written(data.len() as u32))
            }
            Op::Flush { .. } | Op::Release { .. } | Op::Fsync { .. } => Ok(OpReply::Ok),
            Op::OpenDir { ino } => Ok(OpReply::Opened { handle: HandleId(ino.0), mode: OpenMode::default() }),
            Op::ReadDir { ino, offset, limit, attributes, .. } => {
                self.read_dir(ino, offset, limit, attributes)
            }
            Op::ReleaseDir { .. } | Op::FsyncDir { .. } => Ok(OpReply::Ok),
            Op::StatFs => Ok(OpReply::StatFs(StatFs {
                total_bytes: 1 << 30,
                free_bytes: 1 << 29,
                inodes: 1000,
                inodes_free: 900,
            })),
            Op::SetXattr { ino, name, value, flags } => {
                let xattrs = &mut self.inode(ino)?.xattrs;
                match (xattrs.contains_key(name), flags) {
                    (true, libc::XATTR_CREATE) => return Err(Errno::EEXIST),
                    (false, libc::XATTR_REPLACE) => return Err(Errno::ENODATA),
                    _ => {}
                }
                xattrs.insert(name.to_vec(), value.to_vec());
                Ok(OpReply::Ok)
            }
            Op::GetXattr { ino, name } => {
                let value = self.inode(ino)?.xattrs.get(name).ok_or(Errno::ENODATA)?;
                Ok(OpReply::Bytes(Bytes::copy_from_slice(value)))
            }
            Op::ListXattr { ino } => {
                let names = self.inode(ino)?.xattrs.keys().map(|name| Bytes::copy_from_slice(name));
                Ok(OpReply::Names(names.collect()))
            }
            Op::RemoveXattr { ino, name } => {
                self.inode(ino)?.xattrs.remove(name).ok_or(Errno::ENODATA).map(|_| OpReply::Ok)
            }
            Op::Fallocate { ino, offset_bytes, len_bytes, mode, .. } => {
                let inode = self.inode(ino)?;
                let (from, to) = (offset_bytes as usize, (offset_bytes + len_bytes) as usize);
                if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
                    let to = to.min(inode.data.len());
                    inode.data[from..to].fill(0);
                } else if inode.data.len() < to {
                    inode.resize(to);
                }
                Ok(OpReply::Ok)
            }
            Op::Flock { .. } | Op::Poll { .. } => Err(Errno::EOPNOTSUPP),
            Op::Seek { ino, offset_bytes, whence, .. } => {
                let size = self.inode(ino)?.attr.size_bytes;
                if offset_bytes >= size {
                    return Err(Errno::ENXIO);
                }
                Ok(OpReply::Offset(if whence == libc::SEEK_DATA { offset_bytes } else { size }))
            }
        }
    }

    fn set_attr(&mut self, ino: InodeId, changes: SetAttr) -> OpResult {
        let inode = self.inode(ino)?;
        if let Some(size) = changes.size_bytes {
            inode.resize(size as usize);
        }
        let attr = &mut inode.attr;
        if let Some(mode) = changes.mode {
            attr.mode = attr.mode & libc::S_IFMT | mode;
        }
        attr.uid = changes.uid.unwrap_or(attr.uid);
        attr.gid = changes.gid.unwrap_or(attr.gid);
        let at = |time: SetTime| match time {
            SetTime::Now => SystemTime::now(),
            SetTime::At(at) => at,
        };
        attr.atime = changes.atime.map_or(attr.atime, at);
        attr.mtime = changes.mtime.map_or(attr.mtime, at);
        Ok(OpReply::Attr { attr: *attr, ttl: TTL })
    }

    fn rename(&mut self, from: InodeId, name: &[u8], to: InodeId, new_name: &[u8], flags: u32) -> OpResult {
        let ino = self.child(from, name)?;
        let there = self.child(to, new_name).ok();
        match (flags, there) {
            (libc::RENAME_NOREPLACE, Some(_)) => return Err(Errno::EEXIST),
            (libc::RENAME_EXCHANGE, None) => return Err(Errno::ENOENT),
            (libc::RENAME_EXCHANGE, Some(other)) => {
                self.inode(from)?.children.insert(name.to_vec(), other);
            }
            (0 | libc::RENAME_NOREPLACE, _) => {
                self.inode(from)?.children.remove(name);
            }
            _ => return Err(Errno::EINVAL),
        }
        self.inode(to)?.children.insert(new_name.to_vec(), ino);
        Ok(OpReply::Ok)
    }

    fn read_dir(&mut self, ino: InodeId, offset: u64, limit: u32, attributes: bool) -> OpResult {
        let children: Vec<(Vec<u8>, u64)> =
            self.inode(ino)?.children.iter().map(|(name, ino)| (name.clone(), *ino)).collect();
        let dots = [(b".".to_vec(), ino.0), (b"..".to_vec(), 1)];
        let mut entries = Vec::new();
        for (at, (name, number)) in (1..).zip(dots.into_iter().chain(children)) {
            if at <= offset || entries.len() == limit as usize {
                continue;
            }
            let kind = self.inode(InodeId(number))?.attr.mode;
            let entry = if attributes && at > 2 { Some(self.looked_up(number)?) } else { None };
            entries.push(DirEntry { ino: InodeId(number), name: name.into(), kind, next_offset: at, entry });
        }
        Ok(OpReply::Entries(entries.into()))
    }
}

fn mode_of(flags: i32) -> OpenMode {
    let write_only = flags & libc::O_ACCMODE == libc::O_WRONLY;
    let direct_io = write_only || flags & libc::O_DIRECT != 0;
    OpenMode { direct_io, keep_cache: !direct_io }
}

/// An operation's name, with the fields a test looks at.
fn describe(op: &Op<'_>) -> String {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    match op {
        Op::Create { name, mode, flags, .. } => {
            format!("create {} {mode:o} excl={}", text(name), flags & libc::O_EXCL != 0)
        }
        Op::Mkdir { name, mode, .. } => format!("mkdir {} {mode:o}", text(name)),
        Op::Mknod { name, mode, rdev, .. } => format!("mknod {} {mode:o} {rdev}", text(name)),
        Op::Rename { name, new_name, flags, .. } => {
            format!("rename {} {} {flags}", text(name), text(new_name))
        }
        Op::Write { offset_bytes, data, .. } => format!("write {offset_bytes}+{}", data.len()),
        Op::Open { flags, .. } => format!("open trunc={}", flags & libc::O_TRUNC != 0),
        Op::ReadDir { attributes, .. } => format!("readdir plus={attributes}"),
        Op::Fsync { data_only, .. } => format!("fsync data_only={data_only}"),
        other => {
            let debug = format!("{other:?}").to_lowercase();
            debug.split([' ', '{']).next().unwrap_or_default().to_owned()
        }
    }
}
