//! The files of a real disk: names, the lock, opening and making them. All calls here block.
//!
//! ```text
//! DIR/lock         held exclusively while the disk is open
//! DIR/superblock   two copies
//! DIR/journal      fixed size, written in advance
//! DIR/seg-00000000 ... segments, made on demand
//! DIR/meta/        RocksDB
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::OpenError;
use crate::io::FileId;

pub(crate) const LOCK: &str = "lock";
pub(crate) const SUPERBLOCK: &str = "superblock";
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const META: &str = "meta";

/// The open files of a disk.
#[derive(Debug)]
pub(crate) struct DiskFiles {
    dir: PathBuf,
    /// Dropped last of all that uses the disk; see [`lock`].
    pub(crate) lock: Arc<File>,
    pub(crate) journal: Arc<File>,
    segments: Mutex<BTreeMap<u32, Arc<File>>>,
    direct: bool,
}

/// Takes the directory for this process. The kernel drops the lock when the last descriptor of the file goes: the
/// ring holds one too, so that after a kill the disk stays locked until its last write in flight landed.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let failed = |operation, source| OpenError::Io { operation, path: path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| failed("open", source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", source)),
    }
}

fn segment_name(index: u32) -> String {
    format!("seg-{index:08}")
}

impl DiskFiles {
    pub(crate) fn open(dir: &Path, lock: File) -> Result<Self, OpenError> {
        let failed = |operation, path: PathBuf| move |source| OpenError::Io { operation, path, source };
        let mut direct = true;
        let journal_path = dir.join(JOURNAL);
        let journal = match open_file(&journal_path, direct) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(dir = %dir.display(), "the file system refuses O_DIRECT; data goes through the page cache");
                direct = false;
                open_file(&journal_path, direct)
            }
            other => other,
        }
        .map_err(failed("open", journal_path))?;
        let mut segments = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(failed("list", dir.to_owned()))? {
            let entry = entry.map_err(failed("list", dir.to_owned()))?;
            let name = entry.file_name();
            let Some(index) = name.to_str().and_then(|name| name.strip_prefix("seg-")) else { continue };
            let Ok(index) = index.parse::<u32>() else { continue };
            let file = open_file(&entry.path(), direct).map_err(failed("open", entry.path()))?;
            segments.insert(index, Arc::new(file));
        }
        Ok(Self {
            dir: dir.to_owned(),
            lock: Arc::new(lock),
            journal: Arc::new(journal),
            segments: Mutex::new(segments),
            direct,
        })
    }

    pub(crate) fn get(&self, file: FileId) -> Option<Arc<File>> {
        match file {
            FileId::Journal => Some(self.journal.clone()),
            FileId::Segment(index) => self.segments.lock().get(&index).cloned(),
        }
    }

    pub(crate) fn segments(&self) -> Vec<(u32, u64)> {
        let segments = self.segments.lock();
        segments.iter().map(|(index, file)| (*index, file.metadata().map_or(0, |meta| meta.len()))).collect()
    }

    /// Makes a segment whole or not at all: under another name, allocated, durable, then renamed. One that is there but
    /// too short gets longer.
    pub(crate) fn create_segment(&self, index: u32, len_bytes: u64) -> io::Result<Arc<File>> {
        if let Some(short) = self.get(FileId::Segment(index)) {
            allocate(&short, len_bytes)?;
            short.sync_all()?;
            return Ok(short);
        }
        let path = self.dir.join(segment_name(index));
        let temporary = self.dir.join(format!("new-{}", segment_name(index)));
        let _ = std::fs::remove_file(&temporary);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(flags(self.direct))
            .open(&temporary)?;
        let made = allocate(&file, len_bytes).and_then(|()| file.sync_all());
        if let Err(error) = made {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        std::fs::rename(&temporary, &path)?;
        sync_dir(&self.dir)?;
        let file = Arc::new(file);
        self.segments.lock().insert(index, file.clone());
        Ok(file)
    }
}

fn flags(direct: bool) -> i32 {
    if direct { libc::O_DIRECT } else { 0 }
}

fn open_file(path: &Path, direct: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags(direct)).open(path)
}

fn allocate(file: &File, len_bytes: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len_bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, len).or_else(|errno| {
        // A file system without fallocate: a sparse file then, which may run out of space later.
        if errno == nix::errno::Errno::EOPNOTSUPP { file.set_len(len_bytes) } else { Err(errno.into()) }
    })?;
    Ok(())
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a file whole or not at all: under another name, durable, then renamed.
pub(crate) fn write_whole(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = dir.join(format!("new-{name}"));
    let mut file = File::create(&temporary)?;
    write(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}
