//! Which partition a key belongs to: by hash or by range; and the file of the ranges' boundaries.

use std::hash::Hasher;
use std::io::Read;
use std::path::Path;

use siphasher::sip::SipHasher24;

use crate::error::{Error, Result, Step};
use crate::record::prefix;
use crate::writer::FileWriter;

/// The number of a partition, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

impl std::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

const MAGIC: &[u8; 8] = b"FTRANGE\n";
const VERSION: u32 = 1;
/// No file of boundaries is longer; one million partitions with keys of 256 bytes would be.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The first keys of partitions 1, 2, ...; partition 0 has all keys below the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundaries {
    keys: Vec<Vec<u8>>,
    prefixes: Vec<u64>,
}

impl Boundaries {
    /// Sorts the keys; equal ones mean empty partitions.
    #[must_use]
    pub fn new(mut keys: Vec<Vec<u8>>) -> Self {
        keys.sort();
        let prefixes = keys.iter().map(|key| prefix(key)).collect();
        Self { keys, prefixes }
    }

    /// The keys, sorted.
    #[must_use]
    pub fn keys(&self) -> &[Vec<u8>] {
        &self.keys
    }

    fn find(&self, key: &[u8]) -> usize {
        let wanted = prefix(key);
        let below = self.prefixes.partition_point(|p| *p < wanted);
        // Only boundaries with the same first 8 bytes need another look.
        let same = self.prefixes[below..].partition_point(|p| *p == wanted);
        below + self.keys[below..below + same].partition_point(|boundary| boundary.as_slice() <= key)
    }

    /// Writes them to a new file (byte map in `sched/docs/shuffle.md`), durably. Rename it to its name afterwards.
    ///
    /// # Errors
    /// Those of creating and writing a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.keys.len() as u32).to_le_bytes());
        for key in &self.keys {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut writer = FileWriter::create(path, crate::control::BLOCK_BYTES)?;
        writer.put(&bytes)?;
        writer.finish(true).map(drop)
    }

    /// Reads what [`Boundaries::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Boundaries`] if a byte of it is not as it was written.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::file(Step::Open, path, e))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| Error::file(Step::Read, path, e))?;
        Self::parse(&bytes).ok_or_else(|| Error::Boundaries { path: path.to_path_buf() })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let mut number = || {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            rest = tail;
            Some(u32::from_le_bytes(*head))
        };
        if number()? != VERSION {
            return None;
        }
        let count = number()?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*head) as usize)?;
            keys.push(key.to_vec());
            rest = tail;
        }
        (rest.is_empty() && keys.is_sorted()).then(|| Self::new(keys))
    }
}

/// How keys are spread over partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// By SipHash-2-4 of the key with a key of zeros: partition = (hash × count) >> 64. Count is at least 1.
    Hash(u32),
    /// By range.
    Range(Boundaries),
}

impl Partitioner {
    /// How many partitions there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Hash(count) => *count,
            Self::Range(boundaries) => boundaries.keys.len() as u32 + 1,
        }
    }

    /// The partition of a key.
    #[inline]
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> PartitionId {
        match self {
            Self::Hash(0 | 1) => PartitionId(0),
            Self::Hash(count) => {
                let mut hasher = SipHasher24::new();
                hasher.write(key);
                PartitionId(((u128::from(hasher.finish()) * u128::from(*count)) >> 64) as u32)
            }
            Self::Range(boundaries) => PartitionId(boundaries.find(key) as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_begin_at_their_boundary() {
        let by = Partitioner::Range(Boundaries::new(vec![
            b"longprefix2".to_vec(),
            b"b".to_vec(),
            b"longprefix1".to_vec(),
        ]));
        let at = |key: &[u8]| by.partition(key).0;
        assert_eq!(
            [
                at(b""),
                at(b"a"),
                at(b"b"),
                at(b"b\0"),
                at(b"longprefix"),
                at(b"longprefix1"),
                at(b"longprefix11"),
                at(b"z")
            ],
            [0, 0, 1, 1, 1, 2, 2, 3]
        );
    }

    #[test]
    fn the_hash_is_stable() {
        // Map outputs of different versions of this program meet in one reducer: these numbers must never change.
        let by = Partitioner::Hash(1000);
        let got: Vec<u32> =
            [&b""[..], b"a", b"feitian", b"\0\xff"].iter().map(|key| by.partition(key).0).collect();
        assert_eq!(got, STABLE);
    }

    const STABLE: [u32; 4] = [119, 588, 381, 248];

    #[test]
    fn a_damaged_file_of_boundaries_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let boundaries = Boundaries::new(vec![b"k".to_vec(), vec![], b"a\nb".to_vec()]);
        boundaries.write(&path).unwrap();
        assert_eq!(Boundaries::read(&path).unwrap(), boundaries);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Boundaries::parse(&bad), None, "byte {at}");
            assert_eq!(Boundaries::parse(&good[..at]), None, "cut at {at}");
        }
    }
}
