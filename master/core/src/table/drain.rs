//! Disks are marked to be emptied; [`plan`](super::plan) moves what they have elsewhere.

use coord_types::DiskId;

use crate::error::OpResult;
use crate::keys;
use crate::records::{self, DiskRecord};
use crate::state::State;

/// There is no such disk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no disk {0}")]
pub struct UnknownDisk(pub DiskId);

/// Marks all of the disks, or none if one is unknown.
pub(crate) fn drain(
    state: &mut State<'_>,
    disks: &[DiskId],
    draining: bool,
) -> OpResult<Result<(), UnknownDisk>> {
    let mut changed = Vec::new();
    for id in disks {
        let Some(record) = state.read().get(keys::TABLE, &keys::disk(*id))? else {
            return Ok(Err(UnknownDisk(*id)));
        };
        let record: DiskRecord = records::decode("a disk", &record)?;
        if record.draining != draining {
            changed.push((*id, DiskRecord { draining, ..record }));
        }
    }
    for (id, record) in &changed {
        state.put(keys::TABLE, keys::disk(*id), records::encode(record));
    }
    if !changed.is_empty() {
        state.counters_mut()?.table_version += 1;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::table;
    use crate::testing::{Tree, server};

    #[test]
    fn a_mark_stays_until_it_is_taken_back() {
        let mut tree = Tree::new();
        let drain = |disks: &[u32], draining| Command::DrainDisks {
            disks: disks.iter().copied().map(DiskId).collect(),
            draining,
        };
        let marked = |tree: &Tree| {
            let table = table::table(tree.kv()).unwrap();
            let disks = table.servers().flat_map(|server| &server.disks);
            disks.filter(|(_, state)| state.draining).map(|(disk, _)| disk.0).collect::<Vec<_>>()
        };
        let version = |tree: &Tree| table::table(tree.kv()).unwrap().version;
        assert_eq!(marked(&tree), [0; 0]);
        let before = version(&tree);
        assert!(
            matches!(tree.apply(&drain(&[1, 99], true)), CommandReply::Refused(why) if why.contains("99"))
        );
        assert_eq!((marked(&tree), version(&tree)), (vec![], before), "all or none");
        assert_eq!(tree.apply(&drain(&[1, 2], true)), CommandReply::Done);
        assert_eq!((marked(&tree), version(&tree)), (vec![1, 2], before + 1));
        assert_eq!(tree.apply(&drain(&[2], true)), CommandReply::Done);
        assert_eq!(version(&tree), before + 1, "nothing new");
        // The server starts anew: what it brings says nothing of that.
        let mut again = server(1, "/r/a/h", &[1]);
        again.incarnation = 7;
        tree.apply(&Command::RegisterServer(again));
        assert_eq!(marked(&tree), [1, 2]);
        assert_eq!(tree.apply(&drain(&[1, 2], false)), CommandReply::Done);
        assert_eq!(marked(&tree), [0; 0]);
    }
}
