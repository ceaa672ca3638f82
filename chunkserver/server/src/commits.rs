//! News of commits on their way to secondaries: they ride on the next write to the same disk; what no write takes
//! along within a millisecond goes by itself.
//!
//! Losing news is harmless: reads of the chunk there go to the primary until the next commit or activation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chunkserver_api::pb;
use coord_types::{ChunkKey, DiskId, Version};
use kuafu::CallOptions;
use parking_lot::Mutex;

use crate::node::Node;

/// Long enough that a stream of writes carries the news; short enough that a reader rarely is sent to the primary.
const DELAY: Duration = Duration::from_millis(1);
/// News for one disk; what is beyond is dropped. A primary has at most a few hundred writes in flight.
const PENDING_MAX: usize = 4096;
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Commits {
    pending: Mutex<HashMap<DiskId, Vec<pb::ChunkVersion>>>,
    flush_planned: AtomicBool,
}

impl Commits {
    /// What is pending for a disk, to be sent along with a write.
    pub(crate) fn take(&self, disk: DiskId) -> Vec<pb::ChunkVersion> {
        self.pending.lock().get_mut(&disk).map(std::mem::take).unwrap_or_default()
    }

    fn push(&self, disk: DiskId, key: ChunkKey, version: Version) {
        let mut pending = self.pending.lock();
        let news = pending.entry(disk).or_default();
        let chunk = pb::ChunkRef::from(key);
        // A stream writes one chunk after the other: only the newest version counts.
        if let Some(last) = news.last_mut().filter(|last| last.chunk == Some(chunk)) {
            last.version = Some(version.into());
        } else if news.len() < PENDING_MAX {
            news.push(pb::ChunkVersion { chunk: Some(chunk), version: Some(version.into()) });
        }
    }
}

/// Plans to tell these disks.
pub(crate) fn tell(node: &Arc<Node>, disks: impl Iterator<Item = DiskId>, key: ChunkKey, version: Version) {
    for disk in disks {
        node.commits.push(disk, key, version);
    }
    if !node.commits.flush_planned.swap(true, Ordering::Relaxed) {
        let node = node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            node.commits.flush_planned.store(false, Ordering::Relaxed);
            flush(&node).await;
        });
    }
}

async fn flush(node: &Node) {
    let disks: Vec<_> = {
        let pending = node.commits.pending.lock();
        pending.iter().filter(|(_, news)| !news.is_empty()).map(|(disk, _)| *disk).collect()
    };
    let calls = disks.into_iter().map(|disk| async move {
        let committed = node.commits.take(disk);
        let Some(peer) = node.peers.of(disk).filter(|_| !committed.is_empty()) else { return };
        let request = pb::CommitRequest { disk: disk.0, committed };
        if let Err(status) = peer.commit(&request, &CallOptions::within(CALL_TIMEOUT)).await {
            tracing::debug!(%disk, %status, "tell a member of commits");
        }
    });
    futures::future::join_all(calls).await;
}
