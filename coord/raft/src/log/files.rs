//! Segment files: made and written over in advance, named, reused; and the primitives all files of the log use.
//!
//! A name is durable before anything is written under it: [`SegmentFiles::prepare`] syncs file and directory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::log::LogError;

/// `writev` takes no more pieces at once.
const PIECES_MAX: usize = 1024;
/// Zeros are written in pieces of this size.
const ZEROS_LEN: usize = 1 << 20;

/// The directory of the log and its files.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    dir: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    /// Files that may become segments.
    spares: Mutex<Vec<PathBuf>>,
}

/// A segment's file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl SegmentFiles {
    pub(crate) fn open(dir: &Path, segment_bytes: u64, spares_max: usize) -> Result<Self, LogError> {
        std::fs::create_dir_all(dir).map_err(|source| LogError::io("create", dir, source))?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        let files = Self { dir: dir.to_path_buf(), segment_bytes, spares_max, spares: Mutex::default() };
        for path in files.list("spare-")? {
            files.keep_or_delete(path)?;
        }
        Ok(files)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, sequence: u64) -> PathBuf {
        self.dir.join(format!("seg-{sequence:016x}.log"))
    }

    /// Sequences of all segments there are, in order.
    pub(crate) fn sequences(&self) -> Result<Vec<u64>, LogError> {
        let mut found = Vec::new();
        for path in self.list("seg-")? {
            let name =
                path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("seg-"));
            let sequence = name.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            found.push(sequence.ok_or(LogError::Corrupt {
                path,
                offset: 0,
                reason: "not a segment's name",
            })?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes the file of a segment that is not there yet, or takes the one that was prepared before a restart.
    pub(crate) fn prepare(&self, sequence: u64) -> Result<SegmentFile, LogError> {
        let path = self.path(sequence);
        let usable = std::fs::metadata(&path).is_ok_and(|found| found.len() == self.segment_bytes);
        if !usable {
            let spare = match self.spares.lock().pop() {
                Some(spare) => spare,
                None => self.make_spare(sequence)?,
            };
            rename(&spare, &path)?;
        }
        sync_dir(&self.dir)?;
        self.open_segment(sequence)
    }

    pub(crate) fn open_segment(&self, sequence: u64) -> Result<SegmentFile, LogError> {
        let path = self.path(sequence);
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| LogError::io("open the log segment", &path, source))?;
        Ok(SegmentFile { sequence, path, file })
    }

    /// Segments whose entries are all purged, durably so: the file is kept for reuse or deleted. Oldest first, so
    /// that no gap appears.
    pub(crate) fn retire(&self, sequence: u64) -> Result<(), LogError> {
        let spare = self.dir.join(format!("spare-{sequence:016x}"));
        rename(&self.path(sequence), &spare)?;
        self.keep_or_delete(spare)
    }

    fn keep_or_delete(&self, spare: PathBuf) -> Result<(), LogError> {
        let mut spares = self.spares.lock();
        let right_size = std::fs::metadata(&spare).is_ok_and(|found| found.len() == self.segment_bytes);
        if right_size && spares.len() < self.spares_max {
            spares.push(spare);
            return Ok(());
        }
        std::fs::remove_file(&spare).map_err(|source| LogError::io("delete", &spare, source))
    }

    /// A file whose blocks are written, so that later synced writes change no metadata. A crash in between leaves
    /// a file of another size, which the next start deletes.
    fn make_spare(&self, sequence: u64) -> Result<PathBuf, LogError> {
        let path = self.dir.join(format!("spare-{sequence:016x}"));
        let io = |operation| {
            let path = path.clone();
            move |source| LogError::io(operation, &path, source)
        };
        let file = File::create(&path).map_err(io("create"))?;
        let zeros = vec![0; ZEROS_LEN];
        let mut at = 0;
        while at < self.segment_bytes {
            let len =
                usize::try_from((self.segment_bytes - at).min(ZEROS_LEN as u64)).expect("at most ZEROS_LEN");
            file.write_all_at(&zeros[..len], at).map_err(io("write zeros to"))?;
            at += len as u64;
        }
        file.sync_all().map_err(io("sync"))?;
        Ok(path)
    }

    fn list(&self, prefix: &str) -> Result<Vec<PathBuf>, LogError> {
        let io = |source| LogError::io("list", &self.dir, source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), LogError> {
    // Whoever needs the new name durable syncs the directory; a retired segment's name may come back.
    std::fs::rename(from, to).map_err(|source| LogError::io("rename", from, source))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| LogError::io("sync the directory", dir, source))
}

/// A file appears whole or not at all: write-new, fsync, rename, fsync of the directory.
pub(crate) fn create_durably(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let new = path.with_extension("new");
    let io = |operation| {
        let new = new.clone();
        move |source| LogError::io(operation, &new, source)
    };
    let file = File::create(&new).map_err(io("create"))?;
    file.write_all_at(bytes, 0).map_err(io("write"))?;
    file.sync_all().map_err(io("sync"))?;
    rename(&new, path)?;
    sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// One write, durable when it returns.
pub(crate) fn write_durably(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    write_pieces_durably(file, path, offset, &[bytes])
}

/// One write of several pieces, durable when it returns. A failure says nothing about what reached the medium.
pub(crate) fn write_pieces_durably(
    file: &File,
    path: &Path,
    offset: u64,
    pieces: &[&[u8]],
) -> Result<(), LogError> {
    let error = |source| LogError::io("write and sync", path, source);
    let mut at = offset;
    let mut rest: Vec<libc::iovec> = pieces
        .iter()
        .filter(|piece| !piece.is_empty())
        .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() })
        .collect();
    let mut rest = rest.as_mut_slice();
    while !rest.is_empty() {
        let count = rest.len().min(PIECES_MAX);
        let mut written = write_once(file, at, &rest[..count]).map_err(error)?;
        at += written as u64;
        while let Some(first) = rest.first_mut() {
            if written < first.iov_len {
                // SAFETY: `written` is less than the piece's length, so the result points into the same piece.
                first.iov_base = unsafe { first.iov_base.cast::<u8>().add(written) }.cast();
                first.iov_len -= written;
                break;
            }
            written -= first.iov_len;
            rest = &mut rest[1..];
        }
    }
    Ok(())
}

