//! From all map outputs to one merge that fits in memory: if there are too many segments, some are merged into
//! temporary files before.
//!
//! Neighbours only are merged, which keeps equal keys in the order of the inputs; and of all neighbours those with the
//! fewest bytes, no more of them than it takes, so little is written twice.

use std::path::{Path, PathBuf};

use crate::control::{Control, Limits};
use crate::cursor::{CursorSettings, Origin, Segment};
use crate::error::Result;
use crate::merge::Merge;
use crate::output::{self, MapOutput};
use crate::partition::PartitionId;
use crate::pool::Pool;
use crate::record::RecordSpec;
use crate::writer::FileWriter;

/// Files that stay open between looking at their index and merging them; more are opened twice.
const OPEN_FILES_MAX: usize = 256;
/// No merge has more inputs than this, and so open files, whatever memory allows.
const FAN_IN_MAX: usize = 512;

/// The segments of a partition, in the order of the inputs.
pub(crate) fn segments(
    inputs: &[MapOutput],
    partition: PartitionId,
    control: &Control<'_>,
) -> Result<Vec<Segment>> {
    let mut all = Vec::new();
    for input in inputs {
        control.check()?;
        let open = output::open(input, partition)?;
        let file = (inputs.len() <= OPEN_FILES_MAX).then_some(open.file);
        all.extend(open.segments.iter().map(|info| Segment {
            origin: Origin::Map { instance: input.instance, path: input.path.clone() },
            file: file.clone(),
            offset: info.offset,
            len: info.len,
            records: info.records,
            crc: info.crc,
        }));
    }
    Ok(all)
}

/// A temporary file, removed when it is dropped.
struct ScratchFile(PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// How a partition is merged.
pub(crate) struct Merging<'p, 's> {
    pub(crate) spec: RecordSpec,
    pub(crate) pool: &'p Pool,
    pub(crate) limits: Limits,
    /// Temporary files are called this and a number.
    pub(crate) scratch_prefix: &'s Path,
}

/// A merge and the temporary files it reads.
pub(crate) struct LastPass<'p> {
    pub(crate) merge: Merge<'p>,
    // After the merge, so that it is dropped after it.
    _scratch: Vec<ScratchFile>,
}

impl<'p> Merging<'p, '_> {
    /// Merges until one merge is left, and begins that one.
    pub(crate) fn last_pass(
        &self,
        mut segments: Vec<Segment>,
        control: &Control<'_>,
    ) -> Result<LastPass<'p>> {
        let (fan_in, block_bytes) = fan_in(segments.len(), &self.limits);
        let settings = CursorSettings {
            format: self.spec.format,
            block_bytes,
            record_bytes_max: self.limits.memory_bytes.max(1 << 16),
        };
        let mut scratch = Vec::new();
        while segments.len() > fan_in {
            let width = (segments.len() - fan_in + 1).min(fan_in);
            let from = lightest(&segments, width);
            let path = numbered(self.scratch_prefix, scratch.len());
            let some = segments[from..from + width].to_vec();
            let records = some.iter().map(|s| s.records).sum();
            let mut writer = FileWriter::create(&path, self.limits.block_bytes)?;
            let mut merge = Merge::new(some, self.spec, self.pool, settings)?;
            let mut since_check = 0;
            while let Some(record) = merge.record() {
                writer.put(record)?;
                since_check += record.len();
                if since_check >= 1 << 20 {
                    since_check = 0;
                    control.check()?;
                }
                merge.next()?;
            }
            let crc = writer.take_crc();
            let len = writer.finish(false)?;
            scratch.push(ScratchFile(path.clone()));
            let merged =
                Segment { origin: Origin::Scratch { path }, file: None, offset: 0, len, records, crc };
            segments.splice(from..from + width, [merged]);
        }
        Ok(LastPass { merge: Merge::new(segments, self.spec, self.pool, settings)?, _scratch: scratch })
    }
}

/// How many segments one merge may have, and how large its reads are: down to a quarter of a block if that spares a
/// pass, for a pass reads and writes everything it merges once more.
fn fan_in(segments: usize, limits: &Limits) -> (usize, usize) {
    let fits = |block_bytes: usize| (limits.memory_bytes / (2 * block_bytes)).clamp(2, FAN_IN_MAX);
    let sizes = [limits.block_bytes, limits.block_bytes.div_ceil(2), limits.block_bytes.div_ceil(4)];
    let chosen = sizes.into_iter().find(|size| segments <= fits(*size)).unwrap_or(sizes[2]);
    (fits(chosen), chosen)
}

/// Where the `width` neighbours begin that have the fewest bytes.
fn lightest(segments: &[Segment], width: usize) -> usize {
    let weight = |window: &[Segment]| window.iter().map(|s| s.len).sum::<u64>();
    segments.windows(width).enumerate().min_by_key(|(_, window)| weight(window)).map_or(0, |(from, _)| from)
}

fn numbered(prefix: &Path, number: usize) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
