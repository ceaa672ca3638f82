//! Groups are made as disks come: so many a disk, of disks that do not fail together.

use std::collections::BTreeMap;

use coord_kv::Read;
use coord_types::GroupId;
use master_model::{MemberState, proto};

use super::lineage::floor;
use super::placement::{self, Domain, Place};
use super::register::split_location;
use super::{cluster, read_groups, servers};
use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records::{self, GroupRecord, MemberRecord};
use crate::state::State;

/// Groups made by one command, so that none holds up all others for long.
pub const GROUPS_PER_COMMAND: u32 = 1024;
/// What a group begins with in a cluster that was never restored; 0 is the epoch of nothing.
const EPOCH_FIRST: u64 = 1;

/// How many groups there are and should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formation {
    pub existing: u32,
    pub wanted: u32,
    /// What members of a new group would not share; `None`: there are not enough disks for a group.
    pub domain: Option<Domain>,
}

/// What a command made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formed {
    pub made: u32,
    /// Some are still missing: once more.
    pub more: bool,
}

struct Plan {
    formation: Formation,
    places: Vec<Place>,
    replicas: usize,
    /// Of a group that is made now.
    epoch: u64,
}

/// Whether groups should be made, and how well apart their members would be.
///
/// # Errors
/// A store that failed.
pub fn formation(read: &dyn Read) -> OpResult<Formation> {
    Ok(plan(read)?.formation)
}

fn plan(read: &dyn Read) -> OpResult<Plan> {
    let Some(cluster) = cluster(read)? else {
        let formation = Formation { existing: 0, wanted: 0, domain: None };
        return Ok(Plan { formation, places: Vec::new(), replicas: 1, epoch: EPOCH_FIRST });
    };
    let mut places = places(read)?;
    let mut existing = 0;
    let by_disk: BTreeMap<_, _> = places.iter().enumerate().map(|(at, place)| (place.disk, at)).collect();
    for group in read_groups(read)? {
        existing += 1;
        for member in &group.members {
            if let Some(at) = by_disk.get(&member.disk) {
                places[*at].groups += 1;
            }
        }
        if let Some(at) = group.primary().and_then(|primary| by_disk.get(&primary)) {
            places[*at].primaries += 1;
        }
    }
    let replicas = cluster.replicas as usize;
    let domain = placement::domain(&places, replicas);
    let wanted = places.len() as u64 * u64::from(cluster.groups_per_disk) / u64::from(cluster.replicas);
    let wanted = if domain.is_some() { u32::try_from(wanted.max(1)).unwrap_or(u32::MAX) } else { 0 };
    let epoch = floor(cluster.epoch).max(EPOCH_FIRST);
    Ok(Plan { formation: Formation { existing, wanted, domain }, places, replicas, epoch })
}

