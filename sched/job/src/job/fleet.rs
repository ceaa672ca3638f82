//! Workers that come, are taken over, say what they hold, and go.

use std::collections::{BTreeMap, BTreeSet};

use super::{Job, JobPhase, Place, finish::Gone};
use crate::effect::{Effect, EventKind};
use crate::event::{Finished, LossReason};
use crate::ids::{AttemptId, NodeName, PER_GENERATION, Time, UnitId, WorkerId};
use crate::record::Outputs;
use crate::stage::{Attempt, Phase};
use crate::worker::{Held, Worker};

/// Workers that are remembered to be no more, the newest: what is older the master has long heard of.
const GONE_MAX: usize = 16_384;

/// Whether what ran in a lost worker counts as lost once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// What ran may have been the reason.
    Counted,
    /// Somebody else was the reason.
    Uncounted,
}

impl Job {
    pub(super) fn granted(&mut self, now: Time, id: WorkerId, unit: UnitId, node: &NodeName) {
        if self.gone.contains(&id) {
            // It was lost or given back, and what it made was removed; the master has not heard of it yet.
            self.out.effect(Effect::Release { worker: id });
            return;
        }
        let node = self.name_of(node);
        self.workers.entry(id).or_insert_with(|| Worker::new(unit, node, now));
    }

    pub(super) fn join(&mut self, now: Time, id: WorkerId, unit: UnitId, node: &NodeName) {
        self.granted(now, id, unit, node);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.joined {
            return;
        }
        worker.joined = true;
        worker.since = now;
        let (unit, node) = (worker.unit, worker.node);
        self.nodes.use_node(node);
        *self.fleet.entry((unit, node)).or_default() += 1;
    }

    pub(super) fn grants_complete(&mut self, now: Time) {
        if let Some(adopting) = &mut self.adopting {
            adopting.grants_known = true;
        }
        self.end_adoption(now);
    }

    /// Ends the wait for former workers when nobody is missing, or it was long enough.
    pub(super) fn end_adoption(&mut self, now: Time) {
        let Some(adopting) = self.adopting else { return };
        let all_here = adopting.grants_known && self.workers.values().all(|worker| worker.joined);
        if all_here || now >= adopting.until {
            self.adopting = None;
            self.work_appeared = true;
            self.demand_changed = true;
        }
    }

    pub(super) fn adopt(
        &mut self,
        now: Time,
        id: WorkerId,
        unit: UnitId,
        node: &NodeName,
        running: &[AttemptId],
        finished: Vec<Finished>,
    ) {
        if self.knows(id) {
            for report in finished {
                self.finished(now, id, report);
            }
            self.holds(now, id, running);
            return;
        }
        self.join(now, id, unit, node);
        if !self.knows(id) {
            return;
        }
        let mut gangs: BTreeMap<(usize, u32, u32), u8> = BTreeMap::new();
        let mut order = Vec::new();
        for attempt in finished.iter().map(|report| report.attempt).chain(running.iter().copied()) {
            // What can not be of this job is answered by `finished`, or cancelled below.
            let Some(place) = self.place(attempt) else { continue };
            let key = (place.stage, place.instance, place.number);
            let members = gangs.entry(key).or_insert_with(|| {
                order.push(key);
                0
            });
            *members |= 1 << place.member;
        }
        for key in order {
            self.take_over(now, id, key, gangs[&key]);
        }
        for report in finished {
            self.finished(now, id, report);
        }
        for attempt in running {
            let held = self.place(*attempt).is_some_and(|place| self.is_held(id, place));
            if !held {
                self.out.effect(Effect::Cancel { worker: id, attempt: *attempt });
            }
        }
        self.end_adoption(now);
    }

