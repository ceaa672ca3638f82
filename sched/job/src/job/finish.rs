//! How attempts end: well, badly, or for no fault of their own; and what becomes of their instances.

use super::{Job, JobPhase, Place};
use crate::effect::{Effect, EventKind, JobOutcome};
use crate::event::{Finished, Outcome, Promotion};
use crate::ids::{AttemptId, Time, WorkerId};
use crate::nodes::NodeIx;
use crate::record::{Cause, Record};
use crate::stage::Phase;
use crate::worker::Answer;

/// Failures of one task that people are told one by one; of more only each that doubles their number.
const TOLD_ONE_BY_ONE: u64 = 20;

/// How an attempt went that has not won.
#[derive(Clone, Debug)]
pub(super) enum Gone {
    /// By its own fault.
    Failed { cause: Cause, text: String },
    /// By somebody else's, but not for ever.
    Lost { text: String },
    /// By our own wish, or the master's.
    Uncounted,
}

impl Job {
    pub(super) fn finished(&mut self, now: Time, id: WorkerId, report: Finished) {
        let Some(place) = self.place(report.attempt) else {
            self.out.acknowledge(id, report.attempt);
            return;
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            // It was given up, and its outputs are removed; nothing it says counts.
            self.out.effect(Effect::Release { worker: id });
            return;
        };
        if !worker.joined {
            // Of a former job master's: it must be adopted first, and repeats this until it is acknowledged.
            return;
        }
        let answer = worker.answer(place.stage, place.instance, place.number, place.member);
        let node = worker.node;
        if let Answer::Last { was_first } = answer {
            if worker.held.is_empty() {
                worker.since = now;
            }
            self.stages[place.stage].unhold(id);
            if was_first {
                self.begin_next(now, id);
            }
        }
        let is_live = self.stages[place.stage].attempt_mut(place.instance, place.number).is_some();
        match answer {
            // Repeated while other members of its gang run: it is acknowledged with the last of them, for until then only the
            // worker knows of it.
            Answer::Again if is_live => {}
            Answer::Again => self.out.acknowledge(id, report.attempt),
            Answer::Unknown => {
                self.out.acknowledge(id, report.attempt);
                if !self.is_promoting(place) {
                    self.out.effect(Effect::Discard { attempt: report.attempt });
                }
            }
            Answer::More | Answer::Last { .. } if is_live => self.member_ended(now, id, node, place, report),
            Answer::More => self.out.acknowledge(id, report.attempt),
            Answer::Last { .. } => {
                self.out.acknowledge(id, report.attempt);
                self.discard(place);
            }
        }
    }

    /// The worker goes on with what stands first in its list now.
    fn begin_next(&mut self, now: Time, id: WorkerId) {
        let Some(held) = self.workers.get(&id).and_then(|worker| worker.held.front().copied()) else {
            return;
        };
        if let Some(attempt) = self.stages[held.stage].attempt_mut(held.instance, held.number) {
            attempt.started.get_or_insert(now);
        }
    }

    fn is_promoting(&self, place: Place) -> bool {
        let live = self.stages[place.stage].live.get(&place.instance);
        live.is_some_and(
            |live| matches!(live.phase, Phase::Promoting { number, .. } if number == place.number),
        )
    }

    /// Removes what all members of an attempt have made.
    pub(super) fn discard(&mut self, place: Place) {
        let stage = &self.stages[place.stage];
        for attempt in stage.ids(place.instance, place.number, stage.all_members()) {
            self.out.effect(Effect::Discard { attempt });
        }
    }

