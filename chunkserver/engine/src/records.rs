//! Records and keys of the metadata store. Byte maps in docs/disk-format.md; the only place that encodes them.

use coord_kv::{Family, FamilySpec};
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, SessionId, Version, WriterWindow};

use crate::alloc::Run;
use crate::types::ChunkMeta;

pub(crate) const CHUNKS: Family = Family(0);
pub(crate) const EXTENTS: Family = Family(1);
pub(crate) const SETTINGS: Family = Family(2);
pub(crate) const STATE: Family = Family(3);

/// The store's families, in the order of the constants above.
pub(crate) const FAMILIES: [FamilySpec; 4] = [
    // A chunk's first write looks for a record that is not there.
    FamilySpec { name: "chunks", bloom: true, prefix_len_bytes: None },
    // So does the first write to each page; scans stay within a chunk.
    FamilySpec { name: "extents", bloom: true, prefix_len_bytes: Some(ChunkKey::LEN) },
    FamilySpec { name: "settings", bloom: false, prefix_len_bytes: None },
    FamilySpec { name: "state", bloom: false, prefix_len_bytes: None },
];

/// The one key of the family `state`: how far the journal is applied.
pub(crate) const APPLIED: &[u8] = b"applied";

const CHUNK_MAGIC: u8 = b'C';
const PAGE_MAGIC: u8 = b'E';
const APPLIED_MAGIC: u8 = b'J';
const FORMAT: u8 = 1;

/// Blocks of a page. A 4 KiB overwrite rewrites one page (at most 780 bytes), a 1 MiB write four or five; a larger
/// page would cost the first more, a smaller one the second.
pub(crate) const PAGE_BLOCKS: u32 = 64;
const PAGE: usize = PAGE_BLOCKS as usize;
/// No block.
const NONE: u64 = u64::MAX;

/// Where a page is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageKey {
    pub(crate) chunk: ChunkKey,
    pub(crate) index: u16,
}

impl PageKey {
    pub(crate) const LEN: usize = ChunkKey::LEN + 2;

    /// The page of `block`, and the block's place in it.
    pub(crate) fn of(chunk: ChunkKey, block: u32) -> (Self, usize) {
        let index = u16::try_from(block / PAGE_BLOCKS).expect("a chunk of 64 MiB has 256 pages");
        (Self { chunk, index }, (block % PAGE_BLOCKS) as usize)
    }

    pub(crate) fn first_block(self) -> u32 {
        u32::from(self.index) * PAGE_BLOCKS
    }

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..ChunkKey::LEN].copy_from_slice(&self.chunk.encode());
        out[ChunkKey::LEN..].copy_from_slice(&self.index.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (chunk, index) = bytes.split_at_checked(ChunkKey::LEN)?;
        Some(Self { chunk: ChunkKey::decode(chunk)?, index: u16::from_be_bytes(index.try_into().ok()?) })
    }
}

/// Where 64 blocks of a chunk lie, and their checksums.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Page {
    disk: [u64; PAGE],
    crcs: [u32; PAGE],
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.blocks()).finish()
    }
}

impl Page {
    pub(crate) const EMPTY: Self = Self { disk: [NONE; PAGE], crcs: [0; PAGE] };

    /// Disk block and crc32c of the block at `at`, unless it is a hole.
    pub(crate) fn get(&self, at: usize) -> Option<(u64, u32)> {
        (self.disk[at] != NONE).then(|| (self.disk[at], self.crcs[at]))
    }

    /// Returns the disk block that was there.
    pub(crate) fn set(&mut self, at: usize, disk_block: u64, crc: u32) -> Option<u64> {
        let old = std::mem::replace(&mut self.disk[at], disk_block);
        self.crcs[at] = crc;
        (old != NONE).then_some(old)
    }

    pub(crate) fn clear(&mut self, at: usize) -> Option<u64> {
        self.set(at, NONE, 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.disk.iter().all(|block| *block == NONE)
    }

    /// (place, disk block, crc32c) of what is not a hole.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u32, u64, u32)> + '_ {
        (0..PAGE).filter(|at| self.disk[*at] != NONE).map(|at| (at as u32, self.disk[at], self.crcs[at]))
    }

