//! Disks with so many errors of their medium that they should be emptied before they die: which of them is marked next. Pure; see
//! `master/docs/groups.md`, "Failing disks".

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coord_types::DiskId;
use master_model::{DiskState, Table};

use crate::table::plan::{Seen, has_place_elsewhere};

/// A disk fails for so long before it is marked: who takes a mark back has the errors forgotten, which takes a heartbeat.
pub const LASTING: Duration = Duration::from_secs(10);

/// Blocks that may be found damaged on a disk within a day.
pub const ERRORS_MAX: u64 = 100;

/// See the module. What is kept is bounded by the disks there are.
#[derive(Debug, Default)]
pub struct Failing {
    since: BTreeMap<DiskId, Instant>,
}

impl Failing {
    /// The disk that should be emptied now: the one with the most errors above `errors_max`, if all of its groups have a place
    /// elsewhere and no other disk is being emptied. `table`: with what servers said of their disks.
    pub fn next(&mut self, table: &Table, seen: &Seen, errors_max: u64, now: Instant) -> Option<DiskId> {
        let disks = || table.servers().flat_map(|server| &server.disks);
        let fails = |state: &DiskState| state.vitals.errors > errors_max && !state.failed && !state.draining;
        let failing: BTreeMap<_, _> = disks()
            .filter(|(_, state)| fails(state))
            .map(|(disk, state)| (*disk, state.vitals.errors))
            .collect();
        self.since.retain(|disk, _| failing.contains_key(disk));
        for disk in failing.keys() {
            self.since.entry(*disk).or_insert(now);
        }
        let is_member = |disk: DiskId| table.groups().any(|group| group.state_of(disk).is_some());
        let moves = |disk: DiskId| is_member(disk) && has_place_elsewhere(table, seen, disk);
        if disks().any(|(disk, state)| state.draining && !state.failed && moves(*disk)) {
            return None;
        }
        let lasting = |disk: &DiskId| now.saturating_duration_since(self.since[disk]) >= LASTING;
        let may_go =
            failing.iter().filter(|(disk, _)| lasting(disk) && has_place_elsewhere(table, seen, **disk));
        may_go.max_by_key(|(disk, errors)| (**errors, **disk)).map(|(disk, _)| *disk)
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{Epoch, GroupId, ServerId};
    use master_model::{Group, Member, MemberState, Server, Vitals};

    use super::*;
    use crate::table::plan::Health;

    /// Servers in racks of their own with a disk each, of which groups use the first three; errors and marks by disk.
    fn table(errors: &[u64], draining: &[u32]) -> Table {
        let server = |(id, errors): (u32, &u64)| {
            let state = DiskState {
                uuid: [0; 16],
                capacity_bytes: 1,
                used_bytes: 0,
                failed: false,
                draining: draining.contains(&id),
                scrub: master_model::Scrub::default(),
                vitals: Vitals { errors: *errors, ..Vitals::default() },
            };
            Server {
                id: ServerId(id),
                address: String::new(),
                location: format!("/r/rack{id}/h"),
                disks: vec![(DiskId(id), state)],
                incarnation: 1,
                silent_ms: 0,
            }
        };
        let member = |disk| Member { disk: DiskId(disk), state: MemberState::Serving };
        let group = |id| Group { id: GroupId(id), epoch: Epoch(1), members: [1, 2, 3].map(member).to_vec() };
        let servers = (1..).zip(errors).map(server).collect();
        Table::new(1, servers, (1..4).map(group).collect()).with_replicas(3, 2)
    }

    fn seen(table: &Table) -> Seen {
        Seen { servers: table.servers().map(|server| (server.id, Health::Well)).collect(), ..Seen::default() }
    }

    /// Who is due at once, and who when it lasted.
    fn due(table: &Table) -> [Option<u32>; 2] {
        let mut failing = Failing::default();
        let start = Instant::now();
        let seen = seen(table);
        [start, start + LASTING].map(|now| failing.next(table, &seen, 100, now).map(|disk| disk.0))
    }

    #[test]
    fn the_worst_disk_is_emptied_if_there_is_a_place_for_what_it_has() {
        assert_eq!(due(&table(&[100, 0, 7, 0], &[])), [None, None], "as many as may be");
        assert_eq!(due(&table(&[101, 200, 7, 0], &[])), [None, Some(2)]);
        assert_eq!(due(&table(&[101, 200, 7], &[])), [None, None], "three copies need three racks");
        assert_eq!(due(&table(&[0, 0, 0, 300], &[])), [None, Some(4)], "no group is on it: it gets none");
        let mut quiet = Failing::default();
        let narrow = table(&[101, 0, 0, 0], &[]);
        let mut seen = seen(&narrow);
        seen.servers.insert(ServerId(4), Health::Quiet);
        let now = Instant::now();
        assert_eq!(quiet.next(&narrow, &seen, 100, now), None);
        assert_eq!(quiet.next(&narrow, &seen, 100, now + LASTING), None, "who knows how the fourth is");
    }

    #[test]
    fn one_at_a_time() {
        assert_eq!(due(&table(&[101, 200, 7, 0, 0], &[2])), [None, None], "until that one is empty");
        assert_eq!(due(&table(&[101, 200, 7, 0, 0], &[4])), [None, Some(2)], "that one is");
        assert_eq!(due(&table(&[101, 200, 7, 0], &[2, 4])), [None, None], "nowhere to go");
    }

    #[test]
    fn a_mark_that_was_taken_back_is_not_made_again_at_once() {
        let mut failing = Failing::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (bad, marked, good) =
            (table(&[101, 0, 0, 0], &[]), table(&[101, 0, 0, 0], &[1]), table(&[0; 4], &[]));
        let mut next = |table: &Table, seconds| failing.next(table, &seen(table), 100, at(seconds));
        assert_eq!((next(&bad, 0), next(&bad, 10)), (None, Some(DiskId(1))));
        assert_eq!(next(&marked, 11), None);
        assert_eq!((next(&bad, 20), next(&bad, 21)), (None, None), "its server has not heard of it yet");
        assert_eq!((next(&good, 22), next(&good, 60)), (None, None));
    }
}
