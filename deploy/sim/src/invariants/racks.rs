//! **I6** No two members of a group share a rack while there are enough racks. (A group that moves has one member more for a while.)

use std::collections::BTreeSet;

use crate::server::at_address;
use crate::world::{REPLICAS, World};

pub(super) fn check(world: &mut World) {
    let table = world.newest.clone();
    for group in table.groups() {
        let servers = group.members.iter().filter_map(|member| table.server_of(member.disk));
        let racks: BTreeSet<_> = servers
            .filter_map(|server| at_address(&server.address))
            .map(|at| world.servers[at].rack().to_owned())
            .collect();
        if racks.len() < group.members.len().min(REPLICAS as usize) {
            let members = group.members.clone();
            world.violate("I6", || format!("{:?} is in racks {racks:?} only: {members:?}", group.id));
        }
    }
}