    pub(crate) fn encode(&self, key: PageKey) -> Vec<u8> {
        let mut runs: Vec<(u8, Run)> = Vec::new();
        for (at, disk, _) in self.blocks() {
            match runs.last_mut() {
                Some((first, run)) if run.end() == disk && u32::from(*first) + run.len == at => run.len += 1,
                _ => runs.push((at as u8, Run { start: disk, len: 1 })),
            }
        }
        let mut out = Vec::with_capacity(4 + runs.len() * 8 + PAGE * 4 + 4);
        out.extend_from_slice(&[PAGE_MAGIC, FORMAT, runs.len() as u8, 0]);
        for (first, run) in &runs {
            out.extend_from_slice(&[*first, run.len as u8]);
            out.extend_from_slice(&run.start.to_le_bytes()[..6]);
        }
        for (_, _, crc) in self.blocks() {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        seal(&mut out, &key.encode());
        out
    }

    pub(crate) fn decode(key: PageKey, value: &[u8]) -> Result<Self, &'static str> {
        let body = unseal(value, &key.encode(), PAGE_MAGIC)?;
        let runs = usize::from(*body.get(2).ok_or("no run count")?);
        let (heads, mut crcs) = body[4..].split_at_checked(runs * 8).ok_or("runs are cut short")?;
        let mut page = Self::EMPTY;
        let mut free_from = 0;
        for head in heads.chunks_exact(8) {
            let (first, len) = (usize::from(head[0]), usize::from(head[1]));
            let mut start = [0; 8];
            start[..6].copy_from_slice(&head[2..8]);
            let start = u64::from_le_bytes(start);
            if first < free_from || len == 0 || first + len > PAGE {
                return Err("runs overlap or leave the page");
            }
            for at in 0..len {
                let (crc, rest) = crcs.split_first_chunk::<4>().ok_or("checksums are cut short")?;
                crcs = rest;
                page.set(first + at, start + at as u64, u32::from_le_bytes(*crc));
            }
            free_from = first + len;
        }
        if crcs.is_empty() { Ok(page) } else { Err("more checksums than blocks") }
    }
}

/// A chunk's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRecord {
    pub(crate) version: Version,
    pub(crate) chunk_size_bytes: u32,
    pub(crate) allocated_blocks: u32,
    pub(crate) windows: Vec<WriterWindow>,
}

impl ChunkRecord {
    pub(crate) fn meta(&self) -> ChunkMeta {
        ChunkMeta {
            version: self.version,
            windows: self.windows.clone(),
            allocated_bytes: u64::from(self.allocated_blocks) * BLOCK_SIZE as u64,
            chunk_size_bytes: self.chunk_size_bytes,
        }
    }

    pub(crate) fn encode(&self, key: ChunkKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.windows.len() * 24);
        out.extend_from_slice(&[CHUNK_MAGIC, FORMAT, self.windows.len() as u8, 0]);
        out.extend_from_slice(&self.chunk_size_bytes.to_le_bytes());
        out.extend_from_slice(&self.version.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.version.counter.to_le_bytes());
        out.extend_from_slice(&self.allocated_blocks.to_le_bytes());
        for window in &self.windows {
            out.extend_from_slice(&window.session.0.to_le_bytes());
            out.extend_from_slice(&window.newest.to_le_bytes());
            out.extend_from_slice(&window.seen.to_le_bytes());
        }
        seal(&mut out, &key.encode());
        out
    }

    pub(crate) fn decode(key: ChunkKey, value: &[u8]) -> Result<Self, &'static str> {
        let body = unseal(value, &key.encode(), CHUNK_MAGIC)?;
        let (head, windows) = body.split_first_chunk::<28>().ok_or("cut short")?;
        let u64_at =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if windows.len() != usize::from(head[2]) * 24 {
            return Err("the number of windows is wrong");
        }
        Ok(Self {
            chunk_size_bytes: u32_at(4),
            version: Version { epoch: Epoch(u64_at(head, 8)), counter: u64_at(head, 16) },
            allocated_blocks: u32_at(24),
            windows: windows
                .chunks_exact(24)
                .map(|window| WriterWindow {
                    session: SessionId(u64_at(window, 0)),
                    newest: u64_at(window, 8),
                    seen: u64_at(window, 16),
                })
                .collect(),
        })
    }
}

/// How far the journal is applied to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The last frame whose updates the store holds.
    pub(crate) sequence: u64,
    /// Where that frame ends: the next one begins here, or at 0 if it does not fit.
    pub(crate) end_bytes: u64,
    /// Drawn anew each time the disk is opened; later frames carry it.
    pub(crate) salt: u64,
}

impl Applied {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![APPLIED_MAGIC, FORMAT, 0, 0];
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.end_bytes.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        seal(&mut out, APPLIED);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, &'static str> {
        let body = unseal(value, APPLIED, APPLIED_MAGIC)?;
        let body: &[u8; 28] = body.try_into().map_err(|_| "wrong length")?;
        let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self { sequence: u64_at(4), end_bytes: u64_at(12), salt: u64_at(20) })
    }
}

