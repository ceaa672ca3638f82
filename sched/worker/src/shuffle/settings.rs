//! A job file's words for records and keys, in those of the engine.

use sched_shuffle::{Format, Key, Limits, RecordSpec};
use sched_spec::Records;

/// Memory if nobody says how much.
const MEMORY_MIB: u64 = 256;
/// What the engine needs beside its records: a dozen blocks, and the worker itself.
const BESIDE_MIB: u64 = 32;

/// # Errors
/// In words, what cannot be done.
pub(super) fn record_spec(records: Records, key: &sched_spec::Key) -> Result<RecordSpec, String> {
    let format = match records {
        Records::Lines => Format::Lines,
        Records::Fixed(len) => Format::Fixed(len),
    };
    let key = match key {
        sched_spec::Key::Record => Key::Whole,
        // People count fields from 1.
        sched_spec::Key::Field { number, separator } => Key::Field {
            number: number.checked_sub(1).ok_or("fields are counted from 1")?,
            separator: u8::try_from(*separator)
                .ok()
                .filter(u8::is_ascii)
                .ok_or_else(|| format!("the separator {separator:?} is not one byte"))?,
        },
        sched_spec::Key::Bytes { from, to } => Key::Bytes {
            start: *from,
            len: to
                .checked_sub(*from)
                .ok_or_else(|| format!("a key from byte {from} to {to} ends before it begins"))?,
        },
    };
    Ok(RecordSpec { format, key })
}

/// Three quarters of what the instance may have, less what is needed beside.
pub(super) fn limits(memory_mib: u64) -> Limits {
    let granted = if memory_mib == 0 { MEMORY_MIB } else { memory_mib };
    let records = (granted.saturating_sub(BESIDE_MIB) * 3 / 4).clamp(8, 4096);
    Limits { memory_bytes: usize::try_from(records << 20).unwrap_or(usize::MAX), ..Limits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_one_and_ranges_have_a_length() {
        let key = |key| record_spec(Records::Lines, &key).map(|spec| spec.key);
        let field = sched_spec::Key::Field { number: 2, separator: ',' };
        assert_eq!(key(field), Ok(Key::Field { number: 1, separator: b',' }));
        assert_eq!(key(sched_spec::Key::Bytes { from: 3, to: 10 }), Ok(Key::Bytes { start: 3, len: 7 }));
        assert!(key(sched_spec::Key::Field { number: 0, separator: ',' }).is_err());
        assert!(key(sched_spec::Key::Field { number: 1, separator: 'ä' }).is_err());
        assert!(key(sched_spec::Key::Bytes { from: 3, to: 2 }).is_err());
    }
}
