//! When a second member is asked although the first may still answer (J. Dean, L. A. Barroso, "The Tail at Scale", 2013).
//!
//! A read that takes longer than reads usually do is asked of another member, too, and whoever answers first is taken: one slow disk or
//! server among three then costs a reader milliseconds. A budget keeps it from becoming a load of its own when all are slow.

use std::time::Duration;

use parking_lot::Mutex;

/// The usual is the time that this share of reads does not take.
const QUANTILE: f64 = 0.95;
/// How far one read moves the estimate, as a share of it.
const STEP: f64 = 0.05;
/// What the estimate begins with, and its bounds: a page cache answers sooner than the lower one, and no healthy disk needs the upper.
const FIRST: Duration = Duration::from_millis(20);
const MIN: Duration = Duration::from_millis(2);
const MAX: Duration = Duration::from_secs(1);
/// One read in so many may be asked twice, and a burst of [`SAVED_MAX`] of them at once.
const READS_PER_HEDGE: u32 = 20;
const SAVED_MAX: u32 = 16;

/// What is usual among the reads of this client.
#[derive(Debug)]
pub(crate) struct Hedging(Mutex<State>);

#[derive(Debug)]
struct State {
    usual_s: f64,
    /// Reads that count towards further hedges.
    saved: u32,
}

impl Default for Hedging {
    fn default() -> Self {
        Self(Mutex::new(State { usual_s: FIRST.as_secs_f64(), saved: READS_PER_HEDGE * SAVED_MAX }))
    }
}

impl Hedging {
    /// A read begins. How long it may take before another member is asked.
    pub(crate) fn begin(&self) -> Duration {
        let mut state = self.0.lock();
        state.saved = (state.saved + 1).min(READS_PER_HEDGE * SAVED_MAX);
        Duration::from_secs_f64(state.usual_s)
    }

    /// A member answered after so long. (One that was overtaken counts with the time it had.)
    ///
    /// The estimate goes up by much for each read above it and down by little for each below, so that it rests where those are in
    /// balance: at the quantile.
    pub(crate) fn took(&self, time: Duration) {
        let mut state = self.0.lock();
        let factor = if time.as_secs_f64() > state.usual_s {
            1.0 + STEP * QUANTILE
        } else {
            1.0 - STEP * (1.0 - QUANTILE)
        };
        state.usual_s = (state.usual_s * factor).clamp(MIN.as_secs_f64(), MAX.as_secs_f64());
    }

    /// Whether another member may be asked now.
    pub(crate) fn take(&self) -> bool {
        let mut state = self.0.lock();
        let enough = state.saved >= READS_PER_HEDGE;
        if enough {
            state.saved -= READS_PER_HEDGE;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_is_what_few_reads_exceed() {
        let hedging = Hedging::default();
        // One to a hundred milliseconds, in an order that repeats after a hundred.
        for read in 0..20_000_u64 {
            hedging.took(Duration::from_millis(read * 37 % 100 + 1));
        }
        let usual = hedging.begin();
        assert!(usual > Duration::from_millis(85) && usual < Duration::from_millis(105), "{usual:?}");
        for _ in 0..20_000 {
            hedging.took(Duration::from_micros(100));
        }
        assert_eq!(hedging.begin(), MIN);
        for _ in 0..20_000 {
            hedging.took(Duration::from_secs(60));
        }
        assert_eq!(hedging.begin(), MAX);
    }

    #[test]
    fn one_read_in_twenty_is_asked_twice_and_a_burst() {
        let hedging = Hedging::default();
        let burst = (0..1000).filter(|_| hedging.take()).count();
        assert_eq!(burst as u32, SAVED_MAX);
        let mut taken = 0;
        for _ in 0..2000 {
            hedging.begin();
            taken += u32::from(hedging.take());
        }
        assert_eq!(taken, 2000 / READS_PER_HEDGE);
        for _ in 0..10_000 {
            hedging.begin();
        }
        assert_eq!((0..1000).filter(|_| hedging.take()).count() as u32, SAVED_MAX);
    }
}
