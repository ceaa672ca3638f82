//! Changes of a group's members, one epoch each: what is allowed, and what comes out. `master/docs/groups.md` has the table.
//!
//! Invariants, for every change:
//! - a group keeps a serving member, and falls below `min_replicas` members that serve or join only by the loss of disks;
//! - the first serving member of an epoch was serving in the epoch before: it holds every acknowledged write;
//! - a group has at most one member more than it should, and loses one only while as many as should be are left and serve;
//! - the epoch rises with every change of the write set or of who is filled.

use std::collections::BTreeMap;

use coord_types::{DiskId, Epoch, GroupId};
use master_model::{Group, Member, MemberState, proto};

use super::{cluster, disk_failed, read_group, replicas};
use crate::error::{OpError, OpResult};
use crate::keys;
use crate::records::{self, GroupRecord, MemberRecord};
use crate::state::State;

/// Changes in one command, so that none holds up all others for long.
pub const CHANGES_PER_COMMAND: usize = 1024;

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is away: offline.
    Out(DiskId),
    /// Its disk is gone for good: offline, even if fewer than `min_replicas` are left then. These take no writes until others
    /// were filled.
    Lost(DiskId),
    /// It is back: syncing.
    Sync(DiskId),
    /// It was filled: joining, behind all others.
    Join(DiskId),
    /// The epoch in which it joined was activated: serving, behind the others.
    Settle(DiskId),
    /// It stays away: another disk is filled in its place.
    Replace { absent: DiskId, spare: DiskId },
    /// It becomes the primary.
    Lead(DiskId),
    /// The group moves: one more disk is filled, so that another can leave.
    Add(DiskId),
    /// It is not needed any more: no member.
    Drop(DiskId),
}

/// How many members a group should have, and must have left for writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub replicas: u32,
    pub min_replicas: u32,
}

/// A change of one group, decided at one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupChange {
    pub group: GroupId,
    /// Of another epoch the change is skipped.
    pub epoch: Epoch,
    pub change: Change,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub done: u32,
    /// The group had moved on, or a rule forbids it.
    pub skipped: u32,
}

/// The group after a change; `None` if a rule forbids it.
#[must_use]
pub fn changed(group: &Group, change: Change, rules: Rules) -> Option<Group> {
    let mut members = group.members.clone();
    let at = |disk, state| group.members.iter().position(|m| m.disk == disk && m.state == state);
    let mut epoch = Epoch(group.epoch.0 + 1);
    match change {
        Change::Out(disk) | Change::Lost(disk) => {
            let member = members.iter_mut().find(|member| member.disk == disk)?;
            let was = std::mem::replace(&mut member.state, MemberState::Offline);
            let count = |state| members.iter().filter(|member| member.state == state).count();
            let serving = count(MemberState::Serving);
            let least = if matches!(change, Change::Lost(_)) { 1 } else { rules.min_replicas as usize };
            let enough = serving > 0 && serving + count(MemberState::Joining) >= least;
            match was {
                MemberState::Serving | MemberState::Joining if enough => {}
                MemberState::Syncing => {}
                MemberState::Serving | MemberState::Joining | MemberState::Offline => return None,
            }
        }
        Change::Sync(disk) => members[at(disk, MemberState::Offline)?].state = MemberState::Syncing,
        Change::Join(disk) => {
            members.remove(at(disk, MemberState::Syncing)?);
            members.push(Member { disk, state: MemberState::Joining });
        }
        Change::Settle(disk) => {
            // Behind all that serve: the primary of an epoch never changes.
            members.remove(at(disk, MemberState::Joining)?);
            let last = members.iter().rposition(|member| member.state == MemberState::Serving)?;
            members.insert(last + 1, Member { disk, state: MemberState::Serving });
            epoch = group.epoch;
        }
        Change::Replace { absent, spare } => {
            let at = at(absent, MemberState::Offline)?;
            if group.state_of(spare).is_some() {
                return None;
            }
            members[at] = Member { disk: spare, state: MemberState::Syncing };
        }
        Change::Lead(disk) => {
            let at = at(disk, MemberState::Serving)?;
            if members.iter().any(|member| member.state != MemberState::Serving) {
                return None;
            }
            let member = members.remove(at);
            members.insert(0, member);
        }
        Change::Add(disk) => {
            let whole = members.iter().all(|member| member.state == MemberState::Serving);
            if !whole || group.state_of(disk).is_some() || members.len() > rules.replicas as usize {
                return None;
            }
            members.push(Member { disk, state: MemberState::Syncing });
        }
        Change::Drop(disk) => {
            members.retain(|member| member.disk != disk);
            let serving = members.iter().filter(|member| member.state == MemberState::Serving).count();
            if members.len() == group.members.len() || serving < rules.replicas as usize {
                return None;
            }
        }
    }
    Some(Group { id: group.id, epoch, members })
}

