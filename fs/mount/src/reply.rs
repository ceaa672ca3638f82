//! An answer as the kernel wants to hear it: one variant for each kind of reply the kernel knows.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coord_types::InodeId;
use fs_client::{DirEntry, Errno, FileAttr, OpReply, OpResult, OpenMode, StatFs};
use fuser::{FileHandle, FileType, FopenFlags, Generation, INodeNo};

use crate::errno::to_fuse;

/// Inode numbers are never used twice, so there is nothing to tell apart.
const GENERATION: Generation = Generation(0);
/// What `stat` calls the good size for a read or write. stdio and cp take it: each write of an unbuffered
/// file is a request of its own, and 4 KiB ones cost 30 times as much per byte.
const BLOCK_SIZE_HINT: u32 = 128 << 10;
/// The unit `statfs` counts in.
const STATFS_UNIT: u32 = 4096;
const NAME_MAX: u32 = 255;

/// Where the answer of one request goes.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The kernel expects none.
    Nobody,
    Empty(fuser::ReplyEmpty),
    Entry(fuser::ReplyEntry),
    Attr(fuser::ReplyAttr),
    /// A link's target or file data.
    Data(fuser::ReplyData),
    Written(fuser::ReplyWrite),
    Opened(fuser::ReplyOpen),
    Created(fuser::ReplyCreate),
    Directory(fuser::ReplyDirectory, Arc<Fit>),
    /// Also who must be told of entries that found no room, since they were counted as looked up.
    DirectoryPlus(fuser::ReplyDirectoryPlus, Arc<Fit>, Unseen),
    StatFs(fuser::ReplyStatfs),
    /// An attribute's value, or its length if the caller gave no room (size 0).
    XattrValue(fuser::ReplyXattr, u32),
    XattrNames(fuser::ReplyXattr, u32),
    Offset(fuser::ReplyLseek),
    Ready(fuser::ReplyPoll),
}

/// Called with inodes the handler counted as looked up but the kernel never saw.
pub(crate) struct Unseen(pub(crate) Box<dyn FnOnce(Vec<InodeId>) + Send>);

impl fmt::Debug for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unseen")
    }
}

impl Reply {
    /// Answers. An answer of the wrong kind is a fault of the handler: said in the log, EIO to the caller.
    pub(crate) fn send(self, result: OpResult) {
        match result {
            Ok(reply) => self.send_ok(reply),
            Err(errno) => self.send_error(errno),
        }
    }

