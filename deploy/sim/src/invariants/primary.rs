//! **I3** In an epoch one member alone acknowledges writes.

use coord_types::ChunkKey;

use crate::world::World;

pub(super) fn check(world: &mut World, s: usize, key: ChunkKey) {
    let server = &world.servers[s];
    let (Some(replica), Some(disk)) = (server.replicas.get(&key.group), server.disk_id) else { return };
    let epoch = replica.epoch();
    let first = *world.acknowledged_by.entry((key.group, epoch)).or_insert(disk);
    if first != disk {
        world.violate("I3", || {
            format!("{first:?} and {disk:?} both acknowledge writes of {:?} in epoch {epoch}", key.group)
        });
    }
}
