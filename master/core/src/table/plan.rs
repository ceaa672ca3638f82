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
    let damaged = seen.damaged.get(&group.id) == Some(&group.epoch);
    if damaged && let Some(change) = group.in_state(MemberState::Joining).map(Change::Out).find(allowed) {
        // It was not made equal, and cannot be from there: it is filled again, when that is repaired.
        return Some(change);
    }
    if seen.active.get(&group.id) == Some(&group.epoch)
        && !damaged
        && let Some(disk) = group.in_state(MemberState::Joining).next()
    {
        return Some(Change::Settle(disk));
    }
    if damaged
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
mod tests;
