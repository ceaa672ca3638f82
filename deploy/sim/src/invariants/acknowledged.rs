//! **I1** An acknowledged write is durable on every member of the write set of its epoch, and these are at least `min_replicas`.
//! Looked at when the primary answers. (A disk that is destroyed had it; a member that left and was emptied had it, too.)

use coord_types::ChunkKey;

use crate::world::{MIN_REPLICAS, World};

pub(super) fn check(world: &mut World, s: usize, key: ChunkKey, id: u64) {
    let server = &world.servers[s];
    let Some(replica) = server.replicas.get(&key.group) else { return };
    let Some(mut members) = replica.others() else {
        return world
            .violate("I1", || format!("server {s} acknowledges write {id} of {key:?} without a table"));
    };
    members.extend(server.disk_id);
    let epoch = replica.epoch();
    if members.len() < MIN_REPLICAS as usize {
        world.violate("I1", || {
            format!("write {id} of {key:?} is acknowledged by {members:?} alone, epoch {epoch}")
        });
    }
    for disk in members {
        let Some(at) = world.at_disk(disk) else { continue };
        let in_group = world.newest.group(key.group).is_some_and(|group| group.state_of(disk).is_some());
        let has = match world.servers[at].disk.chunks.get(&key) {
            Some(rec) => rec.writes.iter().rev().any(|write| *write == id),
            None => !in_group,
        };
        if !has {
            world.violate("I1", || {
                format!("write {id} of {key:?} is acknowledged in epoch {epoch} and not durable on {disk:?}")
            });
        }
    }
}
