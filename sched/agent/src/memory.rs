//! Memory limits where no control group keeps them: looks each second at what the processes of a grant use, and picks what is killed.
//!
//! Not by RLIMIT_AS, which limits addresses: many programs reserve far more of those than they ever use.

use std::collections::{BTreeMap, BTreeSet};

use crate::process::Seen;
use crate::table::Process;

/// What is to be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victims {
    pub pids: Vec<i32>,
    /// What the grant uses.
    pub used_bytes: u64,
    /// The program itself is among them.
    pub has_leader: bool,
}

/// Picks what is to be killed of a grant that uses more than `limit_bytes`: the largest process group other than the program's own, so that a
/// worker survives its instance and can say what became of it; if there is none, or the program's own is larger, everything.
///
/// `proportional`: what a process uses with its part of what it shares. Asked only when the cheaper sum, in which shared memory counts several
/// times, is too much.
#[must_use]
pub fn judge(
    all: &[Seen],
    leader: Process,
    limit_bytes: u64,
    proportional: impl Fn(i32) -> Option<u64>,
) -> Option<Victims> {
    let members = members(all, leader);
    if members.iter().map(|seen| seen.rss_bytes).sum::<u64>() <= limit_bytes {
        return None;
    }
    let mut groups: BTreeMap<i32, (u64, Vec<i32>)> = BTreeMap::new();
    for seen in &members {
        let (bytes, pids) = groups.entry(seen.group).or_default();
        *bytes += proportional(seen.pid).unwrap_or(seen.rss_bytes);
        pids.push(seen.pid);
    }
    let used_bytes = groups.values().map(|(bytes, _)| bytes).sum();
    if used_bytes <= limit_bytes {
        return None;
    }
    let (group, (_, pids)) = groups.iter().max_by_key(|(_, (bytes, _))| *bytes)?;
    if *group == leader.pid {
        let pids = members.iter().map(|seen| seen.pid).collect();
        return Some(Victims { pids, used_bytes, has_leader: true });
    }
    Some(Victims { pids: pids.clone(), used_bytes, has_leader: false })
}

/// The program, its session, and its descendants in other ones.
fn members(all: &[Seen], leader: Process) -> Vec<Seen> {
    let is_leader = |seen: &&Seen| seen.pid == leader.pid && seen.start_ticks == leader.start_ticks;
    if !all.iter().any(|seen| is_leader(&seen)) {
        return Vec::new();
    }
    let mut found: BTreeSet<i32> = all
        .iter()
        .filter(|seen| seen.session == leader.pid || seen.pid == leader.pid)
        .map(|seen| seen.pid)
        .collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|seen| found.contains(&seen.parent) && !found.contains(&seen.pid))
            .map(|seen| seen.pid)
            .collect();
        if more.is_empty() {
            return all.iter().filter(|seen| found.contains(&seen.pid)).copied().collect();
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: Process = Process { pid: 10, start_ticks: 5 };

    fn seen(pid: i32, parent: i32, group: i32, session: i32, rss_bytes: u64) -> Seen {
        Seen { pid, parent, group, session, start_ticks: 5, rss_bytes, is_zombie: false }
    }

    fn victims(all: &[Seen], limit: u64) -> Option<(Vec<i32>, bool)> {
        judge(all, LEADER, limit, |_| None).map(|victims| (victims.pids, victims.has_leader))
    }

    #[test]
    fn the_largest_instance_goes_and_the_worker_stays() {
        let all = [
            seen(10, 1, 10, 10, 20),
            seen(11, 10, 11, 10, 50),
            seen(12, 11, 11, 10, 40),
            seen(13, 10, 13, 10, 60),
            // In a session of its own, and somebody else's.
            seen(14, 13, 14, 14, 10),
            seen(99, 1, 99, 99, 1000),
        ];
        assert_eq!(victims(&all, 180), None);
        assert_eq!(victims(&all, 179), Some((vec![11, 12], false)));
    }

    #[test]
    fn a_program_that_eats_itself_goes_with_all_it_has() {
        let all = [seen(10, 1, 10, 10, 200), seen(11, 10, 11, 10, 50)];
        assert_eq!(victims(&all, 100), Some((vec![10, 11], true)));
    }

    #[test]
    fn shared_memory_is_counted_once() {
        let all = [seen(10, 1, 10, 10, 60), seen(11, 10, 11, 10, 60)];
        assert_eq!(judge(&all, LEADER, 100, |_| Some(40)), None);
    }

    #[test]
    fn another_process_with_the_number_is_not_ours() {
        let mut other = seen(10, 1, 10, 10, 500);
        other.start_ticks = 6;
        assert_eq!(victims(&[other], 100), None);
    }
}
