//! What must hold at every moment, one property a file. Each says what it looks at, and breaks the run off with
//! [`World::violate`](crate::world::World::violate). (I2, I4 are also looked at from outside, by what reads show: `oracle`.)

mod acknowledged;
mod deletion;
mod equal;
mod kept;
mod leases;
mod masters;
mod once;
mod primary;
mod progress;
mod racks;
mod whole;

use std::sync::Arc;

use coord_types::{ChunkKey, GroupId};
use master_model::Table;

use crate::world::World;

impl World {
    /// A primary says that a client's write is done.
    pub(crate) fn write_acknowledged(&mut self, s: usize, key: ChunkKey, id: u64) {
        primary::check(self, s, key);
        acknowledged::check(self, s, key, id);
        self.oracle.lock().acknowledged_of.entry(key).or_default().insert(id);
    }

    /// The log brought a new table.
    pub(crate) fn check_table(&mut self, old: &Arc<Table>) {
        racks::check(self);
        leases::check(self, old);
        kept::check(self);
    }

    /// The master lets a replica be deleted.
    pub(crate) fn check_may_drop(&mut self, disk: coord_types::DiskId, group: GroupId) {
        deletion::check(self, disk, group);
    }

    /// Everything on all disks.
    pub(crate) fn scan(&mut self) {
        equal::check(self);
        once::check(self);
        whole::check(self);
        kept::check(self);
    }

    /// Nothing runs any more.
    pub(crate) fn check_end(&mut self) {
        masters::check(self);
        progress::check_copies(self);
    }

    /// Whether nothing is left to be done.
    pub(crate) fn at_rest(&mut self) -> bool {
        progress::unrest(self).is_none()
    }

    pub(crate) fn unrest(&mut self) -> String {
        progress::unrest(self).unwrap_or_default()
    }
}
