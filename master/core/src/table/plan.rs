//! Which changes of groups are due, by what the leader has seen. Pure: the leader calls it after each event, proposes what comes
//! out, and calls it again. `master/docs/groups.md` lists the rules in their order.

use std::collections::{BTreeMap, BTreeSet};

use coord_types::{DiskId, Epoch, GroupId, ServerId};
use master_model::{Group, Member, MemberState, Table};

use super::balance::{self, Loads};
use super::change::{Change, GroupChange, Rules, changed};
use super::placement::Domain;
use super::register::split_location;

/// Primaries moved at a time: each costs its group a short activation.
const LEADS_MAX: usize = 2;
/// Groups that move to another disk at a time: enough to keep every server's share of resync busy, few enough that what began
/// ends soon.
const MOVES_MAX: usize = 16;
/// A disk is not given more than this much of its size: with less, a copy could not be finished, and writes would end before that.
const FULL_PERCENT: u64 = 90;

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
    /// Servers whose lease was called back and that hold none: their members may be dropped.
    pub leaseless: BTreeSet<ServerId>,
    /// Disks whose server says they failed.
    pub failed: BTreeSet<DiskId>,
    /// Disks that work, but so slowly that groups should go on without them.
    pub slow: BTreeSet<DiskId>,
    /// Disks that were away for so long that their data should be elsewhere.
    pub absent: BTreeSet<DiskId>,
    /// What is written to groups for a while now, in bytes a second.
    pub loads: BTreeMap<GroupId, u64>,
    /// Syncing members that are level, at the epoch they are.
    pub level: BTreeSet<(GroupId, Epoch, DiskId)>,
    /// The epoch in which a group's primary was active.
    pub active: BTreeMap<GroupId, Epoch>,
    /// The epoch in which a group's primary could not read what it has.
    pub damaged: BTreeMap<GroupId, Epoch>,
}

impl Seen {
    /// The disk should be out for its slowness and nothing else.
    pub(crate) fn is_only_slow(&self, table: &Table, disk: DiskId) -> bool {
        self.slow.contains(&disk) && health(table, self, disk) != Health::Gone
    }
}

/// The changes that are due, at most one a group and `limit` in all.
#[must_use]
pub fn plan(table: &Table, seen: &Seen, limit: usize) -> Vec<GroupChange> {
    let mut spares = Spares::new(table, seen);
    let loads = Loads::new(table, seen, &spares);
    let mut due = Vec::new();
    let replicas = table.replicas as usize;
    let mut moving = table.groups().filter(|group| group.members.len() > replicas).count();
    let mut growing = table.groups().filter(|group| group.in_state(MemberState::Syncing).count() > 0).count();
    for group in table.groups() {
        if due.len() >= limit {
            return due;
        }
        let mut change = next_change(table, seen, group, (&mut spares, loads.as_ref()));
        if change.is_none() && growing < MOVES_MAX {
            change = grow(table, group, &mut spares);
            growing += usize::from(change.is_some());
        }
        if change.is_none() && moving < MOVES_MAX {
            change = empty(table, seen, group, &mut spares);
            moving += usize::from(change.is_some());
        }
        due.extend(change.map(|change| GroupChange { group: group.id, epoch: group.epoch, change }));
    }
    if due.is_empty() {
        due = level(table, seen, &mut spares, loads, moving);
    }
    due.truncate(limit);
    due
}

