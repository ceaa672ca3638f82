//! Which changes of groups are due, by what the leader has seen. Pure: the leader calls it after each event, proposes what comes
//! out, and calls it again. `master/docs/groups.md` lists the rules in their order.

use std::collections::{BTreeMap, BTreeSet};

use coord_types::{DiskId, Epoch, GroupId, ServerId};
use master_model::{Group, Member, MemberState, Table};

use super::change::{Change, GroupChange, changed};
use super::placement::Domain;
use super::register::split_location;

/// Primaries moved at a time: each costs its group a short activation.
const LEADS_MAX: usize = 2;

/// What the leader believes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Heard, and its lease runs.
    Well,
    /// Not heard for a while, or not yet by this leader; its lease may still run.
    Quiet,
    /// Its process is known dead, it said goodbye, or its lease has run out.
    Gone,
}

/// What the leader has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A server that is not in here is [`Health::Quiet`].
    pub servers: BTreeMap<ServerId, Health>,
    /// Disks whose server says they failed.
    pub failed: BTreeSet<DiskId>,
    /// Disks that were away for so long that their data should be elsewhere.
    pub absent: BTreeSet<DiskId>,
    /// Syncing members that are level, at the epoch they are.
    pub level: BTreeSet<(GroupId, Epoch, DiskId)>,
    /// The epoch in which a group's primary was active.
    pub active: BTreeMap<GroupId, Epoch>,
}

/// The changes that are due, at most one a group and `limit` in all.
#[must_use]
pub fn plan(table: &Table, seen: &Seen, limit: usize) -> Vec<GroupChange> {
    let mut spares = Spares::new(table, seen);
    let mut due = Vec::new();
    for group in table.groups() {
        if due.len() >= limit {
            return due;
        }
        let change = next_change(table, seen, group, &mut spares);
        due.extend(change.map(|change| GroupChange { group: group.id, epoch: group.epoch, change }));
    }
    if due.is_empty() {
        due = leads(table);
    }
    due.truncate(limit);
    due
}

/// Whether what a disk still has of a group may be deleted (I7): it is no member, and the group is whole without it.
#[must_use]
pub fn may_drop(table: &Table, seen: &Seen, group: GroupId, disk: DiskId) -> bool {
    table.group(group).is_some_and(|group| {
        let well = |member: &Member| {
            member.state == MemberState::Serving && health(table, seen, member.disk) == Health::Well
        };
        group.state_of(disk).is_none()
            && group.members.len() >= table.replicas as usize
            && group.members.iter().all(well)
    })
}

fn health(table: &Table, seen: &Seen, disk: DiskId) -> Health {
    let Some(server) = table.server_of(disk) else { return Health::Gone };
    if seen.failed.contains(&disk) || is_lost(table, disk) {
        return Health::Gone;
    }
    seen.servers.get(&server.id).copied().unwrap_or(Health::Quiet)
}

/// The table says that its server failed it or no longer has it.
fn is_lost(table: &Table, disk: DiskId) -> bool {
    let state = table.server_of(disk).and_then(|server| server.disks.iter().find(|(id, _)| *id == disk));
    state.is_none_or(|(_, state)| state.failed)
}

fn next_change(table: &Table, seen: &Seen, group: &Group, spares: &mut Spares) -> Option<Change> {
    let allowed = |change: &Change| changed(group, *change, table.min_replicas).is_some();
    let members = || group.members.iter();
    let gone = members().filter(|member| member.state != MemberState::Offline).map(|member| member.disk);
    let gone: Vec<_> = gone.filter(|disk| health(table, seen, *disk) == Health::Gone).collect();
    let out = gone.iter().map(|disk| Change::Out(*disk)).find(allowed);
    let lost =
        gone.iter().filter(|disk| is_lost(table, **disk)).map(|disk| Change::Lost(*disk)).find(allowed);
    if let Some(change) = out.or(lost) {
        return Some(change);
    }
    if seen.active.get(&group.id) == Some(&group.epoch)
        && let Some(disk) = group.in_state(MemberState::Joining).next()
    {
        return Some(Change::Settle(disk));
    }
    let level = |disk: &DiskId| seen.level.contains(&(group.id, group.epoch, *disk));
    if let Some(disk) = group.in_state(MemberState::Syncing).find(level) {
        return Some(Change::Join(disk));
    }
    let well = |disk: &DiskId| health(table, seen, *disk) == Health::Well;
    if let Some(disk) = group.in_state(MemberState::Offline).find(well) {
        return Some(Change::Sync(disk));
    }
    let absent = |disk: &DiskId| seen.absent.contains(disk) || is_lost(table, *disk);
    let absent = group.in_state(MemberState::Offline).find(absent)?;
    let spare = spares.take(group, absent)?;
    Some(Change::Replace { absent, spare })
}

/// Disks that can take a place in a group.
struct Spares {
    places: BTreeMap<DiskId, SparePlace>,
    /// All disks' racks and hosts, well or not.
    racks: BTreeMap<DiskId, (String, String)>,
}

