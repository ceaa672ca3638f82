//! `health`: one word, then why.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use master_api::proto::{Disk, Group, MemberState, Pace, Server, StatusReply};

use super::{UP_MS, disks_of, groups_of, has, latency, servers_of, tables};
use crate::Freshness;
use crate::text::{ago, count, size};

/// A disk with less than this share of it free is nearly full.
const FREE_SHARE_MIN: u64 = 20;

/// The first line is `ok`, `degraded`, `blocked` or `unreachable`; each of the others is a reason.
#[must_use]
pub fn health(status: &StatusReply, freshness: Freshness) -> String {
    let mut reasons = Vec::new();
    let blocked = blocked(status, &mut reasons);
    copies(status, &mut reasons);
    for master in status.members.iter().filter(|master| master.silent_ms > UP_MS) {
        let (id, address) = (master.id, &master.address);
        reasons.push(format!("master {id} ({address}) was last heard {}", ago(master.silent_ms / 1000)));
    }
    let used: BTreeSet<u32> =
        groups_of(status).flat_map(|group| &group.members).map(|member| member.disk).collect();
    let missed = servers_of(status).filter(|server| !is_replaced(server, &used));
    missed.for_each(|server| of_server(server, &mut reasons));
    let word = match freshness {
        Freshness::Ago(_) | Freshness::Never => "unreachable",
        Freshness::Now | Freshness::Denied if blocked => "blocked",
        Freshness::Now | Freshness::Denied if !reasons.is_empty() => "degraded",
        Freshness::Now | Freshness::Denied => "ok",
    };
    let mut out = format!("{word}\n");
    for reason in freshness.note().into_iter().chain(reasons) {
        writeln!(out, "{reason}").expect("a String grows");
    }
    out
}

/// Whether something cannot be written, or not even read.
fn blocked(status: &StatusReply, reasons: &mut Vec<String>) -> bool {
    let Some(table) = tables(status).next() else { return false };
    let serving = |group: &&Group| {
        group
            .members
            .iter()
            .filter(|m| matches!(m.state(), MemberState::Serving | MemberState::Joining))
            .count()
    };
    let least = table.min_replicas as usize;
    let (unread, unwritten): (Vec<_>, Vec<_>) =
        table.groups.iter().filter(|group| serving(group) < least).partition(|group| serving(group) == 0);
    let (unread, unwritten) = (unread.len(), unwritten.len());
    if unread > 0 {
        reasons.push(format!("{} no serving member: reads and writes there wait", have(unread)));
    }
    if unwritten > 0 {
        reasons.push(format!("{} fewer than {least} serving members: writes there wait", have(unwritten)));
    }
    if table.groups.is_empty() {
        reasons.push("there are no groups yet: too few chunkservers have registered".to_owned());
    }
    unread + unwritten > 0 || table.groups.is_empty()
}

fn have(groups: usize) -> String {
    format!("{} {}", count(groups, "group"), if groups == 1 { "has" } else { "have" })
}

/// Copies that are missing or being made.
fn copies(status: &StatusReply, reasons: &mut Vec<String>) {
    let replicas = tables(status).next().map_or(0, |table| table.replicas as usize);
    let few = groups_of(status).filter(|group| group.members.len() < replicas).count();
    if few > 0 {
        reasons.push(format!(
            "{} fewer than {replicas} members: more get them as chunkservers in other racks come",
            have(few)
        ));
    }
    let having = |states: &[MemberState]| groups_of(status).filter(|group| has(group, states)).count();
    let away = having(&[MemberState::Offline]);
    let filling = having(&[MemberState::Syncing, MemberState::Joining]);
    if away > 0 {
        reasons.push(format!("{} a member away", have(away)));
    }
    if filling > 0 {
        reasons.push(format!("{} a member being filled", have(filling)));
    }
}

/// It is away, and nobody needs it back: its disks were lost or are to be emptied, and all they had is elsewhere.
fn is_replaced(server: &Server, used: &BTreeSet<u32>) -> bool {
    let mut disks = disks_of(server);
    server.silent_ms > UP_MS
        && !server.disks.is_empty()
        && disks.all(|(id, disk)| (disk.failed || disk.draining) && !used.contains(&id))
}