/// Applies what still fits.
pub(crate) fn apply(state: &mut State<'_>, changes: &[GroupChange]) -> OpResult<Changed> {
    let mut result = Changed { done: 0, skipped: 0 };
    let Some(cluster) = cluster(state.read())? else { return Ok(result) };
    let rules = Rules { replicas: cluster.replicas, min_replicas: cluster.min_replicas };
    // A command reads the store as it was before it: what it has changed itself is here.
    let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
    for GroupChange { group: id, epoch, change } in changes.iter().take(CHANGES_PER_COMMAND) {
        let group = match groups.get(id) {
            Some(group) => Some(group.clone()),
            None => read_group(state.read(), *id)?,
        };
        let failed = |disk: &DiskId| Ok::<_, OpError>(disk_failed(state.read(), *disk)?.unwrap_or(true));
        let fits = match change {
            Change::Sync(disk) | Change::Replace { spare: disk, .. } | Change::Add(disk) => !failed(disk)?,
            Change::Lost(disk) => failed(disk)?,
            Change::Out(_) | Change::Join(_) | Change::Settle(_) | Change::Lead(_) | Change::Drop(_) => true,
        };
        let after = group
            .filter(|group| group.epoch == *epoch && fits)
            .and_then(|group| changed(&group, *change, rules));
        match after {
            Some(after) => {
                groups.insert(*id, after);
                result.done += 1;
            }
            None => result.skipped += 1,
        }
    }
    for (id, group) in &groups {
        state.put(keys::TABLE, keys::group(*id), records::encode(&record(group)));
    }
    if !groups.is_empty() {
        state.counters_mut()?.table_version += 1;
        replicas::settle(state, &groups)?;
    }
    Ok(result)
}

