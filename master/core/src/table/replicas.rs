//! How many copies there are of everything, and how many a write must reach: set when the cluster begins, and changed later.
//!
//! `replicas` counts at once: groups get more members, or lose some, by what [`plan`](super::plan) finds due. `min_replicas` is lowered
//! at once too, but raised only as far as every group has serving members: no group stops taking writes because of it. What is left
//! is raised by the commands that bring the members.

use std::collections::BTreeMap;

use coord_types::GroupId;
use master_model::{Group, MemberState};

use super::{cluster, read_groups};
use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records::{self, ClusterRecord};
use crate::state::State;

/// More copies are no safer, only dearer.
pub const REPLICAS_MAX: u32 = 7;

/// Why the numbers cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongReplicas {
    #[error("{0} replicas cannot be: from 1 to {REPLICAS_MAX}")]
    Replicas(u32),
    #[error(
        "{min} as the least number of replicas cannot be: from 1 to the number of replicas, which is {replicas}"
    )]
    Min { min: u32, replicas: u32 },
}

/// Sets both numbers.
pub(crate) fn set(state: &mut State<'_>, replicas: u32, min: u32) -> OpResult<Result<(), WrongReplicas>> {
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Ok(Err(WrongReplicas::Replicas(replicas)));
    }
    if !(1..=replicas).contains(&min) {
        return Ok(Err(WrongReplicas::Min { min, replicas }));
    }
    let old = cluster(state.read())?.ok_or_else(|| corrupt("the cluster's record is missing"))?;
    let mut new = ClusterRecord {
        replicas,
        min_replicas: old.min_replicas.min(min),
        min_replicas_wanted: min,
        ..old.clone()
    };
    raise(&mut new, &read_groups(state.read())?);
    put(state, &old, &new)?;
    Ok(Ok(()))
}

/// Groups have changed: `min_replicas` goes as far up as it should and can. `changed` is newer than what the store has.
pub(super) fn settle(state: &mut State<'_>, changed: &BTreeMap<GroupId, Group>) -> OpResult<()> {
    let Some(old) = cluster(state.read())? else { return Ok(()) };
    if old.min_replicas_wanted <= old.min_replicas {
        return Ok(());
    }
    let mut groups = read_groups(state.read())?;
    for group in &mut groups {
        if let Some(newer) = changed.get(&group.id) {
            group.clone_from(newer);
        }
    }
    let mut new = old.clone();
    raise(&mut new, &groups);
    put(state, &old, &new)
}

fn raise(record: &mut ClusterRecord, groups: &[Group]) {
    let serving = |group: &Group| group.in_state(MemberState::Serving).count();
    let everywhere = groups.iter().map(serving).min().unwrap_or(usize::MAX);
    let everywhere = u32::try_from(everywhere).unwrap_or(u32::MAX);
    record.min_replicas = record.min_replicas.max(everywhere.min(record.min_replicas_wanted));
}

fn put(state: &mut State<'_>, old: &ClusterRecord, new: &ClusterRecord) -> OpResult<()> {
    if old != new {
        state.put(keys::SETTINGS, keys::CLUSTER_KEY, records::encode(new));
        state.counters_mut()?.table_version += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coord_types::{DiskId, Epoch};

    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::table::change::{Change, GroupChange};
    use crate::testing::Tree;

    fn set(tree: &mut Tree, replicas: u32, min_replicas: u32) -> CommandReply {
        tree.apply(&Command::SetReplicas { replicas, min_replicas })
    }

    fn numbers(tree: &Tree) -> (u32, u32) {
        let table = table::table(tree.kv()).unwrap();
        (table.replicas, table.min_replicas)
    }

    #[test]
    fn nonsense_is_refused() {
        let mut tree = Tree::new();
        for (replicas, min) in [(0, 1), (8, 1), (3, 0), (3, 4)] {
            assert!(matches!(set(&mut tree, replicas, min), CommandReply::Refused(_)), "{replicas} {min}");
        }
        assert_eq!(numbers(&tree), (3, 2));
    }

    #[test]
    fn what_a_write_must_reach_rises_with_the_last_group() {
        let mut tree = Tree::new();
        let before = table::table(tree.kv()).unwrap();
        assert_eq!(set(&mut tree, 3, 1), CommandReply::Done);
        assert_eq!(numbers(&tree), (3, 1));
        assert_eq!(set(&mut tree, 3, 3), CommandReply::Done);
        assert_eq!(numbers(&tree), (3, 3), "every group has three");
        assert!(table::table(tree.kv()).unwrap().version > before.version);

        // Two groups are left with two members, so it can be raised to two, and to three by the last that comes back.
        set(&mut tree, 3, 1);
        let groups: Vec<_> = before.groups().take(2).map(|group| group.id).collect();
        let change = |tree: &mut Tree, group, epoch, change| {
            let changes = vec![GroupChange { group, epoch: Epoch(epoch), change }];
            let CommandReply::Changed(done) = tree.apply(&Command::ChangeGroups { changes }) else {
                panic!("not changed")
            };
            assert_eq!(done.done, 1);
        };
        for group in &groups {
            change(&mut tree, *group, 1, Change::Out(DiskId(1)));
        }
        set(&mut tree, 3, 3);
        assert_eq!(numbers(&tree), (3, 2));
        for (at, group) in groups.iter().enumerate() {
            change(&mut tree, *group, 2, Change::Sync(DiskId(1)));
            change(&mut tree, *group, 3, Change::Join(DiskId(1)));
            assert_eq!(numbers(&tree), (3, 2), "it joins, and does not serve");
            change(&mut tree, *group, 4, Change::Settle(DiskId(1)));
            assert_eq!(numbers(&tree), (3, 2 + at as u32));
        }
    }
}
