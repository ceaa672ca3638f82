//! Splits of input files, and reading one at the borders of records.
//!
//! A record belongs to the split in which its first byte is, so every record is in exactly one split, however the
//! borders fall. A split of lines reads one byte before its start (to know whether a line begins there) and past its
//! end as far as its last line goes.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Result, Step};
use crate::pool::Pool;
use crate::record::Format;
use crate::stream::{Range, Stream};

/// Reads ahead of one split. With blocks of 1 MiB this hides about 4 ms of waiting.
const DEPTH: usize = 4;
/// The first read past the end of a split: nearly every line ends within it.
const TAIL_BYTES: usize = 64 << 10;

/// A file to be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is, in bytes.
    pub len_bytes: u64,
}

/// A range of one file; its records are those that begin in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The file.
    pub path: PathBuf,
    /// The first byte.
    pub start: u64,
    /// Behind the last byte.
    pub end_exclusive: u64,
}

impl Split {
    /// How much there is to read, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end_exclusive - self.start
    }
}

/// Cuts files into splits of `split_bytes` (the last one of a file is shorter), in the order of the files.
///
/// Choose a multiple of 1 MiB, best the chunk size of the filesystem. Empty files have no splits.
///
/// # Errors
/// [`Error::Settings`] if a size is 0, [`Error::PartialRecord`] if a file of fixed records ends within one.
pub fn splits(files: &[InputFile], split_bytes: u64, format: Format) -> Result<Vec<Split>> {
    if split_bytes == 0 || format == Format::Fixed(0) {
        return Err(Error::Settings("splits and records have at least one byte"));
    }
    let mut all = Vec::new();
    for file in files {
        if let Format::Fixed(record_len) = format
            && !file.len_bytes.is_multiple_of(u64::from(record_len))
        {
            return Err(Error::PartialRecord {
                what: file.path.display().to_string(),
                len: file.len_bytes,
                record_len,
            });
        }
        let mut start = 0;
        while start < file.len_bytes {
            let end_exclusive = start.saturating_add(split_bytes).min(file.len_bytes);
            all.push(Split { path: file.path.clone(), start, end_exclusive });
            start = end_exclusive;
        }
    }
    Ok(all)
}

/// Reads the records of a split as one stream of bytes: `emit` gets blocks which, one after another, are whole
/// records, the last line with its `\n`. It may break off.
pub(crate) fn read_split(
    split: &Split,
    format: Format,
    block_bytes: usize,
    pool: &Pool,
    control: &Control<'_>,
    emit: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let file = Arc::new(File::open(&split.path).map_err(|e| Error::file(Step::Open, &split.path, e))?);
    let (start, end_exclusive) = match format {
        Format::Lines => (split.start.saturating_sub(1), split.end_exclusive),
        Format::Fixed(len) => {
            let up = |at: u64| at.next_multiple_of(u64::from(len));
            (up(split.start), up(split.end_exclusive))
        }
    };
    if split.start >= split.end_exclusive || start >= end_exclusive {
        return Ok(());
    }
    let read_failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::InputShort { path: split.path.clone(), end_exclusive },
        _ => Error::file(Step::Read, &split.path, e),
    };
    let mut stream =
        Stream::new(pool, Arc::clone(&file), &Range { start, end_exclusive, block_bytes, depth: DEPTH });
    let mut used = Vec::new();
    // Lines: whether bytes up to the first newline are still to be left to the split before.
    let mut skipping = format == Format::Lines && split.start > 0;
    let mut ends_in_newline = true;
    while let Some(block) = stream.next_block(used).map_err(read_failed)? {
        control.advance(block.len() as u64)?;
        let mut rest = &block[..];
        if skipping {
            match memchr::memchr(b'\n', rest) {
                Some(at) => {
                    rest = &rest[at + 1..];
                    skipping = false;
                }
                None => rest = &[],
            }
        }
        if !rest.is_empty() {
            ends_in_newline = rest.last() == Some(&b'\n');
            if emit(rest)?.is_break() {
                return Ok(());
            }
        }
        used = block;
    }
    if format == Format::Lines && !skipping && !ends_in_newline {
        read_tail(&file, split, block_bytes, control, emit)?;
    }
    Ok(())
}

/// Reads past the end of a split what is left of its last line.
fn read_tail(
    file: &File,
    split: &Split,
    block_bytes: usize,
    control: &Control<'_>,
    emit: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut offset = split.end_exclusive;
    let mut buffer = vec![0; TAIL_BYTES.min(block_bytes)];
    loop {
        control.check()?;
        let n = match file.read_at(&mut buffer, offset) {
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::file(Step::Read, &split.path, e)),
        };
        if n == 0 {
            return emit(b"\n").map(drop);
        }
        if let Some(at) = memchr::memchr(b'\n', &buffer[..n]) {
            return emit(&buffer[..=at]).map(drop);
        }
        if emit(&buffer[..n])?.is_break() {
            return Ok(());
        }
        offset += n as u64;
        buffer.resize(block_bytes, 0);
    }
}
