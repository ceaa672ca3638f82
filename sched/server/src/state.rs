//! All that the leading master knows, and what it does about what it hears. No IO: the spool and the network are told by
//! [`Todo`]s and answers.
//!
//! Invariants:
//! - a grant is in an agent's orders exactly if it is held by a job (its master's, or one of the units');
//! - a job that has ended holds nothing;
//! - while it recovers, the master grants nothing and tells nobody to stop anything.

mod agent_calls;
mod granting;
mod job_calls;
mod spool_calls;
mod upkeep;

pub(crate) use job_calls::{NotHeard, rack};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::agents::Agent;
use crate::jobs::{JOB_MASTER_UNIT, Job};
use crate::scheduling::Scheduling;
use crate::spool::{End, JobName, QueueName};

/// A node that was not heard for this long gets nothing new; three times its agent's longest wait.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Then what runs there is started elsewhere.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long a new master listens before it grants: agents and job masters that lost the old one try again within half a second.
const RECOVERY_MS: u64 = 1_500;
/// Jobs that ended are remembered for their masters' last questions.
const ENDED_REMEMBERED: usize = 10_000;

/// What is to be done in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    /// Move the job's directory: it has ended. Then [`State::moved`].
    Finish { queue: QueueName, job: JobName, end: End, why: String },
    /// What people read of the job has changed.
    Tell(JobName),
    /// Something happened to the job.
    Note { job: JobName, event: String },
}

/// Who holds a grant, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantOf {
    pub(crate) job: JobName,
    pub(crate) node: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) scheduling: Scheduling,
    pub(crate) jobs: BTreeMap<JobName, Job>,
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) grants: BTreeMap<u64, GrantOf>,
    ended: EndedJobs,
    /// In the order in which it is to be done.
    pub(crate) todo: VecDeque<Todo>,
}

/// The newest jobs that have ended.
#[derive(Debug, Default)]
struct EndedJobs {
    names: BTreeSet<JobName>,
    order: VecDeque<JobName>,
}

impl EndedJobs {
    fn add(&mut self, name: JobName) {
        if self.names.insert(name.clone()) {
            self.order.push_back(name);
        }
        if self.order.len() > ENDED_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

impl State {
    /// Of a master that begins to lead now, with a fence number greater than that of any before.
    pub(crate) fn new(fence: u64, now: Instant) -> Self {
        Self {
            scheduling: Scheduling::new(fence, now, RECOVERY_MS),
            jobs: BTreeMap::new(),
            agents: BTreeMap::new(),
            grants: BTreeMap::new(),
            ended: EndedJobs::default(),
            todo: VecDeque::new(),
        }
    }

    pub(crate) fn recovering(&self) -> bool {
        self.scheduling.recovering()
    }

    /// Why a job is not further than it is, in one sentence.
    pub(crate) fn why(&self, name: &JobName) -> String {
        let Some(job) = self.jobs.get(name) else { return String::new() };
        let waiting = |unit| self.scheduling.why(name, unit);
        if job.master.address.is_some() && !job.why.is_empty() {
            return job.why.clone();
        }
        match (job.master.grant, waiting(JOB_MASTER_UNIT)) {
            (None, Some(why)) => format!("the job's master waits: {why}"),
            (None, None) => "the job's master is about to be granted".to_owned(),
            (Some(_), _) => "the job's master starts".to_owned(),
        }
    }

    pub(crate) fn note(&mut self, job: &JobName, event: impl Into<String>) {
        self.todo.push_back(Todo::Note { job: job.clone(), event: event.into() });
    }

    fn tell(&mut self, job: &JobName) {
        self.todo.push_back(Todo::Tell(job.clone()));
    }
}

#[cfg(test)]
mod tests;
