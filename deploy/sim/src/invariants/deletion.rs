//! **I7** A replica may be deleted only if, at that moment, enough others are there and hold everything.

use coord_types::{DiskId, GroupId};
use master_model::MemberState;

use crate::world::{REPLICAS, World};

pub(super) fn check(world: &mut World, disk: DiskId, group: GroupId) {
    let Some(known) = world.newest.group(group).cloned() else { return };
    let serving = known.in_state(MemberState::Serving).filter(|member| *member != disk);
    let there = serving.filter(|member| world.at_disk(*member).is_some()).count();
    // A disk that is destroyed at this moment is not known to be yet.
    let lost = known.members.iter().filter(|member| world.destroyed.contains(&member.disk)).count();
    if known.state_of(disk).is_some() || there + lost < REPLICAS as usize {
        world.violate("I7", || {
            format!("{disk:?} may drop {group:?}, of which there are {there} others: {known:?}")
        });
    }
}
