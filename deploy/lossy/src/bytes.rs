//! The bytes of one file, now and durable.
//!
//! The backing file holds what programs see now. `old` has an entry for each block that was changed since it was durable,
//! with what the durable version has there. Holds: the durable version is the backing file with `old` laid over it,
//! cut off or filled with zeros to `durable_len`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::dice::{Dice, Fate, Report};

pub(crate) const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
pub(crate) const SECTOR: usize = 512;
/// Old blocks of one file held in memory, 64 MiB: when there are more, all of the file is written back, as a kernel does that
/// has too many dirty pages.
const HELD_MAX: usize = 1 << 14;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bytes {
    file: File,
    len: u64,
    durable_len: u64,
    /// None: zeros, or nothing.
    old: BTreeMap<u64, Option<Box<[u8]>>>,
    /// How many of them are not none.
    held: usize,
}

impl Bytes {
    /// Over an empty file.
    pub(crate) fn new(file: File) -> Self {
        Self { file, len: 0, durable_len: 0, old: BTreeMap::new(), held: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(there)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        self.keep_old(offset, end)?;
        self.file.write_all_at(data, offset)?;
        self.len = self.len.max(end);
        if self.held > HELD_MAX {
            self.sync();
        }
        Ok(())
    }

    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.keep_old(len, self.len)?;
        }
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// Everything is durable.
    pub(crate) fn sync(&mut self) {
        self.old.clear();
        self.held = 0;
        self.durable_len = self.len;
    }

    /// The blocks in a range are durable, and the size.
    pub(crate) fn sync_range(&mut self, offset: u64, len: u64) {
        let (from, upto) = (offset / BLOCK_BYTES, (offset + len).div_ceil(BLOCK_BYTES));
        let size = self.len.div_ceil(BLOCK_BYTES);
        self.old.retain(|block, _| (*block < from || *block >= upto) && *block < size);
        self.held = self.old.values().flatten().count();
        self.durable_len = self.len;
    }

    /// Keeps what the durable version has in the blocks of a range that is about to change.
    fn keep_old(&mut self, from: u64, end_exclusive: u64) -> io::Result<()> {
        for block in from / BLOCK_BYTES..end_exclusive.div_ceil(BLOCK_BYTES) {
            if self.old.contains_key(&block) {
                continue;
            }
            let start = block * BLOCK_BYTES;
            let there = BLOCK_BYTES.min(self.len.min(self.durable_len).saturating_sub(start));
            let mut bytes = vec![0; BLOCK];
            self.file.read_exact_at(&mut bytes[..usize::try_from(there).expect("a block")], start)?;
            let some = bytes.iter().any(|byte| *byte != 0);
            self.held += usize::from(some);
            self.old.insert(block, some.then(|| bytes.into_boxed_slice()));
        }
        Ok(())
    }

    fn is_synced(&self) -> bool {
        self.old.is_empty() && self.len == self.durable_len
    }

