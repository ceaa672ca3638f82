//! Boundaries for partitions by range, from a sample of the inputs. The same inputs always give the same boundaries.
//!
//! At most [`PROBES`] places, spread evenly over all bytes of the inputs, are read, one block each, so a sample costs a
//! few dozen cheap reads however large the inputs are. Of the keys found there between `samples` and twice as many are
//! kept, evenly (all, if there are fewer), sorted, and every (kept / partitions)-th is a boundary.

use std::ops::ControlFlow;

use crate::control::{Control, Limits};
use crate::error::{Error, Result};
use crate::partition::Boundaries;
use crate::pool::Pool;
use crate::program::{self, Inputs, Program};
use crate::record::{Format, RecordSpec};
use crate::split::{InputFile, Split, read_split};

/// How many places are read.
pub const PROBES: u64 = 64;
/// Longer keys are cut: a boundary need not be a whole key.
const KEY_BYTES_MAX: usize = 256;

/// What to sample, for whom.
#[derive(Clone, Debug)]
pub struct SampleTask {
    /// All inputs of the map task.
    pub inputs: Vec<InputFile>,
    /// As the map task has it.
    pub input_format: Format,
    /// As the map task has it.
    pub spec: RecordSpec,
    /// The map task's mapper: it is run on the sampled records, as it decides the keys.
    pub mapper: Option<Program>,
    /// How many partitions there shall be, at least 1.
    pub partitions: u32,
    /// How many keys are kept at least; 100 for each partition leave the largest about a third above the mean.
    pub samples: usize,
    /// The size of a probe is `block_bytes`.
    pub limits: Limits,
}

/// Samples. Write the result with [`Boundaries::write`].
///
/// # Errors
/// Those of reading the inputs and running the mapper.
pub fn sample(task: &SampleTask, control: &Control<'_>) -> Result<Boundaries> {
    task.limits.check()?;
    if task.partitions == 0
        || task.samples == 0
        || task.input_format == Format::Fixed(0)
        || task.spec.format == Format::Fixed(0)
    {
        return Err(Error::Settings("partitions, samples and the length of records must be at least 1"));
    }
    let probes = probes(&task.inputs, task.limits.block_bytes as u64);
    control.expect(probes.iter().map(Split::len_bytes).sum());
    let pool =
        Pool::new().map_err(|source| Error::Start { program: "the threads that read".into(), source })?;
    let mut keys = Keys { task, keys: Vec::new(), stride: 1, seen: 0, rest: Vec::new() };
    let read_all = |emit: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>| {
        probes.iter().try_for_each(|probe| {
            read_split(probe, task.input_format, task.limits.block_bytes, &pool, control, emit)
        })
    };
    match &task.mapper {
        None => read_all(&mut |bytes| keys.push(bytes).map(ControlFlow::Continue))?,
        Some(mapper) => {
            let feed: program::Feed<'_> = Box::new(|stdin| read_all(&mut |bytes| stdin.put(bytes)));
            program::run(mapper, Inputs::Stdin, vec![feed], control, task.limits.block_bytes, |stdout| {
                loop {
                    let bytes = stdout.read()?;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    keys.push(bytes)?;
                }
            })?;
        }
    }
    Ok(keys.boundaries(task.partitions as usize))
}

/// Places to read: one block at each of `PROBES` evenly spread offsets of all inputs, laid end to end.
fn probes(inputs: &[InputFile], block_bytes: u64) -> Vec<Split> {
    let total: u64 = inputs.iter().map(|file| file.len_bytes).sum();
    let mut probes: Vec<Split> = Vec::new();
    let (mut file, mut before) = (0, 0);
    for i in 0..PROBES {
        let at = (u128::from(total) * u128::from(i) / u128::from(PROBES)) as u64;
        while file < inputs.len() && at >= before + inputs[file].len_bytes {
            before += inputs[file].len_bytes;
            file += 1;
        }
        let Some(input) = inputs.get(file) else { break };
        let start = (at - before) / block_bytes * block_bytes;
        let probe = Split {
            path: input.path.clone(),
            start,
            end_exclusive: (start + block_bytes).min(input.len_bytes),
        };
        if probes.last() != Some(&probe) {
            probes.push(probe);
        }
    }
    probes
}

/// Every `stride`-th key so far.
struct Keys<'a> {
    task: &'a SampleTask,
    keys: Vec<Vec<u8>>,
    stride: u64,
    seen: u64,
    /// The beginning of a record that is not complete.
    rest: Vec<u8>,
}

impl Keys<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(bytes);
        if joined.len() > self.task.limits.memory_bytes + 2 * self.task.limits.block_bytes {
            return Err(Error::RecordTooLong { limit_bytes: self.task.limits.memory_bytes as u64 });
        }
        let mut from = 0;
        while let Some(len) = self.task.spec.format.record_end(&joined[from..]) {
            self.add(&joined[from..from + len]);
            from += len;
        }
        joined.drain(..from);
        self.rest = joined;
        Ok(())
    }

    fn add(&mut self, record: &[u8]) {
        if self.seen.is_multiple_of(self.stride) {
            let key = self.task.spec.key_of(record);
            self.keys.push(key[..key.len().min(KEY_BYTES_MAX)].to_vec());
            if self.keys.len() >= 2 * self.task.samples {
                let mut keep = false;
                self.keys.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.stride *= 2;
            }
        }
        self.seen += 1;
    }

    fn boundaries(mut self, partitions: usize) -> Boundaries {
        self.keys.sort();
        let quantile =
            |i: usize| self.keys.get(i * self.keys.len() / partitions).cloned().unwrap_or_default();
        Boundaries::new((1..partitions).map(quantile).collect())
    }
}