/// Nothing else is to be done: makes disks more equal. Where loads count, primaries move first, which is cheap.
fn level(
    table: &Table,
    seen: &Seen,
    spares: &mut Spares,
    loads: Option<Loads<'_>>,
    moving: usize,
) -> Vec<GroupChange> {
    if !table.groups().all(is_whole) {
        return Vec::new();
    }
    let Some(loads) = loads else {
        let moved = if moving == 0 { rebalance(table, spares) } else { Vec::new() };
        return if moved.is_empty() { leads(table) } else { moved };
    };
    let led = balance::leads(table, seen, spares).unwrap_or_default();
    if led.is_empty() && moving == 0 { loads.moves(table, spares, MOVES_MAX) } else { led }
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

/// Whether each group that has a member on the disk could have it on another one.
#[must_use]
pub fn has_place_elsewhere(table: &Table, seen: &Seen, disk: DiskId) -> bool {
    let spares = Spares::new(table, seen);
    let mut groups = table.groups().filter(|group| group.state_of(disk).is_some());
    groups.all(|group| spares.best(group, disk).is_some())
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

fn next_change(
    table: &Table,
    seen: &Seen,
    group: &Group,
    (spares, loads): (&mut Spares, Option<&Loads<'_>>),
) -> Option<Change> {
    let allowed = |change: &Change| changed(group, *change, rules(table)).is_some();
    let members = || group.members.iter();
    let gone = members().filter(|member| member.state != MemberState::Offline).map(|member| member.disk);
    let gone: Vec<_> = gone.filter(|disk| health(table, seen, *disk) == Health::Gone).collect();
    let out = gone.iter().map(|disk| Change::Out(*disk)).find(allowed);
    let lost =
        gone.iter().filter(|disk| is_lost(table, **disk)).map(|disk| Change::Lost(*disk)).find(allowed);
    if let Some(change) = out.or(lost) {
        return Some(change);
    }
    if let Some(disk) = slow_one(table, seen, group).filter(|disk| allowed(&Change::Out(*disk))) {
        return Some(Change::Out(disk));
    }
    if seen.active.get(&group.id) == Some(&group.epoch)
        && let Some(disk) = group.in_state(MemberState::Joining).next()
    {
        return Some(Change::Settle(disk));
    }
    if seen.damaged.get(&group.id) == Some(&group.epoch)
        && let Some(change) = group.in_state(MemberState::Serving).last().map(Change::Lead).filter(allowed)
    {
        // The last: if it cannot read something else, the next turn is another's.
        return Some(change);
    }
    // A slow copy is better than none.
    let wanted = |disk: &DiskId| !seen.slow.contains(disk) || is_short(table, seen, group);
    let level = |disk: &DiskId| seen.level.contains(&(group.id, group.epoch, *disk)) && wanted(disk);
    if let Some(disk) = group.in_state(MemberState::Syncing).find(level) {
        return Some(Change::Join(disk));
    }
    if group.members.len() > table.replicas as usize
        && let Some(disk) = spares.superfluous(group, loads).filter(|disk| allowed(&Change::Drop(*disk)))
    {
        return Some(Change::Drop(disk));
    }
    let well = |disk: &DiskId| health(table, seen, *disk) == Health::Well && wanted(disk);
    if let Some(disk) = group.in_state(MemberState::Offline).find(well) {
        return Some(Change::Sync(disk));
    }
    let absent = |disk: &DiskId| seen.absent.contains(disk) || is_lost(table, *disk) || spares.drains(*disk);
    let absent = group.in_state(MemberState::Offline).find(absent)?;
    let spare = spares.take(group, absent)?;
    Some(Change::Replace { absent, spare })
}

fn rules(table: &Table) -> Rules {
    Rules { replicas: table.replicas, min_replicas: table.min_replicas }
}

/// The members that writes wait for and that are not gone.
fn takes_writes<'a>(table: &'a Table, seen: &'a Seen, group: &'a Group) -> impl Iterator<Item = DiskId> + 'a {
    group.serving().filter(|disk| health(table, seen, *disk) != Health::Gone)
}

/// Too few of its members are left for writes.
fn is_short(table: &Table, seen: &Seen, group: &Group) -> bool {
    takes_writes(table, seen, group).count() < table.min_replicas as usize
}

/// A slow member that writes wait for and need not, because enough others are fast and well; or one that is filled for nothing.
fn slow_one(table: &Table, seen: &Seen, group: &Group) -> Option<DiskId> {
    let fast = |disk: &DiskId| !seen.slow.contains(disk) && health(table, seen, *disk) == Health::Well;
    let enough = takes_writes(table, seen, group).filter(fast).count() >= table.min_replicas as usize;
    let is_moving = group.members.len() > table.replicas as usize;
    let filled = group.in_state(MemberState::Syncing).filter(|_| !is_moving);
    let slow = |disk: &DiskId| enough && seen.is_only_slow(table, *disk);
    group.serving().chain(filled).find(slow)
}

/// A group that has fewer members than there should be, because there should be more than there were, gets another.
fn grow(table: &Table, group: &Group, spares: &mut Spares) -> Option<Change> {
    if group.members.len() >= table.replicas as usize {
        return None;
    }
    let spare = spares.further(group)?;
    changed(group, Change::Add(spare), rules(table))?;
    spares.shift(spare, 1);
    Some(Change::Add(spare))
}

/// A whole group with a member on a disk that is to be emptied gets another; and so does one that cannot do without a member that
/// is slow.
fn empty(table: &Table, seen: &Seen, group: &Group, spares: &mut Spares) -> Option<Change> {
    let stays = |disk: &DiskId| changed(group, Change::Out(*disk), rules(table)).is_none();
    let leaves = |disk: &DiskId| spares.drains(*disk) || seen.slow.contains(disk) && stays(disk);
    let leaving = group.members.iter().map(|member| member.disk).find(leaves)?;
    let spare = spares.best(group, leaving)?;
    changed(group, Change::Add(spare), rules(table))?;
    spares.shift(spare, 1);
    Some(Change::Add(spare))
}

fn is_whole(group: &Group) -> bool {
    group.members.iter().all(|member| member.state == MemberState::Serving)
}

/// Moves groups from disks that have many for their size to disks that have few.
fn rebalance(table: &Table, spares: &mut Spares) -> Vec<GroupChange> {
    let mut moved = Vec::new();
    for group in table.groups() {
        if moved.len() >= MOVES_MAX {
            break;
        }
        if group.members.len() < spares.replicas {
            // It waits for one more member, and would keep the one that was to take another's place.
            continue;
        }
        if let Some(disk) = spares.lighten(group) {
            moved.push(GroupChange { group: group.id, epoch: group.epoch, change: Change::Add(disk) });
        }
    }
    moved
}

/// Disks that can take a place in a group.
pub(super) struct Spares {
    /// Members a group should have.
    replicas: usize,
    places: BTreeMap<DiskId, SparePlace>,
    /// All disks' racks and hosts, well or not.
    racks: BTreeMap<DiskId, (String, String)>,
    /// What a group has on a disk, on average.
    group_bytes: u64,
}

struct SparePlace {
    groups: u64,
    /// Of these, groups that it does not have yet.
    coming: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    well: bool,
    drains: bool,
    slow: bool,
}

impl SparePlace {
    /// Whether it would not be full with one more group of this size, when it has all that was given to it.
    fn has_room(&self, group_bytes: u64) -> bool {
        let full = self.capacity_bytes - self.capacity_bytes / 100 * (100 - FULL_PERCENT);
        self.used_bytes.saturating_add((self.coming + 1).saturating_mul(group_bytes)) <= full
    }

    /// Groups, were it of a standard size with so many more: disks are compared by this.
    fn load(&self, more: i64) -> u128 {
        const STANDARD: u128 = 1 << 80;
        let groups = self.groups.saturating_add_signed(more);
        STANDARD / u128::from(self.capacity_bytes.max(1)) * u128::from(groups)
    }
}

impl Spares {
    pub(super) fn new(table: &Table, seen: &Seen) -> Self {
        let mut places = BTreeMap::new();
        let mut racks = BTreeMap::new();
        for server in table.servers() {
            let Some((region, rack, host)) = split_location(&server.location) else { continue };
            for (disk, state) in &server.disks {
                let drains = state.draining;
                let slow = seen.slow.contains(disk);
                let well = health(table, seen, *disk) == Health::Well && !drains && !slow;
                let (capacity_bytes, used_bytes) = (state.capacity_bytes, state.used_bytes);
                let place =
                    SparePlace { groups: 0, coming: 0, capacity_bytes, used_bytes, well, drains, slow };
                places.insert(*disk, place);
                let rack = format!("{region}/{rack}");
                let host = format!("{rack}/{host}");
                racks.insert(*disk, (rack, host));
            }
        }
        for member in table.groups().flat_map(|group| &group.members) {
            if let Some(place) = places.get_mut(&member.disk) {
                place.groups += 1;
                place.coming += u64::from(member.state == MemberState::Syncing);
            }
        }
        let (groups, used) = places.values().fold((0, 0), |(groups, used): (u64, u64), place| {
            (groups + place.groups, used + place.used_bytes)
        });
        let group_bytes = used / groups.max(1);
        Self { replicas: table.replicas as usize, places, racks, group_bytes }
    }

    fn drains(&self, disk: DiskId) -> bool {
        self.places.get(&disk).is_some_and(|place| place.drains)
    }

    fn is_slow(&self, disk: DiskId) -> bool {
        self.places.get(&disk).is_some_and(|place| place.slow)
    }

    fn load(&self, disk: DiskId) -> u128 {
        self.places.get(&disk).map_or(0, |place| place.load(0))
    }

    /// Whether two disks would fail together. What is in no server has no place to share.
    fn same(&self, a: DiskId, b: DiskId, domain: Domain) -> bool {
        match (self.racks.get(&a), self.racks.get(&b)) {
            (Some(a), Some(b)) => match domain {
                Domain::Rack => a.0 == b.0,
                Domain::Host => a.1 == b.1,
                Domain::Disk => false,
            },
            _ => false,
        }
    }

    /// How far apart disks are: the widest domain none of them share.
    fn domain(&self, disks: &[DiskId]) -> Domain {
        let apart = |domain: &Domain| {
            (1..disks.len()).all(|at| disks[..at].iter().all(|other| !self.same(*other, disks[at], *domain)))
        };
        [Domain::Rack, Domain::Host].into_iter().find(apart).unwrap_or(Domain::Disk)
    }

    /// The same for the members of a group. One that has a member too many is as far apart as it can be when one of them has left:
    /// a group that moves within a rack is still one that is spread over racks.
    fn domain_of(&self, members: &[DiskId]) -> Domain {
        if members.len() <= self.replicas {
            return self.domain(members);
        }
        let without = |out: &DiskId| members.iter().copied().filter(|disk| disk != out).collect::<Vec<_>>();
        members.iter().map(|out| self.domain(&without(out))).max().unwrap_or(Domain::Disk)
    }

    /// The least loaded disk that can stand where `leaving` does: in a rack of its own if the group is spread over
    /// racks, else on a host of its own, else any other.
    fn best(&self, group: &Group, leaving: DiskId) -> Option<DiskId> {
        self.least(group, self.fitting(group, leaving))
    }

    /// The disks that can stand where `leaving` does.
    pub(super) fn fitting(&self, group: &Group, leaving: DiskId) -> impl Iterator<Item = DiskId> + '_ {
        let all: Vec<_> = group.members.iter().map(|member| member.disk).collect();
        let domain = self.domain_of(&all);
        let fits = move |disk: DiskId| {
            let mut others = all.iter().filter(|other| **other != leaving);
            !all.contains(&disk) && others.all(|other| !self.same(*other, disk, domain))
        };
        self.with_room().filter(move |disk| fits(*disk))
    }

    /// The least loaded disk that can be one member more: in a rack of its own, or on a host of its own if there is one
    /// rack only.
    fn further(&self, group: &Group) -> Option<DiskId> {
        let racks: BTreeSet<_> = self.racks.values().map(|(rack, _)| rack).collect();
        let domain = if racks.len() > 1 { Domain::Rack } else { Domain::Host };
        let apart = |disk: &DiskId| {
            group.members.iter().all(|member| member.disk != *disk && !self.same(member.disk, *disk, domain))
        };
        self.least(group, self.with_room().filter(apart))
    }

    fn least(&self, group: &Group, candidates: impl Iterator<Item = DiskId>) -> Option<DiskId> {
        candidates.min_by_key(|disk| {
            (self.load(*disk), crate::state::mix(u64::from(group.id.0) << 32 | u64::from(disk.0)))
        })
    }

    /// Disks that may take groups and would not be full with one more.
    fn with_room(&self) -> impl Iterator<Item = DiskId> + '_ {
        let with_room = |(_, place): &(&DiskId, &SparePlace)| place.well && place.has_room(self.group_bytes);
        self.places.iter().filter(with_room).map(|(disk, _)| *disk)
    }

    /// Disks that may take groups, with their sizes.
    pub(super) fn usable(&self) -> impl Iterator<Item = (DiskId, u64)> + '_ {
        let usable = self.places.iter().filter(|(_, place)| place.well);
        usable.map(|(disk, place)| (*disk, place.capacity_bytes))
    }

    /// The same, counted as taken.
    fn take(&mut self, group: &Group, leaving: DiskId) -> Option<DiskId> {
        let spare = self.best(group, leaving)?;
        self.shift(spare, 1);
        Some(spare)
    }

    fn shift(&mut self, disk: DiskId, groups: i64) {
        if let Some(place) = self.places.get_mut(&disk) {
            place.groups = place.groups.saturating_add_signed(groups);
            place.coming = place.coming.saturating_add_signed(groups.max(0));
        }
    }

    /// The disk the group's most loaded member should move to, if that makes the two more equal.
    fn lighten(&mut self, group: &Group) -> Option<DiskId> {
        let disks = group.members.iter().map(|member| member.disk);
        let from = disks.max_by_key(|disk| (self.load(*disk), *disk))?;
        let to = self.best(group, from)?;
        let (heavy, light) = (self.places.get(&from)?, self.places.get(&to)?);
        if light.load(1) > heavy.load(-1) {
            return None;
        }
        self.shift(to, 1);
        self.shift(from, -1);
        Some(to)
    }

    /// The member a group that has one too many can do without: of those whose leaving keeps the others as far apart as they can
    /// be (I6) one that is away, one whose disk is to be emptied or slow, or the most loaded.
    fn superfluous(&self, group: &Group, loads: Option<&Loads<'_>>) -> Option<DiskId> {
        let all: Vec<_> = group.members.iter().map(|member| member.disk).collect();
        let rank = |disk: &DiskId| {
            let left: Vec<_> = all.iter().copied().filter(|other| other != disk).collect();
            let away = group.state_of(*disk) == Some(MemberState::Offline);
            let leaves = away || self.drains(*disk) || self.is_slow(*disk);
            (self.domain(&left), leaves)
        };
        let relief = |disk: DiskId| loads.map_or(0.0, |loads| loads.relief(group, disk));
        let most = |disk: DiskId| (loads.map_or_else(|| self.load(disk), |_| 0), disk);
        all.iter().copied().max_by(|a, b| {
            rank(a).cmp(&rank(b)).then(relief(*a).total_cmp(&relief(*b))).then(most(*a).cmp(&most(*b)))
        })
    }
}

