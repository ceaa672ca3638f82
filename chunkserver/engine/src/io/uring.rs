//! The disk through io_uring: one ring, files and the buffer pool registered with it.
//!
//! An operation goes into the ring on the task that wants it; one task of the same runtime, the driver, waits until the
//! ring's descriptor is readable and completes what is done. No thread is woken on the way. Small operations that
//! tasks start one after another enter the kernel together, [`BATCH`] at a time or when the driver gets its turn: a
//! submission of its own costs each a system call and, on a virtual disk, a way out of the guest.
//!
//! Invariants:
//! - a slot holds an operation's memory from before its submission until its completion was reaped;
//! - at most [`IN_FLIGHT_MAX`] operations are in the kernel, the rest wait here in order, so the completion queue
//!   (twice the ring) cannot overflow;
//! - the ring goes only after its last operation completed.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::buffer::BufferPool;
use crate::error::IoError;
use crate::io::files::DiskFiles;
use crate::io::sync::{create_segment, journal_len_bytes};
use crate::io::{Completer, Completion, FileId, Io, Op, WriteMode, io_error};

/// Operations in the kernel at a time: several times what keeps any disk busy.
const IN_FLIGHT_MAX: usize = 256;
/// Small operations that enter the kernel together. Of 32 writes that come at once, the disk must not wait for the last.
const BATCH: usize = 8;
/// The kernel was short of memory for requests: it is asked again after this.
const UNSENT_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// What takes a disk longer than the way into the kernel is not worth waiting with.
const SMALL_BYTES: usize = 64 << 10;
/// Places in the table of registered files before the segments.
const FILE_JOURNAL: u32 = 0;
const FILE_LOCK: u32 = 1;
const FILE_SEGMENTS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Uring {
    shared: Arc<Shared>,
    files: Arc<DiskFiles>,
    driver: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Something is queued that has not entered the kernel: the driver looks.
    queued: Arc<Notify>,
}

struct Ring {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    waiting: VecDeque<Slot>,
    /// Address and length of the registered pool, if registration worked.
    region: Option<(usize, usize)>,
    /// Keeps the registered memory mapped.
    _pool: Arc<BufferPool>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    op: Op,
    file: FileId,
    offset_bytes: u64,
    completer: Completer,
}

impl Uring {
    /// Sets up the ring and its driver on the current runtime.
    pub(crate) fn new(
        files: DiskFiles,
        pool: &Arc<BufferPool>,
        segments_max: u32,
    ) -> Result<Self, (io::Error, DiskFiles)> {
        let ring = match set_up(&files, pool, segments_max) {
            Ok(ring) => ring,
            Err(error) => return Err((error, files)),
        };
        // A descriptor of its own: the runtime may drop the driver after the ring's own one is closed, and must not
        // then take a stranger's number out of its epoll set.
        // SAFETY: the ring is open, so its descriptor is.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.ring.as_raw_fd()) }.try_clone_to_owned();
        let fd = fd.and_then(|fd| {
            // SAFETY: an `OwnedFd` stays open, and the same descriptor, as long as the `AsyncFd` owns it.
            let registered = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
            registered.map_err(io::Error::from)
        });
        let fd = match fd {
            Ok(fd) => fd,
            Err(error) => return Err((error, files)),
        };
        let queued = Arc::new(Notify::new());
        let shared = Arc::new(Shared { ring: Mutex::new(ring), queued: queued.clone() });
        let driver = tokio::spawn(drive(fd, queued, Arc::downgrade(&shared)));
        Ok(Self { shared, files: Arc::new(files), driver })
    }
}

