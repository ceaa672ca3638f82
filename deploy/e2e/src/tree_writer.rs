//! A writer of what [`Writer`](crate::Writer) does not do: appends, files that replace others, directories, links,
//! truncation; and the check of a tree against its ledger.
//!
//! The ledger holds what is at each path for sure, and what else may be there because of the one operation in flight.
//! Names count when the call returned, bytes when fsync, fdatasync or close returned.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::content::{Content, first_difference};

/// Files that are appended to, and files that are replaced.
const LOGS: u64 = 4;
/// A log that has grown to this is cut to half.
const LOG_MAX: u64 = 300_000;
/// Directories kept at a time.
const DIRECTORIES: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Directory,
    Symlink(String),
    /// The first bytes are there for sure; then some that were written and not synced, or zeros.
    File {
        seed: u64,
        sure: u64,
        written: u64,
    },
}

#[derive(Debug, Default)]
struct Ledger {
    sure: BTreeMap<String, Thing>,
    /// What else may be at these paths; none: nothing.
    maybe: BTreeMap<String, Vec<Option<Thing>>>,
}

/// A thread that works in a folder until it is told to stop or meets an error.
#[derive(Debug)]
pub struct TreeWriter {
    ledger: Arc<Mutex<Ledger>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    folder: PathBuf,
    thread: JoinHandle<io::Result<()>>,
}

/// What a file system owes to a writer that has ended.
#[derive(Debug)]
pub struct TreeOwed {
    ledger: Ledger,
    folder: PathBuf,
}

impl TreeWriter {
    /// Starts in `folder`, which must be empty.
    #[must_use]
    pub fn start(folder: &Path, seed: u64) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut work = Work { folder: folder.to_owned(), seed, ledger: Arc::clone(&ledger), number: 0 };
        let (counted, told) = (Arc::clone(&done), Arc::clone(&stop));
        let run = move || {
            while !told.load(Ordering::Acquire) {
                work.step().map_err(|error| {
                    io::Error::new(error.kind(), format!("operation {}: {error}", work.number))
                })?;
                counted.fetch_add(1, Ordering::Release);
            }
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("tree-writer".to_owned())
            .spawn(run)
            .expect("the machine has room for one more thread");
        Self { ledger, done, stop, folder: folder.to_owned(), thread }
    }

    /// Operations confirmed so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Tells it to stop and answers what it met, and what it is owed.
    ///
    /// # Panics
    /// If it panicked.
    pub fn finish(self) -> (io::Result<()>, TreeOwed) {
        self.stop.store(true, Ordering::Release);
        let result = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let ledger = std::mem::take(&mut *self.ledger.lock());
        (result, TreeOwed { ledger, folder: self.folder })
    }
}

impl TreeOwed {
    /// Compares the folder with what is owed; answers every difference, and how many paths were right.
    #[must_use]
    pub fn verify(&self) -> (Vec<String>, usize) {
        let mut found = Vec::new();
        if let Err(error) = walk(&self.folder, "", &mut found) {
            return (vec![format!("cannot list {}: {error}", self.folder.display())], 0);
        }
        let (mut wrong, mut right) = (Vec::new(), 0);
        for path in self.ledger.sure.keys() {
            if !found.contains(path) && !self.may_be(path, |thing| thing.is_none()) {
                wrong.push(format!("{path}: gone"));
            }
        }
        for path in found {
            let mut differences = Vec::new();
            let allowed = self.ledger.sure.get(&path).into_iter();
            let allowed = allowed.chain(self.ledger.maybe.get(&path).into_iter().flatten().flatten());
            let fits = allowed.into_iter().any(|thing| match difference(&self.folder.join(&path), thing) {
                None => true,
                Some(difference) => {
                    differences.push(difference);
                    false
                }
            });
            match (fits, differences.is_empty()) {
                (true, _) => right += 1,
                (false, true) => wrong.push(format!("{path}: nobody owes it")),
                (false, false) => wrong.push(format!("{path}: {}", differences.join("; or "))),
            }
        }
        (wrong, right)
    }

    fn may_be(&self, path: &str, what: impl Fn(&Option<Thing>) -> bool) -> bool {
        self.ledger.maybe.get(path).is_some_and(|things| things.iter().any(what))
    }
}

fn walk(folder: &Path, below: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        found.push(path.clone());
        if entry.file_type()?.is_dir() {
            walk(folder, &path, found)?;
        }
    }
    Ok(())
}

