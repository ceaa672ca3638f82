//! Until when sessions live: known to the leader only, and in memory only (`docs/service.md`, "Sessions").
//!
//! Invariant: no session is due before it had its whole time towards *this* leader, counted from when it began to lead, or
//! from when the session last spoke.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// See the module. Bounded by the sessions there are.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// `None`: this member does not lead.
    inner: Mutex<Option<HashMap<u64, Lease>>>,
}

impl Leases {
    /// Leadership begins: from now on sessions that are opened are kept. Those that were open are [added](Self::opened) then.
    pub(crate) fn begin(&self) {
        *self.inner.lock() = Some(HashMap::new());
    }

    /// Leadership is over.
    pub(crate) fn end(&self) {
        *self.inner.lock() = None;
    }

    /// The session is there, and gets its full time from now.
    pub(crate) fn opened(&self, session: u64, ttl_ms: u32) {
        let ttl = Duration::from_millis(ttl_ms.into());
        if let Some(leases) = self.inner.lock().as_mut() {
            leases.insert(session, Lease { ttl, ends: Instant::now() + ttl });
        }
    }

    pub(crate) fn ended(&self, session: u64) {
        if let Some(leases) = self.inner.lock().as_mut() {
            leases.remove(&session);
        }
    }

    /// The session spoke. How long it lives from now on, if it is there and this member leads.
    pub(crate) fn heard(&self, session: u64) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let lease = inner.as_mut()?.get_mut(&session)?;
        lease.ends = Instant::now() + lease.ttl;
        Some(lease.ttl)
    }

    /// Sessions whose time is over.
    pub(crate) fn due(&self, now: Instant) -> Vec<u64> {
        let inner = self.inner.lock();
        let leases = inner.iter().flatten();
        leases.filter(|(_, lease)| lease.ends <= now).map(|(session, _)| *session).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().as_ref().map_or(0, HashMap::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_its_whole_time_from_when_it_last_spoke() {
        let leases = Leases::default();
        leases.opened(1, 1000);
        assert_eq!((leases.heard(1), leases.len()), (None, 0), "it does not lead");
        leases.begin();
        leases.opened(1, 1000);
        leases.opened(2, 5000);
        let opened = Instant::now();
        assert_eq!(leases.heard(1), Some(Duration::from_secs(1)));
        assert!(leases.due(opened).is_empty());
        assert_eq!(leases.due(Instant::now() + Duration::from_secs(1)), [1]);
        leases.ended(1);
        assert_eq!(leases.heard(1), None);
        assert_eq!(leases.due(Instant::now() + Duration::from_secs(5)), [2]);
        leases.end();
        leases.begin();
        assert_eq!(leases.len(), 0);
    }
}
