//! The superblock: what a disk is. Written once by format, in two copies; byte map in docs/disk-format.md.

use crate::error::OpenError;
use crate::types::FormatOptions;
use coord_types::BLOCK_SIZE;

const MAGIC: [u8; 8] = *b"FTCHUNK\0";
/// The newest format this program writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a copy, and where the copies lie: apart by more than any medium's internal unit.
pub(crate) const COPY_BYTES: usize = 4096;
pub(crate) const COPY_OFFSETS: [u64; 2] = [0, 64 << 10];
const CRC_AT: usize = 64;
const SEGMENT_BYTES_DEFAULT: u64 = 256 << 20;
/// Bounds the descriptors a disk holds open.
pub(crate) const SEGMENTS_MAX: u64 = 512;
// The extent format can name every block.
const _: () = assert!(SEGMENTS_MAX * (u32::MAX as u64) <= 1 << 48);
const JOURNAL_BYTES_DEFAULT: u64 = 64 << 20;
pub(crate) const JOURNAL_BYTES_MIN: u64 = 1 << 20;

/// Sizes and name of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub uuid: [u8; 16],
    /// Blocks of data the disk may hold.
    pub capacity_blocks: u64,
    /// Blocks of each segment; the last one is cut where the capacity ends.
    pub segment_blocks: u32,
    pub journal_bytes: u64,
}

