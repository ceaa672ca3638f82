//! The offline check of a disk: everything that should hold, looked at.
//!
//! Checked: both superblocks, the journal (it is applied first, as opening would), every chunk record and extent
//! page, that each disk block is used once and inside the disk, that pages belong to chunks and lie within them, the
//! number of blocks each chunk claims, and the checksum of every block of data.

use std::collections::HashMap;
use std::fmt;

use coord_types::{BLOCK_SIZE, ChunkKey};

use crate::alloc::Allocator;
use crate::alloc::MarkError;
use crate::core::BLOCK;
use crate::error::{Damage, Failure, OpenError};
use crate::index::{Index, IndexError, counts};
use crate::records::{Page, PageKey};
use crate::recovery::{Parts, bad_segments, place, read, recover};

/// Problems listed one by one; the rest are counted.
const LISTED_MAX: usize = 1000;
/// Data read at a time.
const READ_BLOCKS: usize = 256;

/// How far the check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    pub checked_bytes: u64,
    pub total_bytes: u64,
}

/// What is wrong.
#[derive(Debug)]
pub enum Problem {
    /// One of the superblock's copies is bad; the other one serves.
    Superblock {
        copy: usize,
        reason: &'static str,
    },
    Damage(Damage),
    /// A page whose chunk has no record.
    Orphan {
        key: ChunkKey,
        page: u16,
    },
    /// A block of a page lies beyond the chunk's end.
    BeyondChunk {
        key: ChunkKey,
        block: u32,
    },
    /// A chunk's record claims another number of blocks than its pages name.
    Allocated {
        key: ChunkKey,
        recorded: u32,
        found: u32,
    },
    /// The disk cannot be read further.
    Unreadable(OpenError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock { copy, reason } => write!(f, "superblock copy {copy} is damaged: {reason}"),
            Self::Damage(damage) => damage.fmt(f),
            Self::Orphan { key, page } => {
                write!(f, "extent page {page} belongs to chunk {key:?}, which has no record")
            }
            Self::BeyondChunk { key, block } => {
                write!(f, "block {block} lies beyond the end of chunk {key:?}")
            }
            Self::Allocated { key, recorded, found } => {
                write!(f, "chunk {key:?} claims {recorded} blocks, its pages name {found}")
            }
            Self::Unreadable(error) => write!(f, "the disk cannot be read further: {error}"),
        }
    }
}

/// What the check saw and what was wrong.
#[derive(Debug, Default)]
pub struct VerifyReport {
    pub chunks: u64,
    pub pages: u64,
    pub blocks: u64,
    /// Updates that were still in the journal.
    pub replayed: u64,
    /// Updates in the journal that a crash cut off before anybody was told of them. Not a problem.
    pub dropped: u64,
    /// The first ones.
    pub problems: Vec<Problem>,
    pub problem_count: u64,
}

impl VerifyReport {
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < LISTED_MAX {
            self.problems.push(problem);
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunks, pages, blocks, replayed, dropped, problems, problem_count } = self;
        let mib = blocks * BLOCK / (1 << 20);
        writeln!(f, "{chunks} chunks, {pages} extent pages, {blocks} blocks ({mib} MiB) of data checked")?;
        if replayed + dropped > 0 {
            writeln!(f, "journal: {replayed} updates applied, {dropped} unfinished ones dropped")?;
        }
        for problem in problems {
            writeln!(f, "PROBLEM: {problem}")?;
        }
        let listed = problems.len() as u64;
        if *problem_count > listed {
            writeln!(f, "... and {} more", problem_count - listed)?;
        }
        match problem_count {
            0 => write!(f, "clean"),
            1 => write!(f, "1 problem"),
            _ => write!(f, "{problem_count} problems"),
        }
    }
}

/// Checks a disk made of parts. The journal is applied to the metadata store, nothing else is changed.
pub async fn verify_parts(parts: &Parts, progress: &mut (dyn FnMut(VerifyProgress) + Send)) -> VerifyReport {
    let mut report = VerifyReport::default();
    check(parts, progress, &mut report).await;
    report
}

pub(crate) async fn check(
    parts: &Parts,
    progress: &mut (dyn FnMut(VerifyProgress) + Send),
    report: &mut VerifyReport,
) {
    for damage in bad_segments(parts) {
        report.add(Problem::Damage(damage));
    }
    let mut index = match recover(parts).await {
        Ok(recovered) => {
            (report.replayed, report.dropped) = (recovered.replayed, recovered.dropped);
            recovered.index
        }
        Err(error) => {
            // The store may still be worth a look.
            report.add(Problem::Unreadable(error));
            Index::new(parts.kv.clone(), parts.cache_bytes)
        }
    };
    let found = match check_metadata(parts, &mut index, report) {
        Ok(found) => found,
        Err(error) => return report.add(Problem::Unreadable(OpenError::Failed(Failure::from(error)))),
    };
    let total_bytes = found.values().map(|chunk| u64::from(chunk.blocks)).sum::<u64>() * BLOCK;
    let mut checked_bytes = 0;
    progress(VerifyProgress { checked_bytes, total_bytes });
    let mut keys: Vec<_> = found.into_keys().collect();
    keys.sort();
    for key in keys {
        match index.pages_of(key) {
            Ok(pages) => {
                for (page_key, page) in pages {
                    check_data(parts, page_key, &page, report).await;
                    checked_bytes += page.blocks().count() as u64 * BLOCK;
                }
            }
            // Listed already.
            Err(IndexError::Damage(_)) => {}
            Err(error) => return report.add(Problem::Unreadable(OpenError::Failed(Failure::from(error)))),
        }
        progress(VerifyProgress { checked_bytes, total_bytes });
    }
}