    /// Power is cut: what the dice spare is as now, the rest as it was durable; all of it is durable then.
    pub(crate) fn cut(&mut self, dice: &mut Dice, report: &mut Report) -> io::Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        report.files += 1;
        let chance = dice.chance();
        let now = self.len;
        let left = if chance == 100 { now } else { dice.size(self.durable_len, now) };
        self.file.set_len(self.len.max(self.durable_len))?;
        self.held = 0;
        for (block, old) in std::mem::take(&mut self.old) {
            let start = block * BLOCK_BYTES;
            let mut fate = dice.block(chance);
            if left > now && start + BLOCK_BYTES > now {
                // The file is not shorter after all, so it was not cut off.
                fate = Fate::Lost;
            }
            let old = old.unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice());
            match fate {
                Fate::Kept => report.blocks_kept += 1,
                Fate::Lost => {
                    report.blocks_lost += 1;
                    self.file.write_all_at(&old, start)?;
                }
                Fate::Torn(kept) => {
                    report.blocks_torn += 1;
                    for (at, sector) in old.chunks(SECTOR).enumerate() {
                        if kept & (1 << at) == 0 {
                            self.file.write_all_at(sector, start + (at * SECTOR) as u64)?;
                        }
                    }
                }
            }
        }
        self.file.set_len(left)?;
        self.len = left;
        self.durable_len = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Loss;

    fn file() -> Bytes {
        Bytes::new(tempfile::tempfile().unwrap())
    }

    fn all(bytes: &Bytes) -> Vec<u8> {
        bytes.read(0, 1 << 24).unwrap()
    }

    fn cut(bytes: &mut Bytes, loss: Loss) -> Report {
        let mut report = Report::default();
        bytes.cut(&mut Dice::new(loss), &mut report).unwrap();
        report
    }

    #[test]
    fn what_is_synced_survives_and_the_rest_goes() {
        let mut bytes = file();
        bytes.write(0, &[1; 10_000]).unwrap();
        bytes.sync();
        bytes.write(5000, &[2; 100]).unwrap();
        bytes.write(9000, &[3; 9000]).unwrap();
        assert_eq!(bytes.len(), 18_000);
        assert_eq!(cut(&mut bytes, Loss::All).blocks_lost, 4);
        assert_eq!(all(&bytes), [1; 10_000]);
        assert_eq!(cut(&mut bytes, Loss::All), Report::default(), "nothing is unsynced any more");
    }

    #[test]
    fn a_file_that_was_cut_off_comes_back_whole() {
        let mut bytes = file();
        bytes.write(0, &[1; 10_000]).unwrap();
        bytes.sync();
        for round in 0..200 {
            bytes.set_len(100).unwrap();
            bytes.set_len(9000).unwrap();
            assert_eq!(bytes.read(50, 100).unwrap(), [vec![1; 50], vec![0; 50]].concat());
            if round == 0 {
                cut(&mut bytes, Loss::All);
                assert_eq!(all(&bytes), [1; 10_000]);
                bytes.set_len(3).unwrap();
            }
            cut(&mut bytes, Loss::Subset(round));
            let left = all(&bytes);
            assert!(left.len() <= 10_000 && left[..3] == [1; 3], "{left:?}");
            bytes.set_len(0).unwrap();
            bytes.write(0, &[1; 10_000]).unwrap();
            bytes.sync();
        }
    }

    #[test]
    fn a_synced_write_leaves_its_neighbours_undecided() {
        let mut bytes = file();
        bytes.write(0, &[1; 4 * BLOCK]).unwrap();
        bytes.sync();
        bytes.write(0, &[2; 4 * BLOCK]).unwrap();
        bytes.write(4 * BLOCK_BYTES, &[2; BLOCK]).unwrap();
        bytes.sync_range(BLOCK_BYTES, BLOCK_BYTES);
        cut(&mut bytes, Loss::All);
        let wanted = [vec![1; BLOCK], vec![2; BLOCK], vec![1; 2 * BLOCK], vec![0; BLOCK]].concat();
        assert_eq!(all(&bytes), wanted);
    }

    #[test]
    fn seeds_tear_at_sectors_and_do_it_again() {
        let mut torn = 0;
        for seed in 0..40 {
            let run = || {
                let mut bytes = file();
                bytes.write(0, &[1; 64 * BLOCK]).unwrap();
                bytes.sync();
                bytes.write(100, &[2; 70 * BLOCK]).unwrap();
                let report = cut(&mut bytes, Loss::Subset(seed));
                (report, all(&bytes))
            };
            let (report, left) = run();
            assert_eq!((report, left.clone()), run(), "the same seed leaves the same");
            torn += report.blocks_torn;
            assert!(left.len() >= 64 * BLOCK);
            assert_eq!(left[..100], [1; 100]);
            for sector in left[SECTOR..64 * BLOCK].chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0] && (1..=2).contains(byte)));
            }
        }
        assert!(torn > 10, "{torn}");
    }
}
