//! After a failover: the new master hears from agents what runs and from job masters what they hold and want.
//!
//! Agents are believed about what runs. Until those that are expected have reported, or a time has passed, nothing is
//! granted: what looks free may be in use, and what looks unwanted may belong to a job that has not been heard yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Recovery;
use crate::error::EventError;
use crate::event::{Effect, Held, Reason};
use crate::ids::{GrantId, JobId, Millis, NodeId, Slot};
use crate::job::{Grant, Unit};
use crate::scheduler::Scheduler;
use crate::work::Look;

#[derive(Debug)]
pub(crate) struct Recovering {
    pub(crate) missing: BTreeSet<NodeId>,
    pub(crate) expected: usize,
    pub(crate) until: Millis,
    /// Grants on nodes whose jobs are not known yet.
    pub(crate) orphans: BTreeMap<JobId, BTreeSet<GrantId>>,
    /// Grants that job masters say they hold and no agent has reported yet.
    claims: BTreeMap<GrantId, (JobId, NodeId)>,
}

impl Recovering {
    pub(crate) fn new(recovery: Recovery) -> Self {
        Self {
            expected: recovery.expected.len(),
            missing: recovery.expected,
            until: recovery.until,
            orphans: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }
}

impl Scheduler {
    /// Compares what an agent says it runs with what it was granted.
    pub(crate) fn reconcile(&mut self, slot: Slot, running: Vec<Held>) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let id = node.id;
        let withdrawn = std::mem::take(&mut node.withdrawn);
        let unheard: Vec<GrantId> = {
            let told: BTreeSet<GrantId> = running.iter().map(|held| held.grant).collect();
            node.grants.iter().copied().filter(|grant| !told.contains(grant)).collect()
        };
        for held in running {
            match self.grants.get(&held.grant) {
                Some(known) if known.node == slot => {
                    if let Some(reason) = known.dying {
                        self.effects.push(Effect::Revoke {
                            grant: held.grant,
                            job: known.job,
                            node: id,
                            reason,
                        });
                    }
                }
                None if !withdrawn.contains(&held.grant) && self.may_adopt(&held) => self.adopt(slot, held),
                _ => self.effects.push(Effect::Revoke {
                    grant: held.grant,
                    job: held.job,
                    node: id,
                    reason: Reason::Unknown,
                }),
            }
        }
        for grant in unheard {
            // Either it has ended, or the agent has never heard of it and is told again.
            if self.grants.get(&grant).is_some_and(|grant| grant.dying.is_some()) {
                self.finish(grant);
            } else {
                self.tell_again(grant);
            }
        }
    }

    /// Only what another master granted can be taken over; what this one granted and does not know, it took away.
    /// Later than in the recovery, the job may have got another one instead: then it is taken only if still wanted.
    fn may_adopt(&self, held: &Held) -> bool {
        if held.grant.epoch >= self.config.epoch || !held.resources.is_sane() {
            return false;
        }
        if self.recovering.is_some() {
            return true;
        }
        self.units.get(&(held.job, held.unit)).is_some_and(|unit| unit.waiting > 0)
    }

    fn adopt(&mut self, slot: Slot, held: Held) {
        let key = (held.job, held.unit);
        let now = self.now;
        let group = self.jobs.get(&held.job).map(|job| job.group);
        self.install(
            held.grant,
            Grant {
                job: held.job,
                unit: held.unit,
                node: slot,
                group,
                resources: held.resources,
                priority: held.priority,
                since: held.since.min(now),
                dying: None,
            },
        );
        let Some(group) = group else {
            if let Some(recovering) = &mut self.recovering {
                recovering.orphans.entry(held.job).or_default().insert(held.grant);
            }
            return;
        };
        self.queues.excuse(group);
        self.hold(key, slot, held.resources, held.priority);
    }