impl Geometry {
    /// # Errors
    /// [`OpenError::TooSmall`] or [`OpenError::Layout`].
    pub fn plan(options: &FormatOptions) -> Result<Self, OpenError> {
        let block = BLOCK_SIZE as u64;
        if options.capacity_bytes < FormatOptions::CAPACITY_MIN_BYTES {
            return Err(OpenError::TooSmall {
                capacity_bytes: options.capacity_bytes,
                min_bytes: FormatOptions::CAPACITY_MIN_BYTES,
            });
        }
        let least = options.capacity_bytes.div_ceil(SEGMENTS_MAX).next_power_of_two();
        let segment_bytes = options.segment_bytes.unwrap_or_else(|| SEGMENT_BYTES_DEFAULT.max(least));
        let journal_bytes = options
            .journal_bytes
            .unwrap_or_else(|| (options.capacity_bytes / 8).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_DEFAULT))
            .next_multiple_of(block);
        let geometry = Self {
            uuid: options.uuid,
            capacity_blocks: options.capacity_bytes / block,
            segment_blocks: u32::try_from(segment_bytes / block)
                .map_err(|_| OpenError::Layout { reason: "segments are too large" })?,
            journal_bytes,
        };
        geometry.check().map_err(|reason| OpenError::Layout { reason })?;
        Ok(geometry)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.segment_blocks == 0 || self.capacity_blocks == 0 {
            return Err("a segment or the disk has no blocks");
        }
        if u64::from(self.segments()) > SEGMENTS_MAX {
            return Err("more than 512 segments");
        }
        if self.journal_bytes < JOURNAL_BYTES_MIN || !self.journal_bytes.is_multiple_of(BLOCK_SIZE as u64) {
            return Err("the journal is under 1 MiB or not whole blocks");
        }
        Ok(())
    }

    /// How many segments make up the capacity.
    #[must_use]
    pub fn segments(&self) -> u32 {
        u32::try_from(self.capacity_blocks.div_ceil(u64::from(self.segment_blocks))).unwrap_or(u32::MAX)
    }

    /// Blocks of segment `index`.
    #[must_use]
    pub fn blocks_of(&self, index: u32) -> u32 {
        let before = u64::from(index) * u64::from(self.segment_blocks);
        let left = self.capacity_blocks.saturating_sub(before).min(u64::from(self.segment_blocks));
        u32::try_from(left).expect("bounded by a u32 just above")
    }

    /// One copy of the superblock.
    #[must_use]
    pub fn encode(&self) -> [u8; COPY_BYTES] {
        let mut out = [0; COPY_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.uuid);
        out[32..40].copy_from_slice(&self.capacity_blocks.to_le_bytes());
        out[40..44].copy_from_slice(&self.segment_blocks.to_le_bytes());
        out[48..56].copy_from_slice(&self.journal_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// [`DecodeError`]; a copy of a newer format is told from a damaged one.
    pub fn decode(copy: &[u8]) -> Result<Self, DecodeError> {
        let copy: &[u8; COPY_BYTES] =
            copy.first_chunk().ok_or(DecodeError::Damaged("the file is cut short"))?;
        if copy[0..8] != MAGIC {
            return Err(DecodeError::Damaged("the magic number is wrong"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(copy[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().expect("eight bytes"));
        if crc32c::crc32c(&copy[..CRC_AT]) != u32_at(CRC_AT) {
            return Err(DecodeError::Damaged("the checksum is wrong"));
        }
        if u32_at(8) != FORMAT {
            return Err(DecodeError::Format(u32_at(8)));
        }
        if u32_at(12) as usize != BLOCK_SIZE {
            return Err(DecodeError::Damaged("the block size is not 4096"));
        }
        let geometry = Self {
            uuid: copy[16..32].try_into().expect("sixteen bytes"),
            capacity_blocks: u64_at(32),
            segment_blocks: u32_at(40),
            journal_bytes: u64_at(48),
        };
        geometry.check().map_err(DecodeError::Damaged)?;
        Ok(geometry)
    }
}

/// Why a copy is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    Damaged(&'static str),
    Format(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::plan(&FormatOptions { uuid: [7; 16], ..FormatOptions::new(10 << 30) }).unwrap()
    }

    #[test]
    fn comes_back_as_written_and_every_flipped_bit_is_found() {
        let copy = geometry().encode();
        assert_eq!(Geometry::decode(&copy), Ok(geometry()));
        for bit in 0..(CRC_AT + 4) * 8 {
            let mut bad = copy;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Geometry::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(Geometry::decode(&copy[..100]).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut copy = geometry().encode();
        copy[8] = 9;
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Geometry::decode(&copy), Err(DecodeError::Format(9)));
    }

    #[test]
    fn a_good_checksum_does_not_make_a_superblock() {
        let mut copy = geometry().encode();
        copy[13] = 0x20;
        let crc = crc32c::crc32c(&copy[..CRC_AT]);
        copy[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Geometry::decode(&copy), Err(DecodeError::Damaged(_))), "the block size");
        let many = u64::from(geometry().segment_blocks) * SEGMENTS_MAX + 1;
        for bad in [
            Geometry { segment_blocks: 0, ..geometry() },
            Geometry { capacity_blocks: 0, ..geometry() },
            Geometry { capacity_blocks: many, ..geometry() },
            Geometry { journal_bytes: JOURNAL_BYTES_MIN / 2, ..geometry() },
            Geometry { journal_bytes: JOURNAL_BYTES_MIN + 1, ..geometry() },
        ] {
            assert!(matches!(Geometry::decode(&bad.encode()), Err(DecodeError::Damaged(_))), "{bad:?}");
        }
    }

    #[test]
    fn sizes_stay_within_bounds() {
        for capacity in [1 << 20, 100 << 20, 10 << 30, 300 << 40] {
            let geometry = Geometry::plan(&FormatOptions::new(capacity)).unwrap();
            assert!(u64::from(geometry.segments()) <= SEGMENTS_MAX);
            let total: u64 = (0..geometry.segments()).map(|s| u64::from(geometry.blocks_of(s))).sum();
            assert_eq!(total, geometry.capacity_blocks);
        }
        assert!(Geometry::plan(&FormatOptions::new(1000)).is_err());
        let small = FormatOptions { segment_bytes: Some(4096), ..FormatOptions::new(100 << 20) };
        assert!(matches!(Geometry::plan(&small), Err(OpenError::Layout { .. })), "too many segments");
    }
}
