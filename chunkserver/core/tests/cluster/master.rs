//! The master of the model: the rules of `master-core`, applied by chance; leases; what primaries reported.

use std::collections::BTreeSet;

use chunkserver_core::{MemberInfo, View};
use coord_types::{DiskId, Epoch, GroupId};
use master_core::table::change::{Change, Rules, changed};
use master_model::{Group, Member, MemberState};

const RULES: Rules = Rules { replicas: 3, min_replicas: 2 };

#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) group: Group,
    /// Syncing members that were level, at this epoch.
    pub(crate) level: BTreeSet<(Epoch, DiskId)>,
    /// Members that may answer reads without asking the others.
    pub(crate) leased: BTreeSet<DiskId>,
}

impl Master {
    pub(crate) fn new(disks: impl Iterator<Item = DiskId>) -> Self {
        let members = disks.map(|disk| Member { disk, state: MemberState::Serving }).collect();
        let group = Group { id: GroupId(1), epoch: Epoch(1), members };
        Self { group, level: BTreeSet::new(), leased: BTreeSet::new() }
    }

    pub(crate) fn view(&self, incarnation: impl Fn(DiskId) -> u64) -> View {
        let info = |disk| MemberInfo { disk, incarnation: incarnation(disk) };
        View {
            epoch: self.group.epoch,
            serving: self.group.serving().map(info).collect(),
            syncing: self.group.in_state(MemberState::Syncing).map(info).collect(),
            short: self.group.serving().count() < RULES.min_replicas as usize,
        }
    }

    pub(crate) fn state(&self, disk: DiskId) -> Option<MemberState> {
        self.group.state_of(disk)
    }

    /// Whether the change is done. Who is taken out had no lease any more: the master has waited for that, knows it dead, or has
    /// called the lease back.
    pub(crate) fn change(&mut self, change: Change) -> bool {
        let Some(group) = changed(&self.group, change, RULES) else { return false };
        if let Change::Out(disk) | Change::Lost(disk) | Change::Drop(disk) = change {
            self.leased.remove(&disk);
        }
        self.group = group;
        true
    }
}
