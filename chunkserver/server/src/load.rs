//! How much is written to the groups led here: told in heartbeats, so that the masters can spread it.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use master_api::proto::GroupLoad;

use crate::node::Node;

/// What a write costs beside its bytes: a small one is a synced frame of the journal and two messages.
const WRITE_COST_BYTES: u64 = 16 << 10;
/// Less is not worth telling.
const TOLD_MIN_BYTES_PER_S: u64 = 64 << 10;
/// Groups in one heartbeat, the busiest: more do not matter beside them.
const TOLD_MAX: usize = 256;

/// Written since it was last told.
#[derive(Debug, Default)]
pub(crate) struct Load(AtomicU64);

impl Load {
    pub(crate) fn note(&self, len_bytes: u64) {
        self.0.fetch_add(len_bytes + WRITE_COST_BYTES, Ordering::Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// What was written to each group since the last call, which was so long ago.
pub(crate) fn told(node: &Node, elapsed: Duration) -> Vec<GroupLoad> {
    let elapsed_ms = elapsed.as_millis().max(1);
    let replicas = node.replicas();
    let loads = replicas.iter().map(|group| {
        let bytes_per_s = u128::from(group.load.take()) * 1000 / elapsed_ms;
        let write_bytes_per_s = u64::try_from(bytes_per_s).unwrap_or(u64::MAX);
        GroupLoad { group: group.id.0, write_bytes_per_s }
    });
    let mut loads: Vec<_> = loads.filter(|load| load.write_bytes_per_s >= TOLD_MIN_BYTES_PER_S).collect();
    loads.sort_unstable_by_key(|load| Reverse(load.write_bytes_per_s));
    loads.truncate(TOLD_MAX);
    loads
}
