//! The first transport: fuser over `/dev/fuse`.
//!
//! Each callback turns what the kernel says into an [`Op`], names the kind of reply, and passes both to
//! [`Transport::run`]. No callback waits, decides or knows anything else.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use coord_types::InodeId;
use fs_client::{Caller, Errno, Flock, HandleId, Op, OpResult, PollAgain, SetAttr, SetTime};
use fuser::{FileHandle, INodeNo, InitFlags, KernelConfig, OpenFlags, Request, TimeOrNow, WriteFlags};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::handler::Handler;
use crate::inline::{self, Answer};
use crate::last_known::{LastKnown, Question};
use crate::owned::OwnedOp;
use crate::reply::{Fit, Reply, Unseen};
use crate::watch::{Given, Patience, Table};

/// The largest request the kernel may send: 256 pages, what it allows without being told otherwise.
const MAX_WRITE_BYTES: u32 = 1 << 20;
/// What we ask of the kernel, one at a time, since fuser refuses a list of which one is missing.
///
/// Not among them, and why: WRITEBACK_CACHE (the kernel then ignores sizes and times that others change),
/// POSIX_LOCKS, and FLOCK_LOCKS unless asked for (without them the kernel keeps locks itself, which is right for one client),
/// HANDLE_KILLPRIV_V2 (fuser hides the flag on truncate and open; without it the kernel clears set-id bits by
/// itself), POSIX_ACL (no ACLs yet), EXPORT_SUPPORT (inodes are not found by number alone), AUTO_INVAL_DATA (the cache
/// would be dropped after each of our own writes; opening revalidates).
const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_CACHE_SYMLINKS,
];
/// Directories with attributes, where the kernel finds that they are looked at.
const LISTINGS: [InitFlags; 2] = [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO];
/// Lets files opened around the page cache be mapped all the same.
const MAP_DIRECT: InitFlags = InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;

/// What a transport lives among.
pub(crate) struct Around {
    pub(crate) runtime: Handle,
    pub(crate) table: Arc<Table>,
    pub(crate) known: Arc<LastKnown>,
    /// The mount was taken down: refuse everything but the closing of what is open.
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) max_background: u16,
    pub(crate) lists_attributes: bool,
    pub(crate) locks: bool,
    pub(crate) polls: bool,
}

/// A handler behind `/dev/fuse`.
pub(crate) struct Transport<H> {
    handler: Arc<H>,
    around: Around,
    names_fit: Arc<Fit>,
    entries_fit: Arc<Fit>,
}

impl<H: Handler> Transport<H> {
    pub(crate) fn new(handler: Arc<H>, around: Around) -> Self {
        Self { handler, around, names_fit: Fit::new(), entries_fit: Fit::new() }
    }

    /// Answers at once if that is possible, otherwise lets the operation run on.
    fn run(&self, request: &Request, op: Op<'_>, reply: Reply) {
        let caller = Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() };
        let question = question(&op);
        let around = &self.around;
        let answer = KernelAnswer { reply, question, known: Arc::clone(&around.known) };
        let given = Given { pid: caller.pid, patience: patience(&op, question) };
        if around.closed.load(Ordering::Acquire) && given.patience != Patience::Endless {
            return answer.answer(Err(Errno::ENOTCONN));
        }
        if let Some(result) = self.handler.try_now(&caller, &op) {
            return answer.answer(result);
        }
        let owned = OwnedOp::new(op);
        let handler = Arc::clone(&self.handler);
        let future = async move { handler.handle(&caller, owned.as_op()).await };
        inline::start(&around.runtime, &around.table, given, future, answer);
    }

    /// What to do with entries that found no room in a reply: they count as looked up until forgotten.
    fn forget_unseen(&self, request: &Request) -> Unseen {
        let caller = Caller { uid: request.uid(), gid: request.gid(), pid: 0 };
        let (handler, runtime, table) =
            (Arc::clone(&self.handler), self.around.runtime.clone(), Arc::clone(&self.around.table));
        Unseen(Box::new(move |inodes| {
            let given = Given { pid: 0, patience: Patience::Endless };
            let future = async move {
                for ino in inodes {
                    handler.handle(&caller, Op::Forget { ino, lookups: 1 }).await?;
                }
                Ok(fs_client::OpReply::Ok)
            };
            inline::start(&runtime, &table, given, future, NoAnswer);
        }))
    }
}

/// An answer on its way to the kernel.
struct KernelAnswer {
    reply: Reply,
    question: Option<Question>,
    known: Arc<LastKnown>,
}

impl Answer for KernelAnswer {
    fn answer(self, result: OpResult) {
        if let Some(question) = self.question {
            self.known.note(question, &result);
        }
        self.reply.send(result);
    }
}

struct NoAnswer;

impl Answer for NoAnswer {
    fn answer(self, result: OpResult) {
        if let Err(errno) = result {
            tracing::warn!(%errno, "inodes could not be forgotten");
        }
    }
}

/// Whether an operation is one that must not hang.
fn question(op: &Op<'_>) -> Option<Question> {
    match op {
        Op::StatFs => Some(Question::StatFs),
        Op::GetAttr { ino: InodeId::ROOT, .. } => Some(Question::RootAttr),
        _ => None,
    }
}

