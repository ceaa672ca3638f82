//! What agents say, and what they are told.

use std::time::Instant;

use sched_api::proto;

use super::{GrantOf, State};
use crate::agents::{Agent, Presence, amounts};
use crate::jobs::{Held, JOB_MASTER_FAILURES_MAX, JOB_MASTER_UNIT};
use crate::spool::{End, JobName};

impl State {
    /// An agent reports.
    pub(crate) fn agent_reports(&mut self, request: &proto::AgentRequest, now: Instant) {
        let capacity = amounts(request.capacity.as_ref());
        let known = self.agents.get(&request.node);
        let is_news = known.is_none_or(|agent| {
            agent.presence != Presence::Here
                || agent.capacity != capacity
                || agent.location != request.location
        });
        let agent = self.agents.entry(request.node.clone()).or_insert_with(|| Agent::new(request, now));
        agent.heard = now;
        agent.incarnation = request.incarnation;
        agent.presence = Presence::Here;
        agent.capacity.clone_from(&capacity);
        agent.location.clone_from(&request.location);
        agent.warning.clone_from(&request.warning);
        agent.running = request.running.iter().map(|container| container.grant).collect();
        if is_news {
            let held = |container: &proto::Container| {
                let job = container.job.parse().ok()?;
                Some((container.grant, job, container.unit, amounts(container.limits.as_ref())))
            };
            let running = request.running.iter().filter_map(held).collect();
            self.scheduling.node_up(&request.node, &request.location, &capacity, running, now);
            for container in &request.running {
                if !self.grants.contains_key(&container.grant) {
                    self.take_over(&request.node, container);
                }
            }
        }
        for ended in &request.ended {
            self.grant_ended(ended, now);
        }
        self.grant(now);
    }

    /// Something runs on a node that was started before this master led, or while the node was taken for lost. It goes on
    /// if the scheduler found a place for it; else it is in no order, and the agent stops it.
    fn take_over(&mut self, node: &str, container: &proto::Container) {
        let Ok(name) = container.job.parse::<JobName>() else { return };
        let Some(job) = self.jobs.get_mut(&name).filter(|job| job.end.is_none()) else { return };
        let grant = container.grant;
        let is_master = container.unit == JOB_MASTER_UNIT;
        if !self.scheduling.holds(&name, grant) || (is_master && job.master.grant.is_some()) {
            return;
        }
        if is_master {
            job.master.grant = Some(grant);
        } else {
            job.held.insert(grant, Held { unit: container.unit, node: node.to_owned() });
        }
        job.touch();
        self.grants.insert(grant, GrantOf { job: name, node: node.to_owned() });
        self.order(grant, container.unit, amounts(container.limits.as_ref()));
    }

    /// What a grant was for is over.
    pub(super) fn grant_ended(&mut self, ended: &proto::Ended, now: Instant) {
        // Its room is free, whoever gave it back before.
        self.scheduling.ended(ended.grant, ended.code != 0, now);
        let Some(of) = self.forget_grant(ended.grant) else { return };
        let Some(job) = self.jobs.get_mut(&of.job) else { return };
        if job.master.grant == Some(ended.grant) {
            self.job_master_died(&of.job, &ended.how, now);
        } else {
            job.held.remove(&ended.grant);
            job.ended.insert(ended.grant, ended.clone());
            job.touch();
        }
    }

    /// Takes a grant out of everything but its job and the scheduler.
    pub(super) fn forget_grant(&mut self, grant: u64) -> Option<GrantOf> {
        let of = self.grants.remove(&grant)?;
        if let Some(agent) = self.agents.get_mut(&of.node)
            && agent.orders.remove(&grant).is_some()
        {
            agent.touch();
        }
        Some(of)
    }

    fn job_master_died(&mut self, name: &JobName, how: &str, now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.master.grant = None;
        job.master.address = None;
        how.clone_into(&mut job.master.how);
        job.master.failures += 1;
        if job.end.is_some() {
            return;
        }
        if job.master.failures >= JOB_MASTER_FAILURES_MAX {
            let why = format!("the job's master died {} times, at last of: {how}", job.master.failures);
            self.end_job(name, End::Failed, why, now);
            return;
        }
        self.note(name, format!("the job's master died ({how}); another one is started"));
        self.want_job_master(name, now);
    }

    /// What a node is to run, and which of the ends it reported are noted.
    pub(crate) fn orders_for(&self, request: &proto::AgentRequest) -> proto::AgentReply {
        let Some(agent) = self.agents.get(&request.node) else { return proto::AgentReply::default() };
        proto::AgentReply {
            version: agent.version,
            orders: agent.orders.values().cloned().collect(),
            acknowledged: request.ended.iter().map(|ended| ended.grant).collect(),
            recovering: self.recovering(),
        }
    }
}
