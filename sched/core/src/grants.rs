//! Giving and taking: the only place where the sums of nodes, quota groups, jobs and units change.
//!
//! A grant that is taken away is *dying*: it keeps its room and its quota until the agent says that it ended, so a
//! node never holds more than it has; for its job it is gone at once.

use crate::event::{Effect, Outcome, Reason};
use crate::ids::{GrantId, Group, Priority, Slot, UnitKey};
use crate::job::Grant;
use crate::queue::{Usage, one_less};
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::work::{Look, Timer};

impl Scheduler {
    /// Gives one of `key` on `slot`. The caller has seen that it waits, fits and may.
    pub(crate) fn grant(&mut self, key: UnitKey, slot: Slot) {
        let Some(unit) = self.units.get(&key) else { return };
        let (resources, priority) = (unit.resources, unit.priority);
        let (Some(job), Some(node)) = (self.jobs.get(&key.0), self.nodes.get(slot)) else { return };
        self.sequence += 1;
        let grant = GrantId { epoch: self.config.epoch, sequence: self.sequence };
        self.effects.push(Effect::Grant {
            grant,
            job: key.0,
            unit: key.1,
            node: node.id,
            resources,
            priority,
        });
        let group = Some(job.group);
        let since = self.now;
        self.install(
            grant,
            Grant { job: key.0, unit: key.1, node: slot, group, resources, priority, since, dying: None },
        );
        self.take_one(key, slot);
        self.served(key.0);
        self.trim_reservations(key);
        self.refresh(slot);
        self.budget = self.budget.saturating_sub(1);
    }

    /// Enters a grant into all sums but those of its unit.
    pub(crate) fn install(&mut self, id: GrantId, grant: Grant) {
        let used = grant.resources;
        if let Some(node) = self.nodes.get_mut(grant.node) {
            node.used = node.used.plus(&used);
            node.grants.insert(id);
            node.add_priority(grant.priority, &used);
        }
        if let Some(group) = grant.group {
            self.queues.change(group, |usage| usage.used = usage.used.plus(&used));
            self.count_priority(group, grant.priority);
        }
        if let Some(job) = self.jobs.get_mut(&grant.job) {
            job.grants.insert(id);
        }
        self.grants.insert(id, grant);
    }

    /// Takes a grant away; its room follows when the agent reports the end.
    pub(crate) fn revoke(&mut self, id: GrantId, reason: Reason) {
        let Some(grant) = self.grants.get_mut(&id) else { return };
        if grant.dying.is_some() {
            return;
        }
        grant.dying = Some(reason);
        let (job, slot, group, resources, priority) =
            (grant.job, grant.node, grant.group, grant.resources, grant.priority);
        let key = (grant.job, grant.unit);
        if let Some(node) = self.nodes.get_mut(slot) {
            node.dying = node.dying.plus(&resources);
            node.remove_priority(priority, &resources);
            self.effects.push(Effect::Revoke { grant: id, job, node: node.id, reason });
        }
        if let Some(group) = group {
            self.queues.change(group, |usage| usage.dying = usage.dying.plus(&resources));
            self.forget_priority(group, priority);
        }
        self.timers.arm(self.now.after(self.config.revoke_repeat_ms), Timer::RevokeAgain(id));
        self.detach(id, key);
        self.refresh(slot);
    }

    /// The grant does not use anything any more.
    pub(crate) fn finish(&mut self, id: GrantId) {
        let Some(grant) = self.grants.swap_remove(&id) else { return };
        let resources = grant.resources;
        let gone = if grant.dying.is_some() { resources } else { Resources::ZERO };
        // Before all else that this may cause: the room may be kept for somebody.
        self.work.push(Look::Node(grant.node));
        if let Some(node) = self.nodes.get_mut(grant.node) {
            node.grants.remove(&id);
            node.used = node.used.minus(&resources);
            node.dying = node.dying.minus(&gone);
            if grant.dying.is_none() {
                node.remove_priority(grant.priority, &resources);
            }
        }
        if let Some(group) = grant.group {
            self.queues.change(group, |usage: &mut Usage| {
                usage.used = usage.used.minus(&resources);
                usage.dying = usage.dying.minus(&gone);
            });
            if grant.dying.is_none() {
                self.forget_priority(group, grant.priority);
            }
        }
        if grant.dying.is_none() {
            self.detach(id, (grant.job, grant.unit));
        }
        self.refresh(grant.node);
        if let Some(group) = grant.group {
            self.quota_freed(group);
        }
    }

    /// An agent saw the end of a grant. One that is not known was finished before.
    pub(crate) fn ended(&mut self, id: GrantId, outcome: Outcome) {
        let Some(grant) = self.grants.get(&id) else { return };
        let (job, slot, was_dying) = (grant.job, grant.node, grant.dying.is_some());
        self.finish(id);
        match outcome {
            // A worker that was told to stop may well say that it failed: that says nothing about the job.
            Outcome::WorkerFailed if !was_dying => self.back_off(job),
            Outcome::NodeFailed => self.node_failed(slot),
            Outcome::Done => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.failures = 0;
                }
            }
            Outcome::WorkerFailed => {}
        }
    }

    /// The job does not hold it any more.
    fn detach(&mut self, id: GrantId, key: UnitKey) {
        if let Some(job) = self.jobs.get_mut(&key.0) {
            job.grants.remove(&id);
            self.wants_back(key);
        }
    }

    pub(crate) fn count_priority(&mut self, group: Group, priority: Priority) {
        *self.by_priority.entry(priority).or_default() += 1;
        self.queues.count(group, priority);
    }

    fn forget_priority(&mut self, group: Group, priority: Priority) {
        self.queues.uncount(group, priority);
        one_less(&mut self.by_priority, priority);
    }

    pub(crate) fn revoke_again(&mut self, id: GrantId) {
        let Some(grant) = self.grants.get(&id) else { return };
        let (Some(reason), Some(node)) = (grant.dying, self.nodes.get(grant.node)) else { return };
        self.effects.push(Effect::Revoke { grant: id, job: grant.job, node: node.id, reason });
        self.timers.arm(self.now.after(self.config.revoke_repeat_ms), Timer::RevokeAgain(id));
    }

    /// Whoever waits for the maximum of this group or one above it is looked at again.
    pub(crate) fn quota_freed(&mut self, group: Group) {
        for at in 0..self.queues.path(group).len() {
            let level = self.queues.path(group)[at];
            let queue = self.queues.get_mut(level);
            if std::mem::take(&mut queue.denied) {
                self.work.push(Look::Group(level));
            }
        }
    }

    /// What a node has to give may have changed.
    pub(crate) fn refresh(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get(slot) else { return };
        let available = node.available();
        let before = self.nodes.tree.get(slot);
        if available == before {
            return;
        }
        self.nodes.tree.set(slot, available);
        if !available.fits_in(&before) {
            self.lists.room_appeared(&available);
            // Not only when something ends: what is being stopped pays for reservations, so the rest may be given.
            self.work.push(Look::Node(slot));
        }
    }
}