    fn send_ok(self, answer: OpReply) {
        match (self, answer) {
            (Self::Nobody, _) => {}
            // A request that wants no more than success takes any.
            (Self::Empty(reply), _) => reply.ok(),
            (Self::Entry(reply), OpReply::Entry(entry)) => {
                reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &attr(&entry.attr), GENERATION);
            }
            (Self::Attr(reply), OpReply::Attr { attr: a, ttl }) => reply.attr(&ttl, &attr(&a)),
            (Self::Data(reply), OpReply::Bytes(value)) => reply.data(&value),
            (Self::Data(reply), OpReply::Data(pieces)) => reply.data(&join(pieces)),
            (Self::Written(reply), OpReply::Written(len)) => reply.written(len),
            (Self::Opened(reply), OpReply::Opened { handle, mode }) => {
                reply.opened(FileHandle(handle.0), open_flags(mode));
            }
            (Self::Created(reply), OpReply::Created { entry, handle, mode }) => {
                // One time for both in this reply: the shorter one is never wrong.
                let ttl = entry.attr_ttl.min(entry.entry_ttl);
                reply.created(&ttl, &attr(&entry.attr), GENERATION, FileHandle(handle.0), open_flags(mode));
            }
            (Self::Directory(reply, fit), OpReply::Entries(entries)) => directory(reply, &fit, &entries),
            (Self::DirectoryPlus(reply, fit, unseen), OpReply::Entries(entries)) => {
                directory_plus(reply, &fit, unseen, &entries);
            }
            (Self::StatFs(reply), OpReply::StatFs(s)) => statfs(reply, &s),
            (Self::XattrValue(reply, room), OpReply::Bytes(value)) => xattr(reply, room, &value),
            (Self::XattrNames(reply, room), OpReply::Names(names)) => xattr(reply, room, &name_list(&names)),
            (Self::Offset(reply), OpReply::Offset(offset)) => match i64::try_from(offset) {
                Ok(offset) => reply.offset(offset),
                Err(_) => reply.error(fuser::Errno::EOVERFLOW),
            },
            (Self::Ready(reply), OpReply::Ready(events)) => {
                reply.poll(fuser::PollEvents::from_bits_truncate(events));
            }
            (reply, answer) => {
                tracing::error!(?reply, ?answer, "an operation was answered with another kind of answer");
                reply.send_error(Errno::EIO);
            }
        }
    }

    fn send_error(self, errno: Errno) {
        let errno = to_fuse(errno);
        match self {
            Self::Nobody => {}
            Self::Empty(reply) => reply.error(errno),
            Self::Entry(reply) => reply.error(errno),
            Self::Attr(reply) => reply.error(errno),
            Self::Data(reply) => reply.error(errno),
            Self::Written(reply) => reply.error(errno),
            Self::Opened(reply) => reply.error(errno),
            Self::Created(reply) => reply.error(errno),
            Self::Directory(reply, _) => reply.error(errno),
            Self::DirectoryPlus(reply, _, _) => reply.error(errno),
            Self::StatFs(reply) => reply.error(errno),
            Self::XattrValue(reply, _) | Self::XattrNames(reply, _) => reply.error(errno),
            Self::Offset(reply) => reply.error(errno),
            Self::Ready(reply) => reply.error(errno),
        }
    }
}

/// How many directory entries to ask for. The kernel's room is in bytes and fuser does not show it, so this learns
/// from what fitted: asking for more than fits wastes the rest, asking for less wastes a request.
#[derive(Debug)]
pub(crate) struct Fit(AtomicU32);

impl Fit {
    const FIRST: u32 = 128;
    const MIN: u32 = 16;
    /// 32 KiB, the room glibc gives, is 1,024 of the shortest names there are.
    const MAX: u32 = 1024;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(Self::FIRST)))
    }

    pub(crate) fn ask_for(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Of `offered` entries `taken` found room.
    fn learn(&self, offered: usize, taken: usize) {
        let asked = self.ask_for();
        let taken = u32::try_from(taken).unwrap_or(Self::MAX);
        let next = if (taken as usize) < offered {
            taken + taken / 8
        } else if taken >= asked {
            asked * 2
        } else {
            return;
        };
        self.0.store(next.clamp(Self::MIN, Self::MAX), Ordering::Relaxed);
    }
}

fn directory(mut reply: fuser::ReplyDirectory, fit: &Fit, entries: &[DirEntry]) {
    let taken = entries
        .iter()
        .position(|entry| {
            reply.add(
                INodeNo(entry.ino.0),
                entry.next_offset,
                file_type(entry.kind),
                OsStr::from_bytes(&entry.name),
            )
        })
        .unwrap_or(entries.len());
    fit.learn(entries.len(), taken);
    reply.ok();
}

fn directory_plus(mut reply: fuser::ReplyDirectoryPlus, fit: &Fit, unseen: Unseen, entries: &[DirEntry]) {
    let mut taken = 0;
    for entry in entries {
        let name = OsStr::from_bytes(&entry.name);
        let full = match &entry.entry {
            Some(known) => {
                let ttl = known.attr_ttl.min(known.entry_ttl);
                reply.add(INodeNo(entry.ino.0), entry.next_offset, name, &ttl, &attr(&known.attr), GENERATION)
            }
            // The kernel never takes attributes of these two, but shows their inode number.
            None if is_dot(entry) => {
                let bare = bare_attr(entry);
                reply.add(INodeNo(entry.ino.0), entry.next_offset, name, &Duration::ZERO, &bare, GENERATION)
            }
            // fuser cannot say "a name without attributes": it would have inode 0, and C libraries hide such.
            None => {
                tracing::error!(?name, "an entry came without attributes");
                return reply.error(fuser::Errno::EIO);
            }
        };
        if full {
            break;
        }
        taken += 1;
    }
    fit.learn(entries.len(), taken);
    let counted: Vec<_> =
        entries[taken..].iter().filter(|entry| !is_dot(entry)).map(|entry| entry.ino).collect();
    reply.ok();
    if !counted.is_empty() {
        unseen.0(counted);
    }
}

