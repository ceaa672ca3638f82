//! What happens with time: recovery ends, nodes fall silent.

use std::time::Instant;

use sched_api::proto;

use super::{LOST_AFTER, SILENT_AFTER, State};
use crate::agents::Presence;
use crate::spool::JobName;

impl State {
    /// To be called a few times a second.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.look_for_silent_nodes(now);
        self.grant(now);
    }

    /// Everybody who is alive had time to say what they have. Jobs without a master get one.
    pub(super) fn recovered(&mut self, now: Instant) {
        let without: Vec<JobName> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.master.grant.is_none() && job.end.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        tracing::info!(
            jobs = self.jobs.len(),
            agents = self.agents.len(),
            grants = self.grants.len(),
            begin = without.len(),
            "this master knows what runs, and grants from now on"
        );
        for name in without {
            self.want_job_master(&name, now);
        }
        // What was held back is told.
        for agent in self.agents.values_mut() {
            agent.touch();
        }
        for job in self.jobs.values_mut() {
            job.touch();
        }
    }

    fn look_for_silent_nodes(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (node, agent) in &mut self.agents {
            let silence = now.saturating_duration_since(agent.heard);
            if silence >= LOST_AFTER && agent.presence != Presence::Lost {
                agent.presence = Presence::Lost;
                lost.push(node.clone());
            } else if silence >= SILENT_AFTER && agent.presence == Presence::Here {
                agent.presence = Presence::Silent;
                tracing::warn!(node, "the agent is silent: nothing new is granted there");
                self.scheduling.node_silent(node, now);
            }
        }
        for node in lost {
            tracing::warn!(node, "the agent is lost: what ran there is started elsewhere");
            self.node_lost(&node, now);
        }
    }

    fn node_lost(&mut self, node: &str, now: Instant) {
        let grants: Vec<u64> =
            self.agents.get(node).map(|agent| agent.orders.keys().copied().collect()).unwrap_or_default();
        for grant in grants {
            let how = format!("the machine {node} is lost");
            let ended = proto::Ended { grant, job: String::new(), code: -1, how, out_of_memory: false };
            self.grant_ended(&ended, now);
        }
        self.scheduling.node_lost(node, now);
    }
}
