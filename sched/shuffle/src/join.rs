//! Merge of Map-Reduce-Merge: the same partition of several map tasks, each merged, to one program that joins them.
//!
//! The program finds, after its own arguments, one path `/dev/fd/N` for each input in their order: pipes, each of which
//! it may open once or read as descriptor N. It may read them in any order, at any pace, and leave some unread.

use std::path::PathBuf;

use crate::control::{Control, Limits};
use crate::error::{Error, Result};
use crate::output::MapOutput;
use crate::partition::PartitionId;
use crate::passes::{Merging, segments};
use crate::pool::Pool;
use crate::program::{self, Inputs, Program};
use crate::record::RecordSpec;
use crate::reduce::{Durability, ReduceSummary, pump, write_all};
use crate::writer::FileWriter;

/// One of the inputs of a merger: all outputs of one map task.
#[derive(Clone, Debug)]
pub struct JoinInput {
    /// The outputs of its map instances, in the order of their inputs.
    pub outputs: Vec<MapOutput>,
    /// As those map instances had it.
    pub spec: RecordSpec,
}

/// What one instance shall do.
#[derive(Clone, Debug)]
pub struct JoinTask {
    /// Which partition of all inputs. The map tasks must have partitioned alike.
    pub partition: PartitionId,
    /// The inputs, at least one, at most 64.
    pub inputs: Vec<JoinInput>,
    /// The executable.
    pub merger: Program,
    /// The output, which must not exist.
    pub output: PathBuf,
    /// Temporary files are called this, `.INPUT` and `.N`.
    pub scratch_prefix: PathBuf,
    /// How much memory read buffers may take, all inputs together.
    pub limits: Limits,
    /// Whether the output is synced.
    pub durability: Durability,
}

/// Each input has a thread and a pipe.
const INPUTS_MAX: usize = 64;

/// Runs one instance.
///
/// # Errors
/// As [`reduce`](crate::reduce::reduce).
pub fn join(task: &JoinTask, control: &Control<'_>) -> Result<ReduceSummary> {
    task.limits.check()?;
    if task.inputs.is_empty() || task.inputs.len() > INPUTS_MAX {
        return Err(Error::Settings("a merger has 1 to 64 inputs"));
    }
    let pool =
        Pool::new().map_err(|source| Error::Start { program: "the threads that read".into(), source })?;
    let limits = Limits { memory_bytes: task.limits.memory_bytes / task.inputs.len(), ..task.limits };
    let mut all = Vec::new();
    for input in &task.inputs {
        all.push(segments(&input.outputs, task.partition, control)?);
    }
    let summary = ReduceSummary::of(&all.concat());
    control.expect(summary.input_bytes);
    let mut writer = FileWriter::create(&task.output, task.limits.block_bytes)?;
    let mut passes = Vec::new();
    for (number, (input, segments)) in task.inputs.iter().zip(all).enumerate() {
        let mut scratch_prefix = task.scratch_prefix.as_os_str().to_owned();
        scratch_prefix.push(format!(".{number}"));
        let merging =
            Merging { spec: input.spec, pool: &pool, limits, scratch_prefix: scratch_prefix.as_ref() };
        passes.push(merging.last_pass(segments, control)?);
    }
    let feeds = passes.iter_mut().map(|pass| {
        let feed: program::Feed<'_> =
            Box::new(|pipe| pump(&mut pass.merge, control, |record| pipe.put(record)));
        feed
    });
    program::run(&task.merger, Inputs::Paths, feeds.collect(), control, task.limits.block_bytes, |stdout| {
        write_all(stdout, &mut writer)
    })?;
    control.check()?;
    let output_bytes = writer.finish(task.durability == Durability::Synced)?;
    Ok(ReduceSummary { output_bytes, ..summary })
}
