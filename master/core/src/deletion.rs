//! Deleted data: listed for the background task that frees the chunks, and struck off when every member has done so.
//!
//! Restart-safe without more: a record goes only after all disks of all its groups said they hold nothing of it any
//! more, and saying so twice is harmless.

use coord_kv::{Range, Read};
use coord_types::{DataId, GroupId};

use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records;
use crate::state::State;

/// A generation of data to free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub data: DataId,
    pub groups: Vec<GroupId>,
    /// When it was deleted, in nanoseconds since 1970.
    pub time_nanos: u64,
}

/// A page of the queue, behind `after`.
///
/// # Errors
/// A store that failed.
pub fn deletions(read: &dyn Read, after: Option<DataId>, limit: usize) -> OpResult<Vec<Deletion>> {
    let mut range = Range::prefix(&[]);
    if let Some(after) = after {
        range = range.after(&keys::deletion(after));
    }
    let pairs = read.scan(keys::DELETIONS, &range, limit)?;
    pairs
        .iter()
        .map(|(key, value)| {
            let data = keys::split_id(key).ok_or_else(|| corrupt("the key of a deletion"))?;
            let record = records::Deletion::decode(value)?;
            Ok(Deletion { data: DataId(data), groups: record.groups, time_nanos: record.time_nanos })
        })
        .collect()
}

/// Their chunks are gone from every disk.
pub(crate) fn done(state: &mut State<'_>, data: &[DataId]) -> OpResult<()> {
    let mut struck = std::collections::BTreeSet::new();
    for id in data {
        let key = keys::deletion(*id);
        if struck.insert(*id) && state.read().get(keys::DELETIONS, &key)?.is_some() {
            state.delete(keys::DELETIONS, key);
            let counters = state.counters_mut()?;
            counters.deletions_pending = counters.deletions_pending.saturating_sub(1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;

    use super::*;
    use crate::command::Command;
    use crate::testing::Tree;

    #[test]
    fn pages_and_strikes_off_once() {
        let mut tree = Tree::new();
        for name in ["a", "b", "c"] {
            tree.create(InodeId::ROOT, name).unwrap();
            tree.unlink(InodeId::ROOT, name).unwrap();
        }
        let all = deletions(tree.kv(), None, 10).unwrap();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|deletion| deletion.groups.len() == 4 && deletion.time_nanos > 0));
        assert_eq!(deletions(tree.kv(), Some(all[0].data), 1).unwrap(), all[1..2]);
        let done = vec![all[1].data, all[1].data, DataId(12345)];
        tree.apply(&Command::DeletionsDone { data: done.clone() });
        tree.apply(&Command::DeletionsDone { data: done });
        assert_eq!(tree.deletions(), [all[0].data, all[2].data]);
        tree.check();
    }
}
