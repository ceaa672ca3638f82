//! What the spool says: jobs, their end, and what their owners want.

use std::time::Instant;

use sched_api::proto;

use super::{State, Todo};
use crate::jobs::Job;
use crate::scheduling::Wanted;
use crate::spool::{Accepted, End, JobName};

/// What is written into a job's `ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Kill,
    Pause,
    Resume,
}

impl std::str::FromStr for Control {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "kill" => Ok(Self::Kill),
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            other => {
                let said: String = other.chars().take(40).collect();
                Err(format!("ctl says '{said}'; it takes kill, pause or resume"))
            }
        }
    }
}

impl State {
    /// A job is in `run/`: accepted now, or found there by a master that begins to lead.
    pub(crate) fn job_is_there(&mut self, accepted: Accepted, now: Instant) {
        let name = accepted.name.clone();
        if self.jobs.contains_key(&name) || self.ended.names.contains(&name) {
            return;
        }
        let priority = accepted.spec.priority();
        self.scheduling.job_begins(&name, &accepted.queue, priority, now);
        self.jobs.insert(name.clone(), Job::new(accepted));
        if !self.recovering() {
            self.want_job_master(&name, now);
            self.grant(now);
        }
    }

    pub(super) fn want_job_master(&mut self, name: &JobName, now: Instant) {
        if let Some(job) = self.jobs.get(name) {
            let total = u64::from(job.end.is_none());
            self.scheduling.want_job_master(name, total, now);
            self.tell(name);
        }
    }

    /// What a job's `ctl` says. Heard again it changes nothing.
    pub(crate) fn ctl_says(&mut self, name: &JobName, text: &str, now: Instant) {
        let Some(job) = self.jobs.get_mut(name).filter(|job| job.end.is_none() && job.ctl != text) else {
            return;
        };
        text.clone_into(&mut job.ctl);
        if text.is_empty() {
            return;
        }
        match text.parse::<Control>() {
            Ok(control) => self.control(name, control, now),
            Err(why) => self.note(name, why),
        }
    }

    fn control(&mut self, name: &JobName, control: Control, now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        match control {
            Control::Pause => job.pause = true,
            Control::Resume => job.pause = false,
            Control::Kill => job.kill = true,
        }
        job.touch();
        // A job without a master has nobody else to end it.
        if control == Control::Kill && job.master.address.is_none() {
            self.end_job(name, End::Killed, "killed before it began".to_owned(), now);
        }
        self.tell(name);
        self.grant(now);
    }

    /// A job's directory was removed: its owner wants no more of it.
    pub(crate) fn job_has_gone(&mut self, name: &JobName, now: Instant) {
        if self.jobs.contains_key(name) {
            self.forget_job(name, now);
            self.grant(now);
        }
    }

    /// A job has ended: it gets nothing more, and its directory is moved.
    pub(super) fn end_job(&mut self, name: &JobName, end: End, why: String, now: Instant) {
        let Some(job) = self.jobs.get_mut(name).filter(|job| job.end.is_none()) else { return };
        job.end = Some(end);
        let queue = job.accepted.queue.clone();
        self.take_everything_back(name, now);
        self.todo.push_back(Todo::Finish { queue, job: name.clone(), end, why });
    }

    /// Its directory is where it belongs: there is no such job any more.
    pub(crate) fn moved(&mut self, name: &JobName, now: Instant) {
        self.forget_job(name, now);
        self.ended.add(name.clone());
        self.grant(now);
    }

    fn forget_job(&mut self, name: &JobName, now: Instant) {
        self.take_everything_back(name, now);
        if let Some(job) = self.jobs.remove(name) {
            if let Some(grant) = job.master.grant {
                self.forget_grant(grant);
            }
            job.changed.notify_waiters();
        }
        self.scheduling.job_ends(name, now);
    }

    /// All grants but that of its master, which has something to say yet.
    fn take_everything_back(&mut self, name: &JobName, now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let none = |want: &proto::Want| Wanted { total: 0, ..super::job_calls::wanted(want) };
        let wanted: Vec<Wanted> = std::mem::take(&mut job.wants).values().map(none).collect();
        let held: Vec<u64> = std::mem::take(&mut job.held).into_keys().collect();
        job.touch();
        for grant in &held {
            self.forget_grant(*grant);
        }
        self.scheduling.want(name, &wanted, &held, now);
    }
}
