//! Chunkservers, disks and groups: what the store holds of them, read as the domain's table.
//!
//! [`register`] takes servers in, [`groups`] makes groups, [`placement`] chooses the disks, [`change`] changes their
//! members, [`plan`] decides which change is due, [`balance`] which move makes loads even, [`drain`] marks disks to be
//! emptied, [`replicas`] changes how many members they should have, [`lineage`] begins a new cluster epoch. The table's version
//! rises with every change that clients or chunkservers must learn of.

pub mod balance;
pub mod change;
pub mod drain;
pub mod groups;
pub mod lineage;
pub mod placement;
pub mod plan;
pub mod register;
pub mod replicas;

use std::collections::BTreeMap;

use coord_kv::Read;
use coord_types::{DiskId, Epoch, GroupId, ServerId};
use master_model::{DiskState, Group, Member, Scrub, Server, Table, Vitals, convert};

use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records::{self, ClusterRecord, DiskRecord, GroupRecord, MemberRecord, ServerRecord};
use crate::state::read_counters;

/// How the cluster was initialised; `None` before that.
///
/// # Errors
/// A store that failed.
pub fn cluster(read: &dyn Read) -> OpResult<Option<ClusterRecord>> {
    let record = read.get(keys::SETTINGS, keys::CLUSTER_KEY)?;
    record.map(|record| records::decode("the cluster", &record)).transpose()
}

/// All servers with their disks.
///
/// # Errors
/// A store that failed.
pub fn servers(read: &dyn Read) -> OpResult<Vec<Server>> {
    let mut disks: BTreeMap<u32, Vec<(DiskId, DiskState)>> = BTreeMap::new();
    for (id, disk) in read_disks(read)? {
        disks.entry(disk.server).or_default().push((id, disk_state(&disk)?));
    }
    let mut servers = Vec::new();
    for (key, value) in read.scan(keys::TABLE, &keys::servers(), usize::MAX)? {
        let id = keys::split_table(&key).ok_or_else(|| corrupt("the key of a server"))?;
        let record: ServerRecord = records::decode("a server", &value)?;
        servers.push(Server {
            id: ServerId(id),
            address: record.address,
            location: record.location,
            disks: disks.remove(&id).unwrap_or_default(),
            incarnation: record.incarnation,
            silent_ms: 0,
        });
    }
    Ok(servers)
}

/// What is written down of one server.
///
/// # Errors
/// A store that failed.
pub fn server(read: &dyn Read, id: ServerId) -> OpResult<Option<ServerRecord>> {
    let record = read.get(keys::TABLE, &keys::server(id))?;
    record.map(|record| records::decode("a server", &record)).transpose()
}

/// Whether a disk failed or is missing from its server; `None`: there is no such disk.
fn disk_failed(read: &dyn Read, id: DiskId) -> OpResult<Option<bool>> {
    let record = read.get(keys::TABLE, &keys::disk(id))?;
    record.map(|record| Ok(records::decode::<DiskRecord>("a disk", &record)?.failed)).transpose()
}

fn read_disks(read: &dyn Read) -> OpResult<Vec<(DiskId, DiskRecord)>> {
    let pairs = read.scan(keys::TABLE, &keys::disks(), usize::MAX)?;
    pairs
        .iter()
        .map(|(key, value)| {
            let id = keys::split_table(key).ok_or_else(|| corrupt("the key of a disk"))?;
            Ok((DiskId(id), records::decode("a disk", value)?))
        })
        .collect()
}

fn disk_state(record: &DiskRecord) -> OpResult<DiskState> {
    Ok(DiskState {
        uuid: record.uuid.as_slice().try_into().map_err(|_| corrupt("a disk's uuid"))?,
        capacity_bytes: record.capacity_bytes,
        used_bytes: record.used_bytes,
        failed: record.failed,
        draining: record.draining,
        scrub: Scrub::default(),
        vitals: Vitals::default(),
    })
}

/// All groups.
///
/// # Errors
/// A store that failed.
pub fn read_groups(read: &dyn Read) -> OpResult<Vec<Group>> {
    let pairs = read.scan(keys::TABLE, &keys::groups(), usize::MAX)?;
    pairs
        .iter()
        .map(|(key, value)| {
            let id = keys::split_table(key).ok_or_else(|| corrupt("the key of a group"))?;
            group(GroupId(id), &records::decode("a group", value)?)
        })
        .collect()
}

/// One group.
///
/// # Errors
/// A store that failed.
pub fn read_group(read: &dyn Read, id: GroupId) -> OpResult<Option<Group>> {
    let record = read.get(keys::TABLE, &keys::group(id))?;
    record.map(|record| group(id, &records::decode("a group", &record)?)).transpose()
}

fn group(id: GroupId, record: &GroupRecord) -> OpResult<Group> {
    let member = |member: &MemberRecord| {
        let state = convert::member_state(member.state).map_err(|_| corrupt("a member's state"))?;
        Ok(Member { disk: DiskId(member.disk), state })
    };
    let members = record.members.iter().map(member).collect::<OpResult<_>>()?;
    Ok(Group { id, epoch: Epoch(record.epoch), members })
}

/// The whole table; version 0 before the cluster is initialised.
///
/// # Errors
/// A store that failed.
pub fn table(read: &dyn Read) -> OpResult<Table> {
    let (Some(cluster), Some(counters)) = (cluster(read)?, read_counters(read)?) else {
        return Ok(Table::default());
    };
    let table = Table::new(counters.table_version, servers(read)?, read_groups(read)?);
    Ok(table.with_replicas(cluster.replicas, cluster.min_replicas))
}
