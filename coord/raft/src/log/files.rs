//! Segment files: made and written over in advance, named, reused; and the primitives all files of the log use.
//!
//! A name is durable before anything is written under it: [`SegmentFiles::prepare`] syncs file and directory.
//!
//! Records go around the page cache, in whole blocks: a durable write is then one request and one flush. Through the page
//! cache the writer would be put to sleep once more, for the write-back.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coord_kv_rocks::create_dir_durably;
use parking_lot::Mutex;

use crate::log::LogError;

/// What a write around the page cache is made of: the largest logical block of a disk.
const BLOCK: usize = 4096;
/// A buffer that was needed for a larger write is not kept.
const KEPT_BUFFER_MAX: usize = 1 << 20;
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
    /// For reading.
    pub(crate) file: File,
    /// Opened by the first write.
    writer: Option<BlockWriter>,
}

/// Writes to a file in whole blocks, each durable when the write returns.
#[derive(Debug)]
struct BlockWriter {
    file: File,
    /// The end of what was written last, and the bytes of its block before it.
    end: u64,
    tail: Vec<u8>,
    buffer: Vec<u8>,
}

impl SegmentFiles {
    pub(crate) fn open(dir: &Path, segment_bytes: u64, spares_max: usize) -> Result<Self, LogError> {
        create_dir_durably(dir).map_err(|source| LogError::io("create", dir, source))?;
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
        Ok(SegmentFile { sequence, path, file, writer: None })
    }

    /// Segments whose entries are all purged, durably so: the file is kept for reuse or deleted. Oldest first, and
    /// each before the next, so that no gap appears, also where a power cut undoes some changes of a directory and not others.
    pub(crate) fn retire(&self, sequence: u64) -> Result<(), LogError> {
        let spare = self.dir.join(format!("spare-{sequence:016x}"));
        rename(&self.path(sequence), &spare)?;
        sync_dir(&self.dir)?;
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

impl SegmentFile {
    /// Writes `pieces` one behind the other from `offset` on, durable when it returns. The rest of the last block
    /// becomes zero; what stands before `offset` stays.
    pub(crate) fn write(&mut self, offset: u64, pieces: &[impl AsRef<[u8]>]) -> Result<(), LogError> {
        let error = |source| LogError::io("write and sync", &self.path, source);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(BlockWriter::open(&self.path).map_err(error)?),
        };
        writer.write(&self.file, offset, pieces).map_err(error)
    }

    /// One whose writes fail.
    #[cfg(test)]
    pub(crate) fn unwritable(sequence: u64, path: PathBuf) -> io::Result<Self> {
        let open = || File::open(&path);
        let writer = BlockWriter { file: open()?, end: 0, tail: Vec::new(), buffer: Vec::new() };
        Ok(Self { sequence, file: open()?, path, writer: Some(writer) })
    }
}

impl BlockWriter {
    /// Around the page cache, if the file system has that.
    fn open(path: &Path) -> io::Result<Self> {
        let open = |flags| File::options().write(true).custom_flags(flags).open(path);
        let file = match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0)?,
            other => other?,
        };
        Ok(Self { file, end: 0, tail: Vec::new(), buffer: Vec::new() })
    }

    /// `reader` is the same file.
    fn write(&mut self, reader: &File, offset: u64, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let before = usize::try_from(offset % BLOCK as u64).expect("less than a block");
        let start = offset - before as u64;
        if self.end != offset {
            self.tail.resize(before, 0);
            reader.read_exact_at(&mut self.tail, start)?;
        }
        let len: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        let whole = (before + len).next_multiple_of(BLOCK);
        // Room to begin at a block of memory.
        self.buffer.resize((whole + BLOCK).max(self.buffer.len()), 0);
        let from = self.buffer.as_ptr().align_offset(BLOCK);
        let blocks = &mut self.buffer[from..from + whole];
        let mut at = before;
        blocks[..before].copy_from_slice(&self.tail);
        for piece in pieces {
            blocks[at..at + piece.as_ref().len()].copy_from_slice(piece.as_ref());
            at += piece.as_ref().len();
        }
        blocks[at..].fill(0);
        // Until it is done nothing is known of the end.
        self.end = 0;
        self.tail.clear();
        write_all_durably(&self.file, start, blocks)?;
        self.end = offset + len as u64;
        self.tail.extend_from_slice(&blocks[at - at % BLOCK..at]);
        if self.buffer.len() > KEPT_BUFFER_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// One write, durable when it returns. A failure says nothing about what reached the medium.
pub(crate) fn write_durably(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    write_all_durably(file, offset, bytes).map_err(|source| LogError::io("write and sync", path, source))
}

fn write_all_durably(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let at = i64::try_from(offset).map_err(io::Error::other)?;
        let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: the descriptor is open for the duration of the call; the iovec describes initialised memory that
        // outlives the call and is only read by it. std has no write with RWF_DSYNC.
        let result = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const piece, 1, at, libc::RWF_DSYNC) };
        match usize::try_from(result) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of four blocks of 9s.
    fn segment(dir: &Path) -> SegmentFile {
        let files = SegmentFiles::open(dir, 4 * BLOCK as u64, 1).unwrap();
        std::fs::write(files.path(1), vec![9; 4 * BLOCK]).unwrap();
        files.open_segment(1).unwrap()
    }

    #[test]
    fn pieces_arrive_in_order_whatever_their_number_and_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = segment(dir.path());
        let bytes: Vec<Vec<u8>> =
            (0..2500_usize).map(|i| vec![u8::try_from(i % 251).unwrap(); i % 5]).collect();
        segment.write(3, &bytes).unwrap();
        let expected = [vec![9; 3], bytes.concat()].concat();
        let found = std::fs::read(&segment.path).unwrap();
        assert_eq!(found[..expected.len()], expected);
        assert!(found[expected.len()..2 * BLOCK].iter().all(|byte| *byte == 0), "the rest of the last block");
        assert!(found[2 * BLOCK..].iter().all(|byte| *byte == 9), "and no more than that");
    }

    #[test]
    fn a_write_leaves_what_stands_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = vec![9; 4000];
        let mut segment = segment(dir.path());
        // Behind the one before, up to the end of a block and over it; once more after the file was opened anew.
        for (round, len) in [(1, 50), (2, 46), (3, 100), (4, BLOCK), (5, 1)] {
            if round == 3 {
                segment =
                    SegmentFiles::open(dir.path(), 4 * BLOCK as u64, 1).unwrap().open_segment(1).unwrap();
            }
            segment.write(expected.len() as u64, &[vec![round; len]]).unwrap();
            expected.extend(vec![round; len]);
            assert_eq!(std::fs::read(&segment.path).unwrap()[..expected.len()], expected);
        }
        // An earlier place again, as after a torn tail.
        segment.write(4010, &[b"again"]).unwrap();
        let found = std::fs::read(&segment.path).unwrap();
        assert_eq!((&found[..4010], &found[4010..4015]), (&expected[..4010], b"again".as_slice()));
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
