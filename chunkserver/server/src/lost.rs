//! Segments of a disk that were lost: whatever has data in them is handed to [`crate::repair`], at once rather than when the
//! scrub comes by.
//!
//! Which segments those are is kept on the disk until all of it is repaired, so that a restart goes on with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chunkserver_engine::EngineError;
use coord_types::ChunkKey;

use crate::disks::Disk;
use crate::node::Node;

/// The lost segments, 4 bytes each, little-endian.
const SETTING: &str = "lost-segments";
/// Chunks looked up at a time.
const PAGE: usize = 64;
/// How often it is looked whether the table is here, or there is room for more to repair.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// After an error of the disk's metadata.
const RETRY: Duration = Duration::from_secs(60);

/// Runs until all is repaired, the disk fails or the node stops.
pub(crate) async fn run(node: Arc<Node>, disk: Arc<Disk>) {
    let stop = node.stop.clone();
    let repairing = async {
        while let Err(error) = repair(&node, &disk).await {
            if disk.failed() {
                node.disk_failed(&disk, &error);
                return;
            }
            tracing::error!(path = %disk.path.display(), %error, "lost segments cannot be looked through; trying again");
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = repairing => {}
        () = stop.cancelled() => {}
    }
}

async fn repair(node: &Arc<Node>, disk: &Arc<Disk>) -> Result<(), EngineError> {
    let mut lost = disk.engine.get_setting(SETTING)?.map(|bytes| decode(&bytes)).unwrap_or_default();
    let known = lost.len();
    lost.extend(disk.engine.lost_segments());
    if lost.is_empty() {
        return Ok(());
    }
    if lost.len() > known {
        disk.engine.put_setting(SETTING, &encode(&lost)).await?;
    }
    tracing::warn!(path = %disk.path.display(), ?lost, "segments were lost: their data comes from other members");
    // Before the table is here nobody knows the other members.
    while node.adopted() == 0 {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    let mut chunks = 0;
    let groups: Vec<_> = node.table().groups().map(|group| group.id).collect();
    for group in groups {
        let mut after = None;
        loop {
            let page = disk.engine.list(group, after, PAGE)?;
            for (key, _) in &page {
                if disk.engine.is_in_segments(*key, &lost)? {
                    want(node, disk, *key).await;
                    chunks += 1;
                }
                after = Some(*key);
            }
            if page.len() < PAGE {
                break;
            }
        }
    }
    while disk.id().is_some_and(|id| node.repairs.damaged(id) > 0) {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    disk.engine.put_setting(SETTING, &[]).await?;
    tracing::info!(path = %disk.path.display(), chunks, "the data of lost segments is whole again");
    Ok(())
}

/// Waits for room on the list.
async fn want(node: &Node, disk: &Disk, key: ChunkKey) {
    while let Some(id) = disk.id()
        && !node.repairs.want(id, key)
    {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn encode(segments: &BTreeSet<u32>) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> BTreeSet<u32> {
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_are_lost_survives() {
        for segments in [BTreeSet::new(), BTreeSet::from([0, 7, u32::MAX])] {
            assert_eq!(decode(&encode(&segments)), segments);
        }
    }
}
