//! Nodes, queues and jobs as they are now, as JSON for people and programs.

use std::time::Instant;

use sched_api::proto;
use serde_json::json;

use crate::state::State;

pub(crate) fn of(state: &State, now: Instant) -> proto::OverviewReply {
    let nodes: Vec<_> = state
        .agents
        .iter()
        .map(|(node, agent)| {
            json!({
                "node": node,
                "state": agent.presence.word(),
                "location": agent.location,
                "capacity": agent.capacity,
                "used": state.scheduling.used_on(node),
                "running": agent.orders.len(),
                "silent_ms": now.saturating_duration_since(agent.heard).as_millis() as u64,
                "warning": agent.warning,
            })
        })
        .collect();
    let jobs: Vec<_> = state
        .jobs
        .iter()
        .map(|(name, job)| {
            json!({
                "job": name.as_str(),
                "queue": job.accepted.queue.as_str(),
                "state": job.status(),
                "priority": job.accepted.spec.priority(),
                "uid": job.accepted.owner.uid,
                "grants": job.held.len(),
                "instances": job.instances,
                "instances_done": job.instances_done,
                "why": state.why(name),
            })
        })
        .collect();
    proto::OverviewReply {
        nodes: json!(nodes).to_string(),
        queues: json!(state.scheduling.queues()).to_string(),
        jobs: json!(jobs).to_string(),
    }
}
