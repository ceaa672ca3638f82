//! What all workers share: the clock, when to work, what went wrong, what took long.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Serialize;

/// Operations that take longer are remembered one by one, to be laid beside the faults.
const SLOW: Duration = Duration::from_millis(50);
/// And at most so many: past that the run has shown what it can.
const REMEMBERED_MAX: usize = 200_000;
/// A new arena after so many operations: short histories are searched fast.
const ARENA_OPERATIONS: usize = 1500;
/// Pauses between the operations of a worker are shorter.
const PAUSE_MAX_MS: u64 = 25;

/// The mounts, and which worker works on which.
#[derive(Debug, Clone)]
pub(crate) struct Mounts {
    points: Vec<PathBuf>,
    /// Of each: how long its kernel believes what it was told of names, and a little for its clock.
    belief_ns: Vec<u64>,
}

impl Mounts {
    pub(crate) fn new(mounts: Vec<(PathBuf, Duration)>) -> Self {
        let nanoseconds = |ttl: Duration| u64::try_from(ttl.mul_f64(1.1).as_nanos()).unwrap_or(u64::MAX);
        let (points, belief_ns) = mounts.into_iter().map(|(point, ttl)| (point, nanoseconds(ttl))).unzip();
        Self { points, belief_ns }
    }

    pub(crate) fn belief_ns(&self, worker: usize) -> u64 {
        self.belief_ns[self.index(worker)]
    }

    pub(crate) fn index(&self, worker: usize) -> usize {
        worker % self.points.len()
    }

    pub(crate) fn of(&self, worker: usize) -> &Path {
        &self.points[self.index(worker)]
    }

    pub(crate) fn all(&self) -> &[PathBuf] {
        &self.points
    }
}

/// From when to when, since the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    pub(crate) called_ns: u64,
    pub(crate) returned_ns: u64,
}

impl Span {
    pub(crate) const fn new(called_ns: u64, returned_ns: u64) -> Self {
        Self { called_ns, returned_ns }
    }

    /// They share a moment.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.called_ns <= other.returned_ns && other.called_ns <= self.returned_ns
    }

    pub(crate) fn took(self) -> Duration {
        Duration::from_nanos(self.returned_ns.saturating_sub(self.called_ns))
    }
}

/// An error that an application was told.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) span: Span,
    pub(crate) what: String,
    /// The disk is full.
    pub(crate) no_space: bool,
}

impl Met {
    pub(crate) fn new(span: Span, what: &str, error: &io::Error) -> Self {
        let no_space = error.kind() == io::ErrorKind::StorageFull;
        Self { span, what: format!("{what}: {error}"), no_space }
    }
}

#[derive(Debug)]
pub(crate) struct Crew {
    began: Instant,
    /// Held by every operation; taken as a whole while there are no mounts.
    gate: RwLock<()>,
    over: AtomicBool,
    numbers: AtomicU64,
    arena: AtomicUsize,
    entered: AtomicUsize,
    done: AtomicU64,
    under_way: Mutex<BTreeMap<u64, u64>>,
    slow: Mutex<Vec<Span>>,
    met: Mutex<Vec<Met>>,
    wrong: Mutex<Vec<String>>,
}

