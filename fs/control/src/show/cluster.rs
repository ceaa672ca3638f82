//! `cluster`, and `pangu status`: what there is and how it is.

use std::fmt::Write as _;

use master_api::proto::{MemberState, StatusReply};

use super::chunkserver::places;
use super::{disks_of, has, heard, is_whole, now_ms, scrubbed, servers_of, tables};
use crate::text::{Table, size};

/// `name` and `description`: what the cluster is called, and the file that says so.
#[must_use]
pub fn cluster(name: &str, description: &str, status: &StatusReply) -> String {
    let mut out = format!("cluster  {name} ({})\n         {description}\n\n", status.cluster_id);
    let mut line = |text: String| writeln!(out, "{text}").expect("a String grows");
    line(masters(status));
    if let Some(table) = tables(status).next() {
        line(chunkservers(status));
        let having = |states: &[MemberState]| table.groups.iter().filter(|group| has(group, states)).count();
        line(format!(
            "groups   {} of {} copies each, {} whole, {} being filled, {} with a member away (table version {})",
            table.groups.len(),
            table.replicas,
            table.groups.iter().filter(|group| is_whole(group)).count(),
            having(&[MemberState::Syncing, MemberState::Joining]),
            having(&[MemberState::Offline]),
            table.version
        ));
        let damaged: u64 = servers_of(status).flat_map(disks_of).map(|(_, disk)| disk.damaged_chunks).sum();
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

fn masters(status: &StatusReply) -> String {
    let mut masters = Table::new(["master", "address", "role", "heard"]);
    for member in &status.members {
        let role = match (member.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        masters.row([
            member.id.to_string(),
            member.address.clone(),
            role.to_owned(),
            heard(member.silent_ms),
        ]);
    }
    masters.render()
}

fn chunkservers(status: &StatusReply) -> String {
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
    for server in servers_of(status) {
        let failed = disks_of(server).filter(|(_, disk)| disk.failed).count();
        let draining = disks_of(server).filter(|(_, disk)| disk.draining).count();
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
            size(disks_of(server).map(|(_, disk)| disk.used_bytes).sum()),
            size(disks_of(server).map(|(_, disk)| disk.capacity_bytes).sum()),
            heard(server.silent_ms),
            scrubbed(server.disk_states.iter(), now_ms),
            places(status, &server.disks),
        ]);
    }
    servers.render()
}

#[cfg(test)]
mod tests {
    use master_api::proto::{MasterMember, MemberState};

    use super::*;
    use crate::show::testing::with_states;

    #[test]
    fn tells_of_masters_chunkservers_and_groups() {
        let mut status = with_states([MemberState::Serving, MemberState::Serving, MemberState::Offline]);
        let master = |id, leader, silent_ms| MasterMember {
            id,
            address: format!("tcp://m{id}:1"),
            voter: true,
            leader,
            silent_ms,
        };
        status.members = vec![master(1, false, 5000), master(2, true, 0)];
        let text = cluster("home", "/etc/cluster.toml", &status);
        for line in [
            "cluster  home (c1)\n         /etc/cluster.toml\n",
            "\n1       tcp://m1:1  follower  5 s ago\n2       tcp://m2:1  leader    now\n",
            "\n3            tcp://10.0.0.3:7000  /r/rack3/h  1      1.0 MiB  1.0 GiB  now    not yet   1 serving, 1 offline\n",
            "groups   2 of 3 copies each, 1 whole, 0 being filled, 1 with a member away (table version 9)\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
