//! The session as the client sees it.

use std::sync::Arc;

use coord_types::SessionId;
use kuafu::replicated::Sequences;
use parking_lot::Mutex;

/// Which session is open, and the numbers of its mutations.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    inner: Mutex<Option<(SessionId, Arc<Sequences>)>>,
}

/// One mutation's number. While it lives, the master keeps the reply.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) session: SessionId,
    pub(super) number: kuafu::replicated::Ticket,
}

impl Sessions {
    pub(super) fn current(&self) -> Option<SessionId> {
        self.inner.lock().as_ref().map(|(session, _)| *session)
    }

    /// A session was opened. Returns the one before it.
    pub(super) fn opened(&self, session: SessionId) -> Option<SessionId> {
        self.inner.lock().replace((session, Arc::default())).map(|(session, _)| session)
    }

    /// The master no longer knows `session`. True if it was the current one.
    pub(super) fn lost(&self, session: SessionId) -> bool {
        self.inner.lock().take_if(|(current, _)| *current == session).is_some()
    }

    /// The next number; `None` without a session.
    pub(super) async fn ticket(&self) -> Option<Ticket> {
        let (session, sequences) = self.inner.lock().clone()?;
        let number = sequences.next().await;
        Some(Ticket { session, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_session_has_its_own_numbers() {
        let sessions = Sessions::default();
        assert!(sessions.ticket().await.is_none());
        sessions.opened(SessionId(1));
        let old = sessions.ticket().await.unwrap();
        assert_eq!(sessions.ticket().await.unwrap().number.sequence, 2);
        assert!(sessions.lost(SessionId(1)));
        assert!(!sessions.lost(SessionId(1)));
        sessions.opened(SessionId(2));
        let new = sessions.ticket().await.unwrap();
        assert_eq!((new.session, new.number.sequence), (SessionId(2), old.number.sequence));
        drop(old);
        assert_eq!(sessions.ticket().await.unwrap().number.acknowledged_below, new.number.sequence);
    }
}
