//! The table of servers and groups.

use coord_types::{DiskId, Epoch, GroupId, ServerId};

use super::{Invalid, uuid};
use crate::proto;
use crate::{DiskState, Group, Member, MemberState, Pace, Scrub, Server, Table, Vitals};

impl From<MemberState> for proto::MemberState {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Serving => Self::Serving,
            MemberState::Syncing => Self::Syncing,
            MemberState::Offline => Self::Offline,
            MemberState::Joining => Self::Joining,
        }
    }
}

/// What a member does, from the wire's number.
///
/// # Errors
/// A number that is none of them.
pub fn member_state(state: i32) -> Result<MemberState, Invalid> {
    match proto::MemberState::try_from(state) {
        Ok(proto::MemberState::Serving) => Ok(MemberState::Serving),
        Ok(proto::MemberState::Syncing) => Ok(MemberState::Syncing),
        Ok(proto::MemberState::Offline) => Ok(MemberState::Offline),
        Ok(proto::MemberState::Joining) => Ok(MemberState::Joining),
        Ok(proto::MemberState::Unspecified) | Err(_) => Err(Invalid::MemberState(state)),
    }
}

impl From<&Group> for proto::Group {
    fn from(group: &Group) -> Self {
        let member = |member: &Member| proto::Member {
            disk: member.disk.0,
            state: proto::MemberState::from(member.state).into(),
        };
        Self { id: group.id.0, epoch: group.epoch.0, members: group.members.iter().map(member).collect() }
    }
}

impl TryFrom<proto::Group> for Group {
    type Error = Invalid;

    fn try_from(group: proto::Group) -> Result<Self, Invalid> {
        let member = |member: proto::Member| -> Result<Member, Invalid> {
            Ok(Member { disk: DiskId(member.disk), state: member_state(member.state)? })
        };
        Ok(Self {
            id: GroupId(group.id),
            epoch: Epoch(group.epoch),
            members: group.members.into_iter().map(member).collect::<Result<_, _>>()?,
        })
    }
}

impl From<DiskState> for proto::Disk {
    fn from(disk: DiskState) -> Self {
        Self {
            uuid: disk.uuid.to_vec().into(),
            capacity_bytes: disk.capacity_bytes,
            used_bytes: disk.used_bytes,
            failed: disk.failed,
            draining: disk.draining,
            scrub_began_ms: disk.scrub.began_ms,
            scrub_ended_ms: disk.scrub.ended_ms,
            damaged_chunks: disk.scrub.damaged_chunks,
            write_latency_us: disk.vitals.write_latency_us,
            pace: proto::Pace::from(disk.vitals.pace).into(),
            errors: disk.vitals.errors,
            failing: disk.vitals.failing,
        }
    }
}

impl From<Pace> for proto::Pace {
    fn from(pace: Pace) -> Self {
        match pace {
            Pace::Usual => Self::Unspecified,
            Pace::Slow => Self::Slow,
            Pace::Out => Self::Out,
        }
    }
}

impl From<proto::Pace> for Pace {
    fn from(pace: proto::Pace) -> Self {
        match pace {
            proto::Pace::Unspecified => Self::Usual,
            proto::Pace::Slow => Self::Slow,
            proto::Pace::Out => Self::Out,
        }
    }
}

impl TryFrom<&proto::Disk> for DiskState {
    type Error = Invalid;

    fn try_from(disk: &proto::Disk) -> Result<Self, Invalid> {
        Ok(Self {
            uuid: uuid("disk's uuid", &disk.uuid)?,
            capacity_bytes: disk.capacity_bytes,
            used_bytes: disk.used_bytes,
            failed: disk.failed,
            draining: disk.draining,
            scrub: Scrub {
                began_ms: disk.scrub_began_ms,
                ended_ms: disk.scrub_ended_ms,
                damaged_chunks: disk.damaged_chunks,
            },
            vitals: Vitals {
                write_latency_us: disk.write_latency_us,
                pace: disk.pace().into(),
                errors: disk.errors,
                failing: disk.failing,
            },
        })
    }
}

impl From<&Server> for proto::Server {
    fn from(server: &Server) -> Self {
        Self {
            id: server.id.0,
            address: server.address.clone(),
            location: server.location.clone(),
            disks: server.disks.iter().map(|(disk, _)| disk.0).collect(),
            incarnation: server.incarnation,
            silent_ms: server.silent_ms,
            disk_states: server.disks.iter().map(|(_, state)| (*state).into()).collect(),
        }
    }
}

impl TryFrom<proto::Server> for Server {
    type Error = Invalid;

    fn try_from(server: proto::Server) -> Result<Self, Invalid> {
        if server.disks.len() != server.disk_states.len() {
            return Err(Invalid::Missing { message: "server", field: "state of some disk" });
        }
        let disks = server.disks.iter().zip(&server.disk_states);
        Ok(Self {
            id: ServerId(server.id),
            disks: disks
                .map(|(id, state)| Ok((DiskId(*id), state.try_into()?)))
                .collect::<Result<_, Invalid>>()?,
            address: server.address,
            location: server.location,
            incarnation: server.incarnation,
            silent_ms: server.silent_ms,
        })
    }
}

impl From<&Table> for proto::Table {
    fn from(table: &Table) -> Self {
        Self {
            version: table.version,
            servers: table.servers().map(Into::into).collect(),
            groups: table.groups().map(Into::into).collect(),
            replicas: table.replicas,
            min_replicas: table.min_replicas,
        }
    }
}

impl TryFrom<proto::Table> for Table {
    type Error = Invalid;

    fn try_from(table: proto::Table) -> Result<Self, Invalid> {
        let servers = table.servers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let groups = table.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self::new(table.version, servers, groups).with_replicas(table.replicas, table.min_replicas))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_the_wire() {
        let scrub = Scrub { began_ms: 6, ended_ms: 7, damaged_chunks: 8 };
        let state = DiskState {
            uuid: [3; 16],
            capacity_bytes: 4,
            used_bytes: 5,
            failed: false,
            draining: true,
            scrub,
            vitals: Vitals { write_latency_us: 10, pace: Pace::Out, errors: 11, failing: true },
        };
        let server = Server {
            id: ServerId(1),
            address: "tcp://127.0.0.1:1".to_owned(),
            location: "/r/a/h".to_owned(),
            disks: vec![(DiskId(7), state), (DiskId(8), DiskState { uuid: [4; 16], failed: true, ..state })],
            incarnation: 8,
            silent_ms: 9,
        };
        let members = vec![
            Member { disk: DiskId(9), state: MemberState::Offline },
            Member { disk: DiskId(7), state: MemberState::Serving },
        ];
        let group = Group { id: GroupId(2), epoch: Epoch(3), members };
        assert_eq!(group.primary(), Some(DiskId(7)));
        let table = Table::new(6, vec![server], vec![group]).with_replicas(3, 2);
        assert_eq!(table.server_of(DiskId(7)).unwrap().id, ServerId(1));
        assert_eq!(table.server_of(DiskId(9)), None);
        let wire = proto::Table::from(&table);
        assert_eq!(Table::try_from(wire.clone()), Ok(table));
        let mut broken = wire.clone();
        broken.groups[0].members[0].state = 0;
        assert_eq!(Table::try_from(broken), Err(Invalid::MemberState(0)));
        let mut broken = wire;
        broken.servers[0].disk_states.clear();
        assert!(Table::try_from(broken).is_err());
    }
}
