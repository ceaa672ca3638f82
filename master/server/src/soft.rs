//! What the leader knows and no log holds: who was heard when. Lost with the leader, made anew by the next.
//!
//! Invariant: a session or chunkserver is never called silent before it had a whole lease to speak to *this* leader.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use coord_types::{ServerId, SessionId};
use parking_lot::Mutex;

/// A chunkserver as its last heartbeat described it.
#[derive(Clone, Debug)]
pub(crate) struct ServerSeen {
    pub(crate) incarnation: u64,
    pub(crate) heard: Instant,
    pub(crate) disks: Vec<master_api::proto::Disk>,
}

#[derive(Debug, Default)]
struct Inner {
    /// When this master began to lead, if it does.
    leading_since: Option<Instant>,
    sessions: HashMap<SessionId, Instant>,
    servers: HashMap<ServerId, ServerSeen>,
}

/// Shared by the services and the background jobs. Held for look-ups only, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Soft {
    inner: Mutex<Inner>,
}

impl Soft {
    /// Leadership began (or ended): everybody gets a fresh lease.
    pub(crate) fn set_leading(&self, since: Option<Instant>) {
        *self.inner.lock() = Inner { leading_since: since, ..Inner::default() };
    }

    pub(crate) fn heard_session(&self, session: SessionId, now: Instant) {
        self.inner.lock().sessions.insert(session, now);
    }

    pub(crate) fn forget_session(&self, session: SessionId) {
        self.inner.lock().sessions.remove(&session);
    }

    /// How long `session` has been silent towards this leader; `None` if this master does not lead.
    pub(crate) fn session_silence(&self, session: SessionId, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.sessions.get(&session).copied().unwrap_or(since);
        Some(now.saturating_duration_since(heard))
    }

    pub(crate) fn heard_server(&self, server: ServerId, seen: ServerSeen) {
        self.inner.lock().servers.insert(server, seen);
    }

    pub(crate) fn server(&self, server: ServerId) -> Option<ServerSeen> {
        self.inner.lock().servers.get(&server).cloned()
    }

    /// How long `server` has been silent towards this leader.
    pub(crate) fn server_silence(&self, server: ServerId, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.leading_since?;
        let heard = inner.servers.get(&server).map_or(since, |seen| seen.heard);
        Some(now.saturating_duration_since(heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_gives_everybody_a_whole_lease() {
        let soft = Soft::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(soft.session_silence(SessionId(1), start), None);
        soft.set_leading(Some(start));
        soft.heard_session(SessionId(1), at(10));
        assert_eq!(soft.session_silence(SessionId(1), at(12)), Some(Duration::from_secs(2)));
        assert_eq!(soft.session_silence(SessionId(2), at(12)), Some(Duration::from_secs(12)));
        soft.set_leading(Some(at(20)));
        assert_eq!(soft.session_silence(SessionId(1), at(21)), Some(Duration::from_secs(1)));
        soft.set_leading(None);
        assert_eq!(soft.server_silence(ServerId(1), at(30)), None);
    }
}
