//! A writer that keeps a ledger of what was confirmed to it, and the check of a tree against that ledger.
//!
//! The ledger holds, at every moment, what the file system owes: each file that was closed or synced without error,
//! with the seed of its content; each 4 KiB block of one file that is overwritten in place again and again; and the
//! one operation in flight, which may have happened or not, but not by half. A writer that meets an error stops and
//! hands the error out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::content::{Content, first_difference};
use crate::watch::Watch;

pub(crate) const BLOCK: usize = 4096;
pub(crate) const BLOCKS: u64 = 512;
/// Files kept at a time: older ones are removed, so that deletion is part of the work.
const KEPT: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seed: u64,
    pub(crate) length: usize,
}

/// What may have happened or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InFlight {
    Nothing,
    /// The file may be absent, empty, or any part of its final content (nothing was promised yet).
    Write(String, Entry),
    Rename(String, String),
    Remove(String),
    Block(u64, u64),
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) files: BTreeMap<String, Entry>,
    /// For each block the number of its last confirmed overwrite; 0: never written.
    pub(crate) blocks: Vec<u64>,
    pub(crate) in_flight: InFlight,
    longest: Duration,
    /// Since somebody asked.
    longest_lately: Duration,
    /// When the operation under way began, or the one that met an error.
    began: Option<Instant>,
    written_bytes: u64,
}

/// A thread that works in a folder until it is told to stop or meets an error.
#[derive(Debug)]
pub struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    folder: PathBuf,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Starts in `folder`, which must be empty.
    #[must_use]
    pub fn start(folder: &Path, seed: u64) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger {
            files: BTreeMap::new(),
            blocks: vec![0; usize::try_from(BLOCKS).expect("few")],
            in_flight: InFlight::Nothing,
            longest: Duration::ZERO,
            longest_lately: Duration::ZERO,
            began: None,
            written_bytes: 0,
        }));
        let done = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            folder: folder.to_owned(),
            seed,
            ledger: Arc::clone(&ledger),
            done: Arc::clone(&done),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || work.run())
            .expect("the machine has room for one more thread");
        Self { ledger, done, stop, folder: folder.to_owned(), thread }
    }

    /// Operations confirmed so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// It has stopped by itself: it met an error.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// The longest that one operation took so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.ledger.lock().longest
    }

    /// The longest that one operation took since this was last asked, the one under way included.
    #[must_use]
    pub fn take_longest(&self) -> Duration {
        let mut ledger = self.ledger.lock();
        let longest = std::mem::take(&mut ledger.longest_lately);
        longest.max(ledger.began.map_or(Duration::ZERO, |began| began.elapsed()))
    }

    /// When the operation under way began, or the one that met an error.
    #[must_use]
    pub fn began(&self) -> Option<Instant> {
        self.ledger.lock().began
    }

    /// Bytes of confirmed writes so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.ledger.lock().written_bytes
    }

    /// For readers elsewhere.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { ledger: Arc::clone(&self.ledger) }
    }

    /// Where it works.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells it to stop and answers what it met, with its ledger for [`verify`].
    ///
    /// # Panics
    /// If it panicked: it read something wrong.
    pub fn finish(self) -> (io::Result<()>, Owed) {
        self.stop.store(true, Ordering::Release);
        let result = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, Owed { ledger: self.ledger, folder: self.folder })
    }
}

/// What a file system owes to a writer that has ended.
#[derive(Debug)]
pub struct Owed {
    ledger: Arc<Mutex<Ledger>>,
    folder: PathBuf,
}