/// How what is at a path differs from what should be there.
fn difference(path: &Path, wanted: &Thing) -> Option<String> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(error) => return Some(error.to_string()),
    };
    match wanted {
        Thing::Directory => (!kind.is_dir()).then(|| "not a directory".to_owned()),
        Thing::Symlink(target) => {
            let same = fs::read_link(path).is_ok_and(|found| found == Path::new(target));
            (!same).then(|| "another target".to_owned())
        }
        Thing::File { seed, sure, written } => {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) => return Some(error.to_string()),
            };
            let (sure, written) = (usize::try_from(*sure).ok()?, usize::try_from(*written).ok()?);
            let wanted = Content::new(*seed).bytes(written);
            let known = sure.min(bytes.len());
            if bytes.len() < sure || bytes.len() > written {
                return Some(format!("length {}, wanted {sure} to {written}", bytes.len()));
            }
            let foreign = |(got, want): (&u8, &u8)| got != want && *got != 0;
            first_difference(&bytes[..known], &wanted[..sure]).or_else(|| {
                let strange = bytes[known..].iter().zip(&wanted[known..]).any(foreign);
                strange.then(|| "bytes that were never written to it".to_owned())
            })
        }
    }
}

struct Work {
    folder: PathBuf,
    seed: u64,
    ledger: Arc<Mutex<Ledger>>,
    number: u64,
}

impl Work {
    fn step(&mut self) -> io::Result<()> {
        self.number += 1;
        match self.dice(8) {
            0..3 => self.append(),
            3 => self.truncate(),
            4 | 5 => self.replace(),
            6 => self.make_directory(),
            _ => self.remove_directory(),
        }
    }

