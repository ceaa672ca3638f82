//! **I1**, over time: whoever serves, by the newest table, holds every acknowledged write, until its disk is destroyed.

use master_model::MemberState;

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let table = world.newest.clone();
    let oracle = world.oracle.clone();
    let acknowledged = &oracle.lock().acknowledged_of;
    for group in table.groups() {
        for disk in group.in_state(MemberState::Serving) {
            let Some(at) = world.at_disk(disk).filter(|at| !world.servers[*at].disk.failed) else { continue };
            for (key, writes) in acknowledged.iter().filter(|(key, _)| key.group == group.id) {
                let rec = world.servers[at].disk.chunks.get(key);
                let has =
                    rec.map_or(0, |rec| rec.writes.iter().filter(|write| writes.contains(write)).count());
                if has < writes.len() {
                    let missing = writes.len() - has;
                    let epoch = group.epoch;
                    world.violate("I1", || {
                        format!("{disk:?}, serving in epoch {epoch}, lacks {missing} acknowledged writes of {key:?}")
                    });
                    return;
                }
            }
        }
    }
}
