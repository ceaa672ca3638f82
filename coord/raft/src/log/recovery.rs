//! What a restart finds. Each step of docs/log-format.md says what a crash leaves; this reads it, and tells a torn
//! tail from damage.

use std::os::unix::fs::FileExt;

use crate::log::LogError;
use crate::log::files::{SegmentFile, SegmentFiles, sync_dir};
use crate::log::record::{Record, RecordType, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::log::state::{End, LogState, Position};

/// Reads the log under `files` into a fresh state. Gives the segment to go on writing to, if it is begun.
pub(crate) fn recover(
    files: &SegmentFiles,
    node_id: u64,
    segment_bytes: u64,
    tail_bytes_max: usize,
) -> Result<(LogState, Option<SegmentFile>), LogError> {
    sync_dir(files.dir())?;
    let sequences = files.sequences()?;
    let mut state =
        LogState::new(node_id, segment_bytes, tail_bytes_max, sequences.first().copied().unwrap_or(1));
    let mut end: Option<(End, bool)> = None;
    let mut active = None;
    let mut unbegun = None;
    for (i, &sequence) in sequences.iter().enumerate() {
        if i > 0 && sequences[i - 1] + 1 != sequence {
            let path = files.path(sequences[i - 1] + 1);
            return Err(LogError::Corrupt { path, offset: 0, reason: "the segment is missing" });
        }
        let segment = read_segment(files, sequence)?;
        let corrupt = |offset: usize, reason| LogError::Corrupt {
            path: segment.file.path.clone(),
            offset: offset as u64,
            reason,
        };
        let Some(header) = segment.header(node_id)? else {
            // Two may follow one another: while the first is begun the next is prepared.
            let start = usize::try_from(SEGMENT_HEADER_LEN).expect("4096 fits");
            if durable_claim(&segment.bytes, start, sequence).is_some_and(|durable| durable > 0) {
                return Err(corrupt(0, "the header of a segment in use is not valid"));
            }
            unbegun.get_or_insert(sequence);
            continue;
        };
        if let Some(unbegun) = unbegun {
            let path = files.path(unbegun);
            let reason = "the header of a segment in use is not valid";
            return Err(LogError::Corrupt { path, offset: 0, reason });
        }
        let sealed_before = match end {
            None => true,
            Some((before, sealed)) => sealed && before.chain == header.chain,
        };
        if !sealed_before {
            // The segment was begun, so everything before it was durable, the seal included.
            let path = files.path(sequence - 1);
            let offset = end.map_or(0, |(before, _)| u64::from(before.offset));
            return Err(LogError::Corrupt {
                path,
                offset,
                reason: "records that were durable are not valid",
            });
        }
        state.segments.insert(sequence, 0);
        if let Some(purged) = header.purged
            && state.purged.is_none_or(|known| known.index < purged.index)
        {
            state.forget_upto(purged);
        }
        let parsed =
            parse(&mut state, &segment, &header).map_err(|(offset, reason)| corrupt(offset, reason))?;
        end = Some(parsed);
        active = (!parsed.1).then_some(segment.file);
    }
    match end {
        None => {}
        Some((end, false)) => state.recovered_upto(end),
        Some((end, true)) => {
            let size = u32::try_from(segment_bytes).unwrap_or(u32::MAX);
            let next = End { sequence: end.sequence + 1, offset: 0, size, chain: end.chain, begun: false };
            state.recovered_upto(next);
        }
    }
    check_contiguous(files, &state)?;
    Ok((state, active))
}

struct Segment {
    file: SegmentFile,
    bytes: Vec<u8>,
}

fn read_segment(files: &SegmentFiles, sequence: u64) -> Result<Segment, LogError> {
    let file = files.open_segment(sequence)?;
    let io = |operation| {
        let path = file.path.clone();
        move |source| LogError::io(operation, &path, source)
    };
    // A process that was killed while it wrote may have left records in the page cache only: they count from now
    // on, so they must be durable from now on.
    file.file.sync_all().map_err(io("sync"))?;
    let len = file.file.metadata().map_err(io("look at"))?.len();
    let mut bytes = vec![0; usize::try_from(len).expect("a segment fits memory")];
    file.file.read_exact_at(&mut bytes, 0).map_err(io("read"))?;
    Ok(Segment { file, bytes })
}

impl Segment {
    /// `None`: prepared, or its first write was torn.
    fn header(&self, node_id: u64) -> Result<Option<SegmentHeader>, LogError> {
        let Some(header) = SegmentHeader::decode(&self.bytes) else { return Ok(None) };
        if header.node_id != node_id {
            let path = self.file.path.clone();
            return Err(LogError::WrongMember { path, found: header.node_id, wanted: node_id });
        }
        // A reused file keeps the header of its former life until it is begun.
        if header.sequence != self.file.sequence {
            return Ok(None);
        }
        if header.size != self.bytes.len() as u64 {
            let path = self.file.path.clone();
            return Err(LogError::Corrupt {
                path,
                offset: 0,
                reason: "the file is not as long as its header says",
            });
        }
        Ok(Some(header))
    }
}

/// Takes in the records of a segment. Gives where they end and whether a seal ends them.
fn parse(
    state: &mut LogState,
    segment: &Segment,
    header: &SegmentHeader,
) -> Result<(End, bool), (usize, &'static str)> {
    let sequence = header.sequence;
    let mut at = usize::try_from(SEGMENT_HEADER_LEN).expect("4096 fits");
    let mut chain = header.chain;
    let mut sealed = false;
    while !sealed
        && let Some(record) = Record::decode(segment.bytes.get(at..).unwrap_or_default())
        && record.place.sequence == sequence
        && record.place.previous == chain
    {
        let offset = u32::try_from(at).map_err(|_| (at, "the segment is too large"))?;
        let len = u32::try_from(record.len()).map_err(|_| (at, "the record is too large"))?;
        state.recovering(sequence, offset);
        match record.kind {
            RecordType::Seal => sealed = true,
            RecordType::Truncate => state.forget_from(record.log_id.index),
            RecordType::Purge => state.forget_upto(record.log_id),
            RecordType::Blank | RecordType::Normal | RecordType::Membership => {
                let entry = record.entry().map_err(|reason| (at, reason))?.ok_or((at, "not an entry"))?;
                let expected = state.positions.back().map(|position| position.log_id.index + 1);
                if expected.is_some_and(|expected| expected != record.log_id.index) {
                    return Err((at, "an entry does not follow the one before it"));
                }
                if state.purged.is_none_or(|purged| purged.index < record.log_id.index) {
                    state.remember(Position { log_id: record.log_id, sequence, offset, len }, entry);
                }
            }
        }
        chain = record.crc;
        at += record.len();
    }
    if !sealed
        && let Some(durable) = durable_claim(&segment.bytes, at, sequence)
        && durable > at
    {
        return Err((at, "records that were durable are not valid"));
    }
    let offset = u32::try_from(at).map_err(|_| (at, "the segment is too large"))?;
    let size = u32::try_from(header.size).map_err(|_| (0, "the segment is too large"))?;
    Ok((End { sequence, offset, size, chain, begun: true }, sealed))
}

/// The highest offset that whole records behind `from` say was durable.
fn durable_claim(bytes: &[u8], from: usize, sequence: u64) -> Option<usize> {
    (from.next_multiple_of(8)..bytes.len())
        .step_by(8)
        .filter(|&at| bytes[at..].starts_with(b"FTLR"))
        .filter_map(|at| Record::decode(&bytes[at..]))
        .filter(|record| record.place.sequence == sequence)
        .map(|record| record.place.durable_offset as usize)
        .max()
}

fn check_contiguous(files: &SegmentFiles, state: &LogState) -> Result<(), LogError> {
    let gap = match (state.purged, state.positions.front()) {
        (Some(purged), Some(first)) => first.log_id.index > purged.index + 1,
        _ => false,
    };
    if gap {
        let path = files.dir().to_path_buf();
        return Err(LogError::Corrupt {
            path,
            offset: 0,
            reason: "entries after the purged ones are missing",
        });
    }
    Ok(())
}
