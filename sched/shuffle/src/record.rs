//! What a record is, what its key is, and their order: bytes, as `LC_ALL=C sort`.

use std::cmp::Ordering;

/// How a stream of bytes is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines that end with `\n`. A last line without one gets one.
    Lines,
    /// Records of exactly this many bytes, at least 1.
    Fixed(u32),
}

impl Format {
    /// Where the first record of `bytes` ends, or nothing if it is not complete. The `\n` belongs to its record.
    #[inline]
    #[must_use]
    pub fn record_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Self::Fixed(len) => (bytes.len() >= len as usize).then_some(len as usize),
        }
    }
}

/// Which bytes of a record decide its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// All of it, without the `\n`.
    Whole,
    /// The field of this number, from 0, of those between separators. A record with fewer fields has an empty key.
    Field {
        /// The byte between two fields.
        separator: u8,
        /// Which field, from 0.
        number: u32,
    },
    /// Bytes `start..start+len`, as far as the record has them.
    Bytes {
        /// The first byte, from 0.
        start: u32,
        /// How many.
        len: u32,
    },
}

/// How to read records and compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSpec {
    /// How bytes are cut into records.
    pub format: Format,
    /// What decides their order and partition.
    pub key: Key,
}

impl RecordSpec {
    /// The key of a record (as [`Format::record_end`] cuts them, with its `\n`).
    #[inline]
    #[must_use]
    pub fn key_of<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let body = match self.format {
            Format::Lines => &record[..record.len().saturating_sub(1)],
            Format::Fixed(_) => record,
        };
        match self.key {
            Key::Whole => body,
            Key::Bytes { start, len } => {
                let start = (start as usize).min(body.len());
                let end_exclusive = start.saturating_add(len as usize).min(body.len());
                &body[start..end_exclusive]
            }
            Key::Field { separator, number } => field(body, separator, number),
        }
    }

    /// The order of two records by their keys alone.
    #[inline]
    #[must_use]
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        self.key_of(a).cmp(self.key_of(b))
    }
}

fn field(body: &[u8], separator: u8, number: u32) -> &[u8] {
    let mut rest = body;
    for _ in 0..number {
        match memchr::memchr(separator, rest) {
            Some(at) => rest = &rest[at + 1..],
            None => return &[],
        }
    }
    memchr::memchr(separator, rest).map_or(rest, |at| &rest[..at])
}

/// The first 8 bytes of a key as a number that sorts as they do; a shorter key is filled up with zeros, so equal
/// prefixes do not mean equal keys.
#[inline]
#[must_use]
pub(crate) fn prefix(key: &[u8]) -> u64 {
    if let Some(head) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut padded = [0; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_out_of_records() {
        let fields =
            |number| RecordSpec { format: Format::Lines, key: Key::Field { separator: b',', number } };
        assert_eq!(fields(0).key_of(b"a,bc,\n"), b"a");
        assert_eq!(fields(1).key_of(b"a,bc,\n"), b"bc");
        assert_eq!(fields(2).key_of(b"a,bc,\n"), b"");
        assert_eq!(fields(3).key_of(b"a,bc,\n"), b"");
        let bytes = RecordSpec { format: Format::Fixed(5), key: Key::Bytes { start: 3, len: u32::MAX } };
        assert_eq!(bytes.key_of(b"abcde"), b"de");
        let whole = RecordSpec { format: Format::Lines, key: Key::Whole };
        assert_eq!(whole.key_of(b"\n"), b"");
    }

    #[test]
    fn prefixes_sort_as_keys_do() {
        assert!(prefix(b"a") < prefix(b"b"));
        assert!(prefix(b"abcdefgh") < prefix(b"abcdefgi"));
        assert_eq!(prefix(b"a"), prefix(b"a\0"));
    }
}
