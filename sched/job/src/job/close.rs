//! How a job ends: everything is cancelled, answers are waited for, a bounded time, and then the end is written down.

use super::{Job, JobPhase, Place};
use crate::effect::{Effect, EventKind, JobOutcome};
use crate::ids::Time;
use crate::record::Record;
use crate::stage::Phase;

impl Job {
    /// Begins to end. The first reason stands.
    pub(super) fn close(&mut self, now: Time, outcome: JobOutcome) {
        if self.phase != JobPhase::Open {
            return;
        }
        if outcome != JobOutcome::Done {
            self.out.tell(
                now,
                EventKind::Order,
                format!("everything is cancelled, for the job is {outcome}"),
            );
        }
        self.out.record(Record::Closing { outcome: outcome.clone() });
        self.phase = JobPhase::Closing { outcome, deadline: now.plus_ms(self.settings.close_wait_ms) };
        self.sleeping.clear();
        let mut attempts = Vec::new();
        for (at, stage) in self.stages.iter_mut().enumerate() {
            let running = stage.live.iter_mut().filter(|(_, live)| live.phase == Phase::Running);
            let mut stopped = Vec::new();
            for (instance, live) in running {
                stopped.push(*instance);
                attempts.extend(live.attempts.drain(..).map(|attempt| {
                    let place = Place { stage: at, member: 0, instance: *instance, number: attempt.number };
                    (attempt.worker, place)
                }));
            }
            for instance in stopped {
                stage.set_phase(instance, Phase::Due);
            }
            stage.backups_running = 0;
        }
        for (worker, place) in attempts {
            self.cancel(now, worker, place);
        }
        self.demand_changed = true;
    }

    pub(super) fn try_to_end(&mut self, now: Time) {
        let JobPhase::Closing { outcome, deadline } = &self.phase else { return };
        let busy = self.adopting.is_some()
            || self.workers.values().any(|worker| !worker.held.is_empty())
            || self.stages.iter().any(|stage| stage.promoting > 0);
        if busy && now < *deadline {
            return;
        }
        let outcome = outcome.clone();
        self.out.record(Record::Ended { outcome: outcome.clone() });
        for id in self.workers.keys() {
            self.out.effect(Effect::Release { worker: *id });
        }
        self.workers.clear();
        self.hungry.clear();
        self.fleet.clear();
        self.phase = JobPhase::Ended { outcome: outcome.clone() };
        self.out.tell(now, EventKind::Ended, format!("the job is {outcome}"));
        self.out.effect(Effect::Ended { outcome });
    }

    pub(super) fn pause(&mut self, now: Time) {
        if !self.paused && self.phase == JobPhase::Open {
            self.paused = true;
            self.out.record(Record::Paused);
            self.out.tell(now, EventKind::Order, "paused: what runs goes on, nothing else begins".to_owned());
            self.demand_changed = true;
        }
    }

    pub(super) fn resume(&mut self, now: Time) {
        if self.paused && self.phase == JobPhase::Open {
            self.paused = false;
            self.out.record(Record::Resumed);
            self.out.tell(now, EventKind::Order, "resumed".to_owned());
            self.work_appeared = true;
            self.demand_changed = true;
        }
    }
}
