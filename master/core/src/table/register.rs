//! A chunkserver says who and where it is, and which disks it has.
//!
//! Servers and disks are known by the uuid drawn when they were made; a number is given once and never again. A disk
//! may come back in another server: it keeps its number and its groups, and belongs to the newer server.

use std::collections::BTreeSet;

use coord_types::{DiskId, ServerId};
use master_model::{DiskState, convert, proto};

use super::{cluster, read_disks, servers};
use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records::{self, DiskRecord, ServerRecord};
use crate::state::State;

/// Disks one server may bring. A shelf has 100.
const DISKS_MAX: usize = 1024;

/// A server that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub server: ServerId,
    /// In the order of the request.
    pub disks: Vec<DiskId>,
    pub cluster_id: String,
    /// For a human: two servers at one place, a disk that moved.
    pub warnings: Vec<String>,
}

/// Why a server was not taken in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the server belongs to cluster {theirs}, this is cluster {ours}")]
    OtherCluster { ours: String, theirs: String },
    #[error("{0}")]
    Uuid(String),
    #[error("location {0:?} is not /region/rack/host")]
    Location(String),
    #[error("the server has no address")]
    NoAddress,
    #[error("the server brings disk {0} twice")]
    SameDisk(String),
    #[error("the server brings {0} disks, more than {DISKS_MAX}")]
    TooManyDisks(usize),
}

/// "/region/rack/host" in its three parts.
#[must_use]
pub fn split_location(location: &str) -> Option<(&str, &str, &str)> {
    let mut parts = location.strip_prefix('/')?.split('/');
    let (region, rack, host) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && ![region, rack, host].contains(&"");
    whole.then_some((region, rack, host))
}

/// A request that makes sense.
struct Newcomer {
    uuid: [u8; 16],
    disks: Vec<DiskState>,
}

fn check(request: &proto::RegisterServerRequest, cluster_id: &str) -> Result<Newcomer, Refusal> {
    if !request.cluster_id.is_empty() && request.cluster_id != cluster_id {
        return Err(Refusal::OtherCluster {
            ours: cluster_id.to_owned(),
            theirs: request.cluster_id.clone(),
        });
    }
    if request.address.is_empty() {
        return Err(Refusal::NoAddress);
    }
    if split_location(&request.location).is_none() {
        return Err(Refusal::Location(request.location.clone()));
    }
    if request.disks.len() > DISKS_MAX {
        return Err(Refusal::TooManyDisks(request.disks.len()));
    }
    let uuid =
        convert::uuid("server's uuid", &request.uuid).map_err(|error| Refusal::Uuid(error.to_string()))?;
    let mut seen = BTreeSet::new();
    let mut disks = Vec::with_capacity(request.disks.len());
    for disk in &request.disks {
        let disk = DiskState::try_from(disk).map_err(|error| Refusal::Uuid(error.to_string()))?;
        if !seen.insert(disk.uuid) {
            return Err(Refusal::SameDisk(hex(&disk.uuid)));
        }
        disks.push(disk);
    }
    Ok(Newcomer { uuid, disks })
}

