//! What the job wants from the master, as the leading thread last said, for the task that talks to the master.

use std::collections::{BTreeMap, BTreeSet};

use sched_api::proto;

/// See the module. All of it is said with each request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Desired {
    pub(crate) wants: BTreeMap<u32, proto::Want>,
    /// Grants to give back, until the master no longer lists them.
    pub(crate) releases: BTreeSet<u64>,
    pub(crate) avoid: Vec<String>,
    pub(crate) end: Option<proto::JobEnd>,
    pub(crate) why: String,
    pub(crate) instances: u64,
    pub(crate) instances_done: u64,
    /// Grants the job knows of.
    pub(crate) holds: Vec<proto::Granted>,
}

impl Desired {
    pub(crate) fn request(&self, job: &str, grant: u64, address: &str) -> proto::JobRequest {
        proto::JobRequest {
            job: job.to_owned(),
            grant,
            address: address.to_owned(),
            wants: self.wants.values().cloned().collect(),
            releases: self.releases.iter().copied().collect(),
            avoid_nodes: self.avoid.clone(),
            seen_version: 0,
            wait_ms: 0,
            end: self.end.unwrap_or_default().into(),
            why: self.why.clone(),
            instances: self.instances,
            instances_done: self.instances_done,
            holds: self.holds.clone(),
        }
    }
}