/// Moves primaries to members that lead fewer groups, once every member of every group serves.
fn leads(table: &Table) -> Vec<GroupChange> {
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
mod slow_tests;
#[cfg(test)]
mod tests {
    use master_model::{DiskState, Server};

    use super::*;
    use crate::table::change::changed;

    /// Servers 1.. in racks of their own with one disk each, `groups` groups of the first three.
    pub(super) fn table(servers: u32, groups: u32) -> Table {
        let server = |id: u32| Server {
            id: ServerId(id),
            address: format!("tcp://10.0.0.{id}:1"),
            location: format!("/r/rack{id}/h"),
            disks: vec![(
                DiskId(id),
                DiskState {
                    uuid: [0; 16],
                    capacity_bytes: 1,
                    used_bytes: 0,
                    failed: false,
                    draining: false,
                    scrub: master_model::Scrub::default(),
                    vitals: master_model::Vitals::default(),
                },
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

    pub(super) fn well(servers: &[u32]) -> Seen {
        let servers = servers.iter().map(|id| (ServerId(*id), Health::Well)).collect();
        Seen { servers, ..Seen::default() }
    }

    /// Applies what is due until nothing is.
    pub(super) fn settle(table: Table, seen: &Seen) -> Table {
        let mut table = table;
        for _ in 0..100 {
            let before = table.version;
            table = settle_once(table, seen);
            if table.version == before {
                return table;
            }
        }
        panic!("never at rest: {:?}", plan(&table, seen, 100));
    }

    /// Applies what is due once.
    pub(super) fn settle_once(table: Table, seen: &Seen) -> Table {
        let due = plan(&table, seen, 100);
        if due.is_empty() {
            return table;
        }
        let servers = table.servers().cloned().collect();
        let mut groups: Vec<_> = table.groups().cloned().collect();
        for GroupChange { group: id, epoch, change } in due {
            let group = groups.iter_mut().find(|group| group.id == id).expect("a group of the table");
            assert_eq!(group.epoch, epoch);
            *group = changed(group, change, rules(&table)).expect("only what is allowed is due");
        }
        let (replicas, least) = (table.replicas, table.min_replicas);
        Table::new(table.version + 1, servers, groups).with_replicas(replicas, least)
    }

    #[test]
    fn nothing_is_due_when_all_is_well_or_merely_quiet() {
        assert_eq!(plan(&table(3, 9), &well(&[1, 2, 3]), 100), []);
        assert_eq!(plan(&table(3, 9), &Seen::default(), 100), []);
        assert_eq!(plan(&table(3, 10), &well(&[1, 2, 3]), 100), [], "one disk must lead one more");
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

    /// Whoever is being filled is level and settles, until nothing is due.
    fn settle_filled(table: Table, seen: &Seen) -> Table {
        let mut table = table;
        for _ in 0..100 {
            let syncing = |g: &Group| g.in_state(MemberState::Syncing).collect::<Vec<_>>();
            let level = table.groups().flat_map(|g| syncing(g).into_iter().map(|disk| (g.id, g.epoch, disk)));
            let level = level.collect();
            let active = table.groups().map(|group| (group.id, group.epoch)).collect();
            let before = table.version;
            table = settle_once(table, &Seen { level, active, ..seen.clone() });
            if table.version == before {
                return table;
            }
        }
        panic!("never at rest: {:?}", plan(&table, seen, 100));
    }

    /// Groups of the first disk only.
    fn alone(groups: u32) -> Vec<Group> {
        let members = vec![master_model::Member { disk: DiskId(1), state: MemberState::Serving }];
        (1..=groups).map(|id| Group { id: GroupId(id), epoch: Epoch(1), members: members.clone() }).collect()
    }

    /// A cluster that kept one copy of everything, and is to keep three.
    #[test]
    fn groups_grow_as_racks_come() {
        const GROUPS: u32 = 20;
        let of = |servers: Vec<Server>, groups: &Table| {
            Table::new(1, servers, groups.groups().cloned().collect()).with_replicas(3, 1)
        };
        let all: Vec<_> = table(5, 0).servers().cloned().collect();
        let single = Table::new(1, all[..1].to_vec(), alone(GROUPS)).with_replicas(3, 1);
        assert_eq!(plan(&single, &well(&[1]), 100), [], "there is no other rack");

        // A second rack with two hosts: two copies, and no third in the same rack.
        let mut beside = all[2].clone();
        beside.location = "/r/rack2/other".to_owned();
        let two = of([&all[..2], &[beside]].concat(), &single);
        assert_eq!(plan(&two, &well(&[1, 2, 3]), 100).len(), MOVES_MAX, "not all at a time");
        let two = settle_filled(two, &well(&[1, 2, 3]));
        assert!(two.groups().all(|group| group.members.len() == 2 && is_whole(group)));

        let four = of(
            vec![
                all[0].clone(),
                two.server(ServerId(2)).unwrap().clone(),
                two.server(ServerId(3)).unwrap().clone(),
                all[3].clone(),
            ],
            &two,
        );
        let three = settle_filled(four, &well(&[1, 2, 3, 4]));
        for group in three.groups() {
            let mut racks: Vec<_> =
                group.members.iter().map(|m| &three.server_of(m.disk).unwrap().location[..8]).collect();
            racks.sort_unstable();
            assert_eq!(racks, ["/r/rack1", "/r/rack2", "/r/rack4"], "{group:?}");
        }
    }

    /// Hosts, if there is one rack only.
    #[test]
    fn in_one_rack_groups_grow_over_hosts() {
        let mut servers: Vec<_> = table(3, 0).servers().cloned().collect();
        for (at, server) in servers.iter_mut().enumerate() {
            server.location = format!("/r/rack/h{}", at.min(1));
        }
        let single = Table::new(1, servers, alone(1)).with_replicas(3, 1);
        let grown = settle_filled(single, &well(&[1, 2, 3]));
        assert_eq!(grown.groups().next().unwrap().members.len(), 2, "the third would share a host");
    }

    /// Disks of 1000 bytes, of which so many are used.
    fn used(table: &Table, used_bytes: &[u64]) -> Table {
        let mut servers: Vec<_> = table.servers().cloned().collect();
        for (server, used) in servers.iter_mut().zip(used_bytes) {
            for (_, state) in &mut server.disks {
                (state.capacity_bytes, state.used_bytes) = (1000, *used);
            }
        }
        let (replicas, least) = (table.replicas, table.min_replicas);
        Table::new(table.version, servers, table.groups().cloned().collect()).with_replicas(replicas, least)
    }

    #[test]
    fn no_disk_is_given_more_than_it_has_room_for() {
        let mut seen = well(&[1, 2, 3, 4]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(4, 10), &seen);
        seen.absent.insert(DiskId(1));
        let coming =
            |table: &Table| table.groups().filter(|group| group.state_of(DiskId(4)).is_some()).count();
        // 50 bytes a group, and room for all.
        let whole = settle(used(&without, &[500, 500, 500, 0]), &seen);
        assert_eq!(coming(&whole), 10);
        // Its 700 bytes leave room for two groups of 73 bytes each: the others wait, however often that is asked.
        let some = settle(used(&without, &[500, 500, 500, 700]), &seen);
        assert_eq!(coming(&some), 2);
        assert!(!has_place_elsewhere(&some, &seen, DiskId(2)));
        assert_eq!(coming(&settle(used(&without, &[500, 500, 500, 890]), &seen)), 0);
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

    /// What chunkservers do with what is due: who syncs gets level, who joined gets active.
    pub(super) fn work(table: Table, seen: &Seen) -> Table {
        let mut table = table;
        for _ in 0..200 {
            let before = table.version;
            table = settle_once(table, seen);
            let groups = || table.groups();
            let level = groups()
                .flat_map(|g| g.in_state(MemberState::Syncing).map(|disk| (g.id, g.epoch, disk)))
                .collect();
            let active = groups().map(|group| (group.id, group.epoch)).collect();
            table = settle_once(table.clone(), &Seen { level, active, ..seen.clone() });
            if table.version == before {
                return table;
            }
        }
        panic!("never at rest: {:?}", plan(&table, seen, 100));
    }

    pub(super) fn counts(table: &Table, disks: u32) -> Vec<usize> {
        let on = |disk| table.groups().filter(|group| group.state_of(DiskId(disk)).is_some()).count();
        (1..=disks).map(on).collect()
    }

    fn marked(table: &Table, draining: &[u32]) -> Table {
        let mut servers: Vec<_> = table.servers().cloned().collect();
        for (disk, state) in servers.iter_mut().flat_map(|server| &mut server.disks) {
            state.draining = draining.contains(&disk.0);
        }
        Table::new(table.version + 1, servers, table.groups().cloned().collect()).with_replicas(3, 2)
    }

    #[test]
    fn a_primary_that_cannot_read_what_it_has_lets_another_lead() {
        let group = |table: &Table| table.groups().next().cloned().expect("a group");
        let mut now = table(3, 1);
        let mut led = BTreeSet::new();
        for _ in 0..3 {
            let before = group(&now);
            led.insert(before.primary());
            let damaged = BTreeMap::from([(before.id, before.epoch)]);
            now = settle_once(now, &Seen { damaged: damaged.clone(), ..well(&[1, 2, 3]) });
            assert_eq!(group(&now).epoch.0, before.epoch.0 + 1);
            assert_eq!(plan(&now, &Seen { damaged, ..well(&[1, 2, 3]) }, 9), [], "said of an older epoch");
        }
        assert_eq!(led.len(), 3, "each has its turn");
    }

    #[test]
    fn a_disk_to_be_emptied_is_left_once_another_has_its_data() {
        let seen = well(&[1, 2, 3, 4]);
        let draining = marked(&table(4, 40), &[2]);
        let due = plan(&draining, &seen, 100);
        assert_eq!(due.len(), MOVES_MAX, "not all at once");
        assert!(due.iter().all(|change| change.change == Change::Add(DiskId(4))));
        assert_eq!(plan(&settle_once(draining.clone(), &seen), &seen, 100), [], "until these are done");
        let done = work(draining, &seen);
        assert_eq!(counts(&done, 4)[1], 0);
        assert!(done.groups().all(|group| group.serving().count() == 3 && group.members.len() == 3));
        // Without a place to go it stays, and so do all copies.
        let stuck = marked(&table(3, 9), &[2]);
        assert_eq!(work(stuck.clone(), &well(&[1, 2, 3])), stuck);
        // Taken back, it gets its share again.
        let back = work(marked(&done, &[]), &seen);
        assert_eq!(counts(&back, 4), [30, 30, 30, 30]);
    }

    #[test]
    fn a_disk_to_be_emptied_that_is_away_is_replaced_at_once() {
        let mut seen = well(&[1, 2, 3, 4]);
        seen.servers.insert(ServerId(2), Health::Gone);
        let done = work(marked(&table(4, 10), &[2]), &seen);
        assert_eq!(counts(&done, 4), [10, 0, 10, 10]);
    }

    #[test]
    fn a_new_disk_gets_its_share_and_a_larger_one_a_larger_share() {
        let seen = well(&[1, 2, 3, 4, 5]);
        let even = work(table(5, 50), &seen);
        assert_eq!(counts(&even, 5), [30, 30, 30, 30, 30]);
        assert!(even.groups().all(|group| group.serving().count() == 3 && group.members.len() == 3));
        assert_eq!(work(even.clone(), &seen), even, "nothing moves to and fro");
        let mut servers: Vec<_> = table(5, 50).servers().cloned().collect();
        servers[4].disks[0].1.capacity_bytes = 3;
        let groups = table(5, 50).groups().cloned().collect();
        let uneven = work(Table::new(1, servers, groups).with_replicas(3, 2), &seen);
        let counts = counts(&uneven, 5);
        assert!(counts[4] >= 45 && counts[..4].iter().all(|count| *count <= 28), "{counts:?}");
    }

    #[test]
    fn no_more_groups_move_than_make_disks_equal() {
        let due = plan(&table(4, 8), &well(&[1, 2, 3, 4]), 100);
        assert!(due.iter().all(|due| due.change == Change::Add(DiskId(4))), "{due:?}");
        assert_eq!(due.len(), 6, "of three times eight, a quarter");
    }

    #[test]
    fn of_one_too_many_who_is_away_goes_first() {
        let whole = table(4, 1);
        let mut group = whole.group(GroupId(1)).unwrap().clone();
        group.members.push(Member { disk: DiskId(4), state: MemberState::Serving });
        for away in 1..=4 {
            let mut group = group.clone();
            let member = group.members.iter_mut().find(|member| member.disk == DiskId(away)).unwrap();
            member.state = MemberState::Offline;
            let table = Table::new(2, whole.servers().cloned().collect(), vec![group]).with_replicas(3, 2);
            let due = plan(&table, &well(&[1, 2, 3, 4]), 100);
            assert!(matches!(due[..], [due] if due.change == Change::Drop(DiskId(away))), "{due:?}");
        }
    }

    /// Two members of a group that moves within a rack, and a third one that is drained or lost: whoever leaves or comes, the
    /// group is spread over racks in the end.
    #[test]
    fn a_move_within_a_rack_ends_with_racks_of_their_own() {
        let in_rack = |table: &mut Table, server: u32, rack: u32| {
            let found = table.servers_mut().find(|found| found.id == ServerId(server)).unwrap();
            found.location = format!("/r/rack{rack}/h{server}");
        };
        let mut moving = table(5, 1);
        in_rack(&mut moving, 4, 2);
        in_rack(&mut moving, 5, 3);
        let servers: Vec<_> = moving.servers().cloned().collect();
        let with = |state| {
            let member = |disk, state| Member { disk: DiskId(disk), state };
            let serving = [2, 3, 4].map(|disk| member(disk, MemberState::Serving));
            let members = serving.into_iter().chain([member(1, state)]).collect();
            let group = Group { id: GroupId(1), epoch: Epoch(9), members };
            Table::new(1, servers.clone(), vec![group]).with_replicas(3, 2)
        };
        let due = |table: &Table, seen: &Seen| {
            plan(table, seen, 100).into_iter().map(|change| change.change).collect::<Vec<_>>()
        };
        let drained = marked(&with(MemberState::Serving), &[1]);
        let dropped = due(&drained, &well(&[1, 2, 3, 4, 5]));
        assert!(matches!(dropped[..], [Change::Drop(DiskId(2 | 4))]), "{dropped:?}");
        let mut lost = well(&[2, 3, 4, 5]);
        lost.servers.insert(ServerId(1), Health::Gone);
        lost.absent.insert(DiskId(1));
        assert_eq!(
            due(&with(MemberState::Offline), &lost),
            [],
            "5 would be in a rack with 3, 2 and 4 are in one already"
        );
        let back = due(&with(MemberState::Offline), &well(&[1, 2, 3, 4, 5]));
        assert_eq!(back, [Change::Sync(DiskId(1))]);
    }

    #[test]
    fn within_three_racks_a_group_keeps_one_member_in_each() {
        let mut servers: Vec<_> = table(6, 1).servers().cloned().collect();
        for server in &mut servers[3..] {
            server.location = format!("/r/rack{}/h{}", server.id.0 - 3, server.id.0);
        }
        let groups = table(3, 30).groups().cloned().collect();
        let done = work(Table::new(1, servers, groups).with_replicas(3, 2), &well(&[1, 2, 3, 4, 5, 6]));
        assert_eq!(counts(&done, 6), [15, 15, 15, 15, 15, 15]);
        for group in done.groups() {
            let mut racks: Vec<_> = group.members.iter().map(|member| (member.disk.0 - 1) % 3).collect();
            racks.sort_unstable();
            assert_eq!(racks, [0, 1, 2], "{group:?}");
        }
    }

    #[test]
    fn who_dies_while_its_group_moves_is_let_go() {
        let seen = well(&[1, 2, 3, 4]);
        let moving = settle_once(marked(&table(4, 4), &[3]), &seen);
        let mut without = seen.clone();
        without.servers.insert(ServerId(1), Health::Gone);
        without.absent.insert(DiskId(1));
        let done = work(moving, &without);
        assert!(done.groups().all(|group| group.serving().count() >= 2));
        assert!(done.groups().all(|group| group.state_of(DiskId(4)) == Some(MemberState::Serving)));
        let healed = work(done, &seen);
        assert_eq!(counts(&healed, 4), [4, 4, 0, 4]);
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
        let more = whole.clone().with_replicas(4, 2);
        assert!(!may_drop(&more, &well(&[1, 2, 3]), group, DiskId(4)), "a member is missing");
        let mut syncing = whole.group(group).unwrap().clone();
        syncing.members[2].state = MemberState::Syncing;
        let filling = Table::new(2, whole.servers().cloned().collect(), vec![syncing]).with_replicas(3, 2);
        assert!(!may_drop(&filling, &well(&[1, 2, 3]), group, DiskId(4)), "one is being filled");
        let mut seen = well(&[1, 2, 3, 4]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 1), &seen);
        assert!(!may_drop(&without, &well(&[1, 2, 3]), group, DiskId(4)), "one is offline");
    }

    #[test]
    fn a_failed_disk_leaves_and_is_replaced_at_once() {
        let mut seen = well(&[1, 2, 3, 4]);
        seen.failed.insert(DiskId(1));
        let without = settle(table(4, 3), &seen);
        assert!(without.groups().all(|group| group.state_of(DiskId(1)) == Some(MemberState::Offline)));
        let mut servers: Vec<_> = without.servers().cloned().collect();
        servers[0].disks[0].1.failed = true;
        let groups = without.groups().cloned().collect();
        let lost = Table::new(9, servers, groups).with_replicas(3, 2);
        let replaced = settle(lost.clone(), &seen);
        assert!(replaced.groups().all(|group| group.state_of(DiskId(4)) == Some(MemberState::Syncing)));
        assert_eq!(plan(&lost, &well(&[1, 2, 3]), 100), [], "nobody knows how the only spare is");
    }

    #[test]
    fn what_was_seen_of_another_epoch_counts_for_nothing() {
        let (one, group) = (DiskId(1), GroupId(1));
        let mut seen = well(&[1, 2, 3]);
        seen.servers.insert(ServerId(1), Health::Gone);
        let without = settle(table(3, 1), &seen);
        let back = settle(without, &well(&[1, 2, 3]));
        let epoch = back.group(group).unwrap().epoch;
        let older = Seen { level: [(group, Epoch(epoch.0 - 1), one)].into(), ..well(&[1, 2, 3]) };
        assert_eq!(plan(&back, &older, 100), []);
        let level = Seen { level: [(group, epoch, one)].into(), ..well(&[1, 2, 3]) };
        let joined = settle(back, &level);
        assert_eq!(joined.group(group).unwrap().state_of(one), Some(MemberState::Joining));
        let older = Seen { active: [(group, epoch)].into(), ..well(&[1, 2, 3]) };
        assert_eq!(plan(&joined, &older, 100), [], "it was active before the member joined");
    }

    #[test]
    fn a_spare_is_on_a_host_of_its_own_if_the_group_was_spread_over_hosts() {
        let whole = table(5, 6);
        let mut servers: Vec<_> = whole.servers().cloned().collect();
        for (server, host) in servers.iter_mut().zip(["a", "b", "c", "b", "d"]) {
            server.location = format!("/r/rack/{host}");
        }
        let table = Table::new(1, servers, whole.groups().cloned().collect()).with_replicas(3, 2);
        let mut seen = well(&[2, 3, 4, 5]);
        seen.servers.insert(ServerId(1), Health::Gone);
        seen.absent.insert(DiskId(1));
        let replaced = settle(table, &seen);
        assert!(replaced.groups().all(|group| group.state_of(DiskId(5)) == Some(MemberState::Syncing)));
    }

    #[test]
    fn few_primaries_move_at_a_time() {
        let whole = table(3, 9);
        let mut groups: Vec<_> = whole.groups().cloned().collect();
        groups.iter_mut().for_each(|group| group.members.sort_by_key(|member| member.disk));
        let servers = whole.servers().cloned().collect();
        let led_by_one = Table::new(1, servers, groups).with_replicas(3, 2);
        let due = plan(&led_by_one, &well(&[1, 2, 3]), 100);
        assert!(
            due.len() == LEADS_MAX && due.iter().all(|due| matches!(due.change, Change::Lead(_))),
            "{due:?}"
        );
    }

    #[test]
    fn one_command_is_bounded() {
        let mut seen = well(&[1, 2]);
        seen.servers.insert(ServerId(3), Health::Gone);
        assert_eq!(plan(&table(3, 9), &seen, 4).len(), 4);
    }
}
