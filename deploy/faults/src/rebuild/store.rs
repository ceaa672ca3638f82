//! The data that is rebuilt: files whose content follows from their number.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context as _;
use deploy_e2e::{Content, first_difference};

pub(crate) const FILE_BYTES: u64 = 64 << 20;
const PIECE: usize = 1 << 20;
/// As many as the machine has cores to make content with.
const THREADS: usize = 2;

#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    files: u64,
}

impl Store {
    /// Writes so many bytes, rounded up to whole files.
    pub(crate) fn fill(folder: PathBuf, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let store = Self { folder, files: bytes.div_ceil(FILE_BYTES).max(1) };
        store.each(|path, content| {
            let mut file = File::create(path)?;
            let mut piece = vec![0; PIECE];
            for at in (0..FILE_BYTES).step_by(PIECE) {
                content.fill(at, &mut piece);
                file.write_all(&piece)?;
            }
            file.sync_all()
        })?;
        Ok(store)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files * FILE_BYTES
    }

    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    pub(crate) fn file(&self, number: u64) -> (PathBuf, Content) {
        (self.folder.join(format!("f{number}")), Content::new(number))
    }

    /// Reads all of it; answers what is wrong.
    pub(crate) fn check(&self) -> Vec<String> {
        let checked = self.each(|path, content| {
            let mut file = File::open(path)?;
            let (mut got, mut wanted) = (vec![0; PIECE], vec![0; PIECE]);
            for at in (0..FILE_BYTES).step_by(PIECE) {
                file.read_exact(&mut got)?;
                content.fill(at, &mut wanted);
                if let Some(difference) = first_difference(&got, &wanted) {
                    return Err(std::io::Error::other(format!("from byte {at} on: {difference}")));
                }
            }
            Ok(())
        });
        checked.err().map(|error| format!("{error:#}")).into_iter().collect()
    }

    /// Does it with every file, on some threads; the first error ends it.
    fn each(&self, work: impl Fn(&Path, Content) -> std::io::Result<()> + Sync) -> anyhow::Result<()> {
        let next = AtomicU64::new(0);
        let one = || -> anyhow::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.files {
                    return Ok(());
                }
                let (path, content) = self.file(number);
                work(&path, content).with_context(|| path.display().to_string())?;
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("it answers errors"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::fill(folder.path().join("store"), 2 * FILE_BYTES).unwrap();
        assert_eq!((store.files(), store.bytes()), (2, 2 * FILE_BYTES));
        assert_eq!(store.check(), Vec::<String>::new());
        let (path, _) = store.file(1);
        let file = File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"?", FILE_BYTES - 1).unwrap();
        let wrong = store.check();
        assert!(wrong.len() == 1 && wrong[0].contains("/f1: from byte 66060288"), "{wrong:?}");
    }
}
