//! What time alone brings: waits that are over, workers that never came or do nothing, attempts that outlived their timeout.

use super::{Job, JobPhase, Place, finish::Gone, fleet::Loss, want};
use crate::effect::{Effect, EventKind};
use crate::ids::{Time, WorkerId};
use crate::record::Cause;
use crate::stage::Phase;

impl Job {
    pub(super) fn tick(&mut self, now: Time) {
        self.end_adoption(now);
        self.wake(now);
        if self.phase == JobPhase::Open {
            self.decide_nodes(now);
            self.end_overdue(now);
            self.find_slow(now);
            self.take_back_queued(now);
            // Patience with a node, and a worker that came for a backup, are not events of their own.
            self.work_appeared = true;
            // Before anybody is sent home for having nothing to do.
            self.feed_hungry(now);
        }
        self.drop_silent(now);
        self.want(want::When::Any);
        self.release_idle(now);
    }

    fn wake(&mut self, now: Time) {
        while let Some((until, at, instance)) = self.sleeping.first().copied() {
            if until > now {
                break;
            }
            self.sleeping.pop_first();
            let stage = &mut self.stages[at];
            let sleeps =
                stage.live.get(&instance).is_some_and(|live| live.phase == Phase::Sleeping { until });
            if sleeps {
                stage.set_phase(instance, Phase::Due);
                self.work_appeared = true;
            }
        }
    }

    pub(super) fn decide_nodes(&mut self, now: Time) {
        if !self.nodes.decide(&self.settings, now) {
            return;
        }
        let nodes = self.nodes.avoided();
        let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        let text = match names.as_slice() {
            [] => "no node is avoided any more".to_owned(),
            some => format!("avoided for their failures: {}", some.join(", ")),
        };
        self.out.tell(now, EventKind::Nodes, text);
        self.out.effect(Effect::AvoidNodes { nodes });
    }

    /// The worker should have ended these; one that does not is not believed any more.
    fn end_overdue(&mut self, now: Time) {
        let mut overdue = Vec::new();
        for (at, stage) in self.stages.iter().enumerate() {
            let Some(timeout_ms) = stage.spec.timeout_ms else { continue };
            let most_ms = timeout_ms.saturating_add(self.settings.timeout_grace_ms);
            for (instance, live) in &stage.live {
                for attempt in &live.attempts {
                    if attempt.started.is_some_and(|started| now.since_ms(started) > most_ms) {
                        let place =
                            Place { stage: at, member: 0, instance: *instance, number: attempt.number };
                        overdue.push((place, attempt.worker, attempt.node));
                    }
                }
            }
        }
        for (place, worker, node) in overdue {
            self.cancel(now, worker, place);
            let name = self.stage_name(place.stage);
            let text = format!(
                "instance {} of {name} on {}: it ran longer than its timeout, and its worker did not end it",
                place.instance,
                self.nodes.name(node)
            );
            self.gone(
                now,
                place,
                node,
                Gone::Failed { cause: Cause::Timeout, text: crate::codec::cut(&text) },
            );
        }
    }

    /// Instances that wait in the list of a worker whose first one takes long go back, if somebody else has room.
    fn take_back_queued(&mut self, now: Time) {
        if self.hungry.is_empty() || !self.gives_out() {
            return;
        }
        let mut stuck = Vec::new();
        for (id, worker) in &self.workers {
            let [Some(first), Some(_)] = [worker.held.front(), worker.held.get(1)] else { continue };
            let stage = &self.stages[first.stage];
            let attempts = stage.live.get(&first.instance).map_or(&[][..], |live| live.attempts.as_slice());
            let Some(attempt) = attempts.iter().find(|attempt| attempt.number == first.number) else {
                continue;
            };
            let median_ms = stage.durations.median_ms().unwrap_or(0);
            let most_ms = self.settings.batch_target_ms.max(median_ms).saturating_mul(2);
            if attempt.started.is_none_or(|started| now.since_ms(started) <= most_ms) {
                continue;
            }
            let others = self.hungry.iter().filter_map(|other| self.workers.get(other));
            if others.into_iter().any(|other| other.unit == worker.unit && other.held.is_empty()) {
                let queued = worker.held.iter().skip(1).filter(|held| held.cancelled.is_none());
                stuck.extend(queued.map(|held| {
                    let place =
                        Place { stage: held.stage, member: 0, instance: held.instance, number: held.number };
                    (*id, place)
                }));
            }
        }
        for (id, place) in stuck {
            // It stays with its instance: should the worker have finished it by then, it counts.
            self.cancel(now, id, place);
        }
    }

    /// Workers that never came, or do not answer.
    fn drop_silent(&mut self, now: Time) {
        let mut silent: Vec<(WorkerId, &str)> = Vec::new();
        for (id, worker) in &self.workers {
            if !worker.joined && now.since_ms(worker.since) >= self.settings.join_timeout_ms {
                silent.push((*id, "it never came"));
            } else if worker.held.iter().any(|held| held.cancelled.is_some_and(|until| now >= until)) {
                silent.push((*id, "it does not answer a cancellation"));
            }
        }
        for (id, why) in silent {
            self.out.effect(Effect::Release { worker: id });
            let Some(worker) = self.workers.get(&id) else { continue };
            let text = format!("worker {} on {} is given back: {why}", id.0, self.nodes.name(worker.node));
            self.out.tell(now, EventKind::WorkerLost, text);
            self.lose(now, id, Loss::Uncounted, why);
        }
    }

    /// Gives back workers that have had nothing to do for a while and will not have.
    fn release_idle(&mut self, now: Time) {
        if self.adopting.is_some() {
            return;
        }
        let mut spare = self.spare();
        let mut idle = Vec::new();
        for (id, worker) in &self.workers {
            let is_idle = worker.joined && worker.held.is_empty();
            if !is_idle || now.since_ms(worker.since) < self.settings.idle_release_ms {
                continue;
            }
            let left = spare.entry(worker.unit).or_default();
            if self.nodes.is_avoided_by_job(worker.node) {
                idle.push(*id);
            } else if *left > 0 {
                *left -= 1;
                idle.push(*id);
            }
        }
        for id in idle {
            self.out.effect(Effect::Release { worker: id });
            self.lose(now, id, Loss::Uncounted, "it is idle");
        }
    }
}