fn of_server(server: &Server, reasons: &mut Vec<String>) {
    let named = || format!("chunkserver {} ({}, {})", server.id, server.address, server.location);
    if server.silent_ms > UP_MS {
        reasons.push(format!("{} was last heard {}", named(), ago(server.silent_ms / 1000)));
    }
    for (id, disk) in disks_of(server) {
        let Disk { capacity_bytes, used_bytes, failed, damaged_chunks, .. } = *disk;
        let named = || format!("disk {id} of {}", named());
        if failed {
            reasons.push(format!("{} failed", named()));
            continue;
        }
        if disk.failing {
            let blocks = count(usize::try_from(disk.errors).unwrap_or(usize::MAX), "block");
            let then = match (disk.draining, disk.used_bytes) {
                (true, 0) => "it is empty: replace it",
                (true, _) => "it is being emptied",
                (false, _) => "it will be emptied when there is a place for what it has",
            };
            reasons.push(format!(
                "{} is failing, {blocks} of it were found damaged within a day: {then}",
                named()
            ));
        }
        match disk.pace() {
            Pace::Unspecified => {}
            Pace::Slow => reasons.push(format!(
                "{} is slow (a write takes {}) and stays in use: no more disks may be out for that",
                named(),
                latency(disk)
            )),
            Pace::Out => reasons.push(format!(
                "{} is slow (a write takes {}): its groups go on without it until it is fast",
                named(),
                latency(disk)
            )),
        }
        if damaged_chunks > 0 {
            let chunks = count(usize::try_from(damaged_chunks).unwrap_or(usize::MAX), "damaged chunk");
            reasons.push(format!("{} has {chunks} that wait for repair", named()));
        }
        let free = capacity_bytes.saturating_sub(used_bytes);
        if capacity_bytes > 0 && free < capacity_bytes / FREE_SHARE_MIN {
            reasons.push(format!(
                "{} is nearly full: {} free of {}",
                named(),
                size(free),
                size(capacity_bytes)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use MemberState::{Joining, Offline, Serving, Syncing};
    use master_api::proto::MasterMember;

    use super::*;
    use crate::show::testing::{status, with_states};

    fn lines(status: &StatusReply) -> Vec<String> {
        health(status, Freshness::Now).lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_word_says_how_bad_it_is() {
        assert_eq!(lines(&status()), ["ok"]);
        assert_eq!(
            lines(&with_states([Serving, Serving, Offline])),
            ["degraded", "1 group has a member away"]
        );
        assert_eq!(
            lines(&with_states([Serving, Joining, Syncing])),
            ["degraded", "1 group has a member being filled"]
        );
        let one = lines(&with_states([Serving, Syncing, Offline]));
        assert_eq!(one[..2], ["blocked", "1 group has fewer than 2 serving members: writes there wait"]);
        let mut few = status();
        few.table.as_mut().unwrap().groups[0].members.pop();
        let wants = "1 group has fewer than 3 members: more get them as chunkservers in other racks come";
        assert_eq!(lines(&few), ["degraded", wants]);
        let none = lines(&with_states([Offline, Offline, Offline]));
        assert_eq!(none[..2], ["blocked", "1 group has no serving member: reads and writes there wait"]);
        let mut empty = status();
        empty.table.as_mut().unwrap().groups.clear();
        assert_eq!(lines(&empty)[0], "blocked");
    }

    #[test]
    fn what_is_known_is_told_when_no_master_answers() {
        let text = health(&with_states([Serving, Serving, Offline]), Freshness::Ago(Duration::from_secs(7)));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            ["unreachable", "no master answers: this was so 7 s ago", "1 group has a member away"]
        );
        assert!(
            health(&StatusReply::default(), Freshness::Never)
                .starts_with("unreachable\nno master has answered")
        );
    }

    #[test]
    fn servers_and_disks_are_named() {
        let mut status = status();
        status.members.push(MasterMember {
            id: 3,
            address: "tcp://10.0.0.9:1".to_owned(),
            silent_ms: 70_000,
            ..MasterMember::default()
        });
        let servers = &mut status.table.as_mut().unwrap().servers;
        servers[0].silent_ms = 12_000;
        servers[1].disk_states[0].failed = true;
        servers[0].disk_states[0].write_latency_us = 1_234;
        servers[0].disk_states[0].set_pace(Pace::Slow);
        servers[2].disk_states[0].write_latency_us = 90_000;
        servers[2].disk_states[0].set_pace(Pace::Out);
        servers[0].disk_states[0].failing = true;
        servers[0].disk_states[0].errors = 120;
        servers[2].disk_states[0].damaged_chunks = 2;
        servers[2].disk_states[0].used_bytes = (1 << 30) - 1;
        assert_eq!(
            lines(&status),
            [
                "degraded",
                "master 3 (tcp://10.0.0.9:1) was last heard 70 s ago",
                "chunkserver 1 (tcp://10.0.0.1:7000, /r/rack1/h) was last heard 12 s ago",
                "disk 10 of chunkserver 1 (tcp://10.0.0.1:7000, /r/rack1/h) is failing, 120 blocks of it were found damaged within a day: it will be emptied when there is a place for what it has",
                "disk 10 of chunkserver 1 (tcp://10.0.0.1:7000, /r/rack1/h) is slow (a write takes 1.2 ms) and stays in use: no more disks may be out for that",
                "disk 20 of chunkserver 2 (tcp://10.0.0.2:7000, /r/rack2/h) failed",
                "disk 30 of chunkserver 3 (tcp://10.0.0.3:7000, /r/rack3/h) is slow (a write takes 90 ms): its groups go on without it until it is fast",
                "disk 30 of chunkserver 3 (tcp://10.0.0.3:7000, /r/rack3/h) has 2 damaged chunks that wait for repair",
                "disk 30 of chunkserver 3 (tcp://10.0.0.3:7000, /r/rack3/h) is nearly full: 1 B free of 1.0 GiB",
            ]
        );
    }

    #[test]
    fn a_server_that_nobody_needs_back_is_not_missed() {
        let mut status = status();
        let table = status.table.as_mut().unwrap();
        let mut old = table.servers[0].clone();
        old.id = 9;
        old.silent_ms = 1_000_000;
        old.disks = vec![90];
        table.servers.push(old);
        let missed = |status: &StatusReply| lines(status).len() > 1;
        assert!(missed(&status), "it may come back");
        status.table.as_mut().unwrap().servers[3].disk_states[0].failed = true;
        assert_eq!(lines(&status), ["ok"], "another server is where it was");
        status.table.as_mut().unwrap().servers[3].disk_states[0].failed = false;
        status.table.as_mut().unwrap().servers[3].disk_states[0].draining = true;
        assert_eq!(lines(&status), ["ok"], "it was drained and pulled");
        status.table.as_mut().unwrap().groups[0].members[0].disk = 90;
        assert!(missed(&status), "a group has a member there");
    }
}