pub(super) fn record(group: &Group) -> GroupRecord {
    let member = |member: &Member| MemberRecord {
        disk: member.disk.0,
        state: proto::MemberState::from(member.state).into(),
    };
    GroupRecord { epoch: group.epoch.0, members: group.members.iter().map(member).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::testing::{Tree, server};

    const RULES: Rules = Rules { replicas: 3, min_replicas: 2 };

    fn group() -> Group {
        let member = |disk| Member { disk: DiskId(disk), state: MemberState::Serving };
        Group { id: GroupId(1), epoch: Epoch(1), members: [1, 2, 3].map(member).to_vec() }
    }

    fn after(group: &Group, changes: &[Change]) -> Option<Group> {
        changes.iter().try_fold(group.clone(), |group, change| changed(&group, *change, RULES))
    }

    #[test]
    fn a_member_leaves_and_comes_back_behind_the_others() {
        let (one, two) = (DiskId(1), DiskId(2));
        let without = after(&group(), &[Change::Out(one)]).unwrap();
        assert_eq!((without.epoch, without.primary()), (Epoch(2), Some(two)));
        assert_eq!(after(&without, &[Change::Out(two)]), None, "two must stay");
        let back = after(&without, &[Change::Sync(one), Change::Join(one)]).unwrap();
        assert_eq!(back.primary(), Some(two));
        assert_eq!(back.serving().last(), Some(one), "it takes part in writes");
        assert_eq!(back.epoch, Epoch(4));
        let settled = after(&back, &[Change::Settle(one)]).unwrap();
        assert_eq!((settled.epoch, settled.state_of(one)), (Epoch(4), Some(MemberState::Serving)));
        assert_eq!(after(&settled, &[Change::Lead(one)]).unwrap().primary(), Some(one));
        assert_eq!(after(&back, &[Change::Lead(one)]), None, "what joins does not lead");
        assert_eq!(after(&back, &[Change::Lead(DiskId(3))]), None, "nor does anybody until all serve");
    }

    #[test]
    fn a_joining_member_counts_but_does_not_lead() {
        let (one, two, three) = (DiskId(1), DiskId(2), DiskId(3));
        let joining =
            after(&group(), &[Change::Out(three), Change::Sync(three), Change::Join(three)]).unwrap();
        let left = after(&joining, &[Change::Out(one)]).unwrap();
        assert_eq!(left.primary(), Some(two));
        assert_eq!(after(&left, &[Change::Out(two)]), None, "the last that serves");
        let lonely = changed(&left, Change::Out(two), Rules { min_replicas: 1, ..RULES });
        assert_eq!(lonely, None, "not even where one replica would do");
    }

    #[test]
    fn a_lost_disk_is_not_waited_for() {
        let (one, two, three) = (DiskId(1), DiskId(2), DiskId(3));
        let left = after(&group(), &[Change::Out(one), Change::Lost(two)]).unwrap();
        assert_eq!(left.serving().collect::<Vec<_>>(), [three]);
        assert_eq!(after(&left, &[Change::Lost(three)]), None, "somebody must have the data");
        // A table that says the disk is there forbids it.
        let mut tree = Tree::new();
        let lost = |epoch, disk| Command::ChangeGroups {
            changes: vec![GroupChange { group: GroupId(1), epoch: Epoch(epoch), change: Change::Lost(disk) }],
        };
        assert_eq!(tree.apply(&lost(1, one)), CommandReply::Changed(Changed { done: 0, skipped: 1 }));
        tree.apply(&Command::RegisterServer(server(1, "/r/a/h", &[])));
        assert_eq!(tree.apply(&lost(1, one)), CommandReply::Changed(Changed { done: 1, skipped: 0 }));
    }

    #[test]
    fn a_spare_takes_the_place_of_an_absent_member() {
        let (one, four) = (DiskId(1), DiskId(4));
        let replace = Change::Replace { absent: one, spare: four };
        assert_eq!(after(&group(), &[replace]), None, "it is not absent");
        let replaced = after(&group(), &[Change::Out(one), replace]).unwrap();
        assert_eq!((replaced.state_of(one), replaced.state_of(four)), (None, Some(MemberState::Syncing)));
        let twice = Change::Replace { absent: one, spare: DiskId(2) };
        assert_eq!(after(&group(), &[Change::Out(one), twice]), None);
    }

    #[test]
    fn only_a_whole_group_gets_one_more_and_only_one_too_many_is_dropped() {
        let (one, four, five) = (DiskId(1), DiskId(4), DiskId(5));
        assert_eq!(after(&group(), &[Change::Add(one)]), None, "it is in there");
        assert_eq!(after(&group(), &[Change::Out(one), Change::Add(four)]), None, "it is not whole");
        let filling = after(&group(), &[Change::Add(four)]).unwrap();
        assert_eq!(after(&filling, &[Change::Add(five)]), None, "one at a time");
        assert_eq!(after(&filling, &[Change::Drop(one)]), None, "three must serve");
        let more = after(&filling, &[Change::Join(four), Change::Settle(four)]).unwrap();
        assert_eq!(after(&more, &[Change::Add(five)]), None);
        assert_eq!(after(&more, &[Change::Drop(five)]), None, "it is not in there");
        let moved = after(&more, &[Change::Drop(one)]).unwrap();
        assert_eq!((moved.state_of(one), moved.serving().count()), (None, 3));
        assert_eq!(after(&moved, &[Change::Drop(four)]), None);
    }

    #[test]
    fn commands_skip_what_is_of_another_epoch() {
        let mut tree = Tree::new();
        let (group, disk) = (GroupId(1), DiskId(1));
        let out = GroupChange { group, epoch: Epoch(1), change: Change::Out(disk) };
        let before = table::table(tree.kv()).unwrap().version;
        let twice = Command::ChangeGroups { changes: vec![out, out] };
        assert_eq!(tree.apply(&twice), CommandReply::Changed(Changed { done: 1, skipped: 1 }));
        let table = table::table(tree.kv()).unwrap();
        assert_eq!(table.version, before + 1);
        assert_eq!(table.group(group).unwrap().state_of(disk), Some(MemberState::Offline));
        assert_eq!(tree.apply(&twice), CommandReply::Changed(Changed { done: 0, skipped: 2 }));
        assert_eq!(table::table(tree.kv()).unwrap().version, before + 1);
        // A disk that failed is not filled; when its server brings it again it is.
        let sync = Command::ChangeGroups {
            changes: vec![GroupChange { group, epoch: Epoch(2), change: Change::Sync(disk) }],
        };
        tree.apply(&Command::RegisterServer(server(1, "/r/a/h", &[])));
        assert_eq!(tree.apply(&sync), CommandReply::Changed(Changed { done: 0, skipped: 1 }));
        tree.apply(&Command::RegisterServer(server(1, "/r/a/h", &[1])));
        assert_eq!(tree.apply(&sync), CommandReply::Changed(Changed { done: 1, skipped: 0 }));
    }

    #[test]
    fn only_a_disk_that_works_takes_a_place() {
        let mut tree = Tree::new();
        let apply = |tree: &mut Tree, epoch, change| {
            let change = GroupChange { group: GroupId(1), epoch: Epoch(epoch), change };
            match tree.apply(&Command::ChangeGroups { changes: vec![change] }) {
                CommandReply::Changed(Changed { done, skipped }) => (done, skipped),
                other => panic!("{other:?}"),
            }
        };
        let replace = |spare| Change::Replace { absent: DiskId(1), spare: DiskId(spare) };
        assert_eq!(apply(&mut tree, 1, Change::Out(DiskId(1))), (1, 0));
        assert_eq!(apply(&mut tree, 2, replace(4)), (0, 1), "there is no such disk");
        tree.apply(&Command::RegisterServer(server(4, "/r/d/h", &[40])));
        tree.apply(&Command::RegisterServer(server(4, "/r/d/h", &[])));
        assert_eq!(apply(&mut tree, 2, replace(4)), (0, 1), "it failed");
        tree.apply(&Command::RegisterServer(server(4, "/r/d/h", &[40])));
        assert_eq!(apply(&mut tree, 2, replace(4)), (1, 0));
    }

    #[test]
    fn a_command_changes_several_groups_and_a_bounded_number() {
        let mut tree = Tree::new();
        let out =
            |group| GroupChange { group: GroupId(group), epoch: Epoch(1), change: Change::Out(DiskId(1)) };
        let two = Command::ChangeGroups { changes: vec![out(1), out(2)] };
        assert_eq!(tree.apply(&two), CommandReply::Changed(Changed { done: 2, skipped: 0 }));
        let many = Command::ChangeGroups { changes: vec![out(1); CHANGES_PER_COMMAND + 1] };
        let skipped = u32::try_from(CHANGES_PER_COMMAND).unwrap();
        assert_eq!(tree.apply(&many), CommandReply::Changed(Changed { done: 0, skipped }));
    }

    fn any_change() -> impl Strategy<Value = Change> {
        (0..9, 1..6u32, 1..6u32).prop_map(|(kind, disk, spare)| {
            let (disk, spare) = (DiskId(disk), DiskId(spare));
            match kind {
                0 => Change::Out(disk),
                6 => Change::Lost(disk),
                7 => Change::Add(disk),
                8 => Change::Drop(disk),
                1 => Change::Sync(disk),
                2 => Change::Join(disk),
                3 => Change::Settle(disk),
                4 => Change::Replace { absent: disk, spare },
                _ => Change::Lead(disk),
            }
        })
    }

    proptest! {
        #[test]
        fn rules_hold_over_any_changes(changes in prop::collection::vec(any_change(), 0..60)) {
            let mut now = group();
            for change in changes {
                let Some(next) = changed(&now, change, RULES) else { continue };
                let before = now.serving().count();
                let lost = matches!(change, Change::Lost(_));
                prop_assert!(next.serving().count() >= RULES.min_replicas as usize || lost || next.serving().count() >= before);
                let primary = next.primary().expect("somebody serves");
                prop_assert_eq!(now.state_of(primary), Some(MemberState::Serving));
                prop_assert!(next.epoch > now.epoch || next.primary() == now.primary());
                prop_assert_eq!(next.serving().next(), Some(primary), "the write set begins with it");
                let disks: std::collections::BTreeSet<_> = next.members.iter().map(|m| m.disk).collect();
                prop_assert!(disks.len() == next.members.len() && (3..=4).contains(&disks.len()));
                prop_assert!(!matches!(change, Change::Drop(_)) || next.in_state(MemberState::Serving).count() >= 3);
                let same = now.serving().collect::<Vec<_>>() == next.serving().collect::<Vec<_>>();
                prop_assert!(same || next.epoch > now.epoch || matches!(change, Change::Settle(_)));
                now = next;
            }
        }
    }
}
