//! The master of the model: groups change by the rules of `master-core`, at any moment they allow. Leases are modelled by what
//! they promise: who is taken out has none any more.

use chunkserver_core::{MemberInfo, View};
use coord_types::{DiskId, Epoch, GroupId};
use master_core::table::change::{Change, changed};
use master_model::{Group, Member, MemberState};

use super::bug::Bug;
use super::member::Processes;
use super::setup::{DISKS_MAX, Setup, disk, place};

/// A table: the group, and the processes that registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub(crate) version: u8,
    pub(crate) group: Group,
    pub(crate) processes: Processes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Master {
    /// Those that somebody may still get, oldest first; never empty.
    pub(crate) tables: Vec<Table>,
    /// Disks, one bit each, that primaries called level in the newest epoch.
    level: u8,
    /// The newest epoch was activated.
    pub(crate) active: bool,
    /// Who may answer reads without asking the others.
    leased: u8,
    /// Changes of the setup that are done.
    done: u8,
}

pub(crate) fn bit(place: usize) -> u8 {
    1 << place
}

impl Master {
    pub(crate) fn new(setup: &Setup) -> Self {
        let serves = |at| Member { disk: disk(at), state: MemberState::Serving };
        let members = (0..setup.serving as usize).map(serves).collect();
        let group = Group { id: GroupId(1), epoch: Epoch(1), members };
        let table = Table { version: 1, group, processes: [0; DISKS_MAX] };
        Self { tables: vec![table], level: 0, active: false, leased: 0, done: 0 }
    }

    pub(crate) fn newest(&self) -> &Table {
        self.tables.last().expect("never empty")
    }

    pub(crate) fn is_leased(&self, place: usize) -> bool {
        self.leased & bit(place) != 0
    }

    /// It has done all it may.
    pub(crate) fn is_done(&self, setup: &Setup) -> bool {
        self.done.count_ones() as usize == setup.changes.len()
    }

    /// A process registered.
    pub(crate) fn registered(&mut self, place: usize, incarnation: u8) {
        let mut table = self.newest().clone();
        table.version += 1;
        table.processes[place] = incarnation;
        self.tables.push(table);
    }

    /// The process is gone, and its lease with it.
    pub(crate) fn died(&mut self, place: usize) {
        self.leased &= !bit(place);
    }

    pub(crate) fn heard_level(&mut self, disk: DiskId, epoch: Epoch) {
        if epoch == self.newest().group.epoch {
            self.level |= bit(place(disk));
        }
    }

    pub(crate) fn heard_active(&mut self, epoch: Epoch) {
        self.active |= epoch == self.newest().group.epoch;
    }

    /// A member has this table, with the lease that comes with it unless the master took it out since.
    pub(crate) fn told(&mut self, at: usize, version: u8) {
        let mut since = self.tables.iter().filter(|table| table.version >= version);
        if since.all(|table| table.group.serving().any(|serving| serving == disk(at))) {
            self.leased |= bit(at);
        }
    }

    /// Whether tables are kept that nobody will ask for, when all have this one.
    pub(crate) fn trims(&self, adopted_by_all: u8) -> bool {
        self.tables.len() > 1 && self.tables[0].version <= adopted_by_all
    }

    pub(crate) fn trim(&mut self, adopted_by_all: u8) {
        let newest = self.newest().version;
        self.tables.retain(|table| table.version > adopted_by_all || table.version == newest);
    }

    /// The changes that may be made now: their places in the setup.
    pub(crate) fn due<'a>(
        &'a self,
        setup: &'a Setup,
        up: impl Fn(usize) -> bool + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        (0..setup.changes.len()).filter(move |at| {
            let change = setup.changes[*at];
            let news = match change {
                Change::Join(disk) => self.level & bit(place(disk)) != 0,
                Change::Settle(_) => self.active || setup.has(Bug::SettleEarly),
                Change::Sync(disk) | Change::Add(disk) | Change::Replace { spare: disk, .. } => {
                    up(place(disk))
                }
                Change::Out(_) | Change::Lost(_) | Change::Lead(_) | Change::Drop(_) => true,
            };
            self.done & bit(*at) == 0 && news && changed(&self.newest().group, change, setup.rules).is_some()
        })
    }

    pub(crate) fn change(&mut self, setup: &Setup, at: usize) {
        let (change, newest) = (setup.changes[at], self.newest().clone());
        let Some(group) = changed(&newest.group, change, setup.rules) else { return };
        self.done |= bit(at);
        if let Change::Out(disk) | Change::Lost(disk) | Change::Drop(disk) = change
            && !setup.has(Bug::LeaseNotWaitedFor)
        {
            self.leased &= !bit(place(disk));
        }
        if group.epoch > newest.group.epoch {
            (self.level, self.active) = (0, false);
        }
        self.tables.push(Table { version: newest.version + 1, group, ..newest });
    }
}

impl Table {
    /// As a member sees it.
    pub(crate) fn view(&self, setup: &Setup) -> View {
        let group = &self.group;
        let info = |disk| MemberInfo { disk, incarnation: self.processes[place(disk)].into() };
        let mut serving: Vec<_> = group.serving().map(info).collect();
        if setup.has(Bug::JoiningLeads) && group.in_state(MemberState::Joining).next().is_some() {
            serving.rotate_right(1);
        }
        View {
            epoch: group.epoch,
            short: serving.len() < setup.rules.min_replicas as usize,
            serving,
            syncing: group.in_state(MemberState::Syncing).map(info).collect(),
        }
    }
}
