//! A server's lease: the right to answer reads (I4), which is the master's promise that no epoch is activated without this
//! server meanwhile. `chunkserver/docs/replication.md`, "Lease", has the argument. Time comes in with each call.

use std::time::{Duration, Instant};

/// A server's lease, for all its disks. By its own monotonic clock.
#[derive(Debug, Default)]
pub struct Lease {
    until: Option<Instant>,
    /// The server stops and has said so: never again.
    ended: bool,
}

impl Lease {
    /// The master granted it in answer to a heartbeat sent at `sent`; the table of that answer must be in use.
    pub fn extend(&mut self, sent: Instant, lease: Duration) {
        self.until = self.until.max(Some(sent + lease));
    }

    /// The master wants it back. Whether there was one.
    pub const fn call_back(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// The server will not answer reads any more.
    pub const fn end(&mut self) {
        *self = Self { until: None, ended: true };
    }

    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        !self.ended && self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_sending_and_never_shrinks() {
        let mut lease = Lease::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!lease.holds(start));
        lease.extend(at(100), Duration::from_millis(300));
        assert!(lease.holds(at(399)) && !lease.holds(at(400)));
        lease.extend(at(50), Duration::from_millis(300));
        assert!(lease.holds(at(399)), "an older answer came late");
        assert!(lease.call_back() && !lease.holds(at(200)) && !lease.call_back());
        lease.extend(at(300), Duration::from_millis(300));
        assert!(lease.holds(at(400)), "granted anew");
        lease.end();
        lease.extend(at(500), Duration::from_millis(300));
        assert!(!lease.holds(at(501)), "a server that stops does not begin again");
    }
}
