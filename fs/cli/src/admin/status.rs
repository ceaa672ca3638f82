//! `pangu status`: what there is and how it is.

use anyhow::Context as _;
use fs_control::show;
use master_api::proto::StatusReply;
use serde_json::{Value, json};

use super::Session;

pub(super) async fn run(session: &Session) -> anyhow::Result<String> {
    // With a session the client knows the leader, which alone hears the chunkservers.
    let ready = tokio::time::timeout(session.timeout, session.master.ready()).await;
    ready
        .with_context(|| format!("no master answered within {:?}: are they running?", session.timeout))??;
    let status =
        session.master.status(session.deadline()).await.context("ask the masters for their state")?;
    if session.json {
        return Ok(format!("{:#}\n", value(session, &status)));
    }
    let description = session.found.description.display().to_string();
    Ok(show::cluster(&session.found.cluster.name, &description, &status))
}

fn value(session: &Session, status: &StatusReply) -> Value {
    let masters: Vec<Value> = status
        .members
        .iter()
        .map(|m| {
            json!({"id": m.id, "address": m.address, "voter": m.voter, "leader": m.leader, "silent_ms": m.silent_ms})
        })
        .collect();
    let servers: Vec<Value> = status
        .table
        .iter()
        .flat_map(|table| &table.servers)
        .map(|s| {
            let disks: Vec<Value> = s
                .disks
                .iter()
                .zip(&s.disk_states)
                .map(|(id, d)| {
                    json!({"id": id, "capacity_bytes": d.capacity_bytes, "used_bytes": d.used_bytes,
                           "failed": d.failed, "draining": d.draining, "scrub_began_ms": d.scrub_began_ms,
                           "scrub_ended_ms": d.scrub_ended_ms, "damaged_chunks": d.damaged_chunks,
                           "write_latency_us": d.write_latency_us, "pace": show::pace_name(d.pace()),
                           "errors": d.errors, "failing": d.failing})
                })
                .collect();
            json!({"id": s.id, "address": s.address, "location": s.location, "silent_ms": s.silent_ms,
                   "disks": disks})
        })
        .collect();
    let groups: Vec<Value> = status
        .table
        .iter()
        .flat_map(|table| &table.groups)
        .map(|g| {
            let members: Vec<Value> = g
                .members
                .iter()
                .map(|m| json!({"disk": m.disk, "state": show::state_name(m.state())}))
                .collect();
            json!({"id": g.id, "epoch": g.epoch, "members": members})
        })
        .collect();
    json!({
        "cluster": session.found.cluster.name,
        "cluster_id": status.cluster_id,
        "cluster_epoch": status.lineage.as_ref().map_or(0, |lineage| lineage.epoch),
        "replicas": status.table.as_ref().map_or(0, |table| table.replicas),
        "min_replicas": status.table.as_ref().map_or(0, |table| table.min_replicas),
        "leader": status.leader_id,
        "term": status.term,
        "last_log_index": status.last_log_index,
        "applied_index": status.applied_index,
        "sessions": status.sessions,
        "deletions_pending": status.deletions_pending,
        "masters": masters,
        "chunkservers": servers,
        "groups": groups,
    })
}
