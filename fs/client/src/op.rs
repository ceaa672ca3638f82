//! The operations of a mount, as requests and replies of our own.
//!
//! Transports (fuser over `/dev/fuse` today, FUSE over io_uring later) turn what the kernel says into an [`Op`] and
//! an [`OpReply`] into what the kernel wants to hear; [`crate::FileSystem::handle`] stands between. Nothing here
//! is taken from a transport: no request ids, no kernel structures, and an operation may be waited for, dropped
//! (its caller was interrupted) or answered on any thread.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use coord_types::InodeId;

use crate::Errno;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// 0 if it is the kernel itself.
    pub pid: u32,
}

/// An open file or directory, as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(SystemTime),
}

/// What `setattr` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size_bytes: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub handle: Option<HandleId>,
}

/// One request of the kernel. Modes of `Create`, `Mkdir` and `Mknod` have the umask taken off already.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    Lookup {
        parent: InodeId,
        name: &'a [u8],
    },
    Forget {
        ino: InodeId,
        lookups: u64,
    },
    GetAttr {
        ino: InodeId,
        handle: Option<HandleId>,
    },
    SetAttr {
        ino: InodeId,
        changes: SetAttr,
    },
    ReadLink {
        ino: InodeId,
    },
    Mknod {
        parent: InodeId,
        name: &'a [u8],
        mode: u32,
        rdev: u32,
    },
    Mkdir {
        parent: InodeId,
        name: &'a [u8],
        mode: u32,
    },
    Symlink {
        parent: InodeId,
        name: &'a [u8],
        target: &'a [u8],
    },
    Unlink {
        parent: InodeId,
        name: &'a [u8],
    },
    Rmdir {
        parent: InodeId,
        name: &'a [u8],
    },
    Rename {
        parent: InodeId,
        name: &'a [u8],
        new_parent: InodeId,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        ino: InodeId,
        new_parent: InodeId,
        new_name: &'a [u8],
    },
    Create {
        parent: InodeId,
        name: &'a [u8],
        mode: u32,
        flags: i32,
    },
    Open {
        ino: InodeId,
        flags: i32,
    },
    Read {
        ino: InodeId,
        handle: HandleId,
        offset_bytes: u64,
        len_bytes: u32,
    },
    /// The data is borrowed from the transport's buffer; whoever keeps it copies it.
    Write {
        ino: InodeId,
        handle: HandleId,
        offset_bytes: u64,
        data: &'a [u8],
        kill_privileges: bool,
        /// The kernel writes a mapped page back; `handle` is one of those the file is open by.
        mapped: bool,
    },
    Flush {
        ino: InodeId,
        handle: HandleId,
    },
    Release {
        ino: InodeId,
        handle: HandleId,
    },
    Fsync {
        ino: InodeId,
        handle: HandleId,
        data_only: bool,
    },
    OpenDir {
        ino: InodeId,
    },
    /// `attributes`: the kernel takes them along (READDIRPLUS).
    ReadDir {
        ino: InodeId,
        handle: HandleId,
        offset: u64,
        limit: u32,
        attributes: bool,
    },
    ReleaseDir {
        ino: InodeId,
        handle: HandleId,
    },
    FsyncDir {
        ino: InodeId,
    },
    StatFs,
    SetXattr {
        ino: InodeId,
        name: &'a [u8],
        value: &'a [u8],
        flags: i32,
    },
    GetXattr {
        ino: InodeId,
        name: &'a [u8],
    },
    ListXattr {
        ino: InodeId,
    },
    RemoveXattr {
        ino: InodeId,
        name: &'a [u8],
    },
    Fallocate {
        ino: InodeId,
        handle: HandleId,
        offset_bytes: u64,
        len_bytes: u64,
        mode: i32,
    },
    /// SEEK_DATA or SEEK_HOLE.
    Seek {
        ino: InodeId,
        handle: HandleId,
        offset_bytes: u64,
        whence: i32,
    },
    /// `flock(2)`, of mounts that asked for it; otherwise the kernel keeps these locks itself.
    Flock {
        ino: InodeId,
        handle: HandleId,
        /// Of the open file: shared by its duplicates.
        owner: u64,
        lock: Flock,
        /// Until it can be had.
        wait: bool,
    },
    /// `poll(2)`, of mounts that asked for it.
    Poll {
        ino: InodeId,
        handle: HandleId,
        /// To be called once when the answer may be another.
        again: PollAgain,
    },
}

/// What `flock(2)` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flock {
    Shared,
    Exclusive,
    Unlock,
}

/// Tells the kernel to poll a file again.
#[derive(Clone)]
pub struct PollAgain(Arc<dyn Fn() + Send + Sync>);

impl PollAgain {
    #[must_use]
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for PollAgain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PollAgain")
    }
}

/// An inode's attributes as `stat(2)` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAttr {
    pub ino: InodeId,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size_bytes: u64,
    pub allocated_bytes: u64,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
}

/// A name's inode, and how long the kernel may believe it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub attr: FileAttr,
    pub entry_ttl: Duration,
    pub attr_ttl: Duration,
}

/// How the kernel is to treat an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Around the page cache, writes in parallel, mmap still allowed.
    pub direct_io: bool,
    /// What the page cache holds of the file is still true.
    pub keep_cache: bool,
}

/// One directory entry.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub ino: InodeId,
    pub name: Bytes,
    /// st_mode's type bits.
    pub kind: u32,
    /// Where reading goes on after this entry.
    pub next_offset: u64,
    /// With attributes: the kernel counts this as a lookup, unless the name is "." or "..".
    pub entry: Option<Entry>,
}

/// The whole file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// The answer to an [`Op`].
#[derive(Clone, Debug)]
pub enum OpReply {
    /// Done, and nothing to say.
    Ok,
    Entry(Entry),
    Attr {
        attr: FileAttr,
        ttl: Duration,
    },
    /// A link's target, or an extended attribute's value.
    Bytes(Bytes),
    /// File data, in order; the sum is what was read.
    Data(Vec<Bytes>),
    Written(u32),
    Opened {
        handle: HandleId,
        mode: OpenMode,
    },
    Created {
        entry: Entry,
        handle: HandleId,
        mode: OpenMode,
    },
    Entries(Arc<[DirEntry]>),
    StatFs(StatFs),
    Names(Vec<Bytes>),
    Offset(u64),
    /// What `poll(2)` finds: bits of `POLLIN` and the like.
    Ready(u32),
}

/// What [`crate::FileSystem::handle`] gives.
pub type OpResult = Result<OpReply, Errno>;
