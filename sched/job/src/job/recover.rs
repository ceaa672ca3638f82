//! A job from its journal: the records change the instances as the events did that made them, and what may have been cut off by
//! the crash is asked for again.

use thiserror::Error;

use super::{Adopting, Job, JobPhase};
use crate::effect::Effect;
use crate::ids::{GENERATIONS_MAX, TaskId, Time};
use crate::plan::{Plan, PlanError};
use crate::record::Record;
use crate::settings::Settings;
use crate::stage::Phase;

/// Why a job can not go on from its journal.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecoverError {
    #[error("the job's plan can not be carried out")]
    Plan(#[from] PlanError),
    #[error(
        "record {at} of the journal is about instance {instance} of task {task}, which the plan does not have: did the job's inputs change?"
    )]
    Instance { at: usize, task: u32, instance: u32 },
    #[error(
        "record {at} of the journal is about task {task}, which the plan does not have on its own: did the job file change?"
    )]
    Task { at: usize, task: u32 },
    #[error("the journal does not begin with the start of a job master")]
    Start,
    #[error("the job has had {generation} job masters, and no more are possible: submit it again")]
    Generations { generation: u32 },
}

impl Job {
    /// A job that ran before: `records` are all of its journal, cut as [`crate::journal::read`] says. With no records it is a new one.
    ///
    /// It gives out nothing until all workers the master knows of have said what they run, or for
    /// [`Settings::adopt_wait_ms`]: what seems to wait may be running.
    pub fn recover(
        plan: Plan,
        settings: Settings,
        records: &[Record],
        now: Time,
    ) -> Result<Job, RecoverError> {
        if records.is_empty() {
            return Ok(Job::new(plan, settings, now)?);
        }
        let mut job = Job::idle(plan, settings)?;
        let mut generation = None;
        for (at, record) in records.iter().enumerate() {
            if let Record::Opened { generation: opened, .. } = record {
                generation = Some(*opened);
            }
            if generation.is_none() {
                return Err(RecoverError::Start);
            }
            job.replay(at, record)?;
        }
        let generation = generation.unwrap_or(0).saturating_add(1);
        if let JobPhase::Ended { outcome } = &job.phase {
            let outcome = outcome.clone();
            job.generation = generation - 1;
            job.out.effect(Effect::Ended { outcome });
            return Ok(job);
        }
        if generation > GENERATIONS_MAX {
            return Err(RecoverError::Generations { generation });
        }
        for stage in &mut job.stages {
            // Waiting begins now for all, as far as anybody knows.
            for live in stage.live.values_mut() {
                live.waits_since = now;
            }
            // A TaskDone may not have been carried out.
            stage.announced = false;
        }
        job.announced = 0;
        job.adopting = Some(Adopting { until: now.plus_ms(job.settings.adopt_wait_ms), grants_known: false });
        if let JobPhase::Closing { deadline, .. } = &mut job.phase {
            *deadline = now.plus_ms(job.settings.close_wait_ms);
        }
        job.promote_again();
        job.open(now, generation);
        Ok(job)
    }

    fn replay(&mut self, at: usize, record: &Record) -> Result<(), RecoverError> {
        match record {
            Record::Opened { .. } => {}
            Record::Won { task, attempt, outputs, ranges, bytes, mean_ms } => {
                let stage = self.stage_at(at, *task)?;
                if outputs.as_slice().len() != self.stages[stage].spec.members.len() {
                    return Err(RecoverError::Task { at, task: task.0 });
                }
                self.stages[stage].bytes = self.stages[stage].bytes.saturating_add(*bytes);
                for (start, end) in ranges {
                    self.check_instance(at, *task, end - 1)?;
                    self.stages[stage].durations.add(*mean_ms, end - start);
                    for instance in *start..*end {
                        self.stages[stage].won(instance, *attempt, *outputs);
                    }
                }
            }
            Record::Placed { task, ranges } => {
                let stage = self.stage_at(at, *task)?;
                for (start, end) in ranges {
                    self.check_instance(at, *task, end - 1)?;
                    for instance in *start..*end {
                        self.stages[stage].placed(instance);
                    }
                }
            }
            Record::Failed { task, instance, for_good, text, .. } => {
                let stage = self.stage_at(at, *task)?;
                self.check_instance(at, *task, *instance)?;
                if let Some(live) = self.stages[stage].entry(*instance) {
                    live.failures += 1;
                }
                if *for_good {
                    self.stages[stage].set_phase(*instance, Phase::Failed);
                }
                if self.first_error.is_none() && !text.is_empty() {
                    self.first_error = Some(text.clone());
                }
            }
            Record::Lost { task, instance, for_good } => {
                let stage = self.stage_at(at, *task)?;
                self.check_instance(at, *task, *instance)?;
                if let Some(live) = self.stages[stage].entry(*instance) {
                    live.losses += 1;
                }
                if *for_good {
                    self.stages[stage].set_phase(*instance, Phase::Failed);
                }
            }
            Record::Reopened { task, instance } => {
                let stage = self.stage_at(at, *task)?;
                self.check_instance(at, *task, *instance)?;
                self.stages[stage].reopen(*instance, Time(0));
            }
            Record::Paused => self.paused = true,
            Record::Resumed => self.paused = false,
            Record::Closing { outcome } => {
                self.phase = JobPhase::Closing { outcome: outcome.clone(), deadline: Time(0) };
            }
            Record::Ended { outcome } => self.phase = JobPhase::Ended { outcome: outcome.clone() },
        }
        Ok(())
    }

    fn stage_at(&self, at: usize, task: TaskId) -> Result<usize, RecoverError> {
        match self.stage_of.get(task.0 as usize) {
            Some((stage, 0)) => Ok(*stage),
            _ => Err(RecoverError::Task { at, task: task.0 }),
        }
    }

    fn check_instance(&self, at: usize, task: TaskId, instance: u32) -> Result<(), RecoverError> {
        let exists = instance < self.plan.tasks[task.0 as usize].instances;
        if exists { Ok(()) } else { Err(RecoverError::Instance { at, task: task.0, instance }) }
    }

    /// Winners whose outputs are not known to be in place: the crash may have come before or after the renaming.
    fn promote_again(&mut self) {
        for stage in &self.stages {
            for (instance, live) in &stage.live {
                let Phase::Promoting { number, outputs, left } = live.phase else { continue };
                for (member, attempt) in stage.ids(*instance, number, stage.all_members()).enumerate() {
                    if left & (1 << member) != 0 {
                        self.out.effect(Effect::Promote { attempt, outputs: outputs.as_slice()[member] });
                    }
                }
            }
        }
    }
}