/// Takes a server in, or back in.
pub(crate) fn register(
    state: &mut State<'_>,
    request: &proto::RegisterServerRequest,
) -> OpResult<Result<Registered, Refusal>> {
    let cluster_id = cluster(state.read())?.map(|cluster| cluster.cluster_id).unwrap_or_default();
    let newcomer = match check(request, &cluster_id) {
        Ok(newcomer) => newcomer,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut warnings = Vec::new();
    let (server, mut changed) = take_server(state, request, newcomer.uuid, &mut warnings)?;
    let mut disks = Vec::with_capacity(newcomer.disks.len());
    for disk in &newcomer.disks {
        disks.push(take_disk(state, server, disk, &mut changed, &mut warnings)?);
    }
    changed |= miss_disks(state, server, &disks)?;
    changed |= supersede(state, server, request, &disks)?;
    if changed {
        state.counters_mut()?.table_version += 1;
    }
    Ok(Ok(Registered { server, disks, cluster_id, warnings }))
}

fn take_server(
    state: &mut State<'_>,
    request: &proto::RegisterServerRequest,
    uuid: [u8; 16],
    warnings: &mut Vec<String>,
) -> OpResult<(ServerId, bool)> {
    let record = ServerRecord {
        uuid: uuid.to_vec(),
        address: request.address.clone(),
        location: request.location.clone(),
        incarnation: request.incarnation,
    };
    let known = state.read().get(keys::TABLE, &keys::server_uuid(uuid))?;
    let id = match known {
        Some(id) => ServerId(number(&id)?),
        None => {
            let counters = state.counters_mut()?;
            let id = ServerId(counters.next_server);
            counters.next_server += 1;
            state.put(keys::TABLE, keys::server_uuid(uuid), id.0.to_be_bytes());
            id
        }
    };
    for other in servers(state.read())?.into_iter().filter(|other| other.id != id) {
        if other.location == request.location {
            warnings.push(format!(
                "servers {} and {id} both say they are at {}; replicas on both would fail together",
                other.id, other.location
            ));
        }
        if other.address == request.address {
            warnings.push(format!("server {} was at {} before server {id}", other.id, other.address));
        }
    }
    let old = state.read().get(keys::TABLE, &keys::server(id))?;
    let old = old.map(|old| records::decode::<ServerRecord>("a server", &old)).transpose()?;
    let changed = old.as_ref() != Some(&record);
    if changed {
        state.put(keys::TABLE, keys::server(id), records::encode(&record));
    }
    Ok((id, changed))
}

fn take_disk(
    state: &mut State<'_>,
    server: ServerId,
    disk: &DiskState,
    changed: &mut bool,
    warnings: &mut Vec<String>,
) -> OpResult<DiskId> {
    let mut record = DiskRecord {
        uuid: disk.uuid.to_vec(),
        server: server.0,
        capacity_bytes: disk.capacity_bytes,
        used_bytes: disk.used_bytes,
        failed: disk.failed,
        draining: false,
    };
    let known = state.read().get(keys::TABLE, &keys::disk_uuid(disk.uuid))?;
    let id = match known {
        Some(id) => {
            let id = DiskId(number(&id)?);
            let old = state.read().get(keys::TABLE, &keys::disk(id))?;
            let old: DiskRecord =
                records::decode("a disk", &old.ok_or_else(|| corrupt("a disk is missing"))?)?;
            if old.server != record.server {
                warnings.push(format!("disk {id} moved from server {} to server {server}", old.server));
            }
            record.draining = old.draining;
            *changed |= (old.server, old.failed) != (record.server, record.failed);
            id
        }
        None => {
            let counters = state.counters_mut()?;
            let id = DiskId(counters.next_disk);
            counters.next_disk += 1;
            state.put(keys::TABLE, keys::disk_uuid(disk.uuid), id.0.to_be_bytes());
            *changed = true;
            id
        }
    };
    state.put(keys::TABLE, keys::disk(id), records::encode(&record));
    Ok(id)
}

/// Disks the server had and did not bring count as failed. True if there were any.
fn miss_disks(state: &mut State<'_>, server: ServerId, brought: &[DiskId]) -> OpResult<bool> {
    let mut changed = false;
    for (id, disk) in read_disks(state.read())? {
        if disk.server == server.0 && !disk.failed && !brought.contains(&id) {
            state.put(keys::TABLE, keys::disk(id), records::encode(&DiskRecord { failed: true, ..disk }));
            changed = true;
        }
    }
    Ok(changed)
}

/// Nobody else can be where this server listens now: whoever was there before is gone with its disks, unless these
/// came along. That is how a server whose disks were all replaced by empty ones is told from a new one.
fn supersede(
    state: &mut State<'_>,
    server: ServerId,
    request: &proto::RegisterServerRequest,
    brought: &[DiskId],
) -> OpResult<bool> {
    let mut changed = false;
    for other in servers(state.read())? {
        if other.id == server || other.address != request.address {
            continue;
        }
        changed |= miss_disks(state, other.id, brought)?;
    }
    Ok(changed)
}

fn number(record: &[u8]) -> OpResult<u32> {
    Ok(u32::from_be_bytes(record.try_into().map_err(|_| corrupt("a number"))?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::testing::{Tree, server};

    fn register(tree: &mut Tree, request: &proto::RegisterServerRequest) -> Result<Registered, String> {
        match tree.apply(&Command::RegisterServer(request.clone())) {
            CommandReply::Registered(registered) => Ok(registered),
            CommandReply::Refused(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn version(tree: &Tree) -> u64 {
        table::table(tree.kv()).unwrap().version
    }

    #[test]
    fn numbers_stay_over_restarts() {
        let mut tree = Tree::without_groups();
        let request = server(1, "/r/a/h1", &[10, 11]);
        let first = register(&mut tree, &request).unwrap();
        assert_eq!((first.server, first.cluster_id.as_str()), (ServerId(1), Tree::CLUSTER));
        assert_eq!(first.disks, [DiskId(1), DiskId(2)]);
        let before = version(&tree);
        assert_eq!(register(&mut tree, &request).unwrap(), first);
        assert_eq!(version(&tree), before, "nothing changed, so nobody need fetch the table");
        let restarted = proto::RegisterServerRequest { incarnation: 99, ..request };
        assert_eq!(register(&mut tree, &restarted).unwrap().disks, first.disks);
        assert!(version(&tree) > before);
        let other = register(&mut tree, &server(2, "/r/b/h2", &[12])).unwrap();
        assert_eq!((other.server, other.disks.as_slice()), (ServerId(2), [DiskId(3)].as_slice()));
        assert!(other.warnings.is_empty());
    }

    #[test]
    fn a_disk_moves_and_a_missing_one_counts_as_failed() {
        let mut tree = Tree::without_groups();
        register(&mut tree, &server(1, "/r/a/h1", &[10, 11])).unwrap();
        let moved = register(&mut tree, &server(2, "/r/b/h2", &[11])).unwrap();
        assert_eq!(moved.disks, [DiskId(2)]);
        assert!(moved.warnings[0].contains("disk 2 moved from server 1 to server 2"), "{moved:?}");
        register(&mut tree, &server(1, "/r/a/h1", &[])).unwrap();
        let table = table::table(tree.kv()).unwrap();
        assert_eq!(table.server_of(DiskId(2)).unwrap().id, ServerId(2));
        assert!(table.server(ServerId(1)).unwrap().disks[0].1.failed);
        assert!(!table.server(ServerId(2)).unwrap().disks[0].1.failed);
        let missing = version(&tree);
        register(&mut tree, &server(1, "/r/a/h1", &[])).unwrap();
        assert_eq!(version(&tree), missing, "it was missing before");
        register(&mut tree, &server(1, "/r/a/h1", &[10])).unwrap();
        assert!(!table::table(tree.kv()).unwrap().server(ServerId(1)).unwrap().disks[0].1.failed);
        let there = version(&tree);
        let mut failed = server(1, "/r/a/h1", &[10]);
        failed.disks[0].failed = true;
        register(&mut tree, &failed).unwrap();
        assert!(version(&tree) > there, "everybody must learn that it failed");
    }

    #[test]
    fn a_server_with_new_disks_takes_the_place_of_the_one_at_its_address() {
        let mut tree = Tree::without_groups();
        register(&mut tree, &server(1, "/r/a/h1", &[10])).unwrap();
        let mut replaced = server(7, "/r/a/h1", &[70]);
        replaced.address = server(1, "", &[]).address;
        register(&mut tree, &replaced).unwrap();
        let table = table::table(tree.kv()).unwrap();
        assert!(table.server(ServerId(1)).unwrap().disks[0].1.failed);
        assert!(!table.server(ServerId(2)).unwrap().disks[0].1.failed);
        // Another server that brings the disk along: it did not fail, it moved.
        let mut moved = server(8, "/r/a/h1", &[70]);
        moved.address = replaced.address;
        register(&mut tree, &moved).unwrap();
        let table = table::table(tree.kv()).unwrap();
        assert!(!table.server(ServerId(3)).unwrap().disks[0].1.failed);
    }

    #[test]
    fn warns_of_two_servers_at_one_place() {
        let mut tree = Tree::without_groups();
        register(&mut tree, &server(1, "/r/a/h1", &[10])).unwrap();
        let second = register(&mut tree, &server(2, "/r/a/h1", &[11])).unwrap();
        assert!(second.warnings[0].contains("/r/a/h1"), "{second:?}");
    }

    #[test]
    fn refuses_strangers_and_nonsense() {
        let mut tree = Tree::without_groups();
        let good = server(1, "/r/a/h1", &[10]);
        let other = proto::RegisterServerRequest { cluster_id: "elsewhere".into(), ..good.clone() };
        assert!(register(&mut tree, &other).unwrap_err().contains("elsewhere"));
        for location in ["", "/r/a", "r/a/h", "/r//h", "/r/a/h/x"] {
            let wrong = proto::RegisterServerRequest { location: location.into(), ..good.clone() };
            assert!(register(&mut tree, &wrong).unwrap_err().contains("/region/rack/host"), "{location}");
        }
        assert!(register(&mut tree, &server(1, "/r/a/h1", &[10, 10])).unwrap_err().contains("twice"));
        let wrong = proto::RegisterServerRequest { uuid: vec![1, 2].into(), ..good.clone() };
        assert!(register(&mut tree, &wrong).unwrap_err().contains("not 16"));
        let nowhere = proto::RegisterServerRequest { address: String::new(), ..good.clone() };
        assert!(register(&mut tree, &nowhere).unwrap_err().contains("no address"));
        let disk = good.disks[0].clone();
        let disks = (0..=DISKS_MAX as u128)
            .map(|number| proto::Disk { uuid: number.to_be_bytes().to_vec().into(), ..disk.clone() })
            .collect();
        let many = proto::RegisterServerRequest { disks, ..good };
        assert!(register(&mut tree, &many).unwrap_err().contains("more than"));
        assert!(table::servers(tree.kv()).unwrap().is_empty());
    }
}