struct SparePlace {
    groups: usize,
    well: bool,
}

impl Spares {
    fn new(table: &Table, seen: &Seen) -> Self {
        let mut places = BTreeMap::new();
        let mut racks = BTreeMap::new();
        for server in table.servers() {
            let Some((region, rack, host)) = split_location(&server.location) else { continue };
            for (disk, _) in &server.disks {
                let well = health(table, seen, *disk) == Health::Well;
                places.insert(*disk, SparePlace { groups: 0, well });
                let rack = format!("{region}/{rack}");
                let host = format!("{rack}/{host}");
                racks.insert(*disk, (rack, host));
            }
        }
        for member in table.groups().flat_map(|group| &group.members) {
            if let Some(place) = places.get_mut(&member.disk) {
                place.groups += 1;
            }
        }
        Self { places, racks }
    }

    /// The disk to fill in place of `absent`: in a rack of its own if the group was spread over racks, else on a host of
    /// its own, else any other; the least loaded.
    fn take(&mut self, group: &Group, absent: DiskId) -> Option<DiskId> {
        let others = || group.members.iter().map(|member| member.disk).filter(|disk| *disk != absent);
        let same = |a: DiskId, b: DiskId, domain: Domain| match (self.racks.get(&a), self.racks.get(&b)) {
            (Some(a), Some(b)) => match domain {
                Domain::Rack => a.0 == b.0,
                Domain::Host => a.1 == b.1,
                Domain::Disk => false,
            },
            // What is in no server has no place to share.
            _ => false,
        };
        let was_apart = |domain: Domain| {
            let all: Vec<_> = group.members.iter().map(|member| member.disk).collect();
            (1..all.len()).all(|at| all[..at].iter().all(|other| !same(*other, all[at], domain)))
        };
        let domain =
            [Domain::Rack, Domain::Host, Domain::Disk].into_iter().find(|domain| was_apart(*domain))?;
        let fits =
            |disk: DiskId| group.state_of(disk).is_none() && others().all(|other| !same(other, disk, domain));
        let spare = self
            .places
            .iter()
            .filter(|(disk, place)| place.well && fits(**disk))
            .min_by_key(|(disk, place)| {
                (place.groups, crate::state::mix(u64::from(group.id.0) << 32 | u64::from(disk.0)))
            })
            .map(|(disk, _)| *disk)?;
        if let Some(place) = self.places.get_mut(&spare) {
            place.groups += 1;
        }
        Some(spare)
    }
}