    /// The job holds one more of a unit that it may not have asked for yet.
    fn hold(
        &mut self,
        key: crate::ids::UnitKey,
        slot: Slot,
        resources: crate::resources::Resources,
        priority: crate::ids::Priority,
    ) {
        let now = self.now;
        if let Some(job) = self.jobs.get_mut(&key.0) {
            job.units.insert(key.1);
        }
        self.units.entry(key).or_insert_with(|| Unit::new(resources, priority, now));
        self.take_one(key, slot);
        self.trim_reservations(key);
    }

    /// The job of grants that agents reported is known now.
    pub(crate) fn adopt_orphans(&mut self, job: JobId) {
        let orphans = self.recovering.as_mut().and_then(|recovering| recovering.orphans.remove(&job));
        let Some(group) = self.jobs.get(&job).map(|job| job.group) else { return };
        for id in orphans.into_iter().flatten() {
            let Some(grant) = self.grants.get_mut(&id) else { continue };
            if grant.dying.is_some() {
                continue;
            }
            grant.group = Some(group);
            let (key, slot, resources, priority) =
                ((grant.job, grant.unit), grant.node, grant.resources, grant.priority);
            self.queues.change(group, |usage| usage.used = usage.used.plus(&resources));
            self.queues.excuse(group);
            self.count_priority(group, priority);
            if let Some(job) = self.jobs.get_mut(&job) {
                job.grants.insert(id);
            }
            self.hold(key, slot, resources, priority);
        }
    }

    /// A job master says what it holds: it is told what it has missed, both ways.
    pub(crate) fn holds(&mut self, id: JobId, grants: BTreeMap<GrantId, NodeId>) -> Result<(), EventError> {
        let job = self.jobs.get(&id).ok_or(EventError::UnknownJob(id))?;
        let missed: Vec<GrantId> = job.grants.iter().copied().filter(|id| !grants.contains_key(id)).collect();
        for grant in missed {
            self.tell_again(grant);
        }
        for (grant, node) in grants {
            let known = self.grants.get(&grant).is_some_and(|known| known.job == id && known.dying.is_none());
            if known {
                continue;
            }
            let unheard = |recovering: &&mut Recovering| recovering.missing.contains(&node);
            match self.recovering.as_mut().filter(unheard) {
                Some(recovering) => {
                    recovering.claims.insert(grant, (id, node));
                }
                None => {
                    self.effects.push(Effect::Revoke { grant, job: id, node, reason: Reason::Unknown });
                }
            }
        }
        Ok(())
    }

    fn tell_again(&mut self, id: GrantId) {
        let Some(grant) = self.grants.get(&id) else { return };
        let Some(node) = self.nodes.get(grant.node) else { return };
        self.effects.push(Effect::Grant {
            grant: id,
            job: grant.job,
            unit: grant.unit,
            node: node.id,
            resources: grant.resources,
            priority: grant.priority,
        });
    }

    /// This node need not be waited for any more.
    pub(crate) fn heard_from(&mut self, node: NodeId) {
        let Some(recovering) = &mut self.recovering else { return };
        recovering.missing.remove(&node);
        if recovering.missing.is_empty() {
            self.recovered();
        }
    }

    pub(crate) fn recovery_timed_out(&mut self) {
        if self.recovering.as_ref().is_some_and(|recovering| recovering.until <= self.now) {
            self.recovered();
        }
    }

    fn recovered(&mut self) {
        let Some(recovering) = self.recovering.take() else { return };
        self.effects.push(Effect::Recovered { missing: recovering.missing.len() });
        for orphan in recovering.orphans.into_values().flatten() {
            self.revoke(orphan, Reason::Unknown);
        }
        for (grant, (job, node)) in recovering.claims {
            let known =
                self.grants.get(&grant).is_some_and(|known| known.job == job && known.dying.is_none());
            if !known {
                self.effects.push(Effect::Revoke { grant, job, node, reason: Reason::Unknown });
            }
        }
        let slots: Vec<Slot> = self.nodes.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.work.push(Look::Node(slot));
        }
    }
}
