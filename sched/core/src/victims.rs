//! Whom to stop on one node so that a unit fits: the fewest, then the least important, then the least work lost.
//!
//! A pure question about one node: nothing is changed here. Who may be taken:
//! - what has a lower priority;
//! - also at equal or higher priority, what another quota group uses above its minimum, if the seeker's group is below
//!   its own, both seen just below their last common ancestor in the quota tree.
//!
//! In either case a group, and every group above it up to that ancestor, keeps its minimum, whoever asks: so what was
//! taken by right cannot be taken back by right, and nothing swings.

use std::cmp::Reverse;

use crate::ids::{GrantId, Group, Millis, Priority, Slot, UnitKey};
use crate::job::Grant;
use crate::resources::Resources;
use crate::scheduler::Scheduler;

/// Grants on one node that are considered; a node runs some tens.
const CANDIDATES_MAX: usize = 256;

/// Who needs room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeker {
    pub(crate) key: UnitKey,
    pub(crate) group: Group,
    pub(crate) priority: Priority,
    pub(crate) resources: Resources,
    /// A group above it, or its own, is below its minimum, so that more than priority speaks for it.
    pub(crate) has_right: bool,
}

/// What making room on a node costs; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    pub(crate) victims: usize,
    pub(crate) priority: Option<Priority>,
    lost_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) slot: Slot,
    pub(crate) victims: Vec<GrantId>,
    pub(crate) cost: Cost,
}

/// A grant that may be taken, and from which level of its path on minima protect it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: GrantId,
    group: Group,
    protected_from: usize,
    resources: Resources,
    priority: Priority,
    since: Millis,
}

impl Scheduler {
    pub(crate) fn plan_on(&self, seeker: &Seeker, slot: Slot) -> Option<Plan> {
        let node = self.nodes.get(slot)?;
        if !node.is_usable() || !seeker.resources.fits_in(&node.capacity) || self.avoids(seeker.key.0, slot) {
            return None;
        }
        let room = node.coming();
        let lower = node.by_priority.range(..seeker.priority).map(|(_, sum)| sum);
        let bound = lower.fold(room, |sum, more| sum.plus(more));
        if !seeker.has_right && !seeker.resources.fits_in(&bound) {
            return None;
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut possible = room;
        for id in node.grants.iter().take(CANDIDATES_MAX) {
            let Some(candidate) = self.grants.get(id).and_then(|grant| self.candidate(seeker, *id, grant))
            else {
                continue;
            };
            possible = possible.plus(&candidate.resources);
            candidates.push(candidate);
        }
        if !seeker.resources.fits_in(&possible) {
            return None;
        }
        let least = |candidate: &Candidate| (candidate.priority, Reverse((candidate.since, candidate.id)));
        candidates.sort_by_key(least);
        let by_importance = self.choose(seeker, &room, &candidates);
        candidates.sort_by_key(|candidate| {
            (Reverse(candidate.resources.share_of(&seeker.resources).min(1_000_000)), least(candidate))
        });
        let by_size = self.choose(seeker, &room, &candidates);
        let plans = by_importance.into_iter().chain(by_size).map(|victims| self.priced(slot, &victims));
        plans.min_by_key(|plan| plan.cost)
    }

    fn candidate(&self, seeker: &Seeker, id: GrantId, grant: &Grant) -> Option<Candidate> {
        let group = grant.group.filter(|_| grant.dying.is_none())?;
        let (own, other) = (self.queues.path(seeker.group), self.queues.path(group));
        let common = own.iter().zip(other).take_while(|(a, b)| a == b).count();
        let by_priority = grant.priority < seeker.priority;
        let by_right = seeker.has_right
            && group != seeker.group
            && own.get(common).is_some_and(|level| self.is_due(*level, &seeker.resources));
        (by_priority || by_right).then_some(Candidate {
            id,
            group,
            protected_from: common,
            resources: grant.resources,
            priority: grant.priority,
            since: grant.since,
        })
    }

    /// One more would still be within the group's minimum.
    pub(crate) fn is_due(&self, level: Group, resources: &Resources) -> bool {
        let queue = self.queues.get(level);
        queue.sum.used.plus(&queue.sum.reserved).within_named(resources, &queue.floor)
    }

    /// Takes candidates in their order until the seeker fits, then gives back those that turned out unnecessary, the
    /// most important first.
    fn choose(&self, seeker: &Seeker, room: &Resources, candidates: &[Candidate]) -> Option<Vec<Candidate>> {
        let mut chosen: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if self.suffices(seeker, room, &chosen) {
                break;
            }
            if self.is_protected(candidate, &chosen) {
                continue;
            }
            chosen.push(*candidate);
        }
        if !self.suffices(seeker, room, &chosen) {
            return None;
        }
        let mut important_first = chosen.clone();
        important_first.sort_by_key(|candidate| (Reverse(candidate.priority), candidate.since, candidate.id));
        for spared in important_first {
            let without: Vec<Candidate> =
                chosen.iter().copied().filter(|candidate| candidate.id != spared.id).collect();
            if self.suffices(seeker, room, &without) {
                chosen = without;
            }
        }
        Some(chosen)
    }

    /// The seeker fits on the node and into the maxima when these have gone.
    fn suffices(&self, seeker: &Seeker, room: &Resources, chosen: &[Candidate]) -> bool {
        let freed = chosen.iter().fold(*room, |sum, candidate| sum.plus(&candidate.resources));
        seeker.resources.fits_in(&freed)
            && self.queues.path(seeker.group).iter().all(|level| {
                let queue = self.queues.get(*level);
                let staying = queue.sum.used.minus(&queue.sum.dying).minus(&self.taken_from(*level, chosen));
                staying.plus(&queue.sum.reserved).plus(&seeker.resources).fits_in(&queue.spec.max)
            })
    }

    fn taken_from(&self, level: Group, chosen: &[Candidate]) -> Resources {
        let of_level = chosen.iter().filter(|candidate| self.queues.path(candidate.group).contains(&level));
        of_level.fold(Resources::ZERO, |sum, candidate| sum.plus(&candidate.resources))
    }

    fn is_protected(&self, candidate: &Candidate, chosen: &[Candidate]) -> bool {
        self.queues.path(candidate.group).iter().skip(candidate.protected_from).any(|level| {
            let queue = self.queues.get(*level);
            let staying = queue.sum.used.minus(&queue.sum.dying).minus(&self.taken_from(*level, chosen));
            !staying.keeps(&candidate.resources, &queue.floor)
        })
    }

    fn priced(&self, slot: Slot, victims: &[Candidate]) -> Plan {
        let cost = Cost {
            victims: victims.len(),
            priority: victims.iter().map(|victim| victim.priority).max(),
            lost_ms: victims.iter().map(|victim| self.now.since(victim.since)).sum(),
        };
        Plan { slot, victims: victims.iter().map(|victim| victim.id).collect(), cost }
    }
}
