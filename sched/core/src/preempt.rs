//! Makes room for a unit by stopping others: only where that makes it fit, and what is freed is kept for it.
//!
//! A look for victims goes through a bounded number of nodes; one that finds nothing is not repeated for the same kind
//! of request for a while, and the next one goes on where it stopped.

use std::cmp::Reverse;

use crate::event::Reason;
use crate::ids::{Millis, UnitKey};
use crate::lists::{Lane, Place};
use crate::node::ReservationKind;
use crate::place::HEADS_MAX;
use crate::reserve::SCAN_COST;
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::victims::{Plan, Seeker};
use crate::work::{Look, Timer};

/// Kinds of requests for which one tick looks for victims.
const KINDS_MAX: usize = 8;
/// Kinds of which the last look is remembered.
const ATTEMPTS_MAX: usize = 4_096;

impl Scheduler {
    /// Makes room for one of `key`, if somebody may be stopped for it.
    pub(crate) fn preempt(&mut self, key: UnitKey) {
        let Some((seeker, lane)) = self.seeker(key) else { return };
        let recent = self.attempts.get(&(lane, seeker.resources));
        let is_recent = recent.is_some_and(|at| self.now.since(*at) < self.config.preempt_retry_ms);
        if is_recent || !self.might_preempt(&seeker) {
            return;
        }
        self.budget = self.budget.saturating_sub(SCAN_COST);
        match self.best_plan(&seeker) {
            Some(plan) => self.commit(&seeker, &plan),
            None => {
                if self.attempts.len() >= ATTEMPTS_MAX {
                    self.attempts.clear();
                }
                self.attempts.insert((lane, seeker.resources), self.now);
            }
        }
    }

    fn seeker(&self, key: UnitKey) -> Option<(Seeker, Lane)> {
        let unit = self.units.get(&key)?;
        let job = self.jobs.get(&key.0)?;
        let listed = unit.listed?;
        // What waits for places it prefers has other hopes, and what was preempted itself starts no cascade.
        let may = unit.loose as usize > unit.reservations.len() && job.calm_until <= self.now;
        let has_place = self.kept.len() < self.config.reservations_max;
        let seeker = Seeker { key, group: job.group, priority: unit.priority, resources: unit.resources };
        (may && has_place).then_some((seeker, listed.lane()))
    }

    /// A cheap answer to most questions: nothing runs that is less important, and nothing is owed.
    fn might_preempt(&self, seeker: &Seeker) -> bool {
        let lower = self.by_priority.keys().next().is_some_and(|lowest| *lowest < seeker.priority);
        lower || self.queues.is_owed(seeker.group)
    }

    fn best_plan(&mut self, seeker: &Seeker) -> Option<Plan> {
        let lowest = self.by_priority.keys().next().copied();
        let mut best: Option<Plan> = None;
        for slot in self.scan() {
            let Some(plan) = self.plan_on(seeker, slot) else { continue };
            if best.as_ref().is_none_or(|best| plan.cost < best.cost) {
                best = Some(plan);
            }
            // One victim of the lowest priority there is: others could only have lost a little less work.
            if best.as_ref().is_some_and(|best| best.cost.victims <= 1 && best.cost.priority <= lowest)
                && self.nodes.slots_len() > self.config.scan_nodes_max
            {
                break;
            }
        }
        best
    }

    fn commit(&mut self, seeker: &Seeker, plan: &Plan) {
        let by = seeker.key.0;
        let calm_until = self.now.after(self.config.preempt_calm_ms);
        for victim in &plan.victims {
            let job = self.grants.get(victim).map(|grant| grant.job);
            if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
                job.calm_until = calm_until;
            }
            self.revoke(*victim, Reason::Preempted { by });
        }
        self.reserve(seeker.key, plan.slot, ReservationKind::Preempted);
        // It may need more than one.
        self.work.push(Look::Unit(seeker.key));
    }

    /// Looks again for those that wait: grants, minima and calm change with time. The kinds that were looked at
    /// longest ago come first.
    pub(crate) fn preempt_waiting(&mut self) {
        self.preempt_armed = false;
        let Some(lanes) = self.lists.lanes(Place::Cluster) else { return };
        let mut kinds: Vec<(Millis, Lane, Resources)> = Vec::new();
        for (lane, shapes) in lanes {
            for shape in shapes.keys() {
                let last = self.attempts.get(&(*lane, *shape)).copied().unwrap_or_default();
                kinds.push((last, *lane, *shape));
            }
        }
        kinds.sort_by_key(|(last, lane, shape)| (*last, *lane, Reverse(*shape)));
        let mut looked = 0;
        for (_, lane, shape) in kinds {
            if looked == KINDS_MAX {
                break;
            }
            let line = self.lists.lanes(Place::Cluster).and_then(|lanes| lanes.get(&lane)?.get(&shape));
            let heads = line.into_iter().flatten().take(HEADS_MAX);
            let seeker = heads
                .map(|(_, key)| *key)
                .find(|key| self.seeker(*key).is_some_and(|(seeker, _)| self.might_preempt(&seeker)));
            if let Some(key) = seeker {
                looked += 1;
                self.work.push(Look::Unit(key));
            }
        }
        self.preempt_armed = true;
        self.timers.arm(self.now.after(self.config.preempt_retry_ms), Timer::Preempt);
    }
}
