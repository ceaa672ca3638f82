//! Open files and directories.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_types::{Fence, InodeId};
use parking_lot::Mutex;

use crate::directory::DirStream;
use crate::inode::State;
use crate::inode_table::Pin;
use crate::{Errno, HandleId};

/// What a write through a handle waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// Nothing: the buffer.
    Buffered,
    /// O_DIRECT: the chunkservers.
    Data,
    /// O_DSYNC: the chunkservers, and the master if the file became longer.
    DataAndSize,
    /// O_SYNC: everything.
    All,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) inode: Pin,
    pub(crate) writable: bool,
    pub(crate) through: Through,
    /// The kernel goes around its page cache.
    pub(crate) direct: bool,
    /// The file's when this was opened.
    pub(crate) fence: Fence,
    /// The number of the last write error this handle has told of.
    seen: AtomicU64,
}

impl FileHandle {
    /// Opens the inode.
    pub(crate) fn new(inode: Pin, flags: i32) -> Self {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let through = if flags & libc::O_SYNC == libc::O_SYNC {
            Through::All
        } else if flags & libc::O_DSYNC != 0 {
            Through::DataAndSize
        } else if flags & libc::O_DIRECT != 0 {
            Through::Data
        } else {
            Through::Buffered
        };
        let direct = flags & libc::O_ACCMODE == libc::O_WRONLY || flags & libc::O_DIRECT != 0;
        let (fence, seen) = {
            let mut state = inode.lock();
            let fence = state.fence;
            state.opens += 1;
            if writable {
                state.writers += 1;
                *state.writer_fences.entry(fence).or_default() += 1;
            }
            (fence, AtomicU64::new(state.failures.count))
        };
        Self { inode, writable, through, direct, fence, seen }
    }

    /// Counts it no more.
    pub(crate) fn close(&self, state: &mut State) {
        state.opens -= 1;
        if !self.writable {
            return;
        }
        state.writers -= 1;
        if let Some(count) = state.writer_fences.get_mut(&self.fence) {
            *count -= 1;
            if *count == 0 {
                state.writer_fences.remove(&self.fence);
            }
        }
    }

    /// The file was fenced after this was opened: nothing is written through it any more. Through one that only reads nothing
    /// ever was, but who syncs by it asks for what others wrote.
    pub(crate) fn is_stale(&self, state: &State) -> bool {
        self.fence < if self.writable { state.fence } else { state.refused_below }
    }

    /// The error of a buffered write, once; that of a stale handle, always.
    pub(crate) fn take_error(&self, state: &State) -> Result<(), Errno> {
        if self.is_stale(state) {
            return Err(Errno::ESTALE);
        }
        let seen = self.seen.fetch_max(state.failures.count, Ordering::Relaxed);
        state.failures.since(seen).map_or(Ok(()), Err)
    }

    /// Whether there is an error this handle has not told of.
    pub(crate) fn has_error(&self, state: &State) -> bool {
        self.is_stale(state) || state.failures.count > self.seen.load(Ordering::Relaxed)
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct DirHandle {
    pub(crate) ino: InodeId,
    pub(crate) stream: tokio::sync::Mutex<DirStream>,
}

#[derive(Clone, Debug)]
enum Open {
    File(Arc<FileHandle>),
    Dir(Arc<DirHandle>),
}

/// All that is open.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: Mutex<HashMap<HandleId, Open>>,
    last: AtomicU64,
}

impl Handles {
    fn add(&self, open: Open) -> HandleId {
        let id = HandleId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.open.lock().insert(id, open);
        id
    }

    pub(crate) fn add_file(&self, file: FileHandle) -> HandleId {
        self.add(Open::File(Arc::new(file)))
    }

    pub(crate) fn add_dir(&self, dir: DirHandle) -> HandleId {
        self.add(Open::Dir(Arc::new(dir)))
    }

    pub(crate) fn file(&self, id: HandleId) -> Result<Arc<FileHandle>, Errno> {
        match self.open.lock().get(&id) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Dir(_)) => Err(Errno::EISDIR),
            None => Err(Errno::EBADF),
        }
    }

    pub(crate) fn dir(&self, id: HandleId) -> Result<Arc<DirHandle>, Errno> {
        match self.open.lock().get(&id) {
            Some(Open::Dir(dir)) => Ok(Arc::clone(dir)),
            Some(Open::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::EBADF),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Closes; gives the file if it was one.
    pub(crate) fn remove(&self, id: HandleId) -> Option<Arc<FileHandle>> {
        match self.open.lock().remove(&id) {
            Some(Open::File(file)) => Some(file),
            Some(Open::Dir(_)) | None => None,
        }
    }
}
