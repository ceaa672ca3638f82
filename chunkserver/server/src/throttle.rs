//! How fast this server fills others: so many bytes a second for all groups together, so that clients keep their share of
//! disks and network.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What may be sent at once after a pause.
const BURST: Duration = Duration::from_millis(5);
/// Until the master says otherwise.
const RATE_DEFAULT: u64 = 100 << 20;
/// Below this nothing would ever be filled.
const RATE_MIN: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_s: AtomicU64,
    /// When all that was granted so far has been sent at that rate.
    free_at: Mutex<Option<Instant>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { bytes_per_s: AtomicU64::new(RATE_DEFAULT), free_at: Mutex::new(None) }
    }
}

impl Throttle {
    pub(crate) fn set(&self, bytes_per_s: u64) {
        if bytes_per_s > 0 {
            self.bytes_per_s.store(bytes_per_s.max(RATE_MIN), Ordering::Relaxed);
        }
    }

    /// Waits until so much may be sent.
    pub(crate) async fn take(&self, bytes: usize) {
        let now = Instant::now();
        let at = self.slot(bytes, now);
        if at > now {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// When to send, each after what was granted before.
    fn slot(&self, bytes: usize, now: Instant) -> Instant {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        let takes = Duration::from_nanos(
            u64::try_from(bytes as u128 * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        let mut free_at = self.free_at.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = free_at.map_or(earliest, |at| at.max(earliest));
        *free_at = Some(begin + takes);
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_lends_a_little_after_a_pause() {
        let throttle = Throttle::default();
        throttle.set(10 << 20);
        let start = Instant::now() + Duration::from_secs(1);
        let ms = |at: Instant| at.saturating_duration_since(start).as_millis();
        let slots: Vec<_> = (0..4).map(|_| ms(throttle.slot(1 << 20, start))).collect();
        assert_eq!(slots, [0, 95, 195, 295], "100 ms each, the first on credit");
        let later = start + Duration::from_secs(9);
        assert!(throttle.slot(1, later) <= later);
    }
}
