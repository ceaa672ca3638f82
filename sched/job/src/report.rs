//! What people see of a job: numbers for each task, and one sentence.

use crate::effect::JobOutcome;
use crate::ids::TaskId;
use crate::job::{Job, JobPhase};

/// How far a task is. The first four add up to its instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// Which.
    pub task: TaskId,
    /// As in the plan.
    pub name: String,
    /// Instances that no worker has, those that wait after a failure included.
    pub waiting: u32,
    /// Instances that a worker has, or whose outputs are being put in place.
    pub running: u32,
    /// Instances that are done.
    pub done: u32,
    /// Instances that failed for good.
    pub failed: u32,
    /// Second attempts that run now.
    pub backups: u32,
    /// Second attempts there ever were, since this job master began.
    pub backups_started: u64,
    /// Half of those that ended well took less, in milliseconds, to about 6 %.
    pub median_ms: Option<u64>,
    /// What those that ended well have written, in bytes, for the whole gang of piped tasks.
    pub bytes: u64,
}

impl Job {
    /// Of every task, in the order of the plan. Tasks that run together by pipes have the same numbers.
    pub fn progress(&self) -> Vec<TaskProgress> {
        let mut out = Vec::with_capacity(self.plan.tasks.len());
        for stage in &self.stages {
            for task in &stage.spec.members {
                out.push(TaskProgress {
                    task: *task,
                    name: self.plan.tasks[task.0 as usize].name.clone(),
                    waiting: stage.waiting() + stage.sleeping,
                    running: stage.running + stage.promoting,
                    done: stage.done.ones(),
                    failed: stage.failed,
                    backups: stage.backups_running,
                    backups_started: stage.backups_started,
                    median_ms: stage.durations.median_ms(),
                    bytes: stage.bytes,
                });
            }
        }
        out.sort_by_key(|progress| progress.task);
        out
    }

    /// Why the job is where it is, in one sentence.
    pub fn why(&self) -> String {
        match &self.phase {
            JobPhase::Ended { outcome } => format!("the job is {outcome}"),
            JobPhase::Closing { outcome: JobOutcome::Done, .. } => {
                "all is done; the last workers are sent home".to_owned()
            }
            JobPhase::Closing { outcome, .. } => {
                let busy = self.workers.values().filter(|worker| !worker.held.is_empty()).count();
                format!("the job is {outcome}; {busy} workers have not yet answered that they stopped")
            }
            JobPhase::Open if self.paused => {
                format!("paused; resume it by writing \"resume\" to ctl; {}", self.running_words())
            }
            JobPhase::Open if self.adopting.is_some() => {
                let missing = self.workers.values().filter(|worker| !worker.joined).count();
                format!(
                    "a new job master hears what its workers run; {missing} of those it knows have not called"
                )
            }
            JobPhase::Open => self.running_words(),
        }
    }

    fn running_words(&self) -> String {
        let mut parts = Vec::new();
        let mut blocked = 0;
        for stage in self.stages.iter().filter(|stage| !stage.announced) {
            let missing: Vec<&str> = (stage.spec.needs.iter())
                .filter(|need| !self.stages[**need].announced)
                .map(|need| self.stage_name(*need))
                .collect();
            if !missing.is_empty() {
                blocked += 1;
                if blocked == 1 {
                    let name = &self.plan.tasks[stage.spec.members[0].0 as usize].name;
                    parts.push(format!("{name} waits for {}", missing.join(" and ")));
                }
                continue;
            }
            let name = &self.plan.tasks[stage.spec.members[0].0 as usize].name;
            let mut part = format!("{name}: {} of {} done", stage.done.ones(), stage.spec.instances);
            let numbers = [
                (stage.running, "running"),
                (stage.waiting(), "waiting for a worker"),
                (stage.sleeping, "waiting to be tried again"),
                (stage.promoting, "being put in place"),
                (stage.failed, "failed for good"),
                (stage.backups_running, "backups"),
            ];
            for (number, what) in numbers.into_iter().filter(|(number, _)| *number > 0) {
                part.push_str(&format!(", {number} {what}"));
            }
            parts.push(part);
        }
        if blocked > 1 {
            parts.push(format!("{} more tasks wait", blocked - 1));
        }
        let joined = self.workers.values().filter(|worker| worker.joined).count();
        parts.push(format!("{joined} workers, {} on the way", self.workers.len() - joined));
        let avoided = self.nodes.avoided();
        if !avoided.is_empty() {
            parts.push(format!("{} nodes avoided", avoided.len()));
        }
        if let Some(error) = &self.first_error {
            parts.push(format!("first failure: {error}"));
        }
        parts.join("; ")
    }
}
