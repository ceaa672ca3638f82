//! The leader's lease: until when nobody else can have become leader.
//!
//! A member that answered an append request refuses to vote for another for the lease, counted from when it got the
//! request (openraft), also across a restart (the gate in [`crate::network::service`]). So if a quorum answered requests that
//! were *sent* after t, no other leader can be elected before t + lease: an electing quorum meets that quorum.
//! This member itself is of that quorum too, and may vote for another at any time: every vote it saves is told here
//! first, which ends the lease before anybody hears of the vote.
//!
//! A leader that stops gives up: [`Lease::give_up`] ends the lease for good, and only then is anybody told. Who proves by
//! the leader's own vote that it gave up may be voted for at once (docs/hand-over.md), and so may who saw that the leader's
//! process, and with it this lease, has ended (docs/dead-leader.md).
//!
//! Clocks: only this machine's monotonic clock is read here. The margin covers that clocks run at different rates
//! (1 in 100 at most) and that a read is answered a little after the lease was looked at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openraft::CommittedLeaderId;
use parking_lot::Mutex;

use crate::types::{Membership, Vote};

#[derive(Debug)]
pub(crate) struct Lease {
    node_id: u64,
    /// The members' promise, less the margin.
    duration: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    vote: Option<Vote>,
    /// Since when it is that.
    since: Option<Instant>,
    /// This member gave up what it leads under `vote`: it has no lease any more, whoever answers.
    given_up: bool,
    /// For each member: when the newest request was sent that it answered under `vote`.
    answered: BTreeMap<u64, Instant>,
}

impl Lease {
    /// `promise`: how long members refuse to vote after a request.
    pub(crate) fn new(node_id: u64, promise: Duration) -> Self {
        Self { node_id, duration: promise - promise / 6, inner: Mutex::default() }
    }

    /// This member's vote is about to change.
    pub(crate) fn vote_changed(&self, vote: Vote) {
        let mut inner = self.inner.lock();
        if inner.vote != Some(vote) {
            *inner = Inner { vote: Some(vote), since: Some(Instant::now()), ..Inner::default() };
        }
    }

