//! A state of the cluster in, text out; one text a file.

mod chunkserver;
mod cluster;
mod errors;
mod groups;
mod health;
mod metrics;
mod place;
mod recovery;
#[cfg(test)]
mod testing;
mod whoami;

use std::time::{SystemTime, UNIX_EPOCH};

pub use chunkserver::chunkserver;
pub use cluster::cluster;
pub use errors::errors;
pub use groups::groups;
pub use health::health;
pub use metrics::metrics;
pub use place::{chunks, place};
pub use recovery::recovery;
pub use whoami::{Whoami, whoami};

use master_api::proto::{Disk, Group, MemberState, Pace, Server, StatusReply, Table};

/// A chunkserver heard this recently is up: a few heartbeats.
const UP_MS: u64 = 2_000;

/// One word for a member's state.
#[must_use]
pub fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Serving => "serving",
        MemberState::Syncing => "syncing",
        MemberState::Offline => "offline",
        MemberState::Joining => "joining",
        MemberState::Unspecified => "unknown",
    }
}

/// One word for how fast a disk is beside the others.
#[must_use]
pub fn pace_name(pace: Pace) -> &'static str {
    match pace {
        Pace::Unspecified => "usual",
        Pace::Slow => "slow",
        Pace::Out => "slow, out of use",
    }
}

/// What a durable write takes on a disk: "0.4 ms".
fn latency(disk: &Disk) -> String {
    match disk.write_latency_us {
        0 => "unknown".to_owned(),
        us if us < 10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        us => format!("{} ms", us / 1000),
    }
}

fn tables(status: &StatusReply) -> impl Iterator<Item = &Table> {
    status.table.iter()
}

fn groups_of(status: &StatusReply) -> impl Iterator<Item = &Group> {
    tables(status).flat_map(|table| &table.groups)
}

fn servers_of(status: &StatusReply) -> impl Iterator<Item = &Server> {
    tables(status).flat_map(|table| &table.servers)
}

fn disks_of(server: &Server) -> impl Iterator<Item = (u32, &Disk)> {
    server.disks.iter().copied().zip(&server.disk_states)
}

fn is_whole(group: &Group) -> bool {
    group.members.iter().all(|member| member.state() == MemberState::Serving)
}

fn has(group: &Group, states: &[MemberState]) -> bool {
    group.members.iter().any(|member| states.contains(&member.state()))
}

/// "1 serving, 4 syncing", disks in the group's order.
fn members(group: &Group) -> String {
    let members =
        group.members.iter().map(|member| format!("{} {}", member.disk, state_name(member.state())));
    members.collect::<Vec<_>>().join(", ")
}

fn heard(silent_ms: u64) -> String {
    if silent_ms <= UP_MS { "now".to_owned() } else { format!("{} s ago", silent_ms / 1000) }
}

/// When the disk that waits longest for it was last read and verified as a whole.
fn scrubbed<'a>(disks: impl Iterator<Item = &'a Disk>, now_ms: u64) -> String {
    match disks.filter(|disk| !disk.failed).map(|disk| disk.scrub_ended_ms).min() {
        None | Some(0) => "not yet".to_owned(),
        Some(ended_ms) => crate::text::ago(now_ms.saturating_sub(ended_ms) / 1000),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_that_waits_longest_counts() {
        let disk = |ended_s: u64, failed| Disk { scrub_ended_ms: ended_s * 1000, failed, ..Disk::default() };
        let told = |disks: &[Disk]| scrubbed(disks.iter(), 1_000_000_000);
        assert_eq!(told(&[disk(999_940, false), disk(990_000, false)]), "2 h ago");
        assert_eq!(
            told(&[disk(999_940, false), disk(0, true)]),
            "60 s ago",
            "a failed disk is not waited for"
        );
        assert_eq!(told(&[disk(999_940, false), disk(0, false)]), "not yet");
        assert_eq!(told(&[]), "not yet");
    }
}
