//! The size of the whole, as far as the store knows it: what servers said when they registered. The server puts
//! fresher numbers from heartbeats in place of these.

use coord_kv::Read;
use master_model::{Answer, StatFs};

use crate::error::OpResult;
use crate::state::read_counters;
use crate::table;

pub(super) fn statfs(read: &dyn Read) -> OpResult<Answer> {
    let counters = read_counters(read)?;
    let table = table::servers(read)?;
    let replicas = table::cluster(read)?.map_or(1, |cluster| u64::from(cluster.replicas.max(1)));
    let disks = table.iter().flat_map(|server| &server.disks).map(|(_, disk)| disk);
    let (total, used) = disks.filter(|disk| !disk.failed).fold((0_u64, 0_u64), |(total, used), disk| {
        (total.saturating_add(disk.capacity_bytes), used.saturating_add(disk.used_bytes))
    });
    let stat_fs = StatFs {
        total_bytes: total / replicas,
        used_bytes: used / replicas,
        inodes_used: counters.map_or(0, |counters| counters.inodes),
    };
    Ok(Answer { stat_fs: Some(stat_fs), ..Answer::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Query;

    use crate::testing::Tree;

    #[test]
    fn counts_disks_after_replication_and_inodes() {
        let mut tree = Tree::new();
        tree.create(InodeId::ROOT, "f").unwrap();
        let stat = tree.query(&Query::StatFs).unwrap().stat_fs.unwrap();
        // Three disks of 1 TiB, three replicas; the root and the file.
        assert_eq!((stat.total_bytes, stat.used_bytes, stat.inodes_used), (1 << 40, 0, 2));
        tree.unlink(InodeId::ROOT, "f").unwrap();
        assert_eq!(tree.query(&Query::StatFs).unwrap().stat_fs.unwrap().inodes_used, 1);
    }
}