    /// One member of an attempt that still counts.
    fn member_ended(&mut self, now: Time, id: WorkerId, node: NodeIx, place: Place, report: Finished) {
        let text = self.describe(&report, node);
        let gone = match report.outcome {
            Outcome::Ok { outputs, bytes } => {
                self.member_ok(now, id, place, (outputs, bytes), report.ran_ms);
                return;
            }
            Outcome::Exit(code) => Gone::Failed { cause: Cause::Exit(code), text },
            Outcome::Signal(signal) => Gone::Failed { cause: Cause::Signal(signal), text },
            Outcome::Timeout => Gone::Failed { cause: Cause::Timeout, text },
            Outcome::OutOfMemory => Gone::Failed { cause: Cause::OutOfMemory, text },
            Outcome::NoSuchProgram => Gone::Failed { cause: Cause::NoSuchProgram, text },
            Outcome::LostInput { task, instance } => {
                let lost = AttemptId { task, instance, attempt: 0 };
                match self.place(lost).filter(|lost| self.reads(place.stage, lost.stage)) {
                    Some(lost) => {
                        self.lost_input(now, place, lost);
                        Gone::Lost { text }
                    }
                    None => Gone::Failed { cause: Cause::Nonsense, text },
                }
            }
            Outcome::Machine => {
                // Not the instance's fault, but the node's.
                self.hold_against(now, node, place.stage, place.instance);
                if let Some(live) = self.stages[place.stage].live.get_mut(&place.instance) {
                    live.failed_on(node);
                }
                Gone::Lost { text }
            }
            Outcome::Cancelled => Gone::Uncounted,
        };
        let no_program = matches!(gone, Gone::Failed { cause: Cause::NoSuchProgram, .. });
        self.out.acknowledge(id, report.attempt);
        self.cancel_rest(now, id, place);
        self.gone(now, place, node, gone);
        if no_program {
            let reason = format!(
                "{}; it will not be there on another node either, so nothing is tried again: correct the command and submit the job again",
                self.first_error.clone().unwrap_or_default()
            );
            self.close(now, JobOutcome::Failed { reason: crate::codec::cut(&reason) });
        }
    }

    fn member_ok(&mut self, now: Time, id: WorkerId, place: Place, made: (u32, u64), ran_ms: u64) {
        let stage = &mut self.stages[place.stage];
        let all = stage.all_members();
        let Some(attempt) = stage.attempt_mut(place.instance, place.number) else { return };
        attempt.ok |= 1 << place.member;
        attempt.outputs.set(usize::from(place.member), made.0);
        attempt.bytes = attempt.bytes.saturating_add(made.1);
        attempt.ran_ms = attempt.ran_ms.max(ran_ms);
        if attempt.ok != all {
            return;
        }
        let (outputs, bytes, ran_ms) = (attempt.outputs, attempt.bytes, attempt.ran_ms);
        let others = stage.won(place.instance, place.number, outputs);
        stage.durations.add(ran_ms, 1);
        stage.bytes = stage.bytes.saturating_add(bytes);
        let task = self.leader(place.stage);
        self.out.won(task, place.number, outputs, place.instance, bytes, ran_ms);
        let stage = &self.stages[place.stage];
        for (member, attempt) in stage.ids(place.instance, place.number, all).enumerate() {
            self.out.acknowledge(id, attempt);
            let outputs = outputs.as_slice()[member];
            if outputs > 0 {
                self.out.effect(Effect::Promote { attempt, outputs });
            }
        }
        for other in others {
            self.cancel(now, other.worker, Place { number: other.number, ..place });
        }
        self.after_done(now, place.stage);
    }

    fn after_done(&mut self, now: Time, stage: usize) {
        if self.stages[stage].is_complete() {
            self.announce(now);
        }
    }

    pub(super) fn promoted(&mut self, now: Time, attempt: AttemptId, result: Promotion) {
        let Some(place) = self.place(attempt).filter(|place| self.is_promoting(*place)) else { return };
        let task = self.leader(place.stage);
        let stage = &mut self.stages[place.stage];
        let Some(live) = stage.live.get_mut(&place.instance) else { return };
        let Phase::Promoting { left, .. } = &mut live.phase else { return };
        match result {
            Promotion::Placed => {
                *left &= !(1 << place.member);
                if *left == 0 {
                    stage.placed(place.instance);
                    self.out.placed(task, place.instance);
                    self.after_done(now, place.stage);
                }
            }
            Promotion::Missing => self.reopen(now, place),
        }
    }

    /// Whether `stage` reads what `other` makes.
    fn reads(&self, stage: usize, other: usize) -> bool {
        self.stages[stage].spec.needs.contains(&other)
    }