    /// This member stops: it leads no more.
    pub(crate) fn end(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// This member gives its leadership up: from now on there is no lease under its vote. Gives that vote, if it leads.
    pub(crate) fn give_up(&self) -> Option<Vote> {
        let mut inner = self.inner.lock();
        inner.led(self.node_id)?;
        inner.given_up = true;
        inner.vote
    }

    /// Takes [`give_up`](Self::give_up) back: nobody knows of it, and nobody will.
    pub(crate) fn take_back(&self, vote: &Vote) {
        let mut inner = self.inner.lock();
        if inner.vote == Some(*vote) {
            inner.given_up = false;
        }
    }

    /// Whether this member gave up what it led under `vote`.
    pub(crate) fn has_given_up(&self, vote: &Vote) -> bool {
        let inner = self.inner.lock();
        inner.given_up && inner.vote == Some(*vote)
    }

    /// A member accepted a request this member sent under `vote`.
    pub(crate) fn answered(&self, vote: &Vote, member: u64, sent_at: Instant) {
        let mut inner = self.inner.lock();
        if inner.vote == Some(*vote) {
            let newest = inner.answered.entry(member).or_insert(sent_at);
            *newest = (*newest).max(sent_at);
        }
    }

    /// How long a member has been silent towards this one, if this one leads.
    pub(crate) fn silence(&self, member: u64, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        inner.led(self.node_id)?;
        if member == self.node_id {
            return Some(Duration::ZERO);
        }
        let heard = inner.answered.get(&member).copied().or(inner.since)?;
        Some(now.saturating_duration_since(heard))
    }

    /// The term (and node) this member leads in, if nobody else can lead at `now`.
    pub(crate) fn holder(&self, now: Instant, membership: &Membership) -> Option<CommittedLeaderId<u64>> {
        let inner = self.inner.lock();
        let leader = inner.led(self.node_id).filter(|_| !inner.given_up)?;
        let quorum = membership.get_joint_config().iter().all(|voters| {
            let fresh = |id: &&u64| {
                **id == self.node_id || inner.answered.get(id).is_some_and(|sent| now < *sent + self.duration)
            };
            voters.iter().filter(fresh).count() > voters.len() / 2
        });
        quorum.then_some(leader)
    }
}

impl Inner {
    fn led(&self, node_id: u64) -> Option<CommittedLeaderId<u64>> {
        self.vote
            .filter(|vote| vote.committed && vote.leader_id.node_id == node_id)
            .map(|vote| vote.leader_id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Lease {
        fn holds(&self, now: Instant, membership: &Membership) -> bool {
            self.holder(now, membership).is_some()
        }
    }

    const PROMISE: Duration = Duration::from_millis(600);

    fn members(configs: &[&[u64]]) -> Membership {
        let configs: Vec<BTreeSet<u64>> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
        Membership::new(configs, None)
    }

    #[test]
    fn a_quorum_of_fresh_answers_and_an_unchanged_vote_hold_it() {
        let three = members(&[&[1, 2, 3]]);
        let vote = Vote::new_committed(4, 1);
        let lease = Lease::new(1, PROMISE);
        let t = Instant::now();
        assert!(!lease.holds(t, &three));
        lease.vote_changed(vote);
        assert!(!lease.holds(t, &three), "nobody answered yet");
        lease.answered(&vote, 2, t);
        assert!(lease.holds(t + Duration::from_millis(499), &three));
        assert!(!lease.holds(t + Duration::from_millis(500), &three), "the margin");
        lease.answered(&vote, 3, t + Duration::from_millis(100));
        lease.answered(&vote, 3, t);
        assert!(lease.holds(t + Duration::from_millis(599), &three), "an older answer took something away");
        lease.vote_changed(vote);
        assert!(lease.holds(t, &three), "the same vote again changes nothing");
        lease.vote_changed(Vote::new(5, 2));
        assert!(!lease.holds(t, &three), "this member voted for another");
        lease.answered(&vote, 2, t);
        assert!(!lease.holds(t, &three), "a late answer to the old leader");
    }

    #[test]
    fn a_joint_configuration_needs_both_parts_and_a_sole_voter_nobody() {
        let vote = Vote::new_committed(1, 1);
        let lease = Lease::new(1, PROMISE);
        lease.vote_changed(vote);
        let t = Instant::now();
        assert!(lease.holds(t, &members(&[&[1]])));
        assert!(!lease.holds(t, &members(&[&[2]])), "no voter itself");
        let joint = members(&[&[1, 2, 3], &[3, 4, 5]]);
        lease.answered(&vote, 2, t);
        assert!(!lease.holds(t, &joint));
        lease.answered(&vote, 4, t);
        assert!(!lease.holds(t, &joint));
        lease.answered(&vote, 5, t);
        assert!(lease.holds(t, &joint));
    }

    #[test]
    fn what_was_given_up_is_never_held_again_under_the_same_vote() {
        let three = members(&[&[1, 2, 3]]);
        let vote = Vote::new_committed(4, 1);
        let lease = Lease::new(1, PROMISE);
        assert_eq!(lease.give_up(), None, "it leads nothing");
        lease.vote_changed(vote);
        let t = Instant::now();
        lease.answered(&vote, 2, t);
        assert!(lease.holds(t, &three) && !lease.has_given_up(&vote));
        assert_eq!(lease.give_up(), Some(vote));
        assert!(!lease.holds(t, &three) && lease.has_given_up(&vote));
        lease.answered(&vote, 3, t + PROMISE / 10);
        lease.vote_changed(vote);
        assert!(!lease.holds(t + PROMISE / 10, &three), "an answer, or the same vote again, brought it back");
        lease.take_back(&Vote::new_committed(3, 1));
        assert!(!lease.holds(t, &three), "it was another leadership that was taken back");
        lease.take_back(&vote);
        assert!(lease.holds(t, &three), "nobody was told");
        let later = Vote::new_committed(6, 1);
        lease.vote_changed(later);
        lease.answered(&later, 2, t);
        assert!(lease.holds(t, &three) && !lease.has_given_up(&later), "a leadership of its own");
    }

    #[test]
    fn a_candidate_holds_nothing() {
        let lease = Lease::new(1, PROMISE);
        lease.vote_changed(Vote::new(3, 1));
        assert!(!lease.holds(Instant::now(), &members(&[&[1]])));
        assert_eq!(lease.silence(2, Instant::now()), None, "nor does it hear the members");
    }

    #[test]
    fn silence_counts_from_the_last_answer_or_from_when_it_leads() {
        let vote = Vote::new_committed(4, 1);
        let lease = Lease::new(1, PROMISE);
        let before = Instant::now();
        lease.vote_changed(vote);
        let at = |seconds| before + Duration::from_secs(seconds);
        lease.answered(&vote, 2, at(7));
        assert_eq!(lease.silence(2, at(9)), Some(Duration::from_secs(2)));
        let never_heard = lease.silence(3, at(9)).unwrap();
        assert!(
            never_heard > Duration::from_secs(8) && never_heard <= Duration::from_secs(9),
            "{never_heard:?}"
        );
        assert_eq!(lease.silence(1, at(9)), Some(Duration::ZERO), "itself");
        lease.vote_changed(Vote::new_committed(5, 2));
        assert_eq!(lease.silence(2, at(9)), None, "another one leads");
    }
}
