//! One run in memory: an arena of records and, per partition, the entries that point into it.
//!
//! Bytes are copied into the arena once; sorting moves entries only, and records are next copied into a block that is
//! written. The arena keeps its memory from run to run.

use crate::control::Limits;
use crate::error::{Error, Result};
use crate::partition::Partitioner;
use crate::record::{Format, RecordSpec, prefix};
use crate::sort::{Entry, sort};

/// Gets each partition's sorted entries, and the arena they point into.
pub(crate) type WriteRun<'w> = dyn FnMut(&[Vec<Entry>], &[u8]) -> Result<()> + 'w;

pub(crate) struct RecordBuffer<'a> {
    spec: RecordSpec,
    partitioner: &'a Partitioner,
    limits: Limits,
    arena: Vec<u8>,
    /// Where the first record begins that is not complete.
    parsed: usize,
    parts: Vec<Vec<Entry>>,
    entries: usize,
}

impl<'a> RecordBuffer<'a> {
    pub(crate) fn new(spec: RecordSpec, partitioner: &'a Partitioner, limits: Limits) -> Self {
        // Entries have 32-bit offsets. `push` may go above the limit by one block.
        let memory_bytes = limits.memory_bytes.min(u32::MAX as usize - 2 * limits.block_bytes.min(1 << 30));
        let limits = Limits { memory_bytes, ..limits };
        let arena = Vec::with_capacity(memory_bytes + limits.block_bytes + 1);
        prefer_huge_pages(&arena);
        let parts = (0..partitioner.count()).map(|_| Vec::new()).collect();
        Self { spec, partitioner, limits, arena, parsed: 0, parts, entries: 0 }
    }

    /// Whether the run should be written before more is pushed.
    pub(crate) fn is_full(&self) -> bool {
        self.arena.len() + self.entries * size_of::<Entry>() >= self.limits.memory_bytes
    }

    /// Whether there is no complete record.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds bytes of the stream, at most a block.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // The beginning of a record that is not complete has no newline: a long line is not searched again.
        let seen = match self.spec.format {
            Format::Lines => self.arena.len(),
            Format::Fixed(_) => self.parsed,
        };
        self.arena.extend_from_slice(bytes);
        self.parse(seen);
    }

    fn parse(&mut self, mut seen: usize) {
        while let Some(len) = self.spec.format.record_end(&self.arena[seen..]) {
            let end_exclusive = seen + len;
            let record = &self.arena[self.parsed..end_exclusive];
            let key = self.spec.key_of(record);
            let entry = Entry { prefix: prefix(key), offset: self.parsed as u32, len: record.len() as u32 };
            self.parts[self.partitioner.partition(key).0 as usize].push(entry);
            self.entries += 1;
            self.parsed = end_exclusive;
            seen = end_exclusive;
        }
    }

    /// The stream has ended: a last line without newline is complete now. `what` names the stream in errors.
    pub(crate) fn end(&mut self, what: &dyn Fn() -> String) -> Result<()> {
        let left = self.arena.len() - self.parsed;
        match self.spec.format {
            _ if left == 0 => Ok(()),
            Format::Lines => {
                self.push(b"\n");
                Ok(())
            }
            Format::Fixed(record_len) => {
                Err(Error::PartialRecord { what: what(), len: left as u64, record_len })
            }
        }
    }

    /// Sorts what is complete, and gives each partition's entries and the arena to `write`; then all that is left is
    /// the beginning of the record that is not complete.
    pub(crate) fn drain(&mut self, write: &mut WriteRun<'_>) -> Result<()> {
        if self.is_empty() {
            return match self.arena.len() >= self.limits.memory_bytes.max(1) {
                true => Err(Error::RecordTooLong { limit_bytes: self.limits.memory_bytes as u64 }),
                false => Ok(()),
            };
        }
        sort(&mut self.parts, &self.arena, &self.spec, self.limits.sort_threads);
        write(&self.parts, &self.arena)?;
        self.parts.iter_mut().for_each(Vec::clear);
        self.entries = 0;
        self.arena.drain(..self.parsed);
        self.parsed = 0;
        Ok(())
    }
}

/// Records are read from the arena in the order of their keys, all over it: with small pages nearly each one would
/// miss the TLB.
fn prefer_huge_pages(arena: &Vec<u8>) {
    const PAGE: usize = 2 << 20;
    let start = (arena.as_ptr() as usize).next_multiple_of(PAGE);
    let end_exclusive = (arena.as_ptr() as usize + arena.capacity()) / PAGE * PAGE;
    if start < end_exclusive {
        // SAFETY: the range lies within one allocation that lives on, and the advice changes no contents. There is no
        // safe call for it. Failure is of no consequence.
        unsafe { libc::madvise(start as *mut libc::c_void, end_exclusive - start, libc::MADV_HUGEPAGE) };
    }
}
