//! **I4**, its reason: when an epoch begins without a member, that member has no lease any more by its own clock (or no process).

use std::sync::Arc;

use master_model::Table;

use crate::world::World;

pub(super) fn check(world: &mut World, old: &Arc<Table>) {
    let new = world.newest.clone();
    for before in old.groups() {
        let Some(after) = new.group(before.id).filter(|after| after.epoch > before.epoch) else { continue };
        for disk in before.serving().filter(|disk| !after.serving().any(|other| other == *disk)) {
            let Some(server) = world.at_disk(disk).map(|at| &world.servers[at]) else { continue };
            let reads = |replica: &chunkserver_core::Replica<_>| {
                replica.is_serving() && replica.epoch() < after.epoch
            };
            let serves = server.up && server.disk_id == Some(disk) && !server.disk.failed;
            let serves = serves && server.replicas.get(&before.id).is_some_and(reads);
            if serves && server.lease.holds(server.clock.instant(world.now)) {
                let epoch = after.epoch;
                world.violate("leases", || {
                    format!("epoch {epoch} of {:?} begins without {disk:?}, which holds a lease", before.id)
                });
            }
        }
    }
}