/// All disks that work, with numbers for their racks and hosts.
fn places(read: &dyn Read) -> OpResult<Vec<Place>> {
    let (mut racks, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    let mut places = Vec::new();
    for server in servers(read)? {
        let (region, rack, host) = split_location(&server.location)
            .ok_or_else(|| corrupt(format_args!("the location of server {}", server.id)))?;
        let next = racks.len() as u32;
        let rack_number = *racks.entry((region.to_owned(), rack.to_owned())).or_insert(next);
        let next = hosts.len() as u32;
        let host = (region.to_owned(), rack.to_owned(), host.to_owned());
        let host_number = *hosts.entry(host).or_insert(next);
        for (disk, _) in server.disks.iter().filter(|(_, state)| !state.failed && !state.draining) {
            places.push(Place { disk: *disk, rack: rack_number, host: host_number, groups: 0, primaries: 0 });
        }
    }
    Ok(places)
}

/// Makes the groups that are missing.
pub(crate) fn form(state: &mut State<'_>) -> OpResult<Formed> {
    let Plan { formation, mut places, replicas, epoch } = plan(state.read())?;
    let Some(domain) = formation.domain else { return Ok(Formed { made: 0, more: false }) };
    let missing = formation.wanted.saturating_sub(formation.existing);
    let mut made = 0;
    while made < missing.min(GROUPS_PER_COMMAND) {
        let id = formation.existing + made + 1;
        let Some(members) = placement::choose(&mut places, replicas, domain, id.into()) else { break };
        let serving = i32::from(proto::MemberState::from(MemberState::Serving));
        let members = members.into_iter().map(|disk| MemberRecord { disk: disk.0, state: serving }).collect();
        let record = GroupRecord { epoch, members };
        state.put(keys::TABLE, keys::group(GroupId(id)), records::encode(&record));
        made += 1;
    }
    if made > 0 {
        let counters = state.counters_mut()?;
        counters.groups = formation.existing + made;
        counters.table_version += 1;
    }
    Ok(Formed { made, more: made > 0 && made < missing })
}

#[cfg(test)]
mod tests {
    use coord_types::DiskId;

    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::testing::{Tree, server};

    fn add(tree: &mut Tree, number: u8, location: &str, disks: &[u8]) {
        let reply = tree.apply(&Command::RegisterServer(server(number, location, disks)));
        assert!(matches!(reply, CommandReply::Registered(_)), "{reply:?}");
    }

    #[test]
    fn none_before_there_are_disks_enough() {
        let mut tree = Tree::without_groups();
        add(&mut tree, 1, "/r/a/h1", &[1]);
        add(&mut tree, 2, "/r/b/h2", &[2]);
        let nothing = Formation { existing: 0, wanted: 0, domain: None };
        assert_eq!(formation(tree.kv()).unwrap(), nothing);
        assert_eq!(tree.apply(&Command::FormGroups), CommandReply::Formed(Formed { made: 0, more: false }));
        add(&mut tree, 3, "/r/c/h3", &[3]);
        let all = Formation { existing: 0, wanted: 64, domain: Some(Domain::Rack) };
        assert_eq!(formation(tree.kv()).unwrap(), all);
        let before = table::table(tree.kv()).unwrap().version;
        assert_eq!(tree.apply(&Command::FormGroups), CommandReply::Formed(Formed { made: 64, more: false }));
        assert_eq!(tree.apply(&Command::FormGroups), CommandReply::Formed(Formed { made: 0, more: false }));
        let table = table::table(tree.kv()).unwrap();
        assert_eq!(table.version, before + 1);
        assert_eq!(table.groups().count(), 64);
        for disk in 1..=3 {
            let primaries = table.groups().filter(|group| group.primary() == Some(DiskId(disk))).count();
            assert!((20..=23).contains(&primaries), "disk {disk} leads {primaries} groups");
        }
        assert!(table.groups().all(|group| group.epoch.0 == 1 && group.members.len() == 3));
    }

    #[test]
    fn a_further_disk_gets_its_share() {
        let mut tree = Tree::new();
        add(&mut tree, 4, "/r/d/h4", &[40]);
        tree.apply(&Command::FormGroups);
        let table = table::table(tree.kv()).unwrap();
        assert_eq!(table.groups().count(), 85);
        let of_new = table.groups().filter(|group| group.members.iter().any(|m| m.disk == DiskId(4))).count();
        assert_eq!(of_new, 21);
    }

    #[test]
    fn many_groups_take_several_commands() {
        let mut tree = Tree::without_groups();
        let disks: Vec<u8> = (1..=60).collect();
        add(&mut tree, 1, "/r/a/h1", &disks);
        let reply = tree.apply(&Command::FormGroups);
        assert_eq!(reply, CommandReply::Formed(Formed { made: GROUPS_PER_COMMAND, more: true }));
        let reply = tree.apply(&Command::FormGroups);
        assert_eq!(
            reply,
            CommandReply::Formed(Formed { made: 60 * 64 / 3 - GROUPS_PER_COMMAND, more: false })
        );
    }
}
