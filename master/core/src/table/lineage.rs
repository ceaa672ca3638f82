//! What is done to a state that was restored from an older copy, when it is to be followed nevertheless. `master/docs/restore.md` says why.
//!
//! Invariant: no number that is given once (inode, data, session, version of the table, epoch of a group) is given twice, whatever
//! was given in the time that was lost, as long as each kind grows by less than 2^[`FLOOR_SHIFT`] a second.

use coord_types::{Epoch, InodeId};

use super::change::record;
use super::{cluster, read_groups};
use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::records::{self, ClusterRecord};
use crate::state::State;

/// Numbers go on from the cluster epoch, which is in seconds, shifted by this.
const FLOOR_SHIFT: u32 = 16;
const SECONDS_MAX: u64 = (1 << (InodeId::VOLUME_SHIFT - FLOOR_SHIFT)) - 2;

/// The least number of any kind in a cluster epoch; 0 in the first.
pub(super) fn floor(cluster_epoch: u64) -> u64 {
    cluster_epoch << FLOOR_SHIFT
}

/// Raises the cluster epoch and everything that follows from it. Gives the new one.
pub(crate) fn new_epoch(state: &mut State<'_>) -> OpResult<u64> {
    let cluster = cluster(state.read())?.ok_or_else(|| corrupt("the cluster's record is missing"))?;
    // Bounded, so that inodes stay below their volume's bits whatever the clock says.
    let seconds = (state.now_nanos() / 1_000_000_000).min(SECONDS_MAX);
    let epoch = seconds.max(cluster.epoch + 1);
    let floor = floor(epoch);
    let groups = read_groups(state.read())?;
    for mut group in groups {
        group.epoch = Epoch(floor.max(group.epoch.0 + 1));
        state.put(keys::TABLE, keys::group(group.id), records::encode(&record(&group)));
    }
    let counters = state.counters_mut()?;
    counters.next_id = counters.next_id.max(floor);
    counters.next_session = counters.next_session.max(floor);
    counters.table_version = floor.max(counters.table_version + 1);
    state.put(keys::SETTINGS, keys::CLUSTER_KEY, records::encode(&ClusterRecord { epoch, ..cluster }));
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::testing::Tree;

    #[test]
    fn a_new_epoch_is_above_all_that_was_given_out_before() {
        let mut tree = Tree::new();
        let version = |tree: &Tree| crate::counters(tree.kv()).unwrap().unwrap().table_version;
        let shown = |tree: &Tree| table::cluster(tree.kv()).unwrap().unwrap().epoch;
        assert_eq!(shown(&tree), 0);
        tree.create(InodeId::ROOT, "old").unwrap();
        let old = tree.lookup(InodeId::ROOT, "old").unwrap();
        let groups = table::read_groups(tree.kv()).unwrap();
        assert!(!groups.is_empty());

        let CommandReply::Epoch(epoch) = tree.apply(&Command::NewEpoch) else { panic!("no epoch") };
        assert!(epoch > 0 && shown(&tree) == epoch && version(&tree) >= floor(epoch));
        let before = version(&tree);
        for (group, was) in table::read_groups(tree.kv()).unwrap().iter().zip(&groups) {
            assert_eq!((group.id, &group.members), (was.id, &was.members));
            assert!(group.epoch.0 >= floor(epoch));
        }
        tree.create(InodeId::ROOT, "new").unwrap();
        assert!(tree.lookup(InodeId::ROOT, "new").unwrap().ino.0 >= floor(epoch));
        assert_eq!(tree.lookup(InodeId::ROOT, "old").unwrap().ino, old.ino);

        let CommandReply::Epoch(next) = tree.apply(&Command::NewEpoch) else { panic!("no epoch") };
        assert!(next > epoch && shown(&tree) == next && version(&tree) > before);
    }
}
