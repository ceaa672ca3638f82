//! Which followers get entries at once, and which a moment later.
//!
//! A commit needs the leader and half of the other voters. If all are sent every entry as it comes, the rest
//! does its work, a write and a sync per entry, for nothing that anybody waits for; on the other hand it can take several entries
//! in one write. So as long as all goes well the slowest followers that no majority needs are *spare*: they are sent entries
//! [`LINGER`] later, together with those that came meanwhile ("thrifty" operation: Moraru, Andersen, Kaminsky, *There Is More
//! Consensus in Egalitarian Parliaments*, SOSP 2013, section 6.2).
//!
//! What this changes: a spare lags by a few milliseconds, so after the leader's death it may have to let another member win. What
//! it does not change: what is committed, and on how many members before that.
//!
//! | state | entries for a spare, `LINGER` later | event → next state |
//! | --- | --- | --- |
//! | **all**: nobody is spare | | after [`ALL_FOR`], if enough followers answered lately → **thrifty** |
//! | **thrifty** | sent | still not on a majority by then → **all**. Another leadership → **all** |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::{Membership, Vote};

/// How much later a spare is sent entries. Longer than a commit takes, and nothing beside an election.
pub(crate) const LINGER: Duration = Duration::from_millis(2);
/// With more entries than this the follower lags already: it is sent them at once.
const ENTRIES_MAX: usize = 64;
/// After a follower was too slow: how long all are sent everything at once, and how recent an answer must be.
const ALL_FOR: Duration = Duration::from_secs(1);
/// Weight of the newest answer in a follower's usual time: one in so many.
const SMOOTHING: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Follower {
    matched: u64,
    answered_at: Instant,
    usual: Duration,
}

/// What the leader knows of its followers' speed.
#[derive(Debug)]
pub(crate) struct Thrift {
    node_id: u64,
    /// The leadership all this is about.
    vote: Option<Vote>,
    followers: BTreeMap<u64, Follower>,
    spares: Vec<u64>,
    /// When spares are chosen.
    choose_at: Option<Instant>,
}

impl Thrift {
    pub(crate) const fn new(node_id: u64) -> Self {
        Self { node_id, vote: None, followers: BTreeMap::new(), spares: Vec::new(), choose_at: None }
    }

    /// Whether `entries` entries for `target` are to wait for [`LINGER`].
    pub(crate) fn lingers(
        &mut self,
        vote: &Vote,
        membership: Option<&Membership>,
        target: u64,
        entries: usize,
        now: Instant,
    ) -> bool {
        if self.vote != Some(*vote) {
            *self = Self { vote: Some(*vote), ..Self::new(self.node_id) };
        }
        let choose_at = *self.choose_at.get_or_insert(now + ALL_FOR);
        let Some(membership) = membership.filter(|membership| membership.get_joint_config().len() == 1)
        else {
            self.spares.clear();
            return false;
        };
        if now >= choose_at && self.spares.is_empty() {
            self.choose(membership, now);
        }
        (1..=ENTRIES_MAX).contains(&entries)
            && self.spares.contains(&target)
            && membership.voter_ids().any(|voter| voter == target)
    }

    /// The slowest followers, but for as many as a majority needs.
    fn choose(&mut self, membership: &Membership, now: Instant) {
        let voters = membership.voter_ids().count();
        let lately = |follower: &Follower| now.saturating_duration_since(follower.answered_at) < ALL_FOR;
        let mut others: Vec<(bool, Duration, u64)> = membership
            .voter_ids()
            .filter(|voter| *voter != self.node_id)
            .map(|voter| match self.followers.get(&voter) {
                Some(follower) if lately(follower) => (false, follower.usual, voter),
                _ => (true, Duration::MAX, voter),
            })
            .collect();
        others.sort_unstable();
        let needed = voters / 2;
        if others.iter().take(needed).any(|(silent, ..)| *silent) {
            self.choose_at = Some(now + ALL_FOR);
            return;
        }
        self.spares = others.into_iter().skip(needed).map(|(.., voter)| voter).collect();
    }

    /// `target` holds everything up to `index`; it took `took`.
    pub(crate) fn answered(&mut self, vote: &Vote, target: u64, index: u64, took: Duration, now: Instant) {
        if self.vote != Some(*vote) {
            return;
        }
        let follower =
            self.followers.entry(target).or_insert(Follower { matched: 0, answered_at: now, usual: took });
        follower.matched = follower.matched.max(index);
        follower.answered_at = now;
        follower.usual = (follower.usual * (SMOOTHING - 1) + took) / SMOOTHING;
    }