    /// A number that depends on the seed, the operation, and on how many sides are asked for.
    fn dice(&self, sides: u64) -> u64 {
        let mut bytes = [0; 8];
        Content::new(self.seed ^ (sides << 32)).fill(self.number * 8, &mut bytes);
        u64::from_le_bytes(bytes) / 256 % sides
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// One call that changes paths: each is as before or as told, then as told.
    fn change<T>(
        &self,
        paths: &[(&str, Option<Thing>)],
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let maybe = paths.iter().map(|(path, thing)| ((*path).to_owned(), vec![thing.clone()]));
        self.ledger.lock().maybe = maybe.collect();
        let done = call()?;
        let mut ledger = self.ledger.lock();
        for (path, thing) in paths {
            match thing {
                Some(thing) => ledger.sure.insert((*path).to_owned(), thing.clone()),
                None => ledger.sure.remove(*path),
            };
        }
        ledger.maybe.clear();
        Ok(done)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// What is known of a file.
    fn known(&self, name: &str) -> Option<(u64, u64)> {
        match self.ledger.lock().sure.get(name) {
            Some(Thing::File { sure, written, .. }) => Some((*sure, *written)),
            _ => None,
        }
    }

    fn append(&self) -> io::Result<()> {
        let name = format!("log{}", self.dice(LOGS));
        let seed = self.seed ^ self.dice(LOGS);
        let path = self.path(&name);
        if self.known(&name).is_none() {
            let empty = Thing::File { seed, sure: 0, written: 0 };
            self.change(&[(&name, Some(empty))], || {
                OpenOptions::new().create_new(true).write(true).open(&path)
            })?;
        }
        let (sure, len) = self.known(&name).unwrap_or_default();
        let more = self.dice(30_000) + 1;
        let bytes = Content::new(seed).bytes(usize::try_from(len + more).expect("small"));
        let mut file = OpenOptions::new().append(true).open(&path)?;
        let written = Thing::File { seed, sure, written: len + more };
        let data = &bytes[usize::try_from(len).expect("small")..];
        self.change(&[(&name, Some(written))], || file.write_all(data))?;
        let synced = Thing::File { seed, sure: len + more, written: len + more };
        match self.dice(3) {
            0 => self.change(&[(&name, Some(synced))], || file.sync_all()),
            1 => self.change(&[(&name, Some(synced))], || file.sync_data()),
            _ => self.change(&[(&name, Some(synced))], || crate::writer::close(file)),
        }
    }

    fn truncate(&self) -> io::Result<()> {
        let name = format!("log{}", self.dice(LOGS));
        let Some((_, len)) = self.known(&name).filter(|(_, len)| *len > LOG_MAX) else {
            return self.append();
        };
        let file = OpenOptions::new().write(true).open(self.path(&name))?;
        let shorter = Thing::File { seed: self.seed ^ self.dice(LOGS), sure: len / 2, written: len / 2 };
        self.change(&[(&name, Some(shorter))], || file.set_len(len / 2).and_then(|()| file.sync_all()))
    }

    /// Write new, fsync, rename over the old, fsync of the directory: whole at any moment.
    fn replace(&self) -> io::Result<()> {
        let (name, new) = (format!("table{}", self.dice(LOGS)), "new".to_owned());
        let seed = self.seed ^ (self.number << 8);
        let len = self.dice(100_000);
        let (begun, whole) =
            (Thing::File { seed, sure: 0, written: len }, Thing::File { seed, sure: len, written: len });
        let bytes = Content::new(seed).bytes(usize::try_from(len).expect("small"));
        let path = self.path(&new);
        let mut file = self.change(&[(&new, Some(begun))], || File::create(&path))?;
        self.change(&[(&new, Some(whole.clone()))], || {
            file.write_all(&bytes).and_then(|()| file.sync_all())
        })?;
        self.change(&[(&new, None), (&name, Some(whole))], || fs::rename(&path, self.path(&name)))?;
        self.sync_folder()
    }

    fn directories(&self) -> Vec<String> {
        let ledger = self.ledger.lock();
        let found = ledger.sure.iter().filter(|(_, thing)| **thing == Thing::Directory);
        found.map(|(path, _)| path.clone()).collect()
    }

    /// With a file, a second name for it, and a symbolic link in it.
    fn make_directory(&self) -> io::Result<()> {
        let dir = format!("dir{:06}", self.number);
        self.change(&[(&dir, Some(Thing::Directory))], || fs::create_dir(self.path(&dir)))?;
        let (file, link, symbolic) =
            (format!("{dir}/file"), format!("{dir}/link"), format!("{dir}/symbolic"));
        let len = self.dice(9000);
        let thing = Thing::File { seed: self.number, sure: len, written: len };
        let bytes = Content::new(self.number).bytes(usize::try_from(len).expect("small"));
        let begun = Thing::File { seed: self.number, sure: 0, written: len };
        let path = self.path(&file);
        let mut made = self.change(&[(&file, Some(begun))], || File::create(&path))?;
        self.change(&[(&file, Some(thing.clone()))], || {
            made.write_all(&bytes).and_then(|()| made.sync_all())
        })?;
        self.change(&[(&link, Some(thing))], || fs::hard_link(&path, self.path(&link)))?;
        let target = Thing::Symlink("file".to_owned());
        self.change(&[(&symbolic, Some(target))], || symlink("file", self.path(&symbolic)))?;
        File::open(self.path(&dir))?.sync_all()?;
        self.sync_folder()
    }

    fn remove_directory(&self) -> io::Result<()> {
        let dirs = self.directories();
        if dirs.len() < DIRECTORIES {
            return self.make_directory();
        }
        let dir = &dirs[0];
        for name in ["symbolic", "link", "file"] {
            let path = format!("{dir}/{name}");
            self.change(&[(&path, None)], || fs::remove_file(self.path(&path)))?;
        }
        self.change(&[(dir, None)], || fs::remove_dir(self.path(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_local_cluster::{Deadline, wait_until};
    use std::time::Duration;

    /// On the local disk the writer and its ledger agree, and each kind of damage is seen.
    #[test]
    fn the_ledger_notices_damage() {
        let folder = tempfile::tempdir().unwrap();
        let writer = TreeWriter::start(folder.path(), 5);
        wait_until("some work", Deadline::within(Duration::from_secs(60)), || Ok(writer.done() > 300))
            .unwrap();
        let (result, owed) = writer.finish();
        result.unwrap();
        let (wrong, right) = owed.verify();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(right > 40, "{right}");

        let at = |name: &str| folder.path().join(name);
        let notices = |name: &str, what: &str| {
            let (wrong, _) = owed.verify();
            assert!(wrong.iter().any(|line| line.starts_with(name)), "{what}: {wrong:?}");
        };
        for name in ["log1", "table2"] {
            let bytes = fs::read(at(name)).unwrap();
            fs::write(at(name), &bytes[..bytes.len() - 1]).unwrap();
            notices(name, "a lost byte");
            let mut changed = bytes.clone();
            changed[7] ^= 1;
            fs::write(at(name), &changed).unwrap();
            notices(name, "a changed byte");
            fs::remove_file(at(name)).unwrap();
            notices(name, "a lost file");
            fs::write(at(name), bytes).unwrap();
        }
        fs::write(at("new"), b"x").unwrap();
        notices("new", "a file that was renamed is there again");
        fs::remove_file(at("new")).unwrap();
        let dir = owed.ledger.sure.iter().find(|(_, thing)| **thing == Thing::Directory).unwrap().0;
        for name in ["symbolic", "link"] {
            let path = format!("{dir}/{name}");
            fs::remove_file(at(&path)).unwrap();
            notices(&path, "a lost link");
        }
        fs::remove_dir_all(at(dir)).unwrap();
        notices(dir, "a lost directory");
    }
}
