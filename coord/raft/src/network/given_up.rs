//! Leaders of which this member knows that they lead no more: they gave up, or their process ended. Its requests for votes carry it.

use parking_lot::Mutex;

use crate::types::Vote;

/// The newest leadership that its leader gave up in favour of this member, or that ended with its leader's process.
#[derive(Debug, Default)]
pub(crate) struct GivenUp(Mutex<Option<Vote>>);

impl GivenUp {
    /// The leader of `vote` told this member to stand in its place, or has ended.
    pub(crate) fn note(&self, vote: Vote) {
        let mut newest = self.0.lock();
        if newest.is_none_or(|newest| vote > newest) {
            *newest = Some(vote);
        }
    }

    /// The leadership that is over, if it came before a candidacy under `vote`. It stays true for ever, so it may
    /// be said in any later one.
    pub(crate) fn before(&self, vote: &Vote) -> Option<Vote> {
        self.0.lock().filter(|given_up| vote > given_up)
    }

    /// Whether the leadership of `vote`, or a later one, is over: then no promise made under it binds any more.
    pub(crate) fn covers(&self, vote: &Vote) -> bool {
        self.0.lock().is_some_and(|given_up| given_up.leader_id >= vote.leader_id)
    }
}
