//! What happens to an operation that waits long: its caller may be let go, and what must never hang is answered
//! from memory.
//!
//! The kernel does not wait for ever in an interruptible way: once a request was read from `/dev/fuse`, its caller
//! sleeps until we answer. So every operation that waits stands in a [`Table`], and a thread looks at the old ones
//! four times a second.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fs_client::{Errno, OpResult};
use parking_lot::{Condvar, Mutex};

use crate::last_known::{LastKnown, Question};
use crate::signals::{self, Wanted};

/// How often the table is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Younger operations are not worth a look at their caller: two reads of /proc.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Operations watched at once. Beyond it (each is a thread that sleeps in the kernel) they run unwatched.
const WATCHED_MAX: usize = 1 << 16;

/// What to do with an operation that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nobody waits for it, or it must happen: closing a handle, forgetting an inode.
    Endless,
    /// Give up, with EINTR, if the caller wants to be let go.
    UntilSignal,
    /// Give up, with EINTR, if any signal waits for the caller.
    UntilAnySignal,
    /// Like that, and after a while say what was known last.
    Recall(Question),
}

/// Who asked for an operation and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) pid: u32,
    pub(crate) patience: Patience,
}

/// An operation that waits.
pub(crate) trait Waiting: Send + Sync + fmt::Debug {
    /// Drops the operation and answers `result` in its place. `false` if it was answered already.
    fn give_up(&self, result: OpResult) -> bool;
}

/// An operation's place in the table.
#[derive(Debug)]
pub(crate) struct Ticket(usize);

#[derive(Debug)]
struct Entry {
    given: Given,
    since: Instant,
    waiting: Arc<dyn Waiting>,
}

#[derive(Debug, Default)]
struct Places {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    warned: bool,
}

/// All operations that wait.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Never held while an operation is answered or dropped.
    places: Mutex<Places>,
}

impl Table {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Puts an operation in; `None` if the table is full.
    pub(crate) fn enter(&self, given: Given, waiting: Arc<dyn Waiting>) -> Option<Ticket> {
        let entry = Entry { given, since: Instant::now(), waiting };
        let mut places = self.places.lock();
        if let Some(place) = places.free.pop() {
            places.entries[place] = Some(entry);
            return Some(Ticket(place));
        }
        if places.entries.len() >= WATCHED_MAX {
            if !places.warned {
                places.warned = true;
                tracing::warn!(
                    WATCHED_MAX,
                    "more operations wait than are watched; signals will not reach the rest"
                );
            }
            return None;
        }
        places.entries.push(Some(entry));
        Some(Ticket(places.entries.len() - 1))
    }

    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut places = self.places.lock();
        let entry = places.entries[ticket.0].take();
        places.free.push(ticket.0);
        drop(places);
        drop(entry);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.lock().entries.iter().flatten().count()
    }

    /// The operations that have waited at least `age`.
    fn older_than(&self, age: Duration, now: Instant) -> Vec<(Given, Duration, Arc<dyn Waiting>)> {
        let places = self.places.lock();
        places
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.given.patience != Patience::Endless)
            .map(|entry| {
                (entry.given, now.saturating_duration_since(entry.since), Arc::clone(&entry.waiting))
            })
            .filter(|(_, waited, _)| *waited >= age)
            .collect()
    }

    /// Drops everything that waits: the mount is gone, nobody hears the answers.
    pub(crate) fn give_up_all(&self, errno: Errno) {
        let all: Vec<_> =
            self.places.lock().entries.iter().flatten().map(|entry| Arc::clone(&entry.waiting)).collect();
        for waiting in all {
            waiting.give_up(Err(errno));
        }
    }

    /// One look at the table.
    fn look(&self, now: Instant, known: &LastKnown, wants_out: impl Fn(u32, Wanted) -> bool) {
        let mut verdicts: HashMap<(u32, Wanted), bool> = HashMap::new();
        for (given, waited, waiting) in self.older_than(LOOK_AFTER.min(known.patience()), now) {
            if let Patience::Recall(question) = given.patience
                && waited >= known.patience()
            {
                if waiting.give_up(Ok(known.answer(question))) {
                    // After the answer went through, which counts as a sign of life otherwise.
                    known.fell_silent();
                    tracing::debug!(?question, "no server answered; said what was known last");
                }
                continue;
            }
            if waited < LOOK_AFTER {
                continue;
            }
            let wanted = match given.patience {
                Patience::UntilAnySignal => Wanted::Any,
                Patience::Endless | Patience::UntilSignal | Patience::Recall(_) => Wanted::AsksToEnd,
            };
            if *verdicts.entry((given.pid, wanted)).or_insert_with(|| wants_out(given.pid, wanted))
                && waiting.give_up(Err(Errno::EINTR))
            {
                tracing::info!(pid = given.pid, ?waited, "let a process go that waited and was interrupted");
            }
        }
    }
}

