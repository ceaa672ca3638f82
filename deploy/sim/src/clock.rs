//! Virtual time. One number of microseconds drives everything; each process has monotonic and wall clocks of its own that are
//! derived from it and do not run alike.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Microseconds since the run began.
pub(crate) type Micros = u64;

pub(crate) const MS: Micros = 1000;
pub(crate) const SECOND: Micros = 1000 * MS;

/// A process's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Only differences of instants count: where they begin has no effect on a run.
    origin: Instant,
    /// Millionths by which it runs fast (or slow).
    drift_ppm: i64,
    /// How far the wall clock is off.
    pub(crate) wall_offset_us: i64,
}

/// Wall clocks begin in November 2023.
const EPOCH_US: i64 = 1_700_000_000_000_000;

impl Clock {
    pub(crate) const fn new(origin: Instant, drift_ppm: i64) -> Self {
        Self { origin, drift_ppm, wall_offset_us: 0 }
    }

    /// By this process's monotonic clock.
    pub(crate) fn instant(&self, now: Micros) -> Instant {
        self.origin + Duration::from_micros(self.elapsed(now))
    }

    fn elapsed(&self, now: Micros) -> Micros {
        let drift = i64::try_from(now).expect("a run is short") * self.drift_ppm / 1_000_000;
        now.saturating_add_signed(drift)
    }

    /// By this process's wall clock.
    pub(crate) fn wall_nanos(&self, now: Micros) -> u64 {
        let us = EPOCH_US + self.wall_offset_us + i64::try_from(self.elapsed(now)).expect("a run is short");
        us.unsigned_abs() * 1000
    }
}

/// What the clients' futures sleep by.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    now: Micros,
    next: u64,
    waiting: BTreeMap<(Micros, u64), Waker>,
}

impl Sleepers {
    pub(crate) fn now(&self) -> Micros {
        self.inner.lock().now
    }

    /// When somebody is to be woken next.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.inner.lock().waiting.keys().next().map(|(at, _)| *at)
    }

    /// Time is `now`: wakes everybody whose time has come.
    pub(crate) fn advance(&self, now: Micros) {
        let mut inner = self.inner.lock();
        inner.now = now;
        while let Some(entry) = inner.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            entry.remove().wake();
        }
    }

    pub(crate) fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4);
        Sleep { sleepers: self.clone(), until: self.now() + micros, place: None }
    }
}

/// A pause of a client's future.
#[derive(Debug)]
pub(crate) struct Sleep {
    sleepers: Arc<Sleepers>,
    until: Micros,
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleepers = self.sleepers.clone();
        let mut inner = sleepers.inner.lock();
        if inner.now >= self.until {
            return Poll::Ready(());
        }
        let place = *self.place.get_or_insert_with(|| {
            inner.next += 1;
            inner.next
        });
        inner.waiting.insert((self.until, place), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.sleepers.inner.lock().waiting.remove(&(self.until, place));
        }
    }
}
