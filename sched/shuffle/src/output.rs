//! The file of a map instance: sorted segments, then an index of them, then a trailer. Written forwards, in one go.
//!
//! Each run that was sorted in memory makes one segment for each partition that has records in it; runs are not merged
//! here, the reducer merges all of them at once, so data are written once and read once. The byte map is in
//! `sched/docs/shuffle.md`; every byte of a file is covered by a checksum or compared.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, MapFault, Result};
use crate::partition::PartitionId;
use crate::writer::FileWriter;

/// Which instance of the map task wrote an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An output a reducer shall read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapOutput {
    /// Who wrote it: named in errors.
    pub instance: InstanceId,
    /// Where it is.
    pub path: PathBuf,
}

const HEAD: &[u8; 16] = b"FTSHUF\r\n\x01\0\0\0\0\0\0\0";
const TAIL_MAGIC: &[u8; 8] = b"FTSHUFIX";
const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 32;
const TRAILER_BYTES: usize = 40;
/// One read of this size at the end of the file gets trailer and index in nearly all cases.
const TAIL_READ_BYTES: u64 = 256 << 10;

/// A sorted piece of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) partition: PartitionId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) records: u64,
    pub(crate) crc: u32,
}

/// Writes an output.
pub(crate) struct OutputWriter {
    file: FileWriter,
    partitions: u32,
    segments: Vec<SegmentInfo>,
    segment_start: u64,
}

impl OutputWriter {
    pub(crate) fn create(path: &Path, partitions: u32, block_bytes: usize) -> Result<Self> {
        let mut file = FileWriter::create(path, block_bytes)?;
        file.put(HEAD)?;
        file.take_crc();
        Ok(Self { file, partitions, segments: Vec::new(), segment_start: HEAD.len() as u64 })
    }

    #[inline]
    pub(crate) fn put(&mut self, record: &[u8]) -> Result<()> {
        self.file.put(record)
    }

    /// What was put since the last call is one segment. An empty one is not kept.
    pub(crate) fn end_segment(&mut self, partition: PartitionId, records: u64) {
        let (offset, end_exclusive) = (self.segment_start, self.file.position());
        if end_exclusive > offset {
            let crc = self.file.take_crc();
            self.segments.push(SegmentInfo { partition, offset, len: end_exclusive - offset, records, crc });
            self.segment_start = end_exclusive;
        }
    }

    /// Writes index and trailer. Returns the length of the file in bytes.
    pub(crate) fn finish(mut self) -> Result<u64> {
        let index_offset = self.file.position();
        let mut index = Vec::with_capacity(self.segments.len() * ENTRY_BYTES);
        for segment in &self.segments {
            index.extend_from_slice(&segment.partition.0.to_le_bytes());
            index.extend_from_slice(&segment.crc.to_le_bytes());
            index.extend_from_slice(&segment.offset.to_le_bytes());
            index.extend_from_slice(&segment.len.to_le_bytes());
            index.extend_from_slice(&segment.records.to_le_bytes());
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&index_offset.to_le_bytes());
        trailer.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&self.partitions.to_le_bytes());
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
        trailer.extend_from_slice(TAIL_MAGIC);
        self.file.put(&index)?;
        self.file.put(&trailer)?;
        // Not synced: if a machine loses it, the reducer says so and the instance runs again.
        self.file.finish(false)
    }
}

/// An output that was opened, with the segments of one partition in the order of the input.
pub(crate) struct OpenOutput {
    pub(crate) file: Arc<File>,
    pub(crate) segments: Vec<SegmentInfo>,
}

/// Opens an output, checks its index and finds a partition's segments.
pub(crate) fn open(output: &MapOutput, partition: PartitionId) -> Result<OpenOutput> {
    try_open(&output.path, partition).map_err(|fault| Error::MapOutput {
        instance: output.instance,
        path: output.path.clone(),
        fault,
    })
}

fn try_open(path: &Path, partition: PartitionId) -> std::result::Result<OpenOutput, MapFault> {
    let file = File::open(path).map_err(fault_of)?;
    let len = file.metadata().map_err(fault_of)?.len();
    if len < (HEAD.len() + TRAILER_BYTES) as u64 {
        return Err(MapFault::Truncated);
    }
    let tail = read(&file, len - len.min(TAIL_READ_BYTES), len)?;
    let (_, trailer) = tail.split_last_chunk::<TRAILER_BYTES>().ok_or(MapFault::Truncated)?;
    let trailer = Trailer::parse(trailer)?;
    let index_bytes = trailer.segments.checked_mul(ENTRY_BYTES as u64).ok_or(MapFault::IndexDamaged)?;
    let index_end = trailer.index_offset.checked_add(index_bytes).ok_or(MapFault::IndexDamaged)?;
    if index_end.checked_add(TRAILER_BYTES as u64) != Some(len) || trailer.index_offset < HEAD.len() as u64 {
        return Err(MapFault::IndexDamaged);
    }
    let index = match tail.len().checked_sub(index_bytes as usize + TRAILER_BYTES) {
        Some(start) => tail[start..tail.len() - TRAILER_BYTES].to_vec(),
        None => read(&file, trailer.index_offset, index_end)?,
    };
    let head = read(&file, 0, HEAD.len() as u64)?;
    if head != HEAD {
        return Err(MapFault::NotAMapOutput);
    }
    if crc32c::crc32c(&index) != trailer.index_crc {
        return Err(MapFault::IndexDamaged);
    }
    if partition.0 >= trailer.partitions {
        return Err(MapFault::NoSuchPartition { found: trailer.partitions, wanted: partition.0 });
    }
    let all = index.chunks_exact(ENTRY_BYTES).map(|entry| SegmentInfo {
        partition: PartitionId(u32_at(entry, 0)),
        crc: u32_at(entry, 4),
        offset: u64_at(entry, 8),
        len: u64_at(entry, 16),
        records: u64_at(entry, 24),
    });
    let segments: Vec<_> = all.filter(|segment| segment.partition == partition).collect();
    if segments.iter().any(|s| s.offset.checked_add(s.len).is_none_or(|end| end > trailer.index_offset)) {
        return Err(MapFault::IndexDamaged);
    }
    Ok(OpenOutput { file: Arc::new(file), segments })
}

struct Trailer {
    index_offset: u64,
    segments: u64,
    partitions: u32,
    index_crc: u32,
}

impl Trailer {
    fn parse(bytes: &[u8; TRAILER_BYTES]) -> std::result::Result<Self, MapFault> {
        if &bytes[32..] != TAIL_MAGIC {
            return Err(MapFault::NotAMapOutput);
        }
        if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
            return Err(MapFault::IndexDamaged);
        }
        if u32_at(bytes, 20) != VERSION {
            return Err(MapFault::Version(u32_at(bytes, 20)));
        }
        Ok(Self {
            index_offset: u64_at(bytes, 0),
            segments: u64_at(bytes, 8),
            partitions: u32_at(bytes, 16),
            index_crc: u32_at(bytes, 24),
        })
    }
}

pub(crate) fn fault_of(e: io::Error) -> MapFault {
    match e.kind() {
        io::ErrorKind::NotFound => MapFault::Missing,
        io::ErrorKind::UnexpectedEof => MapFault::Truncated,
        _ => MapFault::Unreadable(e),
    }
}

fn read(file: &File, start: u64, end_exclusive: u64) -> std::result::Result<Vec<u8>, MapFault> {
    let mut bytes = vec![0; (end_exclusive - start) as usize];
    file.read_exact_at(&mut bytes, start).map_err(fault_of)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}
