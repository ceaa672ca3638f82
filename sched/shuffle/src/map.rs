//! One instance of a map task: splits, mapper, partitions, sorted runs, combiner, one output file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::buffer::RecordBuffer;
use crate::control::{Control, Limits};
use crate::error::{Error, Result};
use crate::output::OutputWriter;
use crate::partition::{PartitionId, Partitioner};
use crate::pool::Pool;
use crate::program::{self, Inputs, Program};
use crate::record::{Format, RecordSpec};
use crate::sort::Entry;
use crate::split::{Split, read_split};

/// What one instance shall do.
#[derive(Clone, Debug)]
pub struct MapTask {
    /// What it reads, in this order.
    pub splits: Vec<Split>,
    /// How inputs are cut into records; the mapper gets whole ones.
    pub input_format: Format,
    /// How the mapper's output (without one: the input) is cut, sorted and partitioned.
    pub spec: RecordSpec,
    /// The executable; without one records go on as they are.
    pub mapper: Option<Program>,
    /// Gets each partition's records of each sorted run; what it writes replaces them, and is sorted again.
    pub combiner: Option<Program>,
    /// Where records go.
    pub partitioner: Partitioner,
    /// The output, which must not exist; a temporary name, to be renamed when the instance counts.
    pub output: PathBuf,
    /// How much memory may be used; a combiner may need as much again.
    pub limits: Limits,
}

/// What an instance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapSummary {
    /// The length of its splits, in bytes.
    pub input_bytes: u64,
    /// Records that were partitioned and sorted (after the mapper, before the combiner).
    pub records: u64,
    /// How many times memory was full, or the input at its end, and a run was written.
    pub runs: u32,
    /// The length of the output, in bytes.
    pub output_bytes: u64,
}

/// Runs one instance.
///
/// # Errors
/// Any [`Error`] but those of reducers; then there is no output.
pub fn map(task: &MapTask, control: &Control<'_>) -> Result<MapSummary> {
    task.limits.check()?;
    if task.partitioner.count() == 0
        || task.spec.format == Format::Fixed(0)
        || task.input_format == Format::Fixed(0)
    {
        return Err(Error::Settings(
            "there must be at least one partition, and records have at least one byte",
        ));
    }
    let input_bytes = task.splits.iter().map(Split::len_bytes).sum();
    control.expect(input_bytes);
    let pool =
        Pool::new().map_err(|source| Error::Start { program: "the threads that read".into(), source })?;
    let block_bytes = task.limits.block_bytes;
    let one = Partitioner::Hash(1);
    let mut runs = Runs {
        task,
        control,
        buffer: RecordBuffer::new(task.spec, &task.partitioner, task.limits),
        combined: task.combiner.as_ref().map(|_| RecordBuffer::new(task.spec, &one, task.limits)),
        output: OutputWriter::create(&task.output, task.partitioner.count(), block_bytes)?,
        records: 0,
        runs: 0,
    };
    let read_all = |emit: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>| {
        task.splits
            .iter()
            .try_for_each(|split| read_split(split, task.input_format, block_bytes, &pool, control, emit))
    };
    match &task.mapper {
        None => read_all(&mut |bytes| runs.push(bytes).map(ControlFlow::Continue))?,
        Some(mapper) => {
            let feed: program::Feed<'_> = Box::new(|stdin| read_all(&mut |bytes| stdin.put(bytes)));
            program::run(mapper, Inputs::Stdin, vec![feed], control, block_bytes, |stdout| {
                loop {
                    let bytes = stdout.read()?;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    runs.push(bytes)?;
                }
            })?;
        }
    }
    runs.finish(input_bytes)
}

struct Runs<'a> {
    task: &'a MapTask,
    control: &'a Control<'a>,
    buffer: RecordBuffer<'a>,
    combined: Option<RecordBuffer<'a>>,
    output: OutputWriter,
    records: u64,
    runs: u32,
}

impl Runs<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        for bytes in bytes.chunks(self.task.limits.block_bytes) {
            if self.buffer.is_full() {
                self.write_run()?;
            }
            self.buffer.push(bytes);
        }
        Ok(())
    }

    fn write_run(&mut self) -> Result<()> {
        let Self { task, control, buffer, combined, output, records, runs } = self;
        *runs += u32::from(!buffer.is_empty());
        buffer.drain(&mut |parts, arena| {
            for (number, entries) in parts.iter().enumerate() {
                *records += entries.len() as u64;
                let written = match (&task.combiner, &mut *combined) {
                    (Some(combiner), Some(combined)) if !entries.is_empty() => {
                        combine(task, combiner, control, (entries, arena), combined, output)?
                    }
                    _ => {
                        copy(entries, arena, control, &mut |record| output.put(record))?;
                        entries.len() as u64
                    }
                };
                output.end_segment(PartitionId(number as u32), written);
            }
            Ok(())
        })
    }

    fn finish(mut self, input_bytes: u64) -> Result<MapSummary> {
        let task = self.task;
        self.buffer.end(&|| match &task.mapper {
            Some(mapper) => mapper.executable.display().to_string(),
            None => "the input".into(),
        })?;
        self.write_run()?;
        self.control.check()?;
        Ok(MapSummary {
            input_bytes,
            records: self.records,
            runs: self.runs,
            output_bytes: self.output.finish()?,
        })
    }
}

/// Runs the combiner on one partition of one run, and puts its output, sorted. Returns how many records that is.
fn combine(
    task: &MapTask,
    combiner: &Program,
    control: &Control<'_>,
    (entries, arena): (&[Entry], &[u8]),
    combined: &mut RecordBuffer<'_>,
    output: &mut OutputWriter,
) -> Result<u64> {
    let feed: program::Feed<'_> = Box::new(move |stdin| {
        for entry in entries {
            if stdin.put(entry.record(arena))?.is_break() {
                break;
            }
        }
        Ok(())
    });
    program::run(combiner, Inputs::Stdin, vec![feed], control, task.limits.block_bytes, |stdout| {
        loop {
            let bytes = stdout.read()?;
            if bytes.is_empty() {
                return combined.end(&|| combiner.executable.display().to_string());
            }
            if combined.is_full() {
                let limit_bytes = task.limits.memory_bytes as u64;
                return Err(Error::CombinerGrows { program: combiner.executable.clone(), limit_bytes });
            }
            combined.push(bytes);
        }
    })?;
    let mut records = 0;
    combined.drain(&mut |parts, arena| {
        for entries in parts {
            records += entries.len() as u64;
            copy(entries, arena, control, &mut |record| output.put(record))?;
        }
        Ok(())
    })?;
    Ok(records)
}

/// Records ahead of the one being copied: each is a miss in every cache, and so many are fetched at once.
const AHEAD: usize = 12;

#[inline]
fn copy(
    entries: &[Entry],
    arena: &[u8],
    control: &Control<'_>,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // 4,096 records of 100 bytes are less than a MiB; longer records take their time in `put`.
    for (i, some) in entries.chunks(4096).enumerate() {
        control.check()?;
        for (j, entry) in some.iter().enumerate() {
            if let Some(later) = entries.get(i * 4096 + j + AHEAD) {
                fetch(later.record(arena));
            }
            put(entry.record(arena))?;
        }
    }
    Ok(())
}

#[inline]
fn fetch(record: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for at in [0, 64] {
        if let Some(byte) = record.get(at) {
            // SAFETY: a prefetch changes nothing and never faults, and the address is that of a byte we may read.
            // There is no safe way to say it.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                    std::ptr::from_ref(byte).cast(),
                )
            };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = record;
}
