//! Programs at work at a steady pace: reads of the store that are compared, and synced writes that are remembered.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use deploy_e2e::{Content, first_difference};
use nix::libc::O_DIRECT;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::store::{FILE_BYTES, Store};

/// Of one operation.
const SIZE: usize = 64 << 10;
const BLOCK: usize = 4096;
/// From the start of one operation of a program to the start of its next, if that is not late.
const PERIOD: Duration = Duration::from_millis(20);
/// Of the file each program writes, in operations.
const PLACES: u64 = 512;

/// How long the operations took that ended since somebody asked.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) reads: Vec<Duration>,
    pub(crate) writes: Vec<Duration>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    times: Mutex<Times>,
}

/// The programs.
#[derive(Debug)]
pub(crate) struct Foreground {
    shared: Arc<Shared>,
    programs: Vec<JoinHandle<io::Result<Written>>>,
}

/// What one program wrote last, place by place; 0: nothing.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    seeds: Vec<u64>,
}

impl Foreground {
    pub(crate) fn start(folder: &Path, store: &Store, programs: u64) -> anyhow::Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        let shared = Arc::new(Shared::default());
        let start = |number: u64| {
            let (shared, store, path) =
                (shared.clone(), store.clone(), folder.join(format!("program{number}")));
            thread::spawn(move || work(&shared, &store, path, number))
        };
        Ok(Self { programs: (1..=programs).map(start).collect(), shared })
    }

    pub(crate) fn take_times(&self) -> Times {
        std::mem::take(&mut *self.shared.times.lock())
    }

    /// Fails when a program met an error: it ended with that.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.programs.iter().any(JoinHandle::is_finished), "a program ended with an error");
        Ok(())
    }

    /// Ends the programs; answers what is wrong and how many bytes are right.
    pub(crate) fn finish(self) -> (Vec<String>, u64) {
        self.shared.stop.store(true, Ordering::Release);
        let (mut wrong, mut right) = (Vec::new(), 0);
        for program in self.programs {
            match program.join().expect("it answers errors").and_then(|written| written.check()) {
                Ok(bytes) => right += bytes,
                Err(error) => wrong.push(error.to_string()),
            }
        }
        (wrong, right)
    }
}

fn work(shared: &Shared, store: &Store, path: PathBuf, number: u64) -> io::Result<Written> {
    let mut random = StdRng::seed_from_u64(number);
    let own = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let mut written = Written { path, seeds: vec![0; usize::try_from(PLACES).expect("few")] };
    // O_DIRECT wants the memory at a multiple of the block size, on file systems on a disk.
    let mut room = vec![0; SIZE + BLOCK];
    let start = room.as_ptr().align_offset(BLOCK);
    let buffer = &mut room[start..start + SIZE];
    let mut wanted = vec![0; SIZE];
    let mut due = Instant::now();
    for turn in 1.. {
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
        // As an open loop: who is late is not spared the next operation, but does not run after those it missed.
        due = (due + PERIOD).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if turn % 2 == 0 {
            let (path, content) = store.file(random.random_range(0..store.files()));
            let at = random.random_range(0..FILE_BYTES / SIZE as u64) * SIZE as u64;
            // Past the page cache: what the cluster does is timed.
            let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&path)?;
            let began = Instant::now();
            file.read_exact_at(buffer, at)?;
            shared.times.lock().reads.push(began.elapsed());
            content.fill(at, &mut wanted);
            if let Some(difference) = first_difference(buffer, &wanted) {
                return Err(io::Error::other(format!("{} from {at} on: {difference}", path.display())));
            }
        } else {
            let place = random.random_range(0..PLACES);
            let seed = number << 40 | turn;
            buffer.copy_from_slice(&Content::new(seed).bytes(SIZE));
            let began = Instant::now();
            own.write_all_at(buffer, place * SIZE as u64)?;
            own.sync_data()?;
            shared.times.lock().writes.push(began.elapsed());
            written.seeds[usize::try_from(place).expect("few")] = seed;
        }
    }
    Ok(written)
}

impl Written {
    /// The bytes that are right, if all are.
    fn check(&self) -> io::Result<u64> {
        let file = File::open(&self.path)?;
        let mut got = vec![0; SIZE];
        let mut right = 0;
        for (place, seed) in self.seeds.iter().enumerate().filter(|(_, seed)| **seed != 0) {
            file.read_exact_at(&mut got, (place * SIZE) as u64)?;
            if let Some(difference) = first_difference(&got, &Content::new(*seed).bytes(SIZE)) {
                let path = self.path.display();
                return Err(io::Error::other(format!("{path}, place {place}: {difference}")));
            }
            right += SIZE as u64;
        }
        Ok(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_and_write_and_notice() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::fill(folder.path().join("store"), 1).unwrap();
        let programs = Foreground::start(&folder.path().join("programs"), &store, 2).unwrap();
        let mut times = Times::default();
        while times.reads.is_empty() || times.writes.is_empty() {
            programs.check().unwrap();
            let more = programs.take_times();
            times.reads.extend(more.reads);
            times.writes.extend(more.writes);
        }
        let (wrong, right) = programs.finish();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(right >= SIZE as u64);

        let programs = Foreground::start(&folder.path().join("again"), &store, 1).unwrap();
        let (path, _) = store.file(0);
        File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        while programs.check().is_ok() {
            thread::yield_now();
        }
        assert_eq!(programs.finish().0.len(), 1);
    }
}