/// Ends a record with a crc32c over its key and itself, so that a record under a wrong key is found too.
pub(crate) fn seal(out: &mut Vec<u8>, key: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), out);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn unseal<'a>(value: &'a [u8], key: &[u8], magic: u8) -> Result<&'a [u8], &'static str> {
    let (body, crc) = value.split_last_chunk::<4>().ok_or("cut short")?;
    if crc32c::crc32c_append(crc32c::crc32c(key), body) != u32::from_le_bytes(*crc) {
        return Err("the checksum is wrong");
    }
    match body {
        [m, f, _, _, ..] if *m == magic && *f == FORMAT => Ok(body),
        [m, ..] if *m != magic => Err("the magic byte is wrong"),
        _ => Err("the record's format is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> ChunkKey {
        ChunkKey::new(coord_types::GroupId(3), coord_types::DataId(9), 4)
    }

    proptest! {
        #[test]
        fn pages_come_back_as_written(blocks in proptest::collection::btree_map(0..PAGE, (0_u64..1 << 48, any::<u32>()), 0..PAGE)) {
            let key = PageKey { chunk: key(), index: 7 };
            let mut page = Page::EMPTY;
            for (at, (disk, crc)) in &blocks {
                page.set(*at, *disk, *crc);
            }
            let value = page.encode(key);
            prop_assert_eq!(Page::decode(key, &value).unwrap(), page);
            let elsewhere = PageKey { index: 8, ..key };
            prop_assert!(Page::decode(elsewhere, &value).is_err());
        }

        #[test]
        fn decoders_refuse_noise(mut noise in proptest::collection::vec(any::<u8>(), 0..200), sealed: bool) {
            let page = PageKey { chunk: key(), index: 7 };
            if sealed {
                if let [magic, format, ..] = noise.as_mut_slice() {
                    (*magic, *format) = (PAGE_MAGIC, FORMAT);
                }
                seal(&mut noise, &page.encode());
            }
            // A page that decodes after all must be one that encodes to the same blocks.
            if let Ok(decoded) = Page::decode(page, &noise) {
                prop_assert_eq!(Page::decode(page, &decoded.encode(page)).unwrap(), decoded);
            }
            let _ = ChunkRecord::decode(key(), &noise);
            let _ = Applied::decode(&noise);
        }
    }

    /// A value with its body changed and sealed anew.
    fn resealed(value: &[u8], key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut body = value[..value.len() - 4].to_vec();
        change(&mut body);
        seal(&mut body, key);
        body
    }

    #[test]
    fn a_good_checksum_does_not_make_a_chunk_record() {
        let window = WriterWindow { session: SessionId(5), newest: 6, seen: 7 };
        let version = Version { epoch: Epoch(2), counter: 77 };
        let record =
            ChunkRecord { version, chunk_size_bytes: 8 << 20, allocated_blocks: 3, windows: vec![window; 2] };
        let good = record.encode(key());
        let decode = |change: &dyn Fn(&mut Vec<u8>)| {
            ChunkRecord::decode(key(), &resealed(&good, &key().encode(), |body| change(body)))
        };
        assert_eq!(decode(&|_| {}), Ok(record.clone()));
        assert!(decode(&|body| body[0] = PAGE_MAGIC).is_err());
        assert!(decode(&|body| body[1] = FORMAT + 1).is_err());
        assert!(decode(&|body| body[2] = 1).is_err(), "a window too many");
        assert!(decode(&|body| body[2] = 3).is_err(), "a window too few");
        assert!(decode(&|body| body.truncate(20)).is_err());
    }

    #[test]
    fn a_good_checksum_does_not_make_a_page() {
        let page = PageKey { chunk: key(), index: 7 };
        let decode = |runs: &[(u8, u8)], crcs: usize| {
            let mut value = vec![PAGE_MAGIC, FORMAT, runs.len() as u8, 0];
            for (first, len) in runs {
                value.extend([*first, *len, 9, 0, 0, 0, 0, 0]);
            }
            value.extend(vec![1; crcs * 4]);
            seal(&mut value, &page.encode());
            Page::decode(page, &value).map(|page| page.blocks().count())
        };
        assert_eq!(decode(&[(0, 2), (2, 1), (63, 1)], 4), Ok(4));
        assert!(decode(&[(0, 2), (1, 1)], 3).is_err(), "runs overlap");
        assert!(decode(&[(2, 1), (0, 1)], 2).is_err(), "runs are out of order");
        assert!(decode(&[(0, 1), (3, 0)], 1).is_err(), "a run is empty");
        assert!(decode(&[(63, 2)], 2).is_err(), "a run leaves the page");
        assert!(decode(&[(0, 2)], 1).is_err() && decode(&[(0, 2)], 3).is_err(), "a checksum for each block");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut page = Page::EMPTY;
        for at in 3..40 {
            page.set(at, 1000 + at as u64, at as u32);
        }
        let page_key = PageKey { chunk: key(), index: 7 };
        let window = WriterWindow { session: SessionId(5), newest: 6, seen: 7 };
        let record = ChunkRecord {
            version: Version { epoch: Epoch(2), counter: 77 },
            chunk_size_bytes: 8 << 20,
            allocated_blocks: 37,
            windows: vec![window; 3],
        };
        let applied = Applied { sequence: 5, end_bytes: 8192, salt: 77 };
        assert_eq!(ChunkRecord::decode(key(), &record.encode(key())).unwrap(), record);
        assert_eq!(Applied::decode(&applied.encode()).unwrap(), applied);
        let flips = |value: Vec<u8>, ok: &dyn Fn(&[u8]) -> bool| {
            for bit in 0..value.len() * 8 {
                let mut bad = value.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!ok(&bad), "bit {bit}");
            }
        };
        flips(page.encode(page_key), &|bytes| Page::decode(page_key, bytes).is_ok());
        flips(record.encode(key()), &|bytes| ChunkRecord::decode(key(), bytes).is_ok());
        flips(applied.encode(), &|bytes| Applied::decode(bytes).is_ok());
    }
}
