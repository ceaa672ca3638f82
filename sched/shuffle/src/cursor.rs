//! One sorted segment, record by record, checked against its checksum, length and number of records.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, MapFault, Result, Step};
use crate::output::{InstanceId, fault_of};
use crate::pool::Pool;
use crate::record::Format;
use crate::stream::{Range, Stream};

/// Where a segment is from: it decides what an error says.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Map { instance: InstanceId, path: PathBuf },
    Scratch { path: PathBuf },
}

impl Origin {
    pub(crate) fn path(&self) -> &PathBuf {
        match self {
            Self::Map { path, .. } | Self::Scratch { path } => path,
        }
    }

    pub(crate) fn error(&self, e: std::io::Error) -> Error {
        match self {
            Self::Map { instance, path } => {
                Error::MapOutput { instance: *instance, path: path.clone(), fault: fault_of(e) }
            }
            Self::Scratch { path } => Error::file(Step::Read, path, e),
        }
    }
}

/// A sorted range of a file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) origin: Origin,
    /// The file if it is open already; with very many inputs only their paths are kept.
    pub(crate) file: Option<Arc<File>>,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) records: u64,
    pub(crate) crc: u32,
}

impl Segment {
    fn damaged(&self) -> Error {
        match &self.origin {
            Origin::Map { instance, path } => {
                let fault = MapFault::DataDamaged { offset: self.offset, len: self.len };
                Error::MapOutput { instance: *instance, path: path.clone(), fault }
            }
            Origin::Scratch { path } => Error::Scratch { path: path.clone() },
        }
    }
}

/// Reads one segment.
pub(crate) struct Cursor<'p> {
    segment: Segment,
    format: Format,
    stream: Stream<'p>,
    block: Vec<u8>,
    /// The current record in `block`, or, if it crosses a border of blocks, in `joined` (then `start == end`).
    start: usize,
    end: usize,
    joined: Vec<u8>,
    crc: u32,
    records: u64,
    /// A record longer than this stops the merge.
    record_bytes_max: usize,
}

/// How a cursor reads.
#[derive(Clone, Copy)]
pub(crate) struct CursorSettings {
    pub(crate) format: Format,
    pub(crate) block_bytes: usize,
    pub(crate) record_bytes_max: usize,
}

impl<'p> Cursor<'p> {
    pub(crate) fn new(segment: Segment, pool: &'p Pool, settings: CursorSettings) -> Result<Self> {
        let file = match &segment.file {
            Some(file) => Arc::clone(file),
            None => Arc::new(File::open(segment.origin.path()).map_err(|e| segment.origin.error(e))?),
        };
        // One block is read while one is used: the merge as a whole has as many reads in flight as it has cursors.
        let range = Range {
            start: segment.offset,
            end_exclusive: segment.offset + segment.len,
            block_bytes: settings.block_bytes,
            depth: 1,
        };
        Ok(Self {
            stream: Stream::new(pool, file, &range),
            segment,
            format: settings.format,
            block: Vec::new(),
            start: 0,
            end: 0,
            joined: Vec::new(),
            crc: 0,
            records: 0,
            record_bytes_max: settings.record_bytes_max,
        })
    }

    /// The record [`Cursor::advance`] came to.
    #[inline]
    pub(crate) fn record(&self) -> &[u8] {
        if self.start == self.end { &self.joined } else { &self.block[self.start..self.end] }
    }

    /// Goes to the next record; false at the end, when all has been checked.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if let Some(len) = self.format.record_end(&self.block[self.end..]) {
            self.start = self.end;
            self.end += len;
            self.records += 1;
            return Ok(true);
        }
        self.cross()
    }

    /// Joins a record from the rest of this block and the beginning of the next ones.
    #[cold]
    fn cross(&mut self) -> Result<bool> {
        self.joined.clear();
        self.joined.extend_from_slice(&self.block[self.end..]);
        loop {
            let used = std::mem::take(&mut self.block);
            self.start = 0;
            self.end = 0;
            let Some(block) = self.stream.next_block(used).map_err(|e| self.segment.origin.error(e))? else {
                return self.finish();
            };
            self.crc = crc32c::crc32c_append(self.crc, &block);
            self.block = block;
            let missing = match self.format {
                Format::Lines => self.format.record_end(&self.block),
                Format::Fixed(len) => {
                    Some(len as usize - self.joined.len()).filter(|missing| *missing <= self.block.len())
                }
            };
            let taken = missing.unwrap_or(self.block.len());
            if missing.is_some() && self.joined.is_empty() {
                self.end = taken;
                self.records += 1;
                return Ok(true);
            }
            self.joined.extend_from_slice(&self.block[..taken]);
            self.start = taken;
            self.end = taken;
            if missing.is_some() {
                self.records += 1;
                return Ok(true);
            }
            if self.joined.len() > self.record_bytes_max {
                return Err(Error::RecordTooLong { limit_bytes: self.record_bytes_max as u64 });
            }
        }
    }

    fn finish(&mut self) -> Result<bool> {
        if !self.joined.is_empty() || self.crc != self.segment.crc || self.records != self.segment.records {
            return Err(self.segment.damaged());
        }
        Ok(false)
    }
}
