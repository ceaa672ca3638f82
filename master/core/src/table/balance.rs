//! Levels disks by load as well as by capacity: which primary, and which data, moves next. Pure; `master/docs/groups.md`, "Load".
//!
//! Two numbers say how uneven the cluster is, each a sum of squares of what a disk has relative to its fair share: of data (groups for its
//! size, and bytes written), and of leading (groups led, and bytes written to them). Every change lowers one of them and does not
//! raise the one before it. So while loads stay as they are it comes to rest: there are finitely many ways to place groups.

use std::collections::{BTreeMap, BTreeSet};

use coord_types::{DiskId, GroupId};
use master_model::{Group, Table};

use super::change::{Change, GroupChange};
use super::plan::{Seen, Spares};

/// What each disk writes on average for loads to count at all: less than that nobody feels.
pub const LOAD_MIN_BYTES_PER_S: u64 = 4 << 20;
/// Data that moves for its load at a time.
const MOVES_MAX: usize = 2;
/// Primaries that move at a time: each costs its group a short activation.
const LEADS_MAX: usize = 2;
/// A change for the sake of load must lower the sum by this: one disk with a tenth more than its share and one with a tenth less
/// are even enough.
const GAIN_MIN: f64 = 0.04;
/// One that levels counts is worth it always; this is for rounding.
const ROUNDING: f64 = 1e-9;

/// What disks have, relative to their shares.
struct Scale {
    /// One over the square of the fair number of groups, and of the fair load.
    per_group: f64,
    per_load: f64,
}

impl Scale {
    fn of(disks: usize, counts: f64, loads: f64) -> Self {
        let share = |all: f64| if all > 0.0 { disks as f64 / all } else { 0.0 };
        Self { per_group: share(counts).powi(2), per_load: share(loads).powi(2) }
    }
}

/// A disk's share of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: f64,
    load: f64,
    /// Size relative to the average.
    size: f64,
}

/// How the sum changes when something of weight `load` goes from one to the other: by its count, and by its load.
fn change(from: Share, to: Share, load: f64, scale: &Scale) -> (f64, f64) {
    let counts = (2.0 * to.count + 1.0) / to.size - (2.0 * from.count - 1.0) / from.size;
    let loads = 2.0 * load * (to.load - from.load + load);
    (counts * scale.per_group, loads * scale.per_load)
}

/// Whether it is worth it.
fn is_better((counts, loads): (f64, f64)) -> bool {
    counts + loads < if counts < 0.0 { -ROUNDING } else { -GAIN_MIN }
}

/// Loads of groups, if they are large enough to count.
pub(super) struct Loads<'a> {
    loads: &'a BTreeMap<GroupId, u64>,
    shares: BTreeMap<DiskId, Share>,
    scale: Scale,
}

impl<'a> Loads<'a> {
    /// `None`: loads are not known, or too small to matter, and only capacity counts.
    pub(super) fn new(table: &Table, seen: &'a Seen, spares: &Spares) -> Option<Self> {
        let disks: Vec<_> = spares.usable().collect();
        let capacity: f64 = disks.iter().map(|(_, bytes)| *bytes as f64).sum();
        let mean = capacity / disks.len() as f64;
        let size = |bytes: u64| bytes.max(1) as f64 / mean.max(1.0);
        let share = |bytes| Share { size: size(bytes), ..Share::default() };
        let mut shares: BTreeMap<_, _> = disks.iter().map(|(disk, bytes)| (*disk, share(*bytes))).collect();
        for group in table.groups() {
            for member in &group.members {
                if let Some(share) = shares.get_mut(&member.disk) {
                    share.count += 1.0;
                    share.load += seen.loads.get(&group.id).copied().unwrap_or(0) as f64;
                }
            }
        }
        // As if every group had all its members and no more: what is fair must not change while a group moves.
        let replicas = f64::from(table.replicas);
        let counts = table.groups().count() as f64 * replicas;
        let all: u64 = table.groups().filter_map(|group| seen.loads.get(&group.id)).sum();
        let loads = all as f64 * replicas;
        let enough = loads >= LOAD_MIN_BYTES_PER_S as f64 * disks.len() as f64;
        let scale = Scale::of(disks.len(), counts, loads);
        (enough && disks.len() > 1).then_some(Self { loads: &seen.loads, shares, scale })
    }

    fn of(&self, group: &Group) -> f64 {
        self.loads.get(&group.id).copied().unwrap_or(0) as f64
    }

