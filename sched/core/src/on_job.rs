//! Jobs come, say what they want and what they avoid, and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::EventError;
use crate::event::{Reason, Want};
use crate::ids::{GrantId, JobId, Millis, NodeId, Priority, QueueId, UnitKey};
use crate::job::{Job, Unit};
use crate::scheduler::Scheduler;
use crate::work::{Look, Timer};

impl Scheduler {
    /// A job that is known already stays as it is.
    pub(crate) fn job_started(
        &mut self,
        id: JobId,
        name: Arc<str>,
        queue: QueueId,
        priority: Priority,
    ) -> Result<(), EventError> {
        let group = self.queues.group(queue)?;
        if self.jobs.contains_key(&id) {
            return Ok(());
        }
        if self.jobs.len() >= self.config.limits.jobs_max {
            return Err(EventError::TooMany { what: "running jobs", max: self.config.limits.jobs_max });
        }
        let turn = self.next_count();
        let job = Job {
            name,
            group,
            priority,
            turn,
            units: BTreeSet::new(),
            listed: BTreeSet::new(),
            grants: BTreeSet::new(),
            avoid: BTreeMap::new(),
            failures: 0,
            backoff_until: None,
            calm_until: Millis::default(),
        };
        self.jobs.insert(id, job);
        self.queues.get_mut(group).jobs += 1;
        self.adopt_orphans(id);
        Ok(())
    }

    pub(crate) fn job_ended(&mut self, id: JobId) -> Result<(), EventError> {
        let job = self.jobs.get(&id).ok_or(EventError::UnknownJob(id))?;
        let units: Vec<UnitKey> = job.units.iter().map(|unit| (id, *unit)).collect();
        let grants: Vec<GrantId> = job.grants.iter().copied().collect();
        let group = job.group;
        for key in units {
            self.delist(key);
            self.drop_reservations(key);
            self.units.swap_remove(&key);
        }
        for grant in grants {
            self.revoke(grant, Reason::JobEnded);
        }
        self.jobs.swap_remove(&id);
        self.queues.get_mut(group).jobs -= 1;
        Ok(())
    }

    pub(crate) fn request(
        &mut self,
        id: JobId,
        wants: Vec<Want>,
        release: &[GrantId],
    ) -> Result<(), EventError> {
        self.validate(id, &wants)?;
        for want in wants {
            self.want(id, want);
        }
        for grant in release {
            if self.grants.get(grant).is_some_and(|grant| grant.job == id) {
                self.revoke(*grant, Reason::Released);
            }
        }
        Ok(())
    }

    fn validate(&self, id: JobId, wants: &[Want]) -> Result<(), EventError> {
        let job = self.jobs.get(&id).ok_or(EventError::UnknownJob(id))?;
        let limits = &self.config.limits;
        let mut units = job.units.clone();
        for want in wants {
            units.insert(want.unit);
            if want.resources.is_zero() {
                return Err(EventError::EmptyUnit { job: id, unit: want.unit });
            }
            if !want.resources.is_sane() {
                let subject = format!("unit {} of job {}", want.unit, job.name);
                return Err(EventError::Amount { subject });
            }
            if want.prefer.machines.len() + want.prefer.racks.len() > limits.preferences_max {
                return Err(EventError::TooMany {
                    what: "preferences of a unit",
                    max: limits.preferences_max,
                });
            }
        }
        if units.len() > limits.units_max {
            return Err(EventError::TooMany { what: "units of a job", max: limits.units_max });
        }
        Ok(())
    }

    fn want(&mut self, id: JobId, want: Want) {
        let key = (id, want.unit);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let priority = Priority(job.priority.0.saturating_add(want.priority_offset));
        job.units.insert(want.unit);
        let now = self.now;
        let unit = self.units.entry(key).or_insert_with(|| Unit::new(want.resources, priority, now));
        if want.version <= unit.version {
            return;
        }
        let same_kind = unit.resources == want.resources && unit.priority == priority;
        self.delist(key);
        let Some(unit) = self.units.get_mut(&key) else { return };
        if unit.waiting == 0 || !same_kind {
            unit.since = now;
        }
        unit.version = want.version;
        unit.resources = want.resources;
        unit.priority = priority;
        unit.total = want.total;
        unit.waiting = want.total.saturating_sub(unit.held);
        self.spread(key, &want.prefer);
        if same_kind {
            self.trim_reservations(key);
        } else {
            self.drop_reservations(key);
        }
        self.enlist(key);
        self.work.push(Look::Unit(key));
    }

    /// The list is whole: what it does not name any more is not avoided any more.
    pub(crate) fn avoid(&mut self, id: JobId, nodes: &BTreeSet<NodeId>) -> Result<(), EventError> {
        let max = self.config.limits.avoided_max;
        let until = self.now.after(self.config.blacklist.job_hold_ms);
        let job = self.jobs.get_mut(&id).ok_or(EventError::UnknownJob(id))?;
        if nodes.len() > max {
            return Err(EventError::TooMany { what: "nodes that a job avoids", max });
        }
        let before = std::mem::take(&mut job.avoid);
        for slot in nodes.iter().filter_map(|node| self.nodes.slot(*node)) {
            job.avoid.insert(slot, until);
            self.timers.arm(until, Timer::Avoid(id, slot));
        }
        let now: Vec<_> = job.avoid.keys().copied().collect();
        for slot in before.keys().filter(|slot| !job.avoid.contains_key(slot)) {
            self.work.push(Look::Node(*slot));
        }
        for slot in now {
            self.vote(id, slot);
        }
        Ok(())
    }

    pub(crate) fn avoid_ends(&mut self, id: JobId, slot: crate::ids::Slot) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.avoid.get(&slot).is_some_and(|until| *until <= self.now) {
            job.avoid.remove(&slot);
            self.work.push(Look::Node(slot));
        }
    }

    /// A worker failed: the job gets nothing for a moment. A burst counts as one failure.
    pub(crate) fn back_off(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.backoff_until.is_some() {
            return;
        }
        let wait = self.config.backoff_first_ms.saturating_mul(1 << job.failures.min(16));
        job.failures = job.failures.saturating_add(1);
        let until = self.now.after(wait.min(self.config.backoff_max_ms));
        job.backoff_until = Some(until);
        self.timers.arm(until, Timer::Backoff(id));
        let units: Vec<UnitKey> = job.listed.iter().map(|unit| (id, *unit)).collect();
        for key in units {
            self.delist(key);
            self.drop_reservations(key);
        }
    }

    pub(crate) fn backoff_ends(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.backoff_until.is_none_or(|until| until > self.now) {
            return;
        }
        job.backoff_until = None;
        let units: Vec<UnitKey> = job.units.iter().map(|unit| (id, *unit)).collect();
        for key in units {
            self.enlist(key);
            self.work.push(Look::Unit(key));
        }
    }
}
