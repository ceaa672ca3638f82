//! Records as bytes: a kind, then its fields, numbers as LEB128 (seven bits a byte, the low ones first).
//!
//! Decoding believes nothing: each list's length is checked against the bytes that are left before room is made for it.

use crate::effect::JobOutcome;
use crate::ids::{TaskId, Time};
use crate::record::{Cause, GANG_MAX, Outputs, Record};

/// Of any text in a record; longer ones are cut before they come here.
pub(crate) const TEXT_MAX_BYTES: usize = 1024;

pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Opened { generation, at } => {
            out.push(1);
            put(out, u64::from(*generation));
            put(out, at.0);
        }
        Record::Won { task, attempt, outputs, ranges, bytes, mean_ms } => {
            out.push(2);
            put(out, u64::from(task.0));
            put(out, u64::from(*attempt));
            put(out, outputs.as_slice().len() as u64);
            for count in outputs.as_slice() {
                put(out, u64::from(*count));
            }
            put(out, *bytes);
            put(out, *mean_ms);
            put_ranges(out, ranges);
        }
        Record::Placed { task, ranges } => {
            out.push(3);
            put(out, u64::from(task.0));
            put_ranges(out, ranges);
        }
        Record::Failed { task, instance, cause, for_good, text } => {
            out.push(4);
            put(out, u64::from(task.0));
            put(out, u64::from(*instance));
            let (kind, value) = match cause {
                Cause::Exit(code) => (0, *code),
                Cause::Signal(signal) => (1, *signal),
                Cause::Timeout => (2, 0),
                Cause::OutOfMemory => (3, 0),
                Cause::NoSuchProgram => (4, 0),
                Cause::Nonsense => (5, 0),
            };
            out.push(kind);
            put(out, u64::from(value.cast_unsigned()));
            out.push(u8::from(*for_good));
            put_text(out, text);
        }
        Record::Lost { task, instance, for_good } => {
            out.push(5);
            put(out, u64::from(task.0));
            put(out, u64::from(*instance));
            out.push(u8::from(*for_good));
        }
        Record::Reopened { task, instance } => {
            out.push(6);
            put(out, u64::from(task.0));
            put(out, u64::from(*instance));
        }
        Record::Paused => out.push(7),
        Record::Resumed => out.push(8),
        Record::Closing { outcome } => {
            out.push(9);
            put_outcome(out, outcome);
        }
        Record::Ended { outcome } => {
            out.push(10);
            put_outcome(out, outcome);
        }
    }
}

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_outcome(out: &mut Vec<u8>, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::Done => out.push(0),
        JobOutcome::Failed { reason } => {
            out.push(1);
            put_text(out, reason);
        }
        JobOutcome::Killed { by } => {
            out.push(2);
            put_text(out, by);
        }
    }
}

/// Each as the distance from the end of the one before, and its length, so that most take two bytes.
fn put_ranges(out: &mut Vec<u8>, ranges: &[(u32, u32)]) {
    put(out, ranges.len() as u64);
    let mut before = 0;
    for (start, end) in ranges {
        debug_assert!(before <= *start && start < end, "ranges ascend and hold something");
        put(out, u64::from(start - before));
        put(out, u64::from(end - start));
        before = *end;
    }
}

/// All records of a frame; `None` if the bytes are not exactly some records.
pub(crate) fn decode_all(mut bytes: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(decode(&mut bytes)?);
    }
    Some(records)
}

fn decode(from: &mut &[u8]) -> Option<Record> {
    let record = match byte(from)? {
        1 => Record::Opened { generation: small(from)?, at: Time(take(from)?) },
        2 => Record::Won {
            task: TaskId(small(from)?),
            attempt: small(from)?,
            outputs: take_outputs(from)?,
            bytes: take(from)?,
            mean_ms: take(from)?,
            ranges: take_ranges(from)?,
        },
        3 => Record::Placed { task: TaskId(small(from)?), ranges: take_ranges(from)? },
        4 => {
            let (task, instance) = (TaskId(small(from)?), small(from)?);
            let (kind, value) = (byte(from)?, small(from)?.cast_signed());
            let cause = match kind {
                0 => Cause::Exit(value),
                1 => Cause::Signal(value),
                2 => Cause::Timeout,
                3 => Cause::OutOfMemory,
                4 => Cause::NoSuchProgram,
                5 => Cause::Nonsense,
                _ => return None,
            };
            Record::Failed { task, instance, cause, for_good: flag(from)?, text: take_text(from)? }
        }
        5 => Record::Lost { task: TaskId(small(from)?), instance: small(from)?, for_good: flag(from)? },
        6 => Record::Reopened { task: TaskId(small(from)?), instance: small(from)? },
        7 => Record::Paused,
        8 => Record::Resumed,
        9 => Record::Closing { outcome: take_outcome(from)? },
        10 => Record::Ended { outcome: take_outcome(from)? },
        _ => return None,
    };
    Some(record)
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

fn flag(from: &mut &[u8]) -> Option<bool> {
    match byte(from)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(from)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn small(from: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(from)?).ok()
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(take(from)?).ok().filter(|len| *len <= TEXT_MAX_BYTES)?;
    let (text, rest) = from.split_at_checked(len)?;
    *from = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn take_outputs(from: &mut &[u8]) -> Option<Outputs> {
    let members = usize::try_from(take(from)?).ok().filter(|n| *n <= GANG_MAX)?;
    let mut outputs = Outputs::none(members)?;
    for member in 0..members {
        outputs.set(member, small(from)?);
    }
    Some(outputs)
}

fn take_outcome(from: &mut &[u8]) -> Option<JobOutcome> {
    match byte(from)? {
        0 => Some(JobOutcome::Done),
        1 => Some(JobOutcome::Failed { reason: take_text(from)? }),
        2 => Some(JobOutcome::Killed { by: take_text(from)? }),
        _ => None,
    }
}

fn take_ranges(from: &mut &[u8]) -> Option<Vec<(u32, u32)>> {
    // A range takes at least two bytes, so a length that is a lie makes no room.
    let count = usize::try_from(take(from)?).ok().filter(|n| *n <= from.len() / 2)?;
    let mut ranges = Vec::with_capacity(count);
    let mut before = 0_u32;
    for _ in 0..count {
        let start = before.checked_add(small(from)?)?;
        let end = start.checked_add(small(from)?)?;
        if end == start {
            return None;
        }
        ranges.push((start, end));
        before = end;
    }
    Some(ranges)
}

/// The longest beginning of `text` that fits into a record.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
