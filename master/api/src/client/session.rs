//! Numbers a session's mutations, so that the master applies each exactly once.
//!
//! Invariants: a sequence is used for one mutation only, whatever happens to it; `acknowledged_below` never passes
//! a mutation that may still be retried.

use std::collections::BTreeSet;
use std::sync::Arc;

use coord_types::SessionId;
use parking_lot::Mutex;

/// The session as the client sees it.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    current: Option<SessionId>,
    next_sequence: u64,
    /// Sequences whose callers still wait.
    outstanding: BTreeSet<u64>,
}

/// One mutation's number. While it lives, the master keeps the reply.
#[derive(Debug)]
pub(super) struct Ticket {
    sessions: Arc<Sessions>,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
    pub(super) acknowledged_below: u64,
}

impl Sessions {
    pub(super) fn current(&self) -> Option<SessionId> {
        self.inner.lock().current
    }

    /// A session was opened; its numbers begin at 1. Returns the one before it.
    pub(super) fn opened(&self, session: SessionId) -> Option<SessionId> {
        let mut inner = self.inner.lock();
        inner.next_sequence = 1;
        inner.outstanding.clear();
        inner.current.replace(session)
    }

    /// The master no longer knows `session`. True if it was the current one.
    pub(super) fn lost(&self, session: SessionId) -> bool {
        let mut inner = self.inner.lock();
        let was_current = inner.current == Some(session);
        if was_current {
            inner.current = None;
        }
        was_current
    }

    /// The next number; `None` without a session.
    pub(super) fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        let session = inner.current?;
        let sequence = inner.next_sequence;
        inner.next_sequence += 1;
        inner.outstanding.insert(sequence);
        let acknowledged_below = inner.outstanding.first().copied().unwrap_or(sequence);
        Some(Ticket { sessions: Arc::clone(self), session, sequence, acknowledged_below })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.sessions.inner.lock();
        if inner.current == Some(self.session) {
            inner.outstanding.remove(&self.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledges_only_what_nobody_waits_for() {
        let sessions = Arc::new(Sessions::default());
        assert!(sessions.ticket().is_none());
        sessions.opened(SessionId(1));
        let first = sessions.ticket().unwrap();
        let second = sessions.ticket().unwrap();
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!((first.acknowledged_below, second.acknowledged_below), (1, 1));
        drop(first);
        assert_eq!(sessions.ticket().unwrap().acknowledged_below, 2);
        drop(second);
        assert_eq!(sessions.ticket().unwrap().acknowledged_below, 4);
    }

    #[test]
    fn a_ticket_of_a_lost_session_disturbs_no_other() {
        let sessions = Arc::new(Sessions::default());
        sessions.opened(SessionId(1));
        let old = sessions.ticket().unwrap();
        assert!(sessions.lost(SessionId(1)));
        assert!(!sessions.lost(SessionId(1)));
        sessions.opened(SessionId(2));
        let new = sessions.ticket().unwrap();
        assert_eq!((new.session, new.sequence), (SessionId(2), old.sequence));
        drop(old);
        assert_eq!(sessions.ticket().unwrap().acknowledged_below, new.sequence);
    }
}