/// Compares a folder with what is owed; answers every difference, and how many files and blocks were right.
#[must_use]
pub fn verify(owed: &Owed) -> (Vec<String>, usize) {
    let ledger = owed.ledger.lock();
    let mut wrong = Vec::new();
    let mut right = 0;
    let mut found: BTreeMap<String, PathBuf> = match fs::read_dir(owed.folder.join("files")) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
            .collect(),
        Err(error) => return (vec![format!("cannot list files: {error}")], 0),
    };
    for (name, entry) in &ledger.files {
        let mut path = found.remove(name);
        if path.is_none()
            && let InFlight::Rename(from, to) = &ledger.in_flight
            && from == name
        {
            path = found.remove(to);
        }
        let Some(path) = path else {
            if ledger.in_flight != InFlight::Remove(name.clone()) {
                wrong.push(format!("{name}: gone"));
            }
            continue;
        };
        match fs::read(&path) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(bytes) => match first_difference(&bytes, &Content::new(entry.seed).bytes(entry.length)) {
                None => right += 1,
                Some(difference) => wrong.push(format!("{name}: {difference}")),
            },
        }
    }
    for (name, path) in found {
        let InFlight::Write(writing, entry) = &ledger.in_flight else {
            wrong.push(format!("{name}: nobody owes it"));
            continue;
        };
        // Nothing was confirmed of it, but what is there must be its content or never have been written (zeros).
        let wanted = Content::new(entry.seed).bytes(entry.length);
        let bytes = fs::read(&path).unwrap_or_default();
        let foreign = bytes.iter().zip(&wanted).any(|(got, want)| got != want && *got != 0);
        if *writing != name || bytes.len() > wanted.len() || foreign {
            wrong.push(format!("{name}: has bytes that were never written to it"));
        }
    }
    match File::open(owed.folder.join("blocks")) {
        Err(error) => wrong.push(format!("blocks: {error}")),
        Ok(file) => {
            for (index, confirmed) in (0_u64..).zip(&ledger.blocks) {
                let mut got = vec![0; BLOCK];
                if let Err(error) = file.read_exact_at(&mut got, index * 4096) {
                    wrong.push(format!("block {index}: {error}"));
                    continue;
                }
                let may_be_new = match ledger.in_flight {
                    InFlight::Block(at, number) if at == index => got == block(index, number),
                    _ => false,
                };
                match first_difference(&got, &block(index, *confirmed)) {
                    Some(difference) if !may_be_new => {
                        wrong.push(format!("block {index}, overwrite {confirmed}: {difference}"));
                    }
                    _ => right += 1,
                }
            }
        }
    }
    (wrong, right)
}

pub(crate) fn block(index: u64, number: u64) -> Vec<u8> {
    if number == 0 { vec![0; BLOCK] } else { Content::new(index ^ (number << 20)).bytes(BLOCK) }
}

struct Work {
    folder: PathBuf,
    seed: u64,
    ledger: Arc<Mutex<Ledger>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn run(&mut self) -> io::Result<()> {
        fs::create_dir(self.folder.join("files"))?;
        let blocks =
            OpenOptions::new().read(true).write(true).create_new(true).open(self.folder.join("blocks"))?;
        blocks.set_len(BLOCKS * 4096)?;
        blocks.sync_all()?;
        for number in 1.. {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            let started = Instant::now();
            self.ledger.lock().began = Some(started);
            let what = match number % 8 {
                0 | 4 => self.overwrite(&blocks, number),
                3 => self.rename(number),
                6 => self.read_one(number),
                // As many removed as written, once there are enough.
                5 if self.has_enough() => self.remove(),
                7 => self.remove(),
                _ => self.write(number),
            };
            what.map_err(|error| io::Error::new(error.kind(), format!("operation {number}: {error}")))?;
            self.done.fetch_add(1, Ordering::Release);
            let mut ledger = self.ledger.lock();
            ledger.longest = ledger.longest.max(started.elapsed());
            ledger.longest_lately = ledger.longest_lately.max(started.elapsed());
            ledger.began = None;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join("files").join(name)
    }

    fn begin(&self, what: InFlight) {
        self.ledger.lock().in_flight = what;
    }

    fn confirm(&self, change: impl FnOnce(&mut Ledger)) {
        let mut ledger = self.ledger.lock();
        change(&mut ledger);
        ledger.in_flight = InFlight::Nothing;
    }

    /// A number that depends on the seed and the operation only.
    fn dice(&self, number: u64, sides: u64) -> u64 {
        let mut bytes = [0; 8];
        Content::new(self.seed).fill(number * 8, &mut bytes);
        u64::from_le_bytes(bytes) % sides
    }

    /// A new file of an odd length, in odd pieces; closed, and synced before that half the time.
    fn write(&self, number: u64) -> io::Result<()> {
        let upto = match number % 64 {
            33 => 9_500_000, // over the end of the first chunk
            1 | 17 => 1_500_000,
            _ => 60_000,
        };
        let length = usize::try_from(self.dice(number, upto) + 1).expect("small");
        let entry = Entry { seed: self.seed ^ number, length };
        let name = format!("f{number:07}");
        self.begin(InFlight::Write(name.clone(), entry));
        let bytes = Content::new(entry.seed).bytes(length);
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.path(&name))?;
        for piece in bytes.chunks(70_001) {
            file.write_all(piece)?;
        }
        if self.dice(number, 2) == 0 {
            file.sync_all()?;
        }
        close(file)?;
        self.confirm(|ledger| {
            ledger.files.insert(name, entry);
            ledger.written_bytes += length as u64;
        });
        Ok(())
    }