    fn lost_input(&mut self, now: Time, reader: Place, lost: Place) {
        let began =
            self.stages[reader.stage].attempt_mut(reader.instance, reader.number).and_then(|a| a.started);
        let stage = &self.stages[lost.stage];
        let made_since =
            stage.lives.get(&lost.instance).is_some_and(|(_, when)| began.is_none_or(|b| *when >= b));
        // If it was found lost after this reader began, the reader may have seen what was there before: it simply reads again.
        if stage.done.contains(lost.instance) && !made_since {
            self.reopen(now, lost);
        }
    }

    fn reopen(&mut self, now: Time, place: Place) {
        let task = self.leader(place.stage);
        let name = self.stage_name(place.stage).to_owned();
        let stage = &mut self.stages[place.stage];
        let lives = stage.lives.get(&place.instance).map_or(0, |life| life.0) + 1;
        self.announced -= usize::from(stage.announced);
        stage.reopen(place.instance, now);
        self.out.record(Record::Reopened { task, instance: place.instance });
        self.work_appeared = true;
        self.demand_changed = true;
        let text = format!("the output of instance {} of {name} is lost: it runs again", place.instance);
        self.out.tell(now, EventKind::Again, text.clone());
        if lives > self.settings.lives_max {
            let reason =
                format!("the output of instance {} of {name} was lost {lives} times", place.instance);
            self.close(now, JobOutcome::Failed { reason });
        }
    }

    /// Takes an attempt off its instance and decides what becomes of that.
    pub(super) fn gone(&mut self, now: Time, place: Place, node: NodeIx, gone: Gone) {
        let stage = &mut self.stages[place.stage];
        if stage.take_attempt(place.instance, place.number).is_none() {
            return;
        }
        let Some(live) = stage.live.get_mut(&place.instance) else { return };
        match &gone {
            Gone::Failed { .. } => {
                live.failures += 1;
                live.failed_on(node);
            }
            Gone::Lost { .. } => live.losses += 1,
            Gone::Uncounted => {}
        }
        let (failures, losses, runs) = (live.failures, live.losses, !live.attempts.is_empty());
        let spent = failures >= stage.spec.attempts_max || losses >= self.settings.losses_max;
        if matches!(gone, Gone::Failed { .. }) {
            self.hold_against(now, node, place.stage, place.instance);
        }
        if !runs {
            self.wait_again(now, place, failures, matches!(gone, Gone::Failed { .. }));
        }
        self.record_gone(now, place.stage, place.instance, &gone, spent && !runs);
    }

    /// The instance waits: after a failure for a while, else it is due.
    fn wait_again(&mut self, now: Time, place: Place, failures: u32, failed: bool) {
        let stage = &mut self.stages[place.stage];
        if let Some(live) = stage.live.get_mut(&place.instance) {
            live.waits_since = now;
        }
        if failed {
            let doublings = failures.saturating_sub(1).min(32);
            let wait_ms = self.settings.backoff_first_ms.saturating_mul(1 << doublings);
            let until = now.plus_ms(wait_ms.min(self.settings.backoff_max_ms));
            stage.set_phase(place.instance, Phase::Sleeping { until });
            self.sleeping.insert((until, place.stage, place.instance));
        } else {
            stage.set_phase(place.instance, Phase::Due);
            self.work_appeared = true;
        }
        self.demand_changed = true;
    }

    /// Writes down that an attempt went, and gives the instance up if it is the last that may.
    pub(super) fn record_gone(&mut self, now: Time, at: usize, instance: u32, gone: &Gone, for_good: bool) {
        let task = self.leader(at);
        let text = match gone {
            Gone::Failed { text, .. } | Gone::Lost { text } => text.as_str(),
            Gone::Uncounted => "it failed before",
        };
        match gone {
            Gone::Failed { cause, text } => {
                let first = if self.first_error.is_none() { text.clone() } else { String::new() };
                self.out.record(Record::Failed { task, instance, cause: *cause, for_good, text: first });
                self.first_error.get_or_insert_with(|| text.clone());
                self.tell_failure(now, at, text);
            }
            Gone::Lost { .. } => self.out.record(Record::Lost { task, instance, for_good }),
            Gone::Uncounted if for_good => self.out.record(Record::Lost { task, instance, for_good }),
            Gone::Uncounted => {}
        }
        if !for_good {
            return;
        }
        self.first_error.get_or_insert_with(|| text.to_owned());
        self.stages[at].set_phase(instance, Phase::Failed);
        let (failed, allowed) = (self.stages[at].failed, self.stages[at].spec.failures_allowed);
        let name = self.stage_name(at).to_owned();
        if self.stages[at].failures_told <= TOLD_ONE_BY_ONE {
            self.out.tell(
                now,
                EventKind::GivenUp,
                format!("instance {instance} of {name} failed for good: {text}"),
            );
        }
        if failed > allowed {
            let first = self.first_error.clone().unwrap_or_default();
            let reason = format!(
                "{failed} instances of {name} failed for good, {allowed} may; the first failure: {first}"
            );
            self.close(now, JobOutcome::Failed { reason: crate::codec::cut(&reason) });
        } else {
            self.after_done(now, at);
        }
    }

