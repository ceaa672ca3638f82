//! Until when sessions live: known to the leader only, and in memory only (`docs/service.md`, "Sessions").
//!
//! Invariants: no session is due before it had its whole time towards *this* leader, counted from when it began to lead, or
//! from when the session last spoke. Once it is taken to be ended nothing extends it any more, whatever becomes of the
//! command: one that timed out may still be committed, after its client was told that the session is open.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[derive(Clone, Copy, Debug)]
enum Lease {
    /// Open; until then, if it does not speak.
    Lives { ttl: Duration, until: Instant },
    /// Somebody is at ending it.
    Ending,
    /// It is to be ended, and nobody is at it: from then on it is due.
    ToEnd { from: Instant },
}

impl Lease {
    fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::Lives { until: due, .. } | Self::ToEnd { from: due } => *due <= now,
            Self::Ending => false,
        }
    }
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

    /// The session is there, and gets its full time from now, unless more is known of it already.
    pub(crate) fn opened(&self, session: u64, ttl_ms: u32) {
        let ttl = Duration::from_millis(ttl_ms.into());
        if let Some(leases) = self.inner.lock().as_mut() {
            leases.entry(session).or_insert_with(|| Lease::Lives { ttl, until: Instant::now() + ttl });
        }
    }

    /// The session is over, but not all that it owns is gone: it is due now, whatever time it had.
    pub(crate) fn over(&self, session: u64) {
        if let Some(leases) = self.inner.lock().as_mut() {
            let now = Lease::ToEnd { from: Instant::now() };
            let lease = leases.entry(session).or_insert(now);
            if matches!(lease, Lease::Lives { .. }) {
                *lease = now;
            }
        }
    }

    /// The session is gone.
    pub(crate) fn ended(&self, session: u64) {
        if let Some(leases) = self.inner.lock().as_mut() {
            leases.remove(&session);
        }
    }

    /// Whoever was at ending it does not know what came of it: it is due once more then.
    pub(crate) fn not_ended(&self, session: u64, from: Instant) {
        let mut inner = self.inner.lock();
        let lease = inner.as_mut().and_then(|leases| leases.get_mut(&session));
        // A leadership that began meanwhile has given it its full time, or is at it by itself.
        if let Some(lease @ Lease::Ending) = lease {
            *lease = Lease::ToEnd { from };
        }
    }

    /// The session spoke. How long it lives from now on, if it is open and this member leads.
    pub(crate) fn heard(&self, session: u64) -> Option<Duration> {
        let mut inner = self.inner.lock();
        match inner.as_mut()?.get_mut(&session)? {
            Lease::Lives { ttl, until } => {
                *until = Instant::now() + *ttl;
                Some(*ttl)
            }
            Lease::Ending | Lease::ToEnd { .. } => None,
        }
    }

    /// Whether it is open, and nobody is about to end it.
    pub(crate) fn lives(&self, session: u64) -> bool {
        let inner = self.inner.lock();
        let lease = inner.as_ref().and_then(|leases| leases.get(&session));
        matches!(lease, Some(Lease::Lives { .. }))
    }

    /// At most `max` sessions whose time is over. Whoever takes them ends them, and says what came of it:
    /// [`ended`](Self::ended) or [`not_ended`](Self::not_ended).
    pub(crate) fn take_due(&self, now: Instant, max: usize) -> Vec<u64> {
        let mut inner = self.inner.lock();
        let leases = inner.iter_mut().flatten();
        let due = leases.filter(|(_, lease)| lease.is_due(now)).take(max).map(|(session, lease)| {
            *lease = Lease::Ending;
            *session
        });
        due.collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().as_ref().map_or(0, HashMap::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 9;

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
        assert!(leases.take_due(opened, MAX).is_empty());
        assert_eq!(leases.take_due(Instant::now() + Duration::from_secs(1), MAX), [1]);
        leases.ended(1);
        assert_eq!(leases.heard(1), None);
        assert_eq!(leases.take_due(Instant::now() + Duration::from_secs(5), MAX), [2]);
        leases.end();
        leases.begin();
        assert_eq!(leases.len(), 0);
    }

    /// Sessions whose time was over were listed, then ended one after another. One that spoke meanwhile was told that it is open,
    /// for its full time, and then ended.
    #[test]
    fn what_is_being_ended_does_not_live_again() {
        let leases = Leases::default();
        leases.begin();
        leases.opened(1, 1000);
        let due = Instant::now() + Duration::from_secs(1);
        assert_eq!(leases.take_due(due, 0), [0; 0]);
        assert!(leases.lives(1), "there is no room to end it yet");
        assert_eq!(leases.take_due(due, MAX), [1]);
        let is_over = |leases: &Leases| !leases.lives(1) && leases.heard(1).is_none();
        assert!(is_over(&leases));
        assert!(leases.take_due(due + Duration::from_secs(99), MAX).is_empty(), "one is at it");
        // The command may have timed out, and be committed later.
        leases.not_ended(1, due);
        leases.opened(1, 1000);
        assert!(is_over(&leases));
        assert!(leases.take_due(due - Duration::from_millis(1), MAX).is_empty(), "not at once");
        assert_eq!(leases.take_due(due, MAX), [1]);
        leases.ended(1);
        leases.not_ended(1, due);
        assert_eq!(leases.len(), 0);
    }

    /// It was forgotten when its first command was applied, and if no other followed it kept the rest of its files and locks.
    #[test]
    fn what_is_over_and_owns_more_is_due_at_once() {
        let leases = Leases::default();
        leases.over(1);
        leases.begin();
        leases.opened(1, 60_000);
        // One that this leader has not read from the store yet, too.
        for session in [1, 2] {
            leases.over(session);
            assert_eq!(leases.heard(session), None);
            assert_eq!(leases.take_due(Instant::now(), MAX), [session]);
            leases.over(session);
            assert!(leases.take_due(Instant::now(), MAX).is_empty(), "one is at it");
        }
    }

    #[test]
    fn a_new_leadership_gives_what_an_older_one_was_ending_its_full_time() {
        let leases = Leases::default();
        leases.begin();
        leases.opened(1, 1000);
        assert_eq!(leases.take_due(Instant::now() + Duration::from_secs(1), MAX), [1]);
        leases.end();
        leases.begin();
        leases.opened(1, 1000);
        leases.not_ended(1, Instant::now());
        assert!(leases.lives(1));
        assert!(leases.take_due(Instant::now(), MAX).is_empty());
    }
}
