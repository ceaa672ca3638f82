//! Writes of commands that are being applied, shown to later commands before they reach the store.

use std::ops::{Deref, DerefMut};

use coord_kv::{Batch, Family, Overlay, Pair, Range, Read, Result};
use coord_types::SessionId;

/// The [`Overlay`] that [`StateMachine::apply`](crate::StateMachine::apply) writes to, and what it asks of the table of
/// sessions.
///
/// All commands of one apply share one, and its writes reach the store as one batch with the applied index.
#[derive(Debug)]
pub struct Transaction<'a> {
    overlay: Overlay<'a>,
    sessions: Vec<SessionChange>,
}

/// A change of the session table a command asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionChange {
    Register(SessionId),
    Forget(SessionId),
}

impl<'a> Transaction<'a> {
    /// Nothing over `base`.
    #[must_use]
    pub fn new(base: &'a dyn Read) -> Self {
        Self { overlay: Overlay::new(base), sessions: Vec::new() }
    }

    /// From now on commands of this session are told apart by their sequence numbers. Registering a session that is
    /// registered already changes nothing.
    pub fn register_session(&mut self, session: SessionId) {
        self.sessions.push(SessionChange::Register(session));
    }

    /// Drops the session and its replies. Commands under it are refused from now on.
    pub fn forget_session(&mut self, session: SessionId) {
        self.sessions.push(SessionChange::Forget(session));
    }

    pub(crate) fn take_session_changes(&mut self) -> Vec<SessionChange> {
        std::mem::take(&mut self.sessions)
    }

    /// The writes as one batch.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.overlay.into_batch()
    }
}

impl<'a> Deref for Transaction<'a> {
    type Target = Overlay<'a>;

    fn deref(&self) -> &Overlay<'a> {
        &self.overlay
    }
}

impl<'a> DerefMut for Transaction<'a> {
    fn deref_mut(&mut self) -> &mut Overlay<'a> {
        &mut self.overlay
    }
}

impl Read for Transaction<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.overlay.get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> Result<Vec<Pair>> {
        self.overlay.scan(family, range, limit)
    }
}