impl Crew {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            gate: RwLock::new(()),
            over: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            arena: AtomicUsize::new(0),
            entered: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            under_way: Mutex::new(BTreeMap::new()),
            slow: Mutex::new(Vec::new()),
            met: Mutex::new(Vec::new()),
            wrong: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.ns(Instant::now())
    }

    pub(crate) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// A number nobody had before.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Operations that came to an end.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The arena to work in now.
    pub(crate) fn enter_arena(&self) -> usize {
        self.entered.fetch_add(1, Ordering::Relaxed);
        self.arena.load(Ordering::Acquire)
    }

    /// The arena has seen enough.
    pub(crate) fn arena_is_full(&self) -> bool {
        self.entered.load(Ordering::Relaxed) >= ARENA_OPERATIONS
    }

    pub(crate) fn open_arena(&self, arena: usize) {
        self.arena.store(arena, Ordering::Release);
        self.entered.store(0, Ordering::Relaxed);
    }

    /// Does one operation and takes its time. An error is one that an application was told.
    pub(crate) fn attempt<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T>,
    ) -> (Span, io::Result<T>) {
        let _mounted = self.gate.read();
        let begun = self.begin();
        let done = work();
        let span = self.finish(begun);
        if let Err(error) = &done {
            self.met(Met::new(span, what, error));
        }
        (span, done)
    }

    /// Waits for one operation that needs no mount, and takes its time.
    pub(crate) async fn timed<T>(&self, work: impl Future<Output = T>) -> (Span, T) {
        let begun = self.begin();
        let done = work.await;
        (self.finish(begun), done)
    }

    fn begin(&self) -> (u64, u64) {
        let (id, called_ns) = (self.number(), self.now_ns());
        self.under_way.lock().insert(id, called_ns);
        (id, called_ns)
    }

    fn finish(&self, (id, called_ns): (u64, u64)) -> Span {
        let span = Span { called_ns, returned_ns: self.now_ns() };
        self.under_way.lock().remove(&id);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.note(span);
        span
    }

    /// Lets nobody begin an operation, and waits until none is under way.
    pub(crate) fn hold(&self, within: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        self.gate.try_write_for(within)
    }

    /// A short pause of a random length.
    pub(crate) fn breathe(&self, dice: &mut StdRng) {
        std::thread::sleep(Duration::from_millis(dice.random_range(0..PAUSE_MAX_MS)));
    }

    /// Takes note of an operation's time.
    pub(crate) fn note(&self, span: Span) {
        let mut slow = self.slow.lock();
        if span.took() > SLOW && slow.len() < REMEMBERED_MAX {
            slow.push(span);
        }
    }

    pub(crate) fn met(&self, met: Met) {
        let mut all = self.met.lock();
        if all.len() < REMEMBERED_MAX {
            all.push(met);
        }
    }

    /// Something was read that was never written, or is older than what was confirmed.
    pub(crate) fn wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.wrong.lock().push(what);
    }

    pub(crate) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock())
    }

    pub(crate) fn all_met(&self) -> Vec<Met> {
        self.met.lock().clone()
    }

    /// The longest that an operation took which has a moment with this span in common; those under way included.
    pub(crate) fn longest(&self, span: Span) -> Duration {
        let now = self.now_ns();
        let waiting: Vec<Span> =
            self.under_way.lock().values().map(|at| Span { called_ns: *at, returned_ns: now }).collect();
        let slow = self.slow.lock();
        let all = slow.iter().chain(&waiting).filter(|one| one.meets(span));
        all.map(|one| one.took()).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_lie_beside_faults_and_errors_are_kept() {
        let crew = Crew::new();
        crew.note(Span { called_ns: 1_000_000_000, returned_ns: 3_000_000_000 });
        crew.note(Span { called_ns: 4_000_000_000, returned_ns: 4_000_000_100 });
        let fault = |called_ns, returned_ns| crew.longest(Span { called_ns, returned_ns });
        assert_eq!(fault(2_000_000_000, 2_500_000_000), Duration::from_secs(2));
        assert_eq!(fault(3_000_000_001, 5_000_000_000), Duration::ZERO);
        let (_, failed) = crew.attempt("try", || Err::<(), _>(io::Error::from_raw_os_error(libc::ENOSPC)));
        failed.unwrap_err();
        let met = crew.all_met();
        assert!(met.len() == 1 && met[0].no_space && met[0].what.starts_with("try: "), "{met:?}");
    }

    #[test]
    fn while_it_is_held_nobody_works() {
        let crew = Crew::new();
        std::thread::scope(|scope| {
            let held = crew.hold(Duration::from_secs(1)).unwrap();
            let worker = scope.spawn(|| crew.attempt("work", || Ok(())).1);
            assert_eq!(crew.done(), 0);
            drop(held);
            worker.join().unwrap().unwrap();
            assert_eq!(crew.done(), 1);
        });
    }
}
