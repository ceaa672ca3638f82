//! Liveness: when faults stop, every call of every client ends, every group becomes whole, all its copies become equal.

use chunkserver_core::Stage;
use master_model::MemberState;

use crate::world::{REPLICAS, World};

/// What is still to be done.
pub(super) fn unrest(world: &World) -> Option<String> {
    let table = &world.newest;
    if table.groups().next().is_none() {
        return Some("there are no groups".to_owned());
    }
    for group in table.groups() {
        let whole = group.members.len() == REPLICAS as usize
            && group.members.iter().all(|member| member.state == MemberState::Serving);
        if !whole {
            return Some(format!("{:?} is not whole: {group:?}", group.id));
        }
        for member in &group.members {
            let Some(at) = world.at_disk(member.disk) else {
                return Some(format!("{member:?} does not exist"));
            };
            let replica = world.servers[at].replicas.get(&group.id).filter(|_| world.servers[at].up);
            let Some(replica) = replica else {
                return Some(format!("{member:?} of {:?} has no replica", group.id));
            };
            let (epoch, stage, backlog) = (replica.epoch(), replica.stage(), replica.backlog());
            if epoch != group.epoch || stage != Stage::Active || backlog > 0 {
                return Some(format!(
                    "{member:?} of {group:?}: epoch {epoch}, {stage:?}, {backlog} in flight"
                ));
            }
        }
    }
    if world.tasks.running() > 0 && world.oracle.lock().stopped {
        return Some(format!("{} tasks of clients go on", world.tasks.running()));
    }
    None
}

/// At rest all copies of a group are equal.
pub(super) fn check_copies(world: &mut World) {
    let table = world.newest.clone();
    let keys = world.oracle.lock().keys.clone();
    for key in keys {
        let Some(group) = table.group(key.group) else { continue };
        let disks = group.in_state(MemberState::Serving).filter_map(|disk| world.at_disk(disk));
        let copies: Vec<_> = disks.map(|at| world.servers[at].disk.chunks.get(&key)).collect();
        if copies.windows(2).any(|two| two[0] != two[1]) {
            world.violate("equal copies", || {
                format!("copies of {key:?} differ although nothing is to be done")
            });
        }
    }
}