fn is_dot(entry: &DirEntry) -> bool {
    matches!(entry.name.as_ref(), b"." | b"..")
}

fn statfs(reply: fuser::ReplyStatfs, s: &StatFs) {
    let unit = u64::from(STATFS_UNIT);
    let free = s.free_bytes.min(s.total_bytes) / unit;
    reply.statfs(
        s.total_bytes / unit,
        free,
        free,
        s.inodes,
        s.inodes_free.min(s.inodes),
        STATFS_UNIT,
        NAME_MAX,
        STATFS_UNIT,
    );
}

fn xattr(reply: fuser::ReplyXattr, room: u32, value: &[u8]) {
    let Ok(len) = u32::try_from(value.len()) else { return reply.error(fuser::Errno::E2BIG) };
    if room == 0 {
        reply.size(len);
    } else if len > room {
        reply.error(fuser::Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

/// Names as `listxattr(2)` gives them: each ended by a zero byte.
fn name_list(names: &[Bytes]) -> Vec<u8> {
    let mut list = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names {
        list.extend_from_slice(name);
        list.push(0);
    }
    list
}

/// One piece from many. fuser sends a single slice, so only data that is in one piece goes out without a copy.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

fn open_flags(mode: OpenMode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if mode.direct_io {
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if mode.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

fn attr(from: &FileAttr) -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(from.ino.0),
        size: from.size_bytes,
        blocks: from.allocated_bytes.div_ceil(512),
        atime: from.atime,
        mtime: from.mtime,
        ctime: from.ctime,
        crtime: std::time::SystemTime::UNIX_EPOCH,
        kind: file_type(from.mode),
        perm: permissions(from.mode),
        nlink: from.nlink,
        uid: from.uid,
        gid: from.gid,
        rdev: from.rdev,
        blksize: BLOCK_SIZE_HINT,
        flags: 0,
    }
}

/// Attributes that say no more than number and type.
fn bare_attr(entry: &DirEntry) -> fuser::FileAttr {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    fuser::FileAttr {
        ino: INodeNo(entry.ino.0),
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: file_type(entry.kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE_HINT,
        flags: 0,
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits fit")
}

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_zero_bytes() {
        let names = [Bytes::from_static(b"user.a"), Bytes::from_static(b"b")];
        assert_eq!(name_list(&names), b"user.a\0b\0");
        assert!(name_list(&[]).is_empty());
    }

    #[test]
    fn pieces_are_joined_in_order() {
        assert_eq!(join(vec![]), Bytes::new());
        let one = Bytes::from_static(b"one");
        assert_eq!(join(vec![one.clone()]).as_ptr(), one.as_ptr(), "not copied");
        assert_eq!(join(vec![one, Bytes::from_static(b"two")]), "onetwo");
    }

    #[test]
    fn learns_how_many_entries_fit() {
        let fit = Fit::new();
        fit.learn(128, 128);
        assert_eq!(fit.ask_for(), 256, "all fitted: ask for more");
        fit.learn(256, 195);
        assert_eq!(fit.ask_for(), 219, "not all: about what fitted");
        fit.learn(30, 30);
        assert_eq!(fit.ask_for(), 219, "the end of a directory says nothing");
        fit.learn(219, 1);
        assert_eq!(fit.ask_for(), Fit::MIN);
    }

    #[test]
    fn direct_opens_write_in_parallel() {
        let direct = open_flags(OpenMode { direct_io: true, keep_cache: false });
        assert_eq!(direct, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
        assert_eq!(open_flags(OpenMode { direct_io: false, keep_cache: true }), FopenFlags::FOPEN_KEEP_CACHE);
    }
}