    fn tell_failure(&mut self, now: Time, at: usize, text: &str) {
        let told = &mut self.stages[at].failures_told;
        *told += 1;
        if *told <= TOLD_ONE_BY_ONE {
            self.out.tell(now, EventKind::Failure, text.to_owned());
        } else if told.is_power_of_two() {
            let text =
                format!("{text} (failure number {told} of this task; most are no longer told one by one)");
            self.out.tell(now, EventKind::Failure, text);
        }
    }

    fn describe(&self, report: &Finished, node: NodeIx) -> String {
        let how = match report.outcome {
            // Nobody reads it, and there are many.
            Outcome::Ok { .. } | Outcome::Cancelled => return String::new(),
            Outcome::Exit(code) => Cause::Exit(code).to_string(),
            Outcome::Signal(signal) => Cause::Signal(signal).to_string(),
            Outcome::Timeout => Cause::Timeout.to_string(),
            Outcome::OutOfMemory => Cause::OutOfMemory.to_string(),
            Outcome::NoSuchProgram => Cause::NoSuchProgram.to_string(),
            Outcome::Machine => "the machine could not run it".to_owned(),
            Outcome::LostInput { task, instance } => {
                format!("what instance {instance} of task number {} made is not there", task.0)
            }
        };
        let AttemptId { task, instance, .. } = report.attempt;
        let name = &self.plan.tasks[task.0 as usize].name;
        let colon = if report.message.is_empty() { "" } else { ": " };
        let text = format!(
            "instance {instance} of {name} on {}: {how}{colon}{}",
            self.nodes.name(node),
            report.message
        );
        crate::codec::cut(&text)
    }

    /// A failure on a node, which may be avoided from now on.
    fn hold_against(&mut self, now: Time, node: NodeIx, stage: usize, instance: u32) {
        if self.nodes.failed(node, stage, instance, now) {
            self.decide_nodes(now);
        }
    }

    /// Ends what other members of an attempt still do.
    fn cancel_rest(&mut self, now: Time, id: WorkerId, place: Place) {
        let is_held = self
            .workers
            .get(&id)
            .is_some_and(|w| w.find(place.stage, place.instance, place.number).is_some());
        if is_held {
            self.cancel(now, id, place);
        } else {
            self.discard(place);
        }
    }

    /// Cancels what the worker has not answered of an attempt; what it made is removed when it answered.
    pub(super) fn cancel(&mut self, now: Time, id: WorkerId, place: Place) {
        let until = now.plus_ms(self.settings.cancel_wait_ms);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(at) = worker.find(place.stage, place.instance, place.number) else { return };
        let held = &mut worker.held[at];
        if held.cancelled.is_some() {
            return;
        }
        held.cancelled = Some(until);
        for attempt in self.stages[place.stage].ids(place.instance, place.number, held.left) {
            self.out.effect(Effect::Cancel { worker: id, attempt });
        }
    }

    /// A job that has ended only sends workers home.
    pub(super) fn after_the_end(&mut self, event: crate::Event) {
        use crate::Event;
        debug_assert!(matches!(self.phase, JobPhase::Ended { .. }));
        if let Event::Pull { worker, .. }
        | Event::WorkerJoined { worker, .. }
        | Event::Granted { worker, .. }
        | Event::Adopted { worker, .. } = event
        {
            self.out.effect(Effect::Release { worker });
        }
    }
}
