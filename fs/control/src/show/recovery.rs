//! `recovery`: what is not whole, and what moves.

use std::fmt::Write as _;

use master_api::proto::StatusReply;

use super::{disks_of, groups_of, is_whole, members, servers_of};
use crate::text::{Table, count, size};

/// Lines only for what is not as it should be; one line that says so if there is none.
#[must_use]
pub fn recovery(status: &StatusReply) -> String {
    let mut out = String::new();
    for server in servers_of(status) {
        for (disk, state) in disks_of(server).filter(|(_, state)| state.draining) {
            let groups =
                groups_of(status).filter(|group| group.members.iter().any(|m| m.disk == disk)).count();
            let left = match (groups, state.used_bytes) {
                (0, 0) => "empty, safe to pull".to_owned(),
                (groups, bytes) => format!("{} and {} to go", count(groups, "group"), size(bytes)),
            };
            writeln!(out, "disk {disk} of chunkserver {} is drained: {left}", server.id)
                .expect("a String grows");
        }
        for (disk, state) in disks_of(server).filter(|(_, state)| state.damaged_chunks > 0) {
            let chunks = state.damaged_chunks;
            writeln!(out, "disk {disk} of chunkserver {} has {chunks} damaged chunk(s) to repair", server.id)
                .expect("a String grows");
        }
    }
    let replicas = super::tables(status).next().map_or(0, |table| table.replicas as usize);
    let mut table = Table::new(["group", "epoch", "members (disks)"]);
    let mut moving = 0;
    for group in groups_of(status).filter(|group| !is_whole(group) || group.members.len() != replicas) {
        moving += 1;
        table.row([group.id.to_string(), group.epoch.to_string(), members(group)]);
    }
    if moving > 0 {
        let all = groups_of(status).count();
        write!(out, "{moving} of {} not whole or moving\n{}", count(all, "group"), table.render())
            .expect("a String grows");
    }
    if out.is_empty() { "nothing to recover\n".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use master_api::proto::MemberState::{Offline, Serving, Syncing};

    use super::*;
    use crate::show::testing::{status, with_states};

    #[test]
    fn only_what_is_not_as_it_should_be() {
        assert_eq!(recovery(&status()), "nothing to recover\n");
        let mut status = with_states([Serving, Syncing, Offline]);
        let servers = &mut status.table.as_mut().unwrap().servers;
        servers[0].disk_states[0].draining = true;
        servers[1].disk_states[0].damaged_chunks = 4;
        assert_eq!(
            recovery(&status),
            "disk 10 of chunkserver 1 is drained: 2 groups and 1.0 MiB to go\n\
             disk 20 of chunkserver 2 has 4 damaged chunk(s) to repair\n\
             1 of 2 groups not whole or moving\n\
             group  epoch  members (disks)\n\
             1      5      10 serving, 20 syncing, 30 offline\n"
        );
    }

    #[test]
    fn an_empty_disk_may_be_pulled() {
        let mut status = status();
        let table = status.table.as_mut().unwrap();
        table.groups.clear();
        table.servers[2].disk_states[0].draining = true;
        table.servers[2].disk_states[0].used_bytes = 0;
        assert_eq!(recovery(&status), "disk 30 of chunkserver 3 is drained: empty, safe to pull\n");
    }
}