fn write_once(file: &File, at: u64, pieces: &[libc::iovec]) -> io::Result<usize> {
    let offset = i64::try_from(at).map_err(io::Error::other)?;
    let count = i32::try_from(pieces.len()).expect("at most PIECES_MAX");
    loop {
        // SAFETY: the descriptor is open for the duration of the call; each iovec describes initialised memory that
        // outlives the call and is only read by it; `count` is their number. std has no write with RWF_DSYNC.
        let result =
            unsafe { libc::pwritev2(file.as_raw_fd(), pieces.as_ptr(), count, offset, libc::RWF_DSYNC) };
        match usize::try_from(result) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_arrive_in_order_whatever_their_number_and_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        let bytes: Vec<Vec<u8>> =
            (0..2500_usize).map(|i| vec![u8::try_from(i % 251).unwrap(); i % 5]).collect();
        let pieces: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        write_pieces_durably(&file, &path, 3, &pieces).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[3..], bytes.concat());
    }

    #[test]
    fn a_retired_segment_is_reused_and_half_made_spares_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spare-0000000000000009"), b"half made").unwrap();
        let files = SegmentFiles::open(dir.path(), 8192, 1).unwrap();
        assert!(!dir.path().join("spare-0000000000000009").exists());
        files.prepare(1).unwrap().file.write_all_at(b"mark", 100).unwrap();
        files.prepare(2).unwrap();
        files.retire(1).unwrap();
        files.retire(2).unwrap();
        assert_eq!(files.sequences().unwrap(), Vec::<u64>::new());
        files.prepare(3).unwrap();
        assert_eq!(files.sequences().unwrap(), [3]);
        let reused = std::fs::read(files.path(3)).unwrap();
        assert_eq!(
            (reused.len(), &reused[100..104]),
            (8192, b"mark".as_slice()),
            "the file was not the old one"
        );
    }
}