fn set_up(files: &DiskFiles, pool: &Arc<BufferPool>, segments_max: u32) -> io::Result<Ring> {
    let entries = u32::try_from(IN_FLIGHT_MAX).expect("a small constant");
    // Task work need not interrupt us: it runs when the thread next enters the kernel, which it does to wait.
    let ring = IoUring::builder().setup_coop_taskrun().build(entries).or_else(|_| IoUring::new(entries))?;
    let submitter = ring.submitter();
    submitter.register_files_sparse(FILE_SEGMENTS + segments_max)?;
    let set = |at: u32, file: &File| submitter.register_files_update(at, &[file.as_raw_fd()]).map(|_| ());
    set(FILE_JOURNAL, &files.journal)?;
    set(FILE_LOCK, &files.lock)?;
    for (index, _) in files.segments() {
        if let (Some(file), true) = (files.get(FileId::Segment(index)), index < segments_max) {
            set(FILE_SEGMENTS + index, &file)?;
        }
    }
    let region = pool.region().and_then(|(base, len)| {
        let iovec = libc::iovec { iov_base: base.cast(), iov_len: len };
        // SAFETY: the mapping outlives the ring: the ring holds the pool.
        match unsafe { submitter.register_buffers(&[iovec]) } {
            Ok(()) => Some((base as usize, len)),
            Err(error) => {
                tracing::warn!(%error, bytes = len, "buffers are not registered with io_uring (raise RLIMIT_MEMLOCK): each IO costs a little more");
                None
            }
        }
    });
    let slots = (0..IN_FLIGHT_MAX).map(|_| None).collect();
    let free = (0..entries).rev().collect();
    Ok(Ring { ring, slots, free, waiting: VecDeque::new(), region, _pool: pool.clone() })
}

/// Submits what was left queued and completes operations, until the disk is gone.
async fn drive(fd: AsyncFd<OwnedFd>, queued: Arc<Notify>, shared: std::sync::Weak<Shared>) {
    loop {
        tokio::select! {
            ready = fd.readable() => {
                let Ok(mut ready) = ready else { return };
                // Cleared first: what completes from here on makes the descriptor readable anew.
                ready.clear_ready();
            }
            () = queued.notified() => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if shared.reap() {
            drop(shared);
            tokio::time::sleep(UNSENT_PAUSE).await;
            queued.notify_one();
        }
    }
}

impl Shared {
    /// Whether something is left that the kernel did not take.
    fn reap(&self) -> bool {
        // Waiters run after the lock is free again; they may submit.
        let (done, left) = {
            let mut ring = self.ring.lock();
            (ring.reap(), !ring.ring.submission().is_empty())
        };
        for (completer, result) in done {
            let _ = completer.send(result);
        }
        left
    }
}

impl Ring {
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues an operation, and enters the kernel unless that can wait for the driver's turn.
    fn start(&mut self, slot: Slot) -> io::Result<Started> {
        if self.free.is_empty() {
            self.waiting.push_back(slot);
            return Ok(Started::InLine);
        }
        let small = slot.op.len_bytes() < SMALL_BYTES;
        self.push(slot);
        match self.ring.submission().len() {
            1 if small => return Ok(Started::First),
            queued if small && queued < BATCH => return Ok(Started::InLine),
            _ => {}
        }
        self.enter()?;
        Ok(if self.ring.submission().is_empty() { Started::InLine } else { Started::First })
    }

    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // The kernel is short of memory for requests or wants completions reaped first: what is queued goes
                // with the next submission, at the latest when the driver reaps.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    return Ok(());
                }
                other => return other.map(|_| ()),
            }
        }
    }

    /// Queues the slot's entry. There is room: the queue is as long as the slots are many.
    fn push(&mut self, slot: Slot) {
        let at = self.free.pop().expect("the caller saw a free slot");
        let entry = entry(&slot, self.region).user_data(u64::from(at));
        self.slots[at as usize] = Some(slot);
        // SAFETY: the entry points into memory that the slot keeps until the completion is reaped.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has an entry for each slot");
    }

    fn reap(&mut self) -> Vec<(Completer, Result<(), IoError>)> {
        let mut done = Vec::new();
        let mut again = Vec::new();
        for cqe in self.ring.completion() {
            let at = u32::try_from(cqe.user_data()).expect("user data is a slot's place");
            let Some(slot) = self.slots[at as usize].take() else { continue };
            self.free.push(at);
            match outcome(&slot.op, cqe.result()) {
                Outcome::Again => again.push(slot),
                Outcome::Done(result) => {
                    let Slot { op, file, offset_bytes, completer } = slot;
                    let result = result.map_err(|error| io_error(file, offset_bytes, &op, error));
                    // The buffer must be free before the waiter looks at it.
                    drop(op);
                    done.push((completer, result));
                }
            }
        }
        let mut queued = false;
        while !self.free.is_empty() {
            // Each of `again` just left its place free.
            let Some(slot) = again.pop().or_else(|| self.waiting.pop_front()) else { break };
            self.push(slot);
            queued = true;
        }
        if (queued || !self.ring.submission().is_empty())
            && let Err(error) = self.enter()
        {
            tracing::error!(%error, "io_uring_enter failed");
        }
        done
    }
}

