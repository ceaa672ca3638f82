//! `pangu status`: what there is and how it is.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use master_api::proto::{Disk, MemberState, StatusReply};
use serde_json::{Value, json};

use super::Session;
use crate::text::{Table, size};

/// A chunkserver heard this recently is up: a few heartbeats.
const UP_MS: u64 = 2_000;

pub(super) async fn run(session: &Session) -> anyhow::Result<String> {
    // With a session the client knows the leader, which alone hears the chunkservers.
    let ready = tokio::time::timeout(session.timeout, session.master.ready()).await;
    ready
        .with_context(|| format!("no master answered within {:?}: are they running?", session.timeout))??;
    let status =
        session.master.status(session.deadline()).await.context("ask the masters for their state")?;
    Ok(if session.json { format!("{:#}\n", value(session, &status)) } else { text(session, &status) })
}

fn text(session: &Session, status: &StatusReply) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a String grows");
    line(format!("cluster  {} ({})", session.found.cluster.name, status.cluster_id));
    line(format!("         {}", session.found.description.display()));
    line(String::new());
    let mut masters = Table::new(["master", "address", "role"]);
    for member in &status.members {
        let role = match (member.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        masters.row([member.id.to_string(), member.address.clone(), role.to_owned()]);
    }
    line(masters.render());
    if let Some(table) = &status.table {
        let now_ms = now_ms();
        let mut servers = Table::new([
            "chunkserver",
            "address",
            "location",
            "disks",
            "used",
            "size",
            "heard",
            "scrubbed",
            "groups",
        ]);
        for server in &table.servers {
            let sum = |of: fn(&Disk) -> u64| server.disk_states.iter().map(of).sum::<u64>();
            let failed = server.disk_states.iter().filter(|disk| disk.failed).count();
            let draining = server.disk_states.iter().filter(|disk| disk.draining).count();
            let disks = server.disks.len();
            servers.row([
                server.id.to_string(),
                server.address.clone(),
                server.location.clone(),
                match (failed, draining) {
                    (0, 0) => disks.to_string(),
                    (0, _) => format!("{disks} ({draining} draining)"),
                    (_, 0) => format!("{disks} ({failed} failed)"),
                    (_, _) => format!("{disks} ({failed} failed, {draining} draining)"),
                },
                size(sum(|disk| disk.used_bytes)),
                size(sum(|disk| disk.capacity_bytes)),
                heard(server.silent_ms),
                scrubbed(&server.disk_states, now_ms),
                members(table, &server.disks),
            ]);
        }
        line(servers.render());
        let having = |states: &[MemberState]| {
            table.groups.iter().filter(|g| g.members.iter().any(|m| states.contains(&m.state()))).count()
        };
        let (short, filling) =
            (having(&[MemberState::Offline]), having(&[MemberState::Syncing, MemberState::Joining]));
        let whole =
            table.groups.iter().filter(|g| g.members.iter().all(|m| m.state() == MemberState::Serving));
        line(format!(
            "groups   {} of {} copies each, {} whole, {filling} being filled, {short} with a member away \
             (table version {})",
            table.groups.len(),
            table.replicas,
            whole.count(),
            table.version
        ));
        let damaged = |disk: &Disk| disk.damaged_chunks;
        let damaged: u64 = table.servers.iter().flat_map(|server| &server.disk_states).map(damaged).sum();
        if damaged > 0 {
            line(format!("damage   {damaged} chunks have damaged data on one disk and wait for repair"));
        }
    }
    if let Some(usage) = &status.usage {
        line(format!(
            "space    {} used of {}, {} files and directories",
            size(usage.used_bytes),
            size(usage.total_bytes),
            usage.inodes_used
        ));
    }
    line(format!("sessions {}, deletions pending {}", status.sessions, status.deletions_pending));
    line(format!(
        "raft     term {}, log {}, applied {}",
        status.term, status.last_log_index, status.applied_index
    ));
    out
}

/// What a server's disks are in their groups: "64 serving", "60 serving, 4 syncing".
fn members(table: &master_api::proto::Table, disks: &[u32]) -> String {
    let states = [MemberState::Serving, MemberState::Joining, MemberState::Syncing, MemberState::Offline];
    let here = || table.groups.iter().flat_map(|group| &group.members).filter(|m| disks.contains(&m.disk));
    let counts = states.iter().filter_map(|state| {
        let count = here().filter(|member| member.state() == *state).count();
        (count > 0).then(|| format!("{count} {}", super::r#where::state_name(*state)))
    });
    let counts: Vec<_> = counts.collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn heard(silent_ms: u64) -> String {
    if silent_ms <= UP_MS { "now".to_owned() } else { format!("{} s ago", silent_ms / 1000) }
}

/// When the disk that waits longest for it was last read and verified as a whole.
fn scrubbed(disks: &[Disk], now_ms: u64) -> String {
    match disks.iter().filter(|disk| !disk.failed).map(|disk| disk.scrub_ended_ms).min() {
        None | Some(0) => "not yet".to_owned(),
        Some(ended_ms) => ago(now_ms.saturating_sub(ended_ms) / 1000),
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn value(session: &Session, status: &StatusReply) -> Value {
    let masters: Vec<Value> = status
        .members
        .iter()
        .map(|m| json!({"id": m.id, "address": m.address, "voter": m.voter, "leader": m.leader}))
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
                           "scrub_ended_ms": d.scrub_ended_ms, "damaged_chunks": d.damaged_chunks})
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
                .map(|m| json!({"disk": m.disk, "state": super::r#where::state_name(m.state())}))
                .collect();
            json!({"id": g.id, "epoch": g.epoch, "members": members})
        })
        .collect();
    json!({
        "cluster": session.found.cluster.name,
        "cluster_id": status.cluster_id,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_that_waits_longest_counts() {
        let disk = |ended_s: u64, failed| Disk { scrub_ended_ms: ended_s * 1000, failed, ..Disk::default() };
        let now_ms = 1_000_000_000;
        let told = |disks: &[Disk]| scrubbed(disks, now_ms);
        assert_eq!(told(&[disk(999_940, false), disk(990_000, false)]), "2 h ago");
        assert_eq!(
            told(&[disk(999_940, false), disk(0, true)]),
            "60 s ago",
            "a failed disk is not waited for"
        );
        assert_eq!(told(&[disk(999_940, false), disk(0, false)]), "not yet");
        assert_eq!(told(&[]), "not yet");
        assert_eq!((ago(600), ago(700_000)), ("10 min ago".to_owned(), "8 d ago".to_owned()));
    }
}
