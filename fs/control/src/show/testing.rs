//! A cluster to show: three chunkservers of one disk each (10, 20, 30) and two groups.

use master_api::proto::{Disk, Group, Member, MemberState, Server, StatusReply, Table};

pub(super) fn status() -> StatusReply {
    let server = |id: u32| Server {
        id,
        address: format!("tcp://10.0.0.{id}:7000"),
        location: format!("/r/rack{id}/h"),
        disks: vec![id * 10],
        disk_states: vec![Disk { capacity_bytes: 1 << 30, used_bytes: 1 << 20, ..Disk::default() }],
        ..Server::default()
    };
    let member = |disk| Member { disk, state: MemberState::Serving.into() };
    let group = |id| Group { id, epoch: 5, members: [10, 20, 30].map(member).to_vec() };
    StatusReply {
        cluster_id: "c1".to_owned(),
        table: Some(Table {
            version: 9,
            servers: [1, 2, 3].map(server).to_vec(),
            groups: [1, 2].map(group).to_vec(),
            replicas: 3,
            min_replicas: 2,
        }),
        ..StatusReply::default()
    }
}

/// The same, with the states of the first group's members as given.
pub(super) fn with_states(states: [MemberState; 3]) -> StatusReply {
    let mut status = status();
    let group = &mut status.table.as_mut().expect("it has one").groups[0];
    for (member, state) in group.members.iter_mut().zip(states) {
        member.set_state(state);
    }
    status
}
