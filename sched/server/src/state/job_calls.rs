//! What job masters say, and what they are told.

use std::collections::BTreeMap;
use std::time::Instant;

use sched_api::proto::{self, JobEnd};

use super::State;
use crate::agents::amounts;
use crate::jobs::JOB_MASTER_UNIT;
use crate::scheduling::Wanted;
use crate::spool::{End, JobName};

/// Why a job master is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeard {
    /// There is no such job (any more): it may exit.
    Unknown,
    /// Another process leads the job: it is to exit.
    Replaced,
}

impl State {
    /// A job's master reports.
    ///
    /// # Errors
    /// It is not (or no longer) the master of a job.
    pub(crate) fn job_reports(
        &mut self,
        request: &proto::JobRequest,
        now: Instant,
    ) -> Result<JobName, NotHeard> {
        let name: JobName = request.job.parse().map_err(|_| NotHeard::Unknown)?;
        if self.ended.names.contains(&name) {
            return Ok(name);
        }
        let recovering = self.recovering();
        let job = self.jobs.get_mut(&name).ok_or(NotHeard::Unknown)?;
        match job.master.grant {
            Some(grant) if grant != request.grant => return Err(NotHeard::Replaced),
            // Its agent was not heard yet.
            None if !recovering => return Err(NotHeard::Replaced),
            _ => {}
        }
        if job.end.is_some() {
            return Ok(name);
        }
        if job.master.address.as_deref() != Some(&request.address) {
            job.master.address = Some(request.address.clone());
            for grant in job.held.keys() {
                let node = self.grants.get(grant).and_then(|of| self.agents.get_mut(&of.node));
                if let Some(agent) = node {
                    if let Some(order) = agent.orders.get_mut(grant) {
                        order.job_master.clone_from(&request.address);
                    }
                    agent.touch();
                }
            }
            self.todo.push_back(super::Todo::Tell(name.clone()));
        }
        if request.instances_done > job.instances_done {
            job.master.failures = 0;
        }
        job.instances = request.instances;
        job.instances_done = request.instances_done;
        job.why.clone_from(&request.why);
        job.ended.retain(|grant, _| request.holds.iter().any(|held| held.grant == *grant));
        self.wants(&name, request, now);
        self.avoids(&name, &request.avoid_nodes, now);
        match request.end() {
            JobEnd::Unspecified => {}
            JobEnd::Done => self.end_job(&name, End::Done, request.why.clone(), now),
            JobEnd::Failed => self.end_job(&name, End::Failed, request.why.clone(), now),
            JobEnd::Killed => self.end_job(&name, End::Killed, request.why.clone(), now),
        }
        self.grant(now);
        Ok(name)
    }

    /// What the job wants now, and what it gives back: in one step, so that it is not granted the same again. A worker whose
    /// grant is given back was told to exit; what is left of it is stopped by its agent.
    fn wants(&mut self, name: &JobName, request: &proto::JobRequest, now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let wants: BTreeMap<u32, proto::Want> = request
            .wants
            .iter()
            .filter(|want| want.unit != JOB_MASTER_UNIT)
            .map(|want| (want.unit, want.clone()))
            .collect();
        let changed = wants.values().filter(|want| job.wants.get(&want.unit) != Some(want)).map(wanted);
        let gone = job.wants.values().filter(|want| !wants.contains_key(&want.unit));
        let gone = gone.map(|want| Wanted { total: 0, ..wanted(want) });
        let wanted: Vec<Wanted> = changed.chain(gone).collect();
        let released: Vec<u64> =
            request.releases.iter().copied().filter(|grant| job.held.remove(grant).is_some()).collect();
        if !released.is_empty() {
            job.touch();
        }
        job.wants = wants;
        for grant in &released {
            self.forget_grant(*grant);
        }
        if !wanted.is_empty() || !released.is_empty() {
            self.scheduling.want(name, &wanted, &released, now);
        }
    }

    fn avoids(&mut self, name: &JobName, nodes: &[String], now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let nodes = nodes.iter().cloned().collect();
        if job.avoid != nodes {
            self.scheduling.avoid(name, &nodes, now);
            job.avoid = nodes;
        }
    }

    /// What a job's master is told.
    pub(crate) fn grants_for(&self, name: &JobName) -> proto::JobReply {
        let Some(job) = self.jobs.get(name) else {
            return proto::JobReply { end_noted: true, ..proto::JobReply::default() };
        };
        let granted = job.held.iter().map(|(grant, held)| proto::Granted {
            grant: *grant,
            unit: held.unit,
            node: held.node.clone(),
            rack: self.agents.get(&held.node).map(|agent| rack(&agent.location)).unwrap_or_default(),
        });
        proto::JobReply {
            version: job.version,
            granted: granted.collect(),
            why: job.wants.keys().find_map(|unit| self.scheduling.why(name, *unit)).unwrap_or_default(),
            recovering: self.recovering(),
            ended: job.ended.values().cloned().collect(),
            end_noted: false,
            kill: job.kill,
            pause: job.pause,
        }
    }

    /// Where a job's workers find its master; `None`: the job has ended or never was.
    pub(crate) fn find_job(&self, name: &str) -> Option<String> {
        let job = self.jobs.get(&name.parse::<JobName>().ok()?)?;
        Some(job.master.address.clone().unwrap_or_default())
    }
}

pub(super) fn wanted(want: &proto::Want) -> Wanted {
    Wanted {
        unit: want.unit,
        resources: amounts(want.resources.as_ref()),
        priority_offset: want.priority,
        total: want.total,
        places: want.preferences.iter().map(|place| (place.place.clone(), place.count)).collect(),
    }
}

/// /region/rack of a location.
pub(crate) fn rack(location: &str) -> String {
    let mut parts = location.split('/');
    let (_, region, rack) =
        (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("/{region}/{rack}")
}
