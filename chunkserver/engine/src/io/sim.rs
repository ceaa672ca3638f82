//! A disk model for tests: it reorders what is in flight, keeps unsynced writes only by luck, tears writes at
//! 512-byte sectors, fails on demand, and loses power, together with the metadata store, after a chosen number of
//! steps of one global order ([`Power`]).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use coord_kv::{Batch, Durability, Family, Kv, KvError, MemKv, Pair, Range, Read};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::IoError;
use crate::io::{Completer, Completion, FileId, Io, Op, WriteMode, io_error};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The power supply of a simulated machine: counts steps, goes off at a chosen one.
#[derive(Debug, Default)]
pub struct Power {
    inner: Mutex<PowerState>,
}

#[derive(Debug, Default)]
struct PowerState {
    steps: u64,
    off_at: Option<u64>,
    off: bool,
}

impl Power {
    /// Power that fails just before step `off_at`, if given.
    #[must_use]
    pub fn new(off_at: Option<u64>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(PowerState { steps: 0, off_at, off: false }) })
    }

    #[must_use]
    pub fn steps(&self) -> u64 {
        self.inner.lock().steps
    }

    #[must_use]
    pub fn is_off(&self) -> bool {
        self.inner.lock().off
    }

    /// Whether there is power for one more step.
    fn step(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.off_at == Some(inner.steps) {
            inner.off = true;
        }
        if inner.off {
            return false;
        }
        inner.steps += 1;
        true
    }
}

/// The medium: survives crashes; a [`SimDisk`] is one life of the machine with it.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    files: Arc<Mutex<BTreeMap<FileId, SimFile>>>,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    /// What reads see.
    current: Vec<u8>,
    /// What surely survives.
    durable: Vec<u8>,
    /// Sectors where the two may differ.
    dirty: BTreeSet<usize>,
}

impl Medium {
    /// A medium with an empty journal.
    #[must_use]
    pub fn new(journal_bytes: u64) -> Self {
        let medium = Self::default();
        medium.create(FileId::Journal, journal_bytes);
        medium
    }

    /// What is there already stays; it gets longer.
    fn create(&self, file: FileId, len_bytes: u64) {
        let len = usize::try_from(len_bytes).expect("simulated disks are small");
        let mut files = self.files.lock();
        let file = files.entry(file).or_default();
        file.durable.resize(len, 0);
        file.current.resize(len, 0);
    }

    /// The file is gone, as if somebody had removed it.
    pub fn lose(&self, file: FileId) {
        self.files.lock().remove(&file);
    }

    /// Flips a bit, as age or radiation would.
    pub fn flip(&self, file: FileId, bit: usize) {
        if let Some(file) = self.files.lock().get_mut(&file) {
            file.current[bit / 8] ^= 1 << (bit % 8);
            file.durable[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Bytes of a file as reads see them.
    #[must_use]
    pub fn contents(&self, file: FileId) -> Option<Vec<u8>> {
        self.files.lock().get(&file).map(|file| file.current.clone())
    }

    /// Cuts a file.
    pub fn truncate(&self, file: FileId, len: usize) {
        if let Some(file) = self.files.lock().get_mut(&file) {
            file.current.truncate(len);
            file.durable.truncate(len);
            file.dirty.retain(|sector| (sector + 1) * SECTOR <= len);
        }
    }
}

/// How a [`SimDisk`] misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Every operation from this one on (counted from 0) fails with EIO.
    pub eio_from: Option<u64>,
    /// No segment beyond this many can be made: the file system below is full.
    pub segments_max: Option<u32>,
    /// Reads of segments fail with EIO, writes do not: bad sectors.
    pub unreadable: bool,
    /// Writes to segments find no room: those below are sparse, and the file system is full.
    pub full: bool,
    /// Reads begun from now on take so many turns of the disk; others do not wait for them.
    pub read_turns: u32,
}

/// One life of a machine with a [`Medium`].
#[derive(Debug)]
pub struct SimDisk {
    shared: Arc<Shared>,
    driver: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    medium: Medium,
    power: Arc<Power>,
    queue: Mutex<Queue>,
    work: tokio::sync::Notify,
}

#[derive(Debug)]
struct Queue {
    waiting: Vec<Waiting>,
    rng: StdRng,
    faults: Faults,
    operations: u64,
}

#[derive(Debug)]
struct Waiting {
    file: FileId,
    offset_bytes: u64,
    kind: Kind,
    completer: Completer,
    /// Turns before it can be done.
    turns: u32,
}

#[derive(Debug)]
enum Kind {
    Op(Op),
    Create { len_bytes: u64 },
}

impl SimDisk {
    /// Starts the disk; what is in flight is done in an order drawn from `seed`, by a task of the current runtime.
    #[must_use]
    pub fn start(medium: &Medium, power: &Arc<Power>, seed: u64) -> Arc<Self> {
        let shared = Arc::new(Shared {
            medium: medium.clone(),
            power: power.clone(),
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                rng: StdRng::seed_from_u64(seed),
                faults: Faults::default(),
                operations: 0,
            }),
            work: tokio::sync::Notify::new(),
        });
        let driver = tokio::spawn(drive(shared.clone()));
        Arc::new(Self { shared, driver })
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared.queue.lock().faults = faults;
    }

