//! The kernel's requests: translated, done by [`State`](crate::state::State), answered.
//!
//! Nothing is cached by the kernel: names and attributes are good for no time, and every file is opened for direct
//! IO. So a write that is to be durable says so itself (`O_DSYNC` among its flags, also for `RWF_DSYNC`), and no sync
//! of the whole file follows it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::mount::{Disk, Guarded};
use crate::state::{Kind, Owner, Result};
use crate::tree::Ino;

const NO_TIME: Duration = Duration::ZERO;
const NO_HANDLE: FileHandle = FileHandle(0);

/// What opendir found, until releasedir.
type Listing = Arc<Vec<(OsString, u64, FileType)>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Adapter {
    disk: Arc<Disk>,
    listings: Mutex<(u64, BTreeMap<u64, Listing>)>,
}

impl Adapter {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, listings: Mutex::default() }
    }

    /// Makes something below a directory, by what `make` does with its number.
    fn enter<T>(&self, ino: INodeNo, what: impl FnOnce(&mut Guarded, Ino) -> Result<T>) -> Result<T> {
        let (mut guarded, ino) = self.disk.enter(ino.0)?;
        what(&mut guarded, ino)
    }

    fn list(&self, dir: INodeNo) -> Result<Listing> {
        self.enter(dir, |guarded, dir| {
            let mut listing: Vec<_> = [".", ".."]
                .map(|name| (OsString::from(name), guarded.number(dir), FileType::Directory))
                .to_vec();
            for (name, ino) in guarded.state.list(dir)? {
                listing.push((name, guarded.number(ino), file_type(&guarded.state.inode(ino)?.kind)));
            }
            Ok(Arc::new(listing))
        })
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File(_) => FileType::RegularFile,
        Kind::Symlink(_) => FileType::Symlink,
    }
}

