//! One instance of a reduce task: a partition of all map outputs, merged, through the reducer, to one file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::control::{Control, Limits};
use crate::cursor::Segment;
use crate::error::{Error, Result};
use crate::merge::Merge;
use crate::output::MapOutput;
use crate::partition::PartitionId;
use crate::passes::{Merging, segments};
use crate::pipe::PipeReader;
use crate::pool::Pool;
use crate::program::{self, Inputs, Program};
use crate::record::RecordSpec;
use crate::writer::FileWriter;

/// Whether an output survives the loss of a machine's memory when the function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It was synced.
    Synced,
    /// It may still be lost.
    Unsynced,
}

/// What one instance shall do.
#[derive(Clone, Debug)]
pub struct ReduceTask {
    /// Which partition.
    pub partition: PartitionId,
    /// The outputs of all map instances, in the order of their inputs: equal keys come in this order.
    pub inputs: Vec<MapOutput>,
    /// As the map instances had it.
    pub spec: RecordSpec,
    /// The executable, which gets the sorted records on stdin; without one they are written as they are.
    pub reducer: Option<Program>,
    /// The output, which must not exist; a temporary name, to be renamed when the instance counts.
    pub output: PathBuf,
    /// Temporary files, if there are too many inputs for memory, are called this and `.N`.
    pub scratch_prefix: PathBuf,
    /// How much memory read buffers may take: two blocks an input.
    pub limits: Limits,
    /// Whether the output is synced.
    pub durability: Durability,
}

/// What an instance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReduceSummary {
    /// What was merged, in bytes.
    pub input_bytes: u64,
    /// How many records that were.
    pub input_records: u64,
    /// The length of the output, in bytes.
    pub output_bytes: u64,
}

impl ReduceSummary {
    pub(crate) fn of(segments: &[Segment]) -> Self {
        let input_bytes = segments.iter().map(|s| s.len).sum();
        let input_records = segments.iter().map(|s| s.records).sum();
        Self { input_bytes, input_records, output_bytes: 0 }
    }
}

/// Runs one instance.
///
/// # Errors
/// Any [`Error`]; then there is no output. [`Error::instance_to_rerun`] says if a map instance has to run again first.
pub fn reduce(task: &ReduceTask, control: &Control<'_>) -> Result<ReduceSummary> {
    task.limits.check()?;
    let pool =
        Pool::new().map_err(|source| Error::Start { program: "the threads that read".into(), source })?;
    let segments = segments(&task.inputs, task.partition, control)?;
    let summary = ReduceSummary::of(&segments);
    control.expect(summary.input_bytes);
    let mut writer = FileWriter::create(&task.output, task.limits.block_bytes)?;
    let merging =
        Merging { spec: task.spec, pool: &pool, limits: task.limits, scratch_prefix: &task.scratch_prefix };
    let mut pass = merging.last_pass(segments, control)?;
    match &task.reducer {
        None => pump(&mut pass.merge, control, |record| writer.put(record).map(ControlFlow::Continue))?,
        Some(reducer) => {
            let merge = &mut pass.merge;
            let feed: program::Feed<'_> = Box::new(|stdin| pump(merge, control, |record| stdin.put(record)));
            program::run(reducer, Inputs::Stdin, vec![feed], control, task.limits.block_bytes, |stdout| {
                write_all(stdout, &mut writer)
            })?;
        }
    }
    control.check()?;
    let output_bytes = writer.finish(task.durability == Durability::Synced)?;
    Ok(ReduceSummary { output_bytes, ..summary })
}

/// Gives all records of a merge to `put`, until it breaks.
pub(crate) fn pump(
    merge: &mut Merge<'_>,
    control: &Control<'_>,
    mut put: impl FnMut(&[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut since_report = 0;
    while let Some(record) = merge.record() {
        if put(record)?.is_break() {
            break;
        }
        since_report += record.len() as u64;
        if since_report >= 1 << 20 {
            control.advance(since_report)?;
            since_report = 0;
        }
        merge.next()?;
    }
    control.advance(since_report)
}

/// Writes what a program says until it closes its stdout.
pub(crate) fn write_all(stdout: &mut PipeReader<'_>, writer: &mut FileWriter) -> Result<()> {
    loop {
        let bytes = stdout.read()?;
        if bytes.is_empty() {
            return Ok(());
        }
        writer.put(bytes)?;
    }
}
