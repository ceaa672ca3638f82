//! How long a durable write takes on this disk: the mean over the time of the last seconds. Cheap: two numbers, and the few frames
//! under way. A sample counts for the time since the one before it: else a disk that did a thousand writes a second, and now does
//! five, would look fast for many seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A sample has half its weight after so long: a few heartbeats, so that a burst of a second does not look lasting.
const HALF_LIFE: Duration = Duration::from_secs(3);
/// A write that took longer counts for this: a process that was stopped for a while must not look slow for long.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// One write after a long while does not stand for all of it, and two at a time both count.
const WEIGHT_MAX: Duration = Duration::from_secs(1);
const WEIGHT_MIN: Duration = Duration::from_micros(10);
/// What is older says nothing of now.
const OLD: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Samples in seconds, weighted, and the weights; as of `noted`.
    sum_s: f64,
    weight: f64,
    noted: Option<Instant>,
    /// Writes under way, by number, and when they began. At most as many as the committer writes at a time.
    under_way: BTreeMap<u64, Instant>,
}

impl Latency {
    pub(crate) fn begin(&mut self, number: u64, now: Instant) {
        self.under_way.insert(number, now);
    }

    pub(crate) fn end(&mut self, number: u64, now: Instant) {
        let Some(began) = self.under_way.remove(&number) else { return };
        let elapsed = self.noted.map_or(WEIGHT_MAX, |noted| now.saturating_duration_since(noted));
        let kept = (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        let weight = elapsed.clamp(WEIGHT_MIN, WEIGHT_MAX).as_secs_f64();
        let took = now.saturating_duration_since(began).min(SAMPLE_MAX);
        self.sum_s = self.sum_s * kept + took.as_secs_f64() * weight;
        self.weight = self.weight * kept + weight;
        self.noted = Some(now);
    }

    /// The mean, or the age of the oldest write under way if that is more. `None`: nothing was written lately.
    pub(crate) fn estimate(&self, now: Instant) -> Option<Duration> {
        let age = |since: &Instant| now.saturating_duration_since(*since);
        let recent = self.noted.filter(|noted| age(noted) < OLD);
        let mean = recent.map(|_| Duration::from_secs_f64(self.sum_s / self.weight));
        mean.max(self.under_way.values().map(age).max())
    }

    /// How long nothing was written; `None`: something is being written.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        let idle = self.noted.map_or(Duration::MAX, |noted| now.saturating_duration_since(noted));
        Some(idle).filter(|_| self.under_way.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn write(latency: &mut Latency, began: Instant, takes: Duration) {
        latency.begin(7, began);
        latency.end(7, began + takes);
    }

    #[test]
    fn the_last_seconds_count() {
        let mut latency = Latency::default();
        let start = Instant::now();
        assert_eq!((latency.estimate(start), latency.idle(start)), (None, Some(Duration::MAX)));
        for at in 0..10 {
            write(&mut latency, start + at * SECOND, SECOND / 100);
        }
        let usual = latency.estimate(start + 10 * SECOND).unwrap();
        assert!((9..=11).contains(&usual.as_millis()), "{usual:?}");
        for at in 10..25 {
            write(&mut latency, start + at * SECOND, SECOND / 2);
        }
        let slow = latency.estimate(start + 25 * SECOND).unwrap();
        assert!((450..=500).contains(&slow.as_millis()), "{slow:?}");
        assert_eq!(latency.estimate(start + 60 * SECOND), None, "that was long ago");
    }

    #[test]
    fn few_slow_writes_outweigh_many_fast_ones_before() {
        let mut latency = Latency::default();
        let start = Instant::now();
        for at in 0..5000 {
            write(&mut latency, start + at * SECOND / 1000, SECOND / 1000);
        }
        for at in 0..15 {
            write(&mut latency, start + 5 * SECOND + at * SECOND / 5, SECOND / 5);
        }
        let slow = latency.estimate(start + 8 * SECOND).unwrap();
        assert!(slow > SECOND / 12, "{slow:?} after three seconds");
    }

    #[test]
    fn a_write_that_does_not_end_is_slow() {
        let mut latency = Latency::default();
        let start = Instant::now();
        write(&mut latency, start, SECOND / 100);
        latency.begin(8, start + SECOND);
        latency.begin(9, start + 2 * SECOND);
        assert_eq!(latency.idle(start + 5 * SECOND), None);
        assert_eq!(latency.estimate(start + 5 * SECOND), Some(4 * SECOND));
        assert_eq!(latency.estimate(start + 100 * SECOND), Some(99 * SECOND));
        latency.end(8, start + 101 * SECOND);
        latency.end(9, start + 101 * SECOND);
        assert_eq!(latency.idle(start + 103 * SECOND), Some(2 * SECOND));
        for at in 102..112 {
            write(&mut latency, start + at * SECOND, SECOND / 100);
        }
        let after = latency.estimate(start + 112 * SECOND).unwrap();
        assert!(after < SECOND / 20, "{after:?} after a stop of 100 s");
    }
}