fn patience(op: &Op<'_>, question: Option<Question>) -> Patience {
    match (op, question) {
        (_, Some(question)) => Patience::Recall(question),
        (Op::Forget { .. } | Op::Release { .. } | Op::ReleaseDir { .. }, None) => Patience::Endless,
        // These may wait for hours, and whoever waits for a time sets an alarm.
        (Op::Flock { .. }, None) => Patience::UntilAnySignal,
        (_, None) => Patience::UntilSignal,
    }
}

const fn ino(number: INodeNo) -> InodeId {
    InodeId(number.0)
}

const fn handle(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

fn time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(at),
    }
}

/// Type and permission bits of a new file. The kernel took the umask off already unless it was asked not to
/// (DONT_MASK); taking it off again changes nothing.
const fn masked(mode: u32, umask: u32) -> u32 {
    mode & !(umask & 0o777)
}

impl<H: Handler> fuser::Filesystem for Transport<H> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let locks = self.around.locks.then_some(InitFlags::FUSE_FLOCK_LOCKS);
        let listings = LISTINGS.into_iter().filter(|_| self.around.lists_attributes);
        for capability in CAPABILITIES.into_iter().chain(listings).chain([MAP_DIRECT]).chain(locks) {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "the kernel does not offer this; going on without");
            }
        }
        // Each gives back the nearest allowed value when ours is not.
        if let Err(nearest) = config.set_max_write(MAX_WRITE_BYTES) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(MAX_WRITE_BYTES) {
            let _ = config.set_max_readahead(nearest);
        }
        let background = self.around.max_background.max(1);
        let _ = config.set_max_background(background);
        let _ = config.set_congestion_threshold((background / 4 * 3).max(1));
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        self.run(request, Op::Lookup { parent: ino(parent), name: name.as_bytes() }, Reply::Entry(reply));
    }

    fn forget(&self, request: &Request, number: INodeNo, lookups: u64) {
        self.run(request, Op::Forget { ino: ino(number), lookups }, Reply::Nobody);
    }

    fn getattr(&self, request: &Request, number: INodeNo, fh: Option<FileHandle>, reply: fuser::ReplyAttr) {
        self.run(request, Op::GetAttr { ino: ino(number), handle: fh.map(handle) }, Reply::Attr(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        let changes = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size_bytes: size,
            atime: atime.map(time),
            mtime: mtime.map(time),
            handle: fh.map(handle),
        };
        self.run(request, Op::SetAttr { ino: ino(number), changes }, Reply::Attr(reply));
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: fuser::ReplyData) {
        self.run(request, Op::ReadLink { ino: ino(number) }, Reply::Data(reply));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let op = Op::Mknod { parent: ino(parent), name: name.as_bytes(), mode: masked(mode, umask), rdev };
        self.run(request, op, Reply::Entry(reply));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let mode = masked(mode & 0o7777, umask);
        self.run(
            request,
            Op::Mkdir { parent: ino(parent), name: name.as_bytes(), mode },
            Reply::Entry(reply),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        self.run(request, Op::Unlink { parent: ino(parent), name: name.as_bytes() }, Reply::Empty(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        self.run(request, Op::Rmdir { parent: ino(parent), name: name.as_bytes() }, Reply::Empty(reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: fuser::ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let op = Op::Symlink { parent: ino(parent), name: name.as_bytes(), target };
        self.run(request, op, Reply::Entry(reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let op = Op::Rename {
            parent: ino(parent),
            name: name.as_bytes(),
            new_parent: ino(new_parent),
            new_name: new_name.as_bytes(),
            flags: flags.bits(),
        };
        self.run(request, op, Reply::Empty(reply));
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        let op = Op::Link { ino: ino(number), new_parent: ino(new_parent), new_name: new_name.as_bytes() };
        self.run(request, op, Reply::Entry(reply));
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        self.run(request, Op::Open { ino: ino(number), flags: flags.0 }, Reply::Opened(reply));
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let op = Op::Read { ino: ino(number), handle: handle(fh), offset_bytes: offset, len_bytes: size };
        self.run(request, op, Reply::Data(reply));
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let op = Op::Write {
            ino: ino(number),
            handle: handle(fh),
            offset_bytes: offset,
            data,
            kill_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            mapped: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        self.run(request, op, Reply::Written(reply));
    }

    fn flush(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        _owner: fuser::LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        self.run(request, Op::Flush { ino: ino(number), handle: handle(fh) }, Reply::Empty(reply));
    }

    fn release(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<fuser::LockOwner>,
        _flush: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.run(request, Op::Release { ino: ino(number), handle: handle(fh) }, Reply::Empty(reply));
    }

    fn fsync(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.run(request, Op::Fsync { ino: ino(number), handle: handle(fh), data_only }, Reply::Empty(reply));
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: fuser::ReplyOpen) {
        self.run(request, Op::OpenDir { ino: ino(number) }, Reply::Opened(reply));
    }

    fn readdir(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectory,
    ) {
        let limit = self.names_fit.ask_for();
        let op = Op::ReadDir { ino: ino(number), handle: handle(fh), offset, limit, attributes: false };
        self.run(request, op, Reply::Directory(reply, Arc::clone(&self.names_fit)));
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectoryPlus,
    ) {
        let limit = self.entries_fit.ask_for();
        let op = Op::ReadDir { ino: ino(number), handle: handle(fh), offset, limit, attributes: true };
        let reply = Reply::DirectoryPlus(reply, Arc::clone(&self.entries_fit), self.forget_unseen(request));
        self.run(request, op, reply);
    }

    fn releasedir(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        self.run(request, Op::ReleaseDir { ino: ino(number), handle: handle(fh) }, Reply::Empty(reply));
    }

    fn fsyncdir(
        &self,
        request: &Request,
        number: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.run(request, Op::FsyncDir { ino: ino(number) }, Reply::Empty(reply));
    }

    fn statfs(&self, request: &Request, _number: INodeNo, reply: fuser::ReplyStatfs) {
        self.run(request, Op::StatFs, Reply::StatFs(reply));
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let op = Op::SetXattr { ino: ino(number), name: name.as_bytes(), value, flags };
        self.run(request, op, Reply::Empty(reply));
    }

    fn getxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        let op = Op::GetXattr { ino: ino(number), name: name.as_bytes() };
        self.run(request, op, Reply::XattrValue(reply, size));
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        self.run(request, Op::ListXattr { ino: ino(number) }, Reply::XattrNames(reply, size));
    }

    fn removexattr(&self, request: &Request, number: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        self.run(request, Op::RemoveXattr { ino: ino(number), name: name.as_bytes() }, Reply::Empty(reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let mode = masked(mode & 0o7777, umask);
        let op = Op::Create { parent: ino(parent), name: name.as_bytes(), mode, flags };
        self.run(request, op, Reply::Created(reply));
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let op = Op::Fallocate {
            ino: ino(number),
            handle: handle(fh),
            offset_bytes: offset,
            len_bytes: length,
            mode,
        };
        self.run(request, op, Reply::Empty(reply));
    }

    fn lseek(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        let reply = Reply::Offset(reply);
        let Ok(offset_bytes) = u64::try_from(offset) else { return reply.send(Err(Errno::ENXIO)) };
        let op = Op::Seek { ino: ino(number), handle: handle(fh), offset_bytes, whence };
        self.run(request, op, reply);
    }

    // What follows is refused once; the kernel then does it by itself or tells its caller.

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: fuser::ReplyWrite,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn poll(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        notifier: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        if !self.around.polls {
            return reply.error(fuser::Errno::ENOSYS);
        }
        let notifier = Mutex::new(Some(notifier));
        let again = PollAgain::new(move || {
            if let Some(Err(error)) = notifier.lock().take().map(fuser::PollNotifier::notify) {
                // The file was closed meanwhile, or the mount is gone.
                tracing::debug!(%error, "tell the kernel to poll again");
            }
        });
        let op = Op::Poll { ino: ino(number), handle: handle(fh), again };
        self.run(request, op, Reply::Ready(reply));
    }

    fn setlk(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        owner: fuser::LockOwner,
        _start: u64,
        _end: u64,
        kind: i32,
        _pid: u32,
        sleep: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let reply = Reply::Empty(reply);
        let lock = match kind {
            libc::F_RDLCK => Flock::Shared,
            libc::F_WRLCK => Flock::Exclusive,
            libc::F_UNLCK => Flock::Unlock,
            _ => return reply.send(Err(Errno::EINVAL)),
        };
        let (ino, handle) = (ino(number), handle(fh));
        self.run(request, Op::Flock { ino, handle, owner: owner.0, lock, wait: sleep }, reply);
    }

    fn bmap(&self, _request: &Request, _ino: INodeNo, _block: u32, _index: u64, reply: fuser::ReplyBmap) {
        reply.error(fuser::Errno::ENOSYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn umask_touches_permissions_only() {
        assert_eq!(masked(libc::S_IFIFO | 0o666, 0o022), libc::S_IFIFO | 0o644);
        assert_eq!(masked(0o4777, 0o7777), 0o4000, "a umask has no say over set-id bits");
    }

    #[test]
    fn only_what_nobody_waits_for_is_waited_for_without_end() {
        let ino = InodeId(5);
        let handle = HandleId(1);
        let judge = |op: Op<'_>| patience(&op, question(&op));
        assert_eq!(judge(Op::Release { ino, handle }), Patience::Endless);
        assert_eq!(judge(Op::Forget { ino, lookups: 1 }), Patience::Endless);
        assert_eq!(judge(Op::Flush { ino, handle }), Patience::UntilSignal);
        assert_eq!(judge(Op::GetAttr { ino, handle: None }), Patience::UntilSignal);
        assert_eq!(
            judge(Op::GetAttr { ino: InodeId::ROOT, handle: None }),
            Patience::Recall(Question::RootAttr)
        );
        assert_eq!(judge(Op::StatFs), Patience::Recall(Question::StatFs));
    }
}