    /// Entries up to `index` have waited. If the others do not make a majority with the leader yet, they are too slow
    /// now: for a while all followers are sent everything.
    pub(crate) fn lingered(&mut self, membership: Option<&Membership>, index: u64, now: Instant) {
        let needed = membership.map_or(0, |membership| membership.voter_ids().count() / 2);
        let holding = self.followers.values().filter(|follower| follower.matched >= index).count();
        if holding < needed {
            self.spares.clear();
            self.choose_at = Some(now + ALL_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn membership(voters: &[&[u64]]) -> Membership {
        Membership::new(voters.iter().map(|part| part.iter().copied().collect::<BTreeSet<_>>()).collect(), ())
    }

    struct Leader {
        thrift: Thrift,
        vote: Vote,
        membership: Membership,
        now: Instant,
        index: u64,
    }

    impl Leader {
        fn new(voters: &[u64]) -> Self {
            let now = Instant::now();
            let mut leader = Self {
                thrift: Thrift::new(1),
                vote: Vote::new_committed(3, 1),
                membership: membership(&[voters]),
                now,
                index: 10,
            };
            assert!(!leader.lingers(2));
            leader
        }

        fn lingers(&mut self, target: u64) -> bool {
            self.thrift.lingers(&self.vote, Some(&self.membership), target, 1, self.now)
        }

        fn answered(&mut self, target: u64, took: Duration) {
            self.thrift.answered(&self.vote, target, self.index, took, self.now);
        }

        /// All answer for a while.
        fn run(&mut self, times: &[(u64, Duration)]) {
            for _ in 0..100 {
                self.now += ALL_FOR / 50;
                self.index += 1;
                for &(target, took) in times {
                    self.answered(target, took);
                }
            }
        }
    }

    #[test]
    fn the_slowest_that_no_majority_needs_is_spare() {
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.run(&[(2, 3 * MS), (3, 2 * MS)]);
        assert!(leader.lingers(2) && !leader.lingers(3));
        let mut leader = Leader::new(&[1, 2, 3, 4, 5]);
        leader.run(&[(2, 5 * MS), (3, 2 * MS), (4, 4 * MS), (5, 3 * MS)]);
        assert_eq!([2, 3, 4, 5].map(|target| leader.lingers(target)), [true, false, true, false]);
    }

    #[test]
    fn nobody_is_spare_where_all_are_needed_or_the_configuration_changes() {
        let mut leader = Leader::new(&[1, 2]);
        leader.run(&[(2, MS)]);
        assert!(!leader.lingers(2));
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.run(&[(2, MS), (3, 2 * MS)]);
        assert!(leader.lingers(3));
        leader.membership = membership(&[&[1, 2, 3], &[1, 3, 4]]);
        assert!(!leader.lingers(3));
    }

    #[test]
    fn a_silent_follower_is_not_relied_on() {
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.run(&[(3, 2 * MS)]);
        assert!(!leader.lingers(3) && leader.lingers(2));
        leader.now += 2 * ALL_FOR;
        leader.thrift.lingered(Some(&leader.membership.clone()), leader.index + 1, leader.now);
        leader.now += 2 * ALL_FOR;
        assert!(!leader.lingers(2) && !leader.lingers(3), "nobody answered lately");
    }

    #[test]
    fn a_commit_that_does_not_come_ends_thrift_for_a_while() {
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.run(&[(2, MS), (3, 2 * MS)]);
        assert!(leader.lingers(3));
        let membership = leader.membership.clone();
        leader.thrift.lingered(Some(&membership), leader.index, leader.now);
        assert!(leader.lingers(3), "2 has it");
        leader.thrift.lingered(Some(&membership), leader.index + 1, leader.now);
        assert!(!leader.lingers(3));
        leader.run(&[(2, 40 * MS), (3, 2 * MS)]);
        assert!(leader.lingers(2) && !leader.lingers(3), "2 became the slower one");
    }

    #[test]
    fn another_leadership_begins_anew_and_a_follower_that_lags_does_not_wait() {
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.run(&[(2, MS), (3, 2 * MS)]);
        let many = ENTRIES_MAX + 1;
        assert!(!leader.thrift.lingers(&leader.vote, Some(&leader.membership), 3, many, leader.now));
        assert!(
            !leader.thrift.lingers(&leader.vote, Some(&leader.membership), 3, 0, leader.now),
            "a heartbeat"
        );
        leader.vote = Vote::new_committed(4, 1);
        assert!(!leader.lingers(3));
    }
}