fn attr(guarded: &Guarded, ino: Ino) -> Result<FileAttr> {
    let inode = guarded.state.inode(ino)?;
    Ok(FileAttr {
        ino: INodeNo(guarded.number(ino)),
        size: inode.len(),
        blocks: inode.len().div_ceil(512),
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        crtime: inode.ctime,
        kind: file_type(&inode.kind),
        perm: u16::try_from(inode.owner.mode & 0o7777).expect("twelve bits"),
        nlink: if matches!(inode.kind, Kind::Dir) { 2 } else { inode.names },
        uid: inode.owner.uid,
        gid: inode.owner.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn owner(req: &Request, mode: u32, umask: u32) -> Owner {
    Owner { uid: req.uid(), gid: req.gid(), mode: mode & !umask & 0o7777 }
}

fn raw(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn answer(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(raw(errno)),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr>) {
    match result {
        Ok(attr) => reply.entry(&NO_TIME, &attr, Generation(0)),
        Err(errno) => reply.error(raw(errno)),
    }
}

fn answer_attr(reply: ReplyAttr, result: Result<FileAttr>) {
    match result {
        Ok(attr) => reply.attr(&NO_TIME, &attr),
        Err(errno) => reply.error(raw(errno)),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.enter(parent, |guarded, dir| {
            let ino = guarded.state.find((dir, name))?;
            attr(guarded, ino)
        });
        answer_entry(reply, found);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(reply, self.enter(ino, |guarded, ino| attr(guarded, ino)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |wanted: Option<TimeOrNow>, old| match wanted {
            None => old,
            Some(TimeOrNow::Now) => SystemTime::now(),
            Some(TimeOrNow::SpecificTime(time)) => time,
        };
        let done = self.enter(ino, |guarded, ino| {
            if let Some(size) = size {
                guarded.state.set_len(ino, size)?;
            }
            let inode = guarded.state.inode_mut(ino)?;
            inode.owner = Owner {
                uid: uid.unwrap_or(inode.owner.uid),
                gid: gid.unwrap_or(inode.owner.gid),
                mode: mode.unwrap_or(inode.owner.mode),
            };
            (inode.atime, inode.mtime) = (time(atime, inode.atime), time(mtime, inode.mtime));
            attr(guarded, ino)
        });
        answer_attr(reply, done);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.enter(ino, |guarded, ino| match &guarded.state.inode(ino)?.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        });
        match target {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.enter(parent, |guarded, dir| {
            let ino = guarded.state.make((dir, name), Kind::Dir, owner(req, mode, umask))?;
            attr(guarded, ino)
        });
        answer_entry(reply, made);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.enter(parent, |guarded, dir| {
            let kind = Kind::Symlink(target.to_owned());
            let ino = guarded.state.make((dir, name), kind, owner(req, 0o777, 0))?;
            attr(guarded, ino)
        });
        answer_entry(reply, made);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.enter(parent, |guarded, dir| guarded.state.unlink((dir, name))));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.enter(parent, |guarded, dir| guarded.state.rmdir((dir, name))));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.enter(parent, |guarded, from| {
            let to = newparent.0 & ((1 << crate::mount::INO_BITS) - 1);
            let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
            if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
                return Err(Errno::EINVAL);
            }
            if no_replace && guarded.state.find((to, newname)).is_ok() {
                return Err(Errno::EEXIST);
            }
            guarded.state.rename((from, name), (to, newname))
        });
        answer(reply, done);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let done = self.enter(ino, |guarded, ino| {
            let dir = newparent.0 & ((1 << crate::mount::INO_BITS) - 1);
            guarded.state.link(ino, (dir, newname))?;
            attr(guarded, ino)
        });
        answer_entry(reply, done);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.enter(parent, |guarded, dir| {
            let ino = guarded.state.make_file((dir, name), owner(req, mode, umask))?;
            guarded.state.opened(ino)?;
            attr(guarded, ino)
        });
        match made {
            Ok(attr) => {
                reply.created(&NO_TIME, &attr, Generation(0), NO_HANDLE, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.enter(ino, |guarded, ino| guarded.state.opened(ino)) {
            Ok(()) => reply.opened(NO_HANDLE, FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = usize::try_from(size).expect("memory is wider than 32 bits");
        match self.enter(ino, |guarded, ino| guarded.state.read(ino, offset, size)) {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut done = self.enter(ino, |guarded, ino| guarded.state.write(ino, offset, data));
        // O_SYNC has the bit of O_DSYNC.
        if done.is_ok() && flags.0 & libc::O_DSYNC != 0 {
            let len = data.len() as u64;
            done = self.disk.sync(ino.0, |state, ino| state.sync_range(ino, offset, len));
        }
        match done {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel's own number")),
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Who opened it before a power cut is told an error that nobody hears.
        answer(reply, self.enter(ino, |guarded, ino| guarded.state.closed(ino)));
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(reply, self.disk.sync(ino.0, |state, ino| state.sync_file(ino)));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(reply, self.disk.sync(ino.0, |state, ino| state.sync_dir(ino)));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = match mode {
            0 => self.enter(ino, |guarded, ino| guarded.state.extend(ino, offset + length)),
            libc::FALLOC_FL_KEEP_SIZE => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        };
        answer(reply, done);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.list(ino) {
            Ok(listing) => {
                let mut listings = self.listings.lock();
                listings.0 += 1;
                let handle = listings.0;
                listings.1.insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let known = self.listings.lock().1.get(&fh.0).cloned();
        // Who reads from the start again wants to see what is there now.
        let listing = match (known, offset) {
            (Some(listing), 1..) => Ok(listing),
            _ => self.list(ino).inspect(|listing| {
                self.listings.lock().1.insert(fh.0, Arc::clone(listing));
            }),
        };
        match listing {
            Ok(listing) => {
                for (next, (name, ino, kind)) in (1..).zip(listing.iter()).skip(offset as usize) {
                    if reply.add(INodeNo(*ino), next, *kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(raw(errno)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.lock().1.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        // As much as anybody asks for: what it really has is a matter of the backing directory.
        let blocks = 1 << 28;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
