//! Makes room for a unit by stopping others: only where that makes it fit, and what is freed is kept for it.
//!
//! A look for victims goes through a bounded number of nodes; one that finds nothing is not repeated for the same kind
//! of request for a while, and the next one goes on where it stopped.

use crate::event::Reason;
use crate::ids::UnitKey;
use crate::lists::{Lane, Place};
use crate::node::ReservationKind;
use crate::reserve::SCAN_COST;
use crate::scheduler::Scheduler;
use crate::victims::{Plan, Seeker};
use crate::work::{Look, Timer};

/// Kinds of requests for which one tick looks for victims.
const KINDS_MAX: usize = 8;
/// Kinds among which those are looked for.
const KINDS_LOOKED_MAX: usize = 256;
/// Units of a kind that are asked whether they may preempt at all.
const HEADS_LOOKED_MAX: usize = 4;
/// Kinds of which the last look is remembered.
const ATTEMPTS_MAX: usize = 65_536;

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
        let resources = unit.resources;
        let has_right = self.queues.path(job.group).iter().any(|level| self.is_due(*level, &resources));
        let seeker = Seeker { key, group: job.group, priority: unit.priority, resources, has_right };
        (may && has_place).then_some((seeker, listed.lane()))
    }

    /// A cheap answer to most questions: nothing runs that is less important, and nothing is owed.
    fn might_preempt(&self, seeker: &Seeker) -> bool {
        let lower = self.by_priority.keys().next().is_some_and(|lowest| *lowest < seeker.priority);
        if !lower && !seeker.has_right {
            return false;
        }
        // Where a maximum is in the way, only what is less important in that very group can help.
        let blocked = self.queues.path(seeker.group).iter().find(|level| {
            let queue = self.queues.get(**level);
            let staying = queue.sum.used.minus(&queue.sum.dying).plus(&queue.sum.reserved);
            !staying.plus(&seeker.resources).fits_in(&queue.spec.max)
        });
        blocked.is_none_or(|level| {
            let lowest = self.queues.get(*level).by_priority.keys().next();
            lowest.is_some_and(|lowest| *lowest < seeker.priority)
        })
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

    /// Looks again for those that wait: grants, minima and calm change with time. A look goes through some kinds of
    /// requests, and the next one goes on behind them.
    pub(crate) fn preempt_waiting(&mut self) {
        self.preempt_armed = false;
        let mut seekers: Vec<UnitKey> = Vec::new();
        let after = self.preempt_cursor.take();
        let Some(lanes) = self.lists.lanes(Place::Cluster) else { return };
        let first = after.map(|(lane, _)| lane);
        let behind = lanes.iter().skip_while(|(lane, _)| first.is_some_and(|first| **lane < first));
        let kinds =
            behind.flat_map(|(lane, shapes)| shapes.iter().map(move |(shape, line)| (*lane, *shape, line)));
        let kinds = kinds.filter(|(lane, shape, _)| after.is_none_or(|after| (*lane, *shape) > after));
        for (lane, shape, line) in kinds.take(KINDS_LOOKED_MAX) {
            let keys = line.iter().take(HEADS_LOOKED_MAX).map(|(_, key)| *key);
            let might =
                |key: &UnitKey| self.seeker(*key).is_some_and(|(seeker, _)| self.might_preempt(&seeker));
            seekers.extend(keys.filter(might).take(1));
            self.preempt_cursor = Some((lane, shape));
            if seekers.len() == KINDS_MAX {
                break;
            }
        }
        for key in seekers {
            self.work.push(Look::Unit(key));
        }
        self.preempt_armed = true;
        self.timers.arm(self.now.after(self.config.preempt_retry_ms), Timer::Preempt);
    }
}