    /// What is to move, best first. All groups are whole.
    pub(super) fn moves(mut self, table: &Table, spares: &Spares, limit: usize) -> Vec<GroupChange> {
        let mut moved = Vec::new();
        let mut for_load = 0;
        // A disk takes part in one move at a time: so it can be told, when the copy is there, which member was to leave.
        let mut busy = BTreeSet::new();
        let mut hottest: Vec<_> = table.groups().collect();
        hottest.sort_by_key(|group| (std::cmp::Reverse(self.loads.get(&group.id).copied()), group.id));
        for group in hottest {
            if moved.len() >= limit {
                break;
            }
            let Some((from, to, gain)) = self.best_move(group, spares, &busy) else { continue };
            if gain.0 >= 0.0 {
                if for_load >= MOVES_MAX {
                    continue;
                }
                for_load += 1;
            }
            self.shift(from, to, self.of(group));
            busy.extend([from, to]);
            moved.push(GroupChange { group: group.id, epoch: group.epoch, change: Change::Add(to) });
        }
        moved
    }

    fn best_move(
        &self,
        group: &Group,
        spares: &Spares,
        busy: &BTreeSet<DiskId>,
    ) -> Option<(DiskId, DiskId, (f64, f64))> {
        let load = self.of(group);
        let members = group.members.iter().map(|member| member.disk);
        let ways = members.filter(|disk| self.shares.contains_key(disk)).flat_map(|from| {
            let targets = spares.fitting(group, from);
            targets.map(move |to| (from, to)).collect::<Vec<_>>()
        });
        let free = |way: &(DiskId, DiskId)| !busy.contains(&way.0) && !busy.contains(&way.1);
        let gains = ways.filter(free).filter_map(|(from, to)| {
            let gain = change(*self.shares.get(&from)?, *self.shares.get(&to)?, load, &self.scale);
            is_better(gain).then_some((from, to, gain))
        });
        gains.min_by(|a, b| (a.2.0 + a.2.1).total_cmp(&(b.2.0 + b.2.1)))
    }

    fn shift(&mut self, from: DiskId, to: DiskId, load: f64) {
        for (disk, sign) in [(from, -1.0), (to, 1.0)] {
            if let Some(share) = self.shares.get_mut(&disk) {
                share.count += sign;
                share.load += sign * load;
            }
        }
    }

    /// How much the sum falls when the group loses this member: the one that moved is the one whose leaving lowers it most.
    pub(super) fn relief(&self, group: &Group, disk: DiskId) -> f64 {
        let Some(share) = self.shares.get(&disk) else { return 0.0 };
        let load = self.of(group);
        let counts = (2.0 * share.count - 1.0) / share.size;
        counts * self.scale.per_group + load * (2.0 * share.load - load) * self.scale.per_load
    }
}

/// Primaries that should be others, for all groups are whole. `None`: loads do not count.
pub(super) fn leads(table: &Table, seen: &Seen, spares: &Spares) -> Option<Vec<GroupChange>> {
    let loads = Loads::new(table, seen, spares)?;
    let mut led: BTreeMap<DiskId, Share> =
        loads.shares.keys().map(|disk| (*disk, Share { size: 1.0, ..Share::default() })).collect();
    for group in table.groups() {
        if let Some(share) = group.primary().and_then(|primary| led.get_mut(&primary)) {
            share.count += 1.0;
            share.load += loads.of(group);
        }
    }
    let sum = |of: fn(&Share) -> f64| led.values().map(of).sum::<f64>();
    let scale = Scale::of(led.len(), sum(|share| share.count), sum(|share| share.load));
    let mut moved = Vec::new();
    for group in table.groups() {
        if moved.len() >= LEADS_MAX {
            break;
        }
        let load = loads.of(group);
        let Some((primary, from)) = group.primary().and_then(|disk| Some((disk, *led.get(&disk)?))) else {
            continue;
        };
        let others = group.serving().filter(|disk| *disk != primary);
        let gains = others.filter_map(|disk| {
            let gain = change(from, *led.get(&disk)?, load, &scale);
            is_better(gain).then_some((disk, gain.0 + gain.1))
        });
        let Some((best, _)) = gains.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        for (disk, sign) in [(primary, -1.0), (best, 1.0)] {
            if let Some(share) = led.get_mut(&disk) {
                share.count += sign;
                share.load += sign * load;
            }
        }
        moved.push(GroupChange { group: group.id, epoch: group.epoch, change: Change::Lead(best) });
    }
    Some(moved)
}

#[cfg(test)]
mod tests;
