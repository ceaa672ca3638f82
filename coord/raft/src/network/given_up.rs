//! What this member was told of leaders that gave up; its requests for votes carry it.

use parking_lot::Mutex;

use crate::types::Vote;

/// The newest leadership that its leader gave up in favour of this member.
#[derive(Debug, Default)]
pub(crate) struct GivenUp(Mutex<Option<Vote>>);

impl GivenUp {
    /// The leader of `vote` told this member to stand in its place.
    pub(crate) fn note(&self, vote: Vote) {
        *self.0.lock() = Some(vote);
    }

    /// The leadership that was given up, if it came before a candidacy under `vote`. It stays true for ever, so it may
    /// be said in any later one.
    pub(crate) fn before(&self, vote: &Vote) -> Option<Vote> {
        self.0.lock().filter(|given_up| vote > given_up)
    }
}