    /// Operations begun so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.queue.lock().operations
    }

    /// The process dies, the machine goes on: writes in flight get as far as the disk's cache.
    pub fn kill(&self) {
        let mut queue = self.shared.queue.lock();
        let mut files = self.shared.medium.files.lock();
        for waiting in queue.waiting.drain(..) {
            if let (Kind::Op(Op::Write { data, .. }), Some(file)) =
                (&waiting.kind, files.get_mut(&waiting.file))
            {
                file.write(waiting.offset_bytes, data);
            }
        }
    }

    /// What the power cut leaves on the medium: of what was in flight or not synced, each sector by luck.
    pub fn crash(&self) {
        self.kill();
        let mut queue = self.shared.queue.lock();
        let mut files = self.shared.medium.files.lock();
        for file in files.values_mut() {
            let mode: u8 = queue.rng.random_range(0..4);
            for sector in std::mem::take(&mut file.dirty) {
                let survives = match mode {
                    0 => false,
                    1 => true,
                    _ => queue.rng.random(),
                };
                if survives {
                    file.settle(sector);
                }
            }
            file.current.clone_from(&file.durable);
        }
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    /// Does one of the waiting operations.
    fn run_one(&self) -> bool {
        let (waiting, result) = {
            let mut queue = self.queue.lock();
            if queue.waiting.is_empty() || self.power.is_off() {
                return false;
            }
            queue.waiting.iter_mut().for_each(|waiting| waiting.turns = waiting.turns.saturating_sub(1));
            let ready: Vec<_> = (0..queue.waiting.len()).filter(|at| queue.waiting[*at].turns == 0).collect();
            if ready.is_empty() {
                return true;
            }
            if !self.power.step() {
                return false;
            }
            let at = ready[queue.rng.random_range(0..ready.len())];
            let mut waiting = queue.waiting.swap_remove(at);
            let faults = queue.faults;
            let nth = queue.operations;
            queue.operations += 1;
            let result = if faults.eio_from.is_some_and(|from| nth >= from) {
                Err(io::Error::from_raw_os_error(libc::EIO))
            } else {
                self.run(&mut waiting, faults)
            };
            (waiting, result)
        };
        let Waiting { file, offset_bytes, kind, completer, .. } = waiting;
        let result = result.map_err(|error| match &kind {
            Kind::Op(op) => io_error(file, offset_bytes, op, error),
            Kind::Create { .. } => io_error(file, offset_bytes, &Op::Sync, error),
        });
        drop(kind);
        let _ = completer.send(result);
        true
    }

    fn run(&self, waiting: &mut Waiting, faults: Faults) -> io::Result<()> {
        if let Kind::Create { len_bytes } = waiting.kind {
            let FileId::Segment(index) = waiting.file else { return Err(io::ErrorKind::InvalidInput.into()) };
            if faults.segments_max.is_some_and(|max| index >= max) {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.medium.create(waiting.file, len_bytes);
            return Ok(());
        }
        let to_segment =
            matches!((&waiting.kind, waiting.file), (Kind::Op(Op::Write { .. }), FileId::Segment(_)));
        if faults.full && to_segment {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let from_segment =
            matches!((&waiting.kind, waiting.file), (Kind::Op(Op::Read(_)), FileId::Segment(_)));
        if faults.unreadable && from_segment {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut files = self.medium.files.lock();
        let file = files.get_mut(&waiting.file).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(waiting.offset_bytes).expect("simulated disks are small");
        match &mut waiting.kind {
            Kind::Op(Op::Read(target)) => {
                let into = target.as_mut_slice();
                let from = file.current.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(from);
            }
            Kind::Op(Op::Write { data, mode }) => {
                let aligned =
                    (data.as_ptr() as usize).is_multiple_of(4096) && data.len().is_multiple_of(4096);
                assert!(aligned, "an unaligned write");
                if start + data.len() > file.current.len() {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                file.write(waiting.offset_bytes, data);
                if *mode == WriteMode::Durable {
                    (start / SECTOR..(start + data.len()) / SECTOR).for_each(|sector| file.settle(sector));
                }
            }
            Kind::Op(Op::Sync) => {
                let dirty: Vec<_> = file.dirty.iter().copied().collect();
                dirty.into_iter().for_each(|sector| file.settle(sector));
            }
            Kind::Create { .. } => {}
        }
        Ok(())
    }
}

impl SimFile {
    fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        let start = usize::try_from(offset_bytes).expect("simulated disks are small");
        if let Some(into) = self.current.get_mut(start..start + data.len()) {
            into.copy_from_slice(data);
            self.dirty.extend(start / SECTOR..(start + data.len()) / SECTOR);
        }
    }

    fn settle(&mut self, sector: usize) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        self.durable[range.clone()].copy_from_slice(&self.current[range]);
        self.dirty.remove(&sector);
    }
}

/// Runs until the disk aborts it.
async fn drive(shared: Arc<Shared>) {
    loop {
        if !shared.run_one() {
            shared.work.notified().await;
        }
        // Others run between two operations, so that several may be in flight.
        tokio::task::yield_now().await;
    }
}

impl Io for SimDisk {
    fn submit(&self, file: FileId, offset_bytes: u64, op: Op) -> Completion {
        self.shared.queue_up(file, offset_bytes, Kind::Op(op))
    }

    fn create_segment(&self, index: u32, len_bytes: u64) -> Completion {
        self.shared.queue_up(FileId::Segment(index), 0, Kind::Create { len_bytes })
    }

    fn segments(&self) -> Vec<(u32, u64)> {
        let files = self.shared.medium.files.lock();
        files
            .iter()
            .filter_map(|(id, file)| match id {
                FileId::Segment(index) => Some((*index, file.current.len() as u64)),
                FileId::Journal => None,
            })
            .collect()
    }

    fn journal_len_bytes(&self) -> Result<u64, IoError> {
        let files = self.shared.medium.files.lock();
        Ok(files.get(&FileId::Journal).map_or(0, |file| file.current.len() as u64))
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

impl Shared {
    fn queue_up(&self, file: FileId, offset_bytes: u64, kind: Kind) -> Completion {
        let (completer, completion) = Completion::new();
        let mut queue = self.queue.lock();
        let turns = if matches!(kind, Kind::Op(Op::Read(_))) { queue.faults.read_turns } else { 0 };
        queue.waiting.push(Waiting { file, offset_bytes, kind, completer, turns });
        drop(queue);
        self.work.notify_one();
        completion
    }
}

/// A [`MemKv`] on the same power supply.
#[derive(Clone, Debug)]
pub struct SimKv {
    kv: Arc<MemKv>,
    power: Arc<Power>,
}

impl SimKv {
    #[must_use]
    pub fn new(kv: &Arc<MemKv>, power: &Arc<Power>) -> Self {
        Self { kv: kv.clone(), power: power.clone() }
    }

    fn step(&self, operation: &'static str) -> coord_kv::Result<()> {
        if self.power.step() {
            return Ok(());
        }
        Err(KvError::Io { operation, path: "simulation".into(), reason: "the power is off".into() })
    }
}

impl Read for SimKv {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.kv.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        self.kv.scan(family, range, limit)
    }
}

impl Kv for SimKv {
    fn write(&self, batch: Batch, durability: Durability) -> coord_kv::Result<()> {
        self.step("write")?;
        self.kv.write(batch, durability)
    }

    fn flush(&self) -> coord_kv::Result<()> {
        self.step("flush")?;
        self.kv.flush()
    }
}