/// Looks at a table until dropped. A thread of its own: it reads /proc, and must work when the runtime does not.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn start(table: Arc<Table>, known: Arc<LastKnown>) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("mount-watch".into()).spawn(move || {
            let (stopped, changed) = &*told;
            let mut stopped = stopped.lock();
            while !*stopped {
                changed.wait_for(&mut stopped, TICK);
                parking_lot::MutexGuard::unlocked(&mut stopped, || {
                    table.look(Instant::now(), &known, signals::wants_out);
                });
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches waiting operations panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use fs_client::OpReply;

    use super::*;

    #[derive(Debug, Default)]
    struct Double(Mutex<Option<OpResult>>);

    impl Waiting for Double {
        fn give_up(&self, result: OpResult) -> bool {
            self.0.lock().get_or_insert(result);
            true
        }
    }

    impl Double {
        fn enter(table: &Table, pid: u32, patience: Patience) -> Arc<Self> {
            let double = Arc::new(Self::default());
            table.enter(Given { pid, patience }, Arc::clone(&double) as Arc<dyn Waiting>).unwrap();
            double
        }

        fn said(&self) -> Option<String> {
            self.0.lock().as_ref().map(|result| match result {
                Ok(OpReply::StatFs(_)) => "statfs".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(errno) => errno.to_string(),
            })
        }
    }

    #[test]
    fn lets_go_whoever_wants_out_and_only_those() {
        let table = Table::new();
        let known = LastKnown::default();
        let (leaver, stayer) = (7, 8);
        let wants_out = |pid, _: Wanted| pid == leaver;
        let a = Double::enter(&table, leaver, Patience::UntilSignal);
        let b = Double::enter(&table, stayer, Patience::UntilSignal);
        let c = Double::enter(&table, leaver, Patience::Endless);
        let d = Double::enter(&table, stayer, Patience::Recall(Question::StatFs));
        let begin = Instant::now();

        table.look(begin, &known, wants_out);
        assert_eq!(a.said(), None, "too young for a look");
        table.look(begin + Duration::from_millis(600), &known, wants_out);
        assert_eq!(a.said().as_deref(), Some("EINTR"));
        assert_eq!((b.said(), c.said(), d.said()), (None, None, None));
        table.look(begin + Duration::from_millis(1100), &known, wants_out);
        assert_eq!(d.said().as_deref(), Some("statfs"));
        assert_eq!((b.said(), c.said()), (None, None));
    }

    #[test]
    fn places_are_used_again() {
        let table = Table::new();
        let given = Given { pid: 1, patience: Patience::Endless };
        let tickets: Vec<_> =
            (0..10).map(|_| table.enter(given, Arc::new(Double::default())).unwrap()).collect();
        assert_eq!(table.len(), 10);
        for ticket in tickets {
            table.leave(ticket);
        }
        assert_eq!(table.len(), 0);
        for _ in 0..10 {
            table.enter(given, Arc::new(Double::default())).unwrap();
        }
        assert_eq!(table.places.lock().entries.len(), 10);
    }
}
