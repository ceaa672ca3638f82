//! What the scheduler decided becomes orders and news.

use std::collections::BTreeMap;
use std::time::Instant;

use sched_api::proto;

use super::{GrantOf, State};
use crate::jobs::{Held, JOB_MASTER_UNIT};
use crate::scheduling::Decision;

impl State {
    /// Lets the scheduler decide, and hands its decisions on. While this master recovers, nothing is granted: it may not
    /// know yet what runs.
    pub(super) fn grant(&mut self, now: Instant) {
        for decision in self.scheduling.decide(now) {
            match decision {
                Decision::Granted { grant, job, unit, node, resources } => {
                    let Some(known) = self.jobs.get_mut(&job) else {
                        self.scheduling.ended(grant, false, now);
                        continue;
                    };
                    if unit == JOB_MASTER_UNIT {
                        known.master.grant = Some(grant);
                    } else {
                        known.held.insert(grant, Held { unit, node: node.clone() });
                        known.touch();
                    }
                    self.grants.insert(grant, GrantOf { job, node });
                    self.order(grant, unit, resources);
                }
                Decision::Revoked { grant, why } => self.revoked(grant, &why, now),
                Decision::Recovered => self.recovered(now),
            }
        }
    }

    /// The agent of a grant's node is to run what it is for.
    pub(super) fn order(&mut self, grant: u64, unit: u32, limits: BTreeMap<String, u64>) {
        let Some(GrantOf { job: name, node }) = self.grants.get(&grant) else { return };
        let (Some(job), Some(agent)) = (self.jobs.get(name), self.agents.get_mut(node)) else { return };
        let is_master = unit == JOB_MASTER_UNIT;
        let program = if is_master { proto::Program::JobMaster } else { proto::Program::Worker };
        let order = proto::Order {
            grant,
            job: name.to_string(),
            limits: Some(proto::Resources { amounts: limits.into_iter().collect() }),
            uid: job.accepted.owner.uid,
            gid: job.accepted.owner.gid,
            program: program.into(),
            directory: job.directory(),
            job_master: job.master.address.clone().unwrap_or_default(),
            unit,
        };
        agent.orders.insert(grant, order);
        agent.touch();
    }

    /// The scheduler takes a grant back for somebody else.
    fn revoked(&mut self, grant: u64, why: &str, now: Instant) {
        let Some(of) = self.forget_grant(grant) else { return };
        let Some(job) = self.jobs.get_mut(&of.job) else { return };
        if job.master.grant == Some(grant) {
            job.master.grant = None;
            job.master.address = None;
            self.want_job_master(&of.job, now);
        } else {
            job.held.remove(&grant);
            let name = of.job.to_string();
            let how = format!("taken back: {why}");
            job.ended.insert(grant, proto::Ended { grant, job: name, code: -1, how, out_of_memory: false });
            job.touch();
        }
        self.note(&of.job, format!("a grant on {} was taken back: {why}", of.node));
    }
}
