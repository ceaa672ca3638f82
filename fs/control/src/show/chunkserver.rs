//! `chunkservers/ID/status`: one chunkserver.

use std::fmt::Write as _;

use master_api::proto::{MemberState, Pace, StatusReply};

use super::{disks_of, groups_of, heard, latency, now_ms, pace_name, scrubbed, servers_of, state_name};
use crate::text::{Table, size};

/// `None` if there is no such chunkserver.
#[must_use]
pub fn chunkserver(status: &StatusReply, id: u32) -> Option<String> {
    let server = servers_of(status).find(|server| server.id == id)?;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<11} {value}").expect("a String grows");
    line("chunkserver", &server.id.to_string());
    line("address", &server.address);
    line("location", &server.location);
    line("heard", &heard(server.silent_ms));
    let mut table =
        Table::new(["disk", "state", "used", "size", "write", "scrubbed", "damaged", "errors", "groups"]);
    let now_ms = now_ms();
    for (disk, state) in disks_of(server) {
        let word = match (state.failed, state.draining, state.pace()) {
            (true, _, _) => "failed",
            (false, true, _) => "draining",
            (false, false, Pace::Unspecified) => "in use",
            (false, false, pace) => pace_name(pace),
        };
        table.row([
            disk.to_string(),
            word.to_owned(),
            size(state.used_bytes),
            size(state.capacity_bytes),
            latency(state),
            scrubbed(std::iter::once(state), now_ms),
            state.damaged_chunks.to_string(),
            state.errors.to_string(),
            places(status, &[disk]),
        ]);
    }
    Some(out + &table.render())
}

/// What disks are in their groups: "64 serving", "60 serving, 4 syncing".
pub(super) fn places(status: &StatusReply, disks: &[u32]) -> String {
    let states = [MemberState::Serving, MemberState::Joining, MemberState::Syncing, MemberState::Offline];
    let members = || groups_of(status).flat_map(|group| &group.members).filter(|m| disks.contains(&m.disk));
    let counts = states.iter().filter_map(|state| {
        let count = members().filter(|member| member.state() == *state).count();
        (count > 0).then(|| format!("{count} {}", state_name(*state)))
    });
    let counts: Vec<_> = counts.collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::testing::with_states;

    #[test]
    fn tells_of_each_disk() {
        let mut status = with_states([MemberState::Serving, MemberState::Syncing, MemberState::Serving]);
        let servers = &mut status.table.as_mut().unwrap().servers;
        servers[1].disk_states[0].draining = true;
        servers[2].disk_states[0].write_latency_us = 812_345;
        servers[2].disk_states[0].set_pace(Pace::Out);
        assert_eq!(
            chunkserver(&status, 2).unwrap(),
            "chunkserver 2\naddress     tcp://10.0.0.2:7000\nlocation    /r/rack2/h\nheard       now\n\
             disk  state     used     size     write    scrubbed  damaged  errors  groups\n\
             20    draining  1.0 MiB  1.0 GiB  unknown  not yet   0        0       1 serving, 1 syncing\n"
        );
        let third = chunkserver(&status, 3).unwrap();
        assert!(third.contains("slow, out of use  1.0 MiB  1.0 GiB  812 ms"), "{third}");
        assert_eq!(chunkserver(&status, 4), None);
    }
}