    fn overwrite(&self, file: &File, number: u64) -> io::Result<()> {
        let index = self.dice(number, BLOCKS);
        self.begin(InFlight::Block(index, number));
        file.write_all_at(&block(index, number), index * 4096)?;
        file.sync_data()?;
        self.confirm(|ledger| {
            ledger.blocks[usize::try_from(index).expect("few")] = number;
            ledger.written_bytes += 4096;
        });
        Ok(())
    }

    fn rename(&self, number: u64) -> io::Result<()> {
        let Some((from, entry)) = self.some_file(number) else { return Ok(()) };
        let to = format!("r{number:07}");
        self.begin(InFlight::Rename(from.clone(), to.clone()));
        fs::rename(self.path(&from), self.path(&to))?;
        self.confirm(|ledger| {
            ledger.files.remove(&from);
            ledger.files.insert(to, entry);
        });
        Ok(())
    }

    fn has_enough(&self) -> bool {
        self.ledger.lock().files.len() >= KEPT
    }

    fn remove(&self) -> io::Result<()> {
        if !self.has_enough() {
            return Ok(());
        }
        let Some(name) = self.ledger.lock().files.keys().next().cloned() else { return Ok(()) };
        self.begin(InFlight::Remove(name.clone()));
        fs::remove_file(self.path(&name))?;
        self.confirm(|ledger| {
            ledger.files.remove(&name);
        });
        Ok(())
    }

    fn read_one(&self, number: u64) -> io::Result<()> {
        let Some((name, entry)) = self.some_file(number) else { return Ok(()) };
        let bytes = fs::read(self.path(&name))?;
        let difference = first_difference(&bytes, &Content::new(entry.seed).bytes(entry.length));
        if let Some(difference) = difference {
            panic!("operation {number} read {name} ({} bytes): {difference}", entry.length);
        }
        Ok(())
    }

    fn some_file(&self, number: u64) -> Option<(String, Entry)> {
        let ledger = self.ledger.lock();
        let count = u64::try_from(ledger.files.len()).ok()?;
        if count == 0 {
            return None;
        }
        let nth = usize::try_from(self.dice(number, count)).ok()?;
        ledger.files.iter().nth(nth).map(|(name, entry)| (name.clone(), *entry))
    }
}

/// Closes and answers what close said, which dropping a `File` does not.
pub(crate) fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor was taken out of the file, which closes nothing any more; it is open and ours alone.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_local_cluster::{Deadline, wait_until};

    /// On the local disk the writer and its ledger agree, and each kind of damage is seen.
    #[test]
    fn the_ledger_notices_damage() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(folder.path(), 1);
        wait_until("some work", Deadline::within(Duration::from_secs(60)), || Ok(writer.done() > 100))
            .unwrap();
        let (result, owed) = writer.finish();
        result.unwrap();
        let (wrong, right) = verify(&owed);
        assert_eq!(wrong, Vec::<String>::new());
        assert!(right > 30);

        let files = folder.path().join("files");
        let victim = fs::read_dir(&files).unwrap().next().unwrap().unwrap().path();
        let bytes = fs::read(&victim).unwrap();
        let mut changed = bytes.clone();
        changed[0] ^= 1;
        fs::write(&victim, &changed).unwrap();
        assert_eq!(verify(&owed).0.len(), 1, "a changed byte");
        fs::write(&victim, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(verify(&owed).0.len(), 1, "a lost byte");
        fs::remove_file(&victim).unwrap();
        assert_eq!(verify(&owed).0.len(), 1, "a lost file");
        fs::write(&victim, &bytes).unwrap();
        fs::write(files.join("stranger"), b"x").unwrap();
        assert_eq!(verify(&owed).0.len(), 1, "a file nobody wrote");
        fs::remove_file(files.join("stranger")).unwrap();
        let blocks = OpenOptions::new().write(true).open(folder.path().join("blocks")).unwrap();
        blocks.write_all_at(b"!", 17).unwrap();
        assert_eq!(verify(&owed).0.len(), 1, "a damaged block");
    }
}