/// What [`Ring::start`] leaves to do.
enum Started {
    /// Something waits for the driver's turn: tell it.
    First,
    /// It entered the kernel, or goes with one before it.
    InLine,
}

enum Outcome {
    Done(io::Result<()>),
    Again,
}

fn outcome(op: &Op, result: i32) -> Outcome {
    if result == -libc::EINTR || result == -libc::EAGAIN {
        return Outcome::Again;
    }
    if result < 0 {
        return Outcome::Done(Err(io::Error::from_raw_os_error(-result)));
    }
    let complete = usize::try_from(result).is_ok_and(|moved| moved == op.len_bytes());
    Outcome::Done(match op {
        Op::Sync => Ok(()),
        _ if complete => Ok(()),
        // Whole blocks of a regular file come short only at its end.
        Op::Read(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Op::Write { .. } => Err(io::ErrorKind::WriteZero.into()),
    })
}

fn entry(slot: &Slot, region: Option<(usize, usize)>) -> squeue::Entry {
    let fd = types::Fixed(match slot.file {
        FileId::Journal => FILE_JOURNAL,
        FileId::Segment(index) => FILE_SEGMENTS + index,
    });
    let len = u32::try_from(slot.op.len_bytes()).expect("one IO is far below 4 GiB");
    let registered = |address: *const u8| {
        region.is_some_and(|(base, size)| {
            let at = (address as usize).wrapping_sub(base);
            at < size && len as usize <= size - at
        })
    };
    match &slot.op {
        Op::Read(target) => {
            let to = target.as_mut_ptr();
            if registered(to) {
                opcode::ReadFixed::new(fd, to, len, 0).offset(slot.offset_bytes).build()
            } else {
                opcode::Read::new(fd, to, len).offset(slot.offset_bytes).build()
            }
        }
        Op::Write { data, mode } => {
            let flags = if *mode == WriteMode::Durable { libc::RWF_DSYNC } else { 0 };
            let from = data.as_ptr();
            if registered(from) {
                opcode::WriteFixed::new(fd, from, len, 0).offset(slot.offset_bytes).rw_flags(flags).build()
            } else {
                opcode::Write::new(fd, from, len).offset(slot.offset_bytes).rw_flags(flags).build()
            }
        }
        Op::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

impl Io for Uring {
    fn submit(&self, file: FileId, offset_bytes: u64, op: Op) -> Completion {
        let (completer, completion) = Completion::new();
        let started = self.shared.ring.lock().start(Slot { op, file, offset_bytes, completer });
        match started {
            Ok(Started::InLine) => {}
            Ok(Started::First) => self.shared.queued.notify_one(),
            Err(error) => {
                // The entry stays queued; without the ring nothing of this disk works, and the waiter will see that
                // as its deadline. It does not happen with a ring that was set up.
                tracing::error!(%error, "io_uring_enter failed");
            }
        }
        completion
    }

    fn create_segment(&self, index: u32, len_bytes: u64) -> Completion {
        let shared = self.shared.clone();
        create_segment(self.files.clone(), index, len_bytes, move |index, file| {
            let ring = shared.ring.lock();
            ring.ring
                .submitter()
                .register_files_update(FILE_SEGMENTS + index, &[file.as_raw_fd()])
                .map(|_| ())
        })
    }

    fn segments(&self) -> Vec<(u32, u64)> {
        self.files.segments()
    }

    fn journal_len_bytes(&self) -> Result<u64, IoError> {
        journal_len_bytes(&self.files)
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            loop {
                {
                    let ring = self.shared.ring.lock();
                    if ring.in_flight() == 0 && ring.waiting.is_empty() {
                        // Without this the kernel would let go of the lock only when it tears the ring down.
                        let _ = ring.ring.submitter().register_files_update(FILE_LOCK, &[-1]);
                        break;
                    }
                }
                tokio::task::yield_now().await;
            }
            let _ = self.files.lock.unlock();
        })
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.waiting.clear();
        while self.in_flight() > 0 {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => {
                    // The kernel may still write into the slots' memory: better to lose it than to free it.
                    tracing::error!(%error, "io_uring_enter failed with operations in flight");
                    self.slots.drain(..).for_each(std::mem::forget);
                    return;
                }
                _ => drop(self.reap()),
            }
        }
        let _ = self.ring.submitter().unregister_files();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::buffer::PoolBuf;
    use crate::io::{ReadBuffer, files};

    #[test]
    fn short_operations_fail_and_refused_ones_go_again() {
        let write = Op::Write { data: Bytes::from_static(&[0; 8192]), mode: WriteMode::Durable };
        let (_buffer, mut targets) =
            ReadBuffer::new(PoolBuf::from_heap(8192), std::slice::from_ref(&(0..8192)));
        let read = Op::Read(targets.remove(0));
        let kind = |op, result| match outcome(op, result) {
            Outcome::Again => None,
            Outcome::Done(result) => Some(result.map_err(|error| error.kind())),
        };
        for op in [&write, &read] {
            assert_eq!(kind(op, 8192), Some(Ok(())));
            assert_eq!((kind(op, -libc::EAGAIN), kind(op, -libc::EINTR)), (None, None));
            assert!(matches!(kind(op, -libc::EIO), Some(Err(_))));
        }
        for short in [0, 4096] {
            assert_eq!(kind(&write, short), Some(Err(io::ErrorKind::WriteZero)));
            assert_eq!(kind(&read, short), Some(Err(io::ErrorKind::UnexpectedEof)));
        }
        assert_eq!(kind(&Op::Sync, 0), Some(Ok(())));
    }

    #[tokio::test]
    async fn more_operations_than_the_ring_has_places_are_done_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let count = 2 * IN_FLIGHT_MAX + 100;
        std::fs::write(dir.path().join(files::JOURNAL), vec![0; count * 4096]).unwrap();
        let lock = files::lock(dir.path()).unwrap();
        let pool = BufferPool::new(1 << 20);
        let uring =
            Uring::new(DiskFiles::open(dir.path(), lock).unwrap(), &pool, 1).map_err(|(error, _)| error);
        let uring = uring.unwrap();
        let writes = (0..count).map(|at| {
            let mut block = PoolBuf::from_heap(4096);
            block.fill((at % 251) as u8);
            let op = Op::Write { data: block.freeze(), mode: WriteMode::Cached };
            uring.submit(FileId::Journal, at as u64 * 4096, op)
        });
        let writes: Vec<_> = writes.collect();
        futures::future::try_join_all(writes).await.unwrap();
        uring.shutdown().await;
        let written = std::fs::read(dir.path().join(files::JOURNAL)).unwrap();
        assert!(
            written.chunks(4096).enumerate().all(|(at, block)| block.iter().all(|b| *b == (at % 251) as u8))
        );
    }
}