/// What the metadata says of a chunk.
#[derive(Default)]
struct Found {
    /// Recorded number of blocks; `None` without a (readable) record.
    recorded: Option<u32>,
    chunk_blocks: u32,
    blocks: u32,
    damaged: bool,
}

fn check_metadata(
    parts: &Parts,
    index: &mut Index,
    report: &mut VerifyReport,
) -> Result<HashMap<ChunkKey, Found>, IndexError> {
    let mut chunks: HashMap<ChunkKey, Found> = HashMap::new();
    index.for_each_chunk(&mut |raw, chunk| {
        report.chunks += ChunkKey::decode(raw).map_or(1, |key| counts(key).unsigned_abs());
        match chunk {
            Ok((key, record)) => {
                let chunk_blocks = record.chunk_size_bytes / BLOCK_SIZE as u32;
                let found =
                    Found { recorded: Some(record.allocated_blocks), chunk_blocks, ..Found::default() };
                chunks.insert(key, found);
            }
            Err(damage) => {
                if let Some(key) = ChunkKey::decode(raw) {
                    chunks.insert(key, Found { damaged: true, chunk_blocks: u32::MAX, ..Found::default() });
                }
                report.add(Problem::Damage(damage));
            }
        }
        Ok(())
    })?;
    let mut alloc = Allocator::new(parts.geometry.segment_blocks);
    for segment in 0..parts.geometry.segments() {
        alloc.add_segment(parts.geometry.blocks_of(segment));
    }
    index.for_each_page(&mut |raw, page| {
        report.pages += 1;
        let (key, page) = match page {
            Ok(page) => page,
            Err(damage) => {
                if let Some(found) = PageKey::decode(raw).and_then(|key| chunks.get_mut(&key.chunk)) {
                    found.damaged = true;
                }
                report.add(Problem::Damage(damage));
                return Ok(());
            }
        };
        if !chunks.contains_key(&key.chunk) {
            report.add(Problem::Orphan { key: key.chunk, page: key.index });
        }
        let found =
            chunks.entry(key.chunk).or_insert_with(|| Found { chunk_blocks: u32::MAX, ..Found::default() });
        check_page(key, &page, found, &mut alloc, report);
        Ok(())
    })?;
    for (key, found) in &chunks {
        if let Some(recorded) = found.recorded
            && !found.damaged
            && recorded != found.blocks
        {
            report.add(Problem::Allocated { key: *key, recorded, found: found.blocks });
        }
    }
    Ok(chunks)
}

fn check_page(
    key: PageKey,
    page: &Page,
    found: &mut Found,
    alloc: &mut Allocator,
    report: &mut VerifyReport,
) {
    for (at, disk_block, _) in page.blocks() {
        let block = key.first_block() + at;
        found.blocks += 1;
        report.blocks += 1;
        if block >= found.chunk_blocks {
            report.add(Problem::BeyondChunk { key: key.chunk, block });
        }
        match alloc.mark_used(disk_block) {
            Ok(()) => {}
            Err(MarkError::Used) => {
                report.add(Problem::Damage(Damage::DoubleUse { disk_block, key: key.chunk, block }));
            }
            Err(MarkError::OutOfDisk) => {
                report.add(Problem::Damage(Damage::OutOfDisk { disk_block, key: key.chunk, block }));
            }
        }
    }
}

async fn check_data(parts: &Parts, key: PageKey, page: &Page, report: &mut VerifyReport) {
    let blocks: Vec<_> = page.blocks().collect();
    let mut rest = blocks.as_slice();
    while let Some((_, first, _)) = rest.first() {
        let per_segment = u64::from(parts.geometry.segment_blocks);
        let count = (1..rest.len().min(READ_BLOCKS))
            .take_while(|at| rest[*at].1 == first + *at as u64 && rest[*at].1 % per_segment != 0)
            .count()
            + 1;
        let (run, after) = rest.split_at(count);
        rest = after;
        let (file, offset_bytes) = place(&parts.geometry, *first);
        match read(parts, file, offset_bytes, count * BLOCK_SIZE).await {
            Ok(data) => {
                for ((at, disk_block, recorded), data) in run.iter().zip(data.chunks_exact(BLOCK_SIZE)) {
                    let (recorded, found) = (*recorded, crc32c::crc32c(data));
                    if recorded != found {
                        let (block, disk_block) = (key.first_block() + at, *disk_block);
                        report.add(Problem::Damage(Damage::Block {
                            key: key.chunk,
                            block,
                            disk_block,
                            recorded,
                            found,
                        }));
                    }
                }
            }
            Err(failure) => report.add(Problem::Unreadable(OpenError::Failed(failure))),
        }
    }
}
