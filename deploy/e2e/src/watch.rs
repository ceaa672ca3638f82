//! Reads what a writer wrote, elsewhere and at the same time: what its ledger confirms must be seen by whoever opens a
//! file after that, through any mount, and nothing else than what was written may ever be seen.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::content::{Content, first_difference};
use crate::writer::{BLOCK, BLOCKS, Entry, InFlight, Ledger, block};

/// A buffer that local disks too can read into around the cache.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// A writer's ledger, to look into.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Watch {
    /// Opens one of the writer's files in `folder`, which is the writer's as another mount shows it, and compares; the
    /// inner error says what is wrong, the answer is how many bytes were right.
    ///
    /// # Errors
    /// What the file system said.
    pub fn read_one(&self, folder: &Path, dice: u64) -> io::Result<Result<u64, String>> {
        if dice.is_multiple_of(2) {
            self.read_block(folder, dice / 2)
        } else {
            self.read_file(folder, dice / 2)
        }
    }

    fn read_file(&self, folder: &Path, dice: u64) -> io::Result<Result<u64, String>> {
        let Some((name, entry)) = self.pick(dice) else { return Ok(Ok(0)) };
        let read = fs::read(folder.join("files").join(&name));
        let gone = read.as_ref().is_err_and(|error| {
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESTALE)
        });
        let (named, owed) = self.still(&name, entry);
        match read {
            Err(error) if gone => {
                Ok(if named { Err(format!("{name}: {error}, not removed")) } else { Ok(0) })
            }
            Err(error) => Err(error),
            Ok(bytes) => Ok(match first_difference(&bytes, &Content::new(entry.seed).bytes(entry.length)) {
                None => Ok(bytes.len() as u64),
                // Removed while it was read: what is left of it.
                Some(_) if !owed => Ok(0),
                Some(difference) => Err(format!("{name}, read elsewhere: {difference}")),
            }),
        }
    }

    fn pick(&self, dice: u64) -> Option<(String, Entry)> {
        let ledger = self.ledger.lock();
        let nth = dice.checked_rem(u64::try_from(ledger.files.len()).ok()?)?;
        let (name, entry) = ledger.files.iter().nth(usize::try_from(nth).ok()?)?;
        let leaves = match &ledger.in_flight {
            InFlight::Rename(from, _) | InFlight::Remove(from) => from == name,
            InFlight::Nothing | InFlight::Write(..) | InFlight::Block(..) => false,
        };
        (!leaves).then(|| (name.clone(), *entry))
    }

    /// Whether a file certainly has this name, and whether it certainly is.
    fn still(&self, name: &str, entry: Entry) -> (bool, bool) {
        let ledger = self.ledger.lock();
        let named = ledger.files.get(name) == Some(&entry);
        let owed = ledger.files.values().any(|other| *other == entry);
        match &ledger.in_flight {
            InFlight::Rename(from, _) if from == name => (false, owed),
            InFlight::Remove(gone) if ledger.files.get(gone) == Some(&entry) => (false, false),
            _ => (named, owed),
        }
    }

    fn read_block(&self, folder: &Path, dice: u64) -> io::Result<Result<u64, String>> {
        let index = dice / 2 % BLOCKS;
        let at = usize::try_from(index).expect("few");
        let before = self.ledger.lock().blocks[at];
        // Around the cache: fdatasync says nothing to the master, by which another mount's cache would be told.
        let direct = if before == 0 { 0 } else { libc::O_DIRECT };
        let file = OpenOptions::new().read(true).custom_flags(direct).open(folder.join("blocks"));
        let file = match file {
            // The writer has not made it yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && before == 0 => return Ok(Ok(0)),
            file => file?,
        };
        let mut got = Box::new(Aligned([0; BLOCK]));
        let length = file.read_at(&mut got.0, index * BLOCK as u64)?;
        if before == 0 && length == 0 {
            return Ok(Ok(0));
        }
        let after = {
            let ledger = self.ledger.lock();
            match ledger.in_flight {
                InFlight::Block(index, number) if index == at as u64 => number,
                _ => ledger.blocks[at],
            }
        };
        let got = &got.0[..length];
        // Most are the newest.
        if (before..=after).rev().any(|number| got == block(index, number)) {
            return Ok(Ok(BLOCK as u64));
        }
        let found = (0..before).rev().find(|number| got == block(index, *number));
        Ok(Err(match found {
            Some(old) => {
                format!("block {index}, read elsewhere: overwrite {old}, {before} was confirmed before")
            }
            None => format!(
                "block {index}, read elsewhere, overwrite {before}: {}",
                first_difference(got, &block(index, before)).unwrap_or_default()
            ),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Writer;
    use deploy_local_cluster::{Deadline, wait_until};

    #[test]
    fn what_is_there_is_right_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(folder.path(), 3);
        let watch = writer.watch();
        let enough = Deadline::within(std::time::Duration::from_secs(60));
        let mut dice = 0;
        wait_until("some work", enough, || {
            dice += 1;
            watch.read_one(folder.path(), dice).unwrap().unwrap();
            Ok(writer.done() > 100)
        })
        .unwrap();
        let (result, _owed) = writer.finish();
        result.unwrap();
        let seen = |folder: &Path| {
            (0..4000).filter(|dice| !matches!(watch.read_one(folder, *dice), Ok(Ok(_)))).count()
        };
        assert_eq!(seen(folder.path()), 0);
        let (index, number) = {
            let ledger = watch.ledger.lock();
            ledger
                .blocks
                .iter()
                .enumerate()
                .find(|(_, number)| **number > 0)
                .map(|(at, n)| (at as u64, *n))
                .unwrap()
        };
        let blocks = OpenOptions::new().write(true).open(folder.path().join("blocks")).unwrap();
        blocks.write_all_at(&block(index, 0), index * BLOCK as u64).unwrap();
        let stale =
            (0..4000).filter_map(|dice| watch.read_one(folder.path(), dice).unwrap().err()).next().unwrap();
        assert!(stale.contains(&format!("overwrite 0, {number} was confirmed")), "{stale}");
        fs::remove_dir_all(folder.path().join("files")).unwrap();
        assert!(seen(folder.path()) > 100, "files that are gone");
    }
}