/// Moves primaries to members that lead fewer groups, once every member of every group serves.
fn leads(table: &Table) -> Vec<GroupChange> {
    let whole = |group: &Group| group.members.iter().all(|member| member.state == MemberState::Serving);
    if !table.groups().all(whole) {
        return Vec::new();
    }
    let mut leading: BTreeMap<DiskId, usize> = BTreeMap::new();
    for group in table.groups() {
        leading.extend(
            group
                .members
                .iter()
                .filter(|m| !leading.contains_key(&m.disk))
                .map(|m| (m.disk, 0))
                .collect::<Vec<_>>(),
        );
        if let Some(primary) = group.primary() {
            *leading.entry(primary).or_default() += 1;
        }
    }
    let mut moved = Vec::new();
    for group in table.groups() {
        let Some(primary) = group.primary() else { continue };
        let fewest = group.serving().min_by_key(|disk| leading[disk]).unwrap_or(primary);
        if leading[&fewest] + 2 <= leading[&primary] && moved.len() < LEADS_MAX {
            *leading.entry(primary).or_default() -= 1;
            *leading.entry(fewest).or_default() += 1;
            moved.push(GroupChange { group: group.id, epoch: group.epoch, change: Change::Lead(fewest) });
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use master_model::{DiskState, Server};

    use super::*;
    use crate::table::change::changed;

    /// Servers 1.. in racks of their own with one disk each, `groups` groups of the first three.
    fn table(servers: u32, groups: u32) -> Table {
        let server = |id: u32| Server {
            id: ServerId(id),
            address: format!("tcp://10.0.0.{id}:1"),
            location: format!("/r/rack{id}/h"),
            disks: vec![(
                DiskId(id),
                DiskState { uuid: [0; 16], capacity_bytes: 1, used_bytes: 0, failed: false },
            )],
            incarnation: 1,
            silent_ms: 0,
        };
        let member = |disk| master_model::Member { disk: DiskId(disk), state: MemberState::Serving };
        let group = |id: u32| {
            let mut members = [1, 2, 3].map(member).to_vec();
            members.rotate_left(id as usize % 3);
            Group { id: GroupId(id), epoch: Epoch(1), members }
        };
        let table = Table::new(1, (1..=servers).map(server).collect(), (1..=groups).map(group).collect());
        table.with_replicas(3, 2)
    }

    fn well(servers: &[u32]) -> Seen {
        let servers = servers.iter().map(|id| (ServerId(*id), Health::Well)).collect();
        Seen { servers, ..Seen::default() }
    }

    /// Applies what is due until nothing is.
    fn settle(table: Table, seen: &Seen) -> Table {
        let mut table = table;
        for _ in 0..100 {
            let due = plan(&table, seen, 100);
            if due.is_empty() {
                return table;
            }
            let servers = table.servers().cloned().collect();
            let mut groups: Vec<_> = table.groups().cloned().collect();
            for GroupChange { group: id, epoch, change } in due {
                let group = groups.iter_mut().find(|group| group.id == id).expect("a group of the table");
                assert_eq!(group.epoch, epoch);
                *group = changed(group, change, table.min_replicas).expect("only what is allowed is due");
            }
            table = Table::new(table.version + 1, servers, groups).with_replicas(3, 2);
        }
        panic!("never at rest: {:?}", plan(&table, seen, 100));
    }

    #[test]
    fn nothing_is_due_when_all_is_well_or_merely_quiet() {
        assert_eq!(plan(&table(3, 9), &well(&[1, 2, 3]), 100), []);
        assert_eq!(plan(&table(3, 9), &Seen::default(), 100), []);
    }

    #[test]
    fn who_is_gone_leaves_every_group_but_two_stay() {
        let mut seen = well(&[1, 2, 3]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 9), &seen);
        assert!(without.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Offline)));
        assert!(without.groups().all(|group| group.primary() != Some(DiskId(1)) && group.epoch == Epoch(2)));
        seen.servers.insert(ServerId(2), Health::Gone);
        let still = settle(without.clone(), &seen);
        assert_eq!(still, without, "the last two wait");
    }

    #[test]
    fn who_comes_back_is_filled_joins_and_leads_again() {
        let mut seen = well(&[1, 2, 3]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 9), &seen);
        let seen = well(&[1, 2, 3]);
        let back = settle(without, &seen);
        assert!(back.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Syncing)));
        let level = back.groups().map(|group| (group.id, group.epoch, DiskId(1))).collect();
        let joined = settle(back, &Seen { level, ..seen.clone() });
        assert!(joined.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Joining)));
        let active = joined.groups().map(|group| (group.id, group.epoch)).collect();
        let whole = settle(joined, &Seen { active, ..seen });
        for disk in 1..=3 {
            let leads = whole.groups().filter(|group| group.primary() == Some(DiskId(disk))).count();
            assert!((2..=4).contains(&leads), "disk {disk} leads {leads} of 9");
        }
    }

    #[test]
    fn a_long_absence_is_made_good_in_another_rack() {
        let mut seen = well(&[1, 2, 3, 4, 5]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(5, 10), &seen);
        assert!(without.groups().all(|group| group.members.iter().any(|m| m.state == MemberState::Offline)));
        seen.absent.insert(DiskId(1));
        let replaced = settle(without.clone(), &seen);
        let taken = |disk| {
            replaced
                .groups()
                .filter(|group| group.state_of(DiskId(disk)) == Some(MemberState::Syncing))
                .count()
        };
        assert_eq!((taken(4), taken(5)), (5, 5), "shared by those that have room");
        // With only three racks there is nowhere to go.
        let mut narrow = well(&[2, 3]);
        narrow.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 10), &narrow);
        narrow.absent.insert(DiskId(1));
        assert_eq!(plan(&without, &narrow, 100), []);
    }

    #[test]
    fn who_lost_its_disk_is_not_waited_for() {
        let mut seen = well(&[1, 2, 3]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 3), &seen);
        let mut servers: Vec<_> = without.servers().cloned().collect();
        servers[1].disks[0].1.failed = true;
        let groups = without.groups().cloned().collect();
        let left = settle(Table::new(9, servers, groups).with_replicas(3, 2), &seen);
        assert!(left.groups().all(|group| group.serving().eq([DiskId(3)])));
    }

    #[test]
    fn what_is_left_is_dropped_only_while_all_members_are_well() {
        let whole = table(4, 1);
        let group = GroupId(1);
        assert!(may_drop(&whole, &well(&[1, 2, 3]), group, DiskId(4)));
        assert!(!may_drop(&whole, &well(&[1, 2, 3]), group, DiskId(3)), "it is a member");
        assert!(!may_drop(&whole, &well(&[1, 2]), group, DiskId(4)), "one is quiet");
        assert!(!may_drop(&whole, &well(&[1, 2, 3]), GroupId(2), DiskId(4)), "nobody knows that group");
        let mut seen = well(&[1, 2, 3, 4]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 1), &seen);
        assert!(!may_drop(&without, &well(&[1, 2, 3]), group, DiskId(4)), "one is offline");
    }

    #[test]
    fn one_command_is_bounded() {
        let mut seen = well(&[1, 2]);
        seen.servers.insert(ServerId(3), Health::Gone);
        assert_eq!(plan(&table(3, 9), &seen, 4).len(), 4);
    }
}