    fn is_held(&self, id: WorkerId, place: Place) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.find(place.stage, place.instance, place.number).is_some())
    }

    /// Puts an attempt of a former job master into the worker's list, and to its instance if that still waits for one.
    fn take_over(&mut self, now: Time, id: WorkerId, key: (usize, u32, u32), members: u8) {
        let (at, instance, number) = key;
        let is_open = self.phase == JobPhase::Open;
        let generation = self.generation;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let stage = &mut self.stages[at];
        let node = worker.node;
        let is_first = worker.held.is_empty();
        worker.held.push_back(Held { stage: at, instance, number, left: members, cancelled: None });
        stage.hold(id);
        let outputs = Outputs::of_gang(stage.spec.members.len());
        // A number of this generation that we gave to nobody is a lie, and would be given again.
        let is_former = number / PER_GENERATION < generation;
        let is_wanted = is_open && is_former && members == stage.all_members();
        let waiting = stage
            .entry(instance)
            .filter(|live| is_wanted && matches!(live.phase, Phase::Due | Phase::Sleeping { .. }));
        let Some(live) = waiting else {
            // Done, run by another, or half a gang: the worker is to stop, and its reports are answered as a loser's.
            return self.cancel(now, id, Place { stage: at, member: 0, instance, number });
        };
        live.attempts.push(Attempt {
            number,
            worker: id,
            node,
            started: is_first.then_some(now),
            done_ppm: 0,
            ok: 0,
            outputs,
            bytes: 0,
            ran_ms: 0,
            is_backup: false,
        });
        if let Phase::Sleeping { until } = live.phase {
            self.sleeping.remove(&(until, at, instance));
        }
        stage.set_phase(instance, Phase::Running);
    }

    pub(super) fn holds(&mut self, now: Time, id: WorkerId, attempts: &[AttemptId]) {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.joined) else { return };
        let said: BTreeSet<AttemptId> = attempts.iter().copied().collect();
        let mut again = Vec::new();
        let mut answered = Vec::new();
        let mut known = BTreeSet::new();
        for held in &worker.held {
            for attempt in self.stages[held.stage].ids(held.instance, held.number, held.left) {
                if said.contains(&attempt) {
                    known.insert(attempt);
                } else if held.cancelled.is_some() {
                    answered.push(attempt);
                } else {
                    again.push(attempt);
                }
            }
        }
        for attempt in said.difference(&known) {
            self.out.effect(Effect::Cancel { worker: id, attempt: *attempt });
        }
        if !again.is_empty() {
            self.out.effect(Effect::Assign { worker: id, attempts: again });
        }
        for attempt in answered {
            // The assignment or the answer got lost: either way it does not run.
            let report =
                Finished { attempt, outcome: crate::Outcome::Cancelled, ran_ms: 0, message: String::new() };
            self.finished(now, id, report);
        }
    }

    pub(super) fn progress_of(&mut self, now: Time, id: WorkerId, attempt: AttemptId, done_ppm: Option<u32>) {
        let Some(place) = self.place(attempt) else { return };
        let Some(attempt) = self.stages[place.stage].attempt_mut(place.instance, place.number) else {
            return;
        };
        if attempt.worker == id {
            attempt.started.get_or_insert(now);
            attempt.done_ppm = attempt.done_ppm.max(done_ppm.unwrap_or(0).min(1_000_000));
        }
    }

    pub(super) fn lost(&mut self, now: Time, id: WorkerId, reason: &LossReason) {
        match reason {
            LossReason::Died(how) => self.lose(now, id, Loss::Counted, &format!("its worker ended ({how})")),
            LossReason::NodeLost => self.lose(now, id, Loss::Counted, "its node is out of reach"),
        }
    }

    /// The worker is no more, and nothing it says later counts: what it made is removed.
    pub(super) fn lose(&mut self, now: Time, id: WorkerId, loss: Loss, why: &str) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.hungry.remove(&id);
        self.gone.insert(id);
        if self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
        if worker.joined
            && let Some(count) = self.fleet.get_mut(&(worker.unit, worker.node))
        {
            *count -= 1;
            if *count == 0 {
                self.fleet.remove(&(worker.unit, worker.node));
            }
        }
        if loss == Loss::Counted {
            let node = self.nodes.name(worker.node);
            let text =
                format!("worker {} on {node} is lost: {why}; it had {} instances", id.0, worker.held.len());
            self.out.tell(now, EventKind::WorkerLost, text);
        }
        for (position, held) in worker.held.iter().enumerate() {
            let place = Place { stage: held.stage, member: 0, instance: held.instance, number: held.number };
            self.stages[held.stage].unhold(id);
            self.discard(place);
            // What had not begun can not have been the reason.
            let gone = if position == 0 && loss == Loss::Counted {
                let name = self.stage_name(held.stage);
                Gone::Lost {
                    text: crate::codec::cut(&format!("instance {} of {name}: {why}", held.instance)),
                }
            } else {
                Gone::Uncounted
            };
            self.gone(now, place, worker.node, gone);
        }
        self.demand_changed = true;
        self.end_adoption(now);
    }
}
