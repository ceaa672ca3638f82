//! Repairs chunks whose data here is not what was written: damaged blocks are taken from another member and written anew.
//!
//! What each block must be is on record beside it, as its checksum. A block that has it is the right one, wherever it comes
//! from and whatever became of the chunk's version meanwhile, so repair has no part in the replication: the engine
//! compares once more, behind all writes of the chunk that came before ([`heal`](chunkserver_engine::Engine::heal)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chunkserver_api::{ChunkError, Read};
use chunkserver_engine::EngineError;
use coord_types::{BLOCK_SIZE, ChunkKey, DiskId, WRITE_SIZE_MAX};
use kuafu::CallOptions;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fill::pieces;
use crate::group::Group;
use crate::node::Node;

/// Damaged chunks remembered; the scrub finds the others again.
const WANTED_MAX: usize = 4096;
/// What could not be repaired is tried again after this: a member may be back.
const RETRY: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A member that has a write which is not committed yet is asked again.
const ATTEMPTS_MAX: usize = 20;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// The chunk was written meanwhile: look again.
const LOOKS_MAX: usize = 5;

const BLOCK: u32 = BLOCK_SIZE as u32;

/// Damaged chunks of this server.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeSet<(DiskId, ChunkKey)>,
    /// Tried in vain; waiting for the next round.
    failed: BTreeSet<(DiskId, ChunkKey)>,
}

impl Repairs {
    /// A chunk is damaged. `false`: there was no room to remember it.
    pub(crate) fn want(&self, disk: DiskId, key: ChunkKey) -> bool {
        let mut state = self.state.lock();
        if state.failed.contains(&(disk, key)) || state.wanted.contains(&(disk, key)) {
            return true;
        }
        if state.wanted.len() + state.failed.len() >= WANTED_MAX {
            return false;
        }
        state.wanted.insert((disk, key));
        self.news.notify_one();
        true
    }

    /// Chunks of a disk known to be damaged.
    pub(crate) fn damaged(&self, disk: DiskId) -> usize {
        let state = self.state.lock();
        state.wanted.iter().chain(&state.failed).filter(|(on, _)| *on == disk).count()
    }

    fn first(&self) -> Option<(DiskId, ChunkKey)> {
        self.state.lock().wanted.first().copied()
    }

    fn done(&self, chunk: (DiskId, ChunkKey), repaired: bool) {
        let mut state = self.state.lock();
        state.wanted.remove(&chunk);
        if !repaired {
            state.failed.insert(chunk);
        }
    }

    fn try_again(&self) {
        let mut state = self.state.lock();
        let mut failed = std::mem::take(&mut state.failed);
        state.wanted.append(&mut failed);
    }
}

/// Why a chunk is not whole yet.
#[derive(Debug, thiserror::Error)]
enum Unrepaired {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("no other member has {0} of its blocks as they should be")]
    NoCopy(usize),
    #[error("it is written all the time")]
    Busy,
}

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let stop = node.stop.clone();
    let repairing = async {
        let mut next_round = Instant::now() + RETRY;
        loop {
            while let Some((disk, key)) = node.repairs.first() {
                let repaired = repair(&node, disk, key).await;
                node.repairs.done((disk, key), repaired);
            }
            tokio::select! {
                () = node.repairs.news.notified() => {}
                () = tokio::time::sleep_until(next_round) => {
                    node.repairs.try_again();
                    next_round = Instant::now() + RETRY;
                }
            }
        }
    };
    tokio::select! {
        () = repairing => {}
        () = stop.cancelled() => {}
    }
}

/// Whether there is nothing left to do.
async fn repair(node: &Arc<Node>, disk: DiskId, key: ChunkKey) -> bool {
    // A disk that is out, or a group that went elsewhere, needs no repair.
    let Some(group) = node.replica(disk, key.group).filter(|group| !group.disk.failed()) else { return true };
    match chunk(node, &group, key).await {
        Ok(0) => true,
        Ok(blocks) => {
            node.metrics.repaired_blocks.add(blocks as u64);
            tracing::info!(?key, %disk, blocks, "repaired a damaged chunk from another member");
            true
        }
        Err(error) => {
            tracing::warn!(?key, %disk, %error, "a damaged chunk cannot be repaired now; trying again later");
            false
        }
    }
}

/// Looks at the whole chunk and repairs what is damaged; gives the number of blocks.
async fn chunk(node: &Arc<Node>, group: &Arc<Group>, key: ChunkKey) -> Result<usize, Unrepaired> {
    let mut repaired = 0;
    for _ in 0..LOOKS_MAX {
        match pass(node, group, key).await {
            Ok(blocks) => return Ok(repaired + blocks),
            Err((blocks, Unrepaired::Engine(EngineError::VersionMismatch { .. }))) => repaired += blocks,
            Err((blocks, error)) => {
                node.metrics.repaired_blocks.add((repaired + blocks) as u64);
                return Err(error);
            }
        }
    }
    Err(Unrepaired::Busy)
}

/// One look at all of the chunk. An error comes with the number of blocks repaired before it.
async fn pass(node: &Arc<Node>, group: &Arc<Group>, key: ChunkKey) -> Result<usize, (usize, Unrepaired)> {
    let engine = &group.disk.engine;
    let mut repaired = 0;
    let mut missing = 0;
    let ranges = engine.map(key).map_err(|error| (0, error.into()))?;
    for (offset, len) in pieces(&ranges, WRITE_SIZE_MAX as u32) {
        match engine.read(key, offset, len).await {
            Ok(_) => {}
            Err(EngineError::Damaged(_)) => {
                let (done, left) =
                    piece(node, group, key, offset, len).await.map_err(|error| (repaired, error))?;
                repaired += done;
                missing += left;
            }
            Err(error) => return Err((repaired, error.into())),
        }
    }
    if missing == 0 { Ok(repaired) } else { Err((repaired, Unrepaired::NoCopy(missing))) }
}

/// Repairs a piece that cannot be read whole: how many blocks were, how many could not be.
async fn piece(
    node: &Arc<Node>,
    group: &Arc<Group>,
    key: ChunkKey,
    offset_bytes: u32,
    len_bytes: u32,
) -> Result<(usize, usize), Unrepaired> {
    let engine = &group.disk.engine;
    let mut bad = Vec::new();
    let mut first = None;
    for at in (offset_bytes..offset_bytes + len_bytes).step_by(BLOCK_SIZE) {
        match engine.read(key, at, BLOCK).await {
            Ok(_) => {}
            Err(EngineError::Damaged(damage)) => {
                bad.push(at);
                first.get_or_insert(damage);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(first) = first {
        let (disk, path, blocks) = (group.disk_id, group.disk.path.display(), bad.len());
        tracing::warn!(%disk, %path, blocks, %first, "damaged blocks");
    }
    node.metrics.damaged_blocks.add(bad.len() as u64);
    let found = bad.len();
    for disk in group.others().unwrap_or_default() {
        if bad.is_empty() {
            break;
        }
        let Some(copy) = fetch(node, group, disk, (key, offset_bytes, len_bytes)).await else { continue };
        let mut still = Vec::new();
        for at in bad {
            let version = engine.stat(key)?.map_or(coord_types::Version::NONE, |meta| meta.version);
            let from = (at - offset_bytes) as usize;
            match engine.heal(key, version, at, copy.slice(from..from + BLOCK_SIZE)).await {
                Ok(()) => {}
                Err(EngineError::PayloadChecksum { .. }) => still.push(at),
                Err(error) => return Err(error.into()),
            }
        }
        bad = still;
    }
    // Of a segment that was lost much is damaged, and the medium need not be.
    let lost = engine.lost_segments();
    if lost.is_empty() || !engine.is_in_segments(key, lost)? {
        group.disk.errors.note((found - bad.len()) as u64);
    }
    Ok((found - bad.len(), bad.len()))
}

/// A member's copy of a piece.
async fn fetch(
    node: &Arc<Node>,
    group: &Arc<Group>,
    disk: DiskId,
    (key, offset_bytes, len_bytes): (ChunkKey, u32, u32),
) -> Option<Bytes> {
    let reader = node.peers.reader(disk)?;
    for _ in 0..ATTEMPTS_MAX {
        let read = Read { key, epoch: group.epoch(), offset_bytes, len_bytes };
        match reader.read(&read, &CallOptions::within(CALL_TIMEOUT)).await {
            Ok(copy) => {
                let whole = copy.data.len() == len_bytes as usize && copy.verify().is_none();
                return whole.then_some(copy.data);
            }
            Err(ChunkError::NotCommitted | ChunkError::Busy { .. }) => {
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(?key, %disk, %error, "read a copy to repair a chunk from");
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, GroupId};

    use super::*;

    #[test]
    fn what_failed_waits_and_is_tried_again() {
        let repairs = Repairs::default();
        let chunk = |index| (DiskId(1), ChunkKey::new(GroupId(1), DataId(1), index));
        for index in [1, 0, 1] {
            assert!(repairs.want(chunk(index).0, chunk(index).1));
        }
        assert_eq!((repairs.damaged(DiskId(1)), repairs.damaged(DiskId(2))), (2, 0));
        repairs.done(chunk(0), true);
        repairs.done(chunk(1), false);
        assert!(repairs.want(chunk(1).0, chunk(1).1));
        assert_eq!((repairs.first(), repairs.damaged(DiskId(1))), (None, 1), "not before the next round");
        repairs.try_again();
        assert_eq!(repairs.first(), Some(chunk(1)));
        for index in 0..WANTED_MAX as u32 + 10 {
            assert_eq!(repairs.want(DiskId(1), chunk(index).1), index < WANTED_MAX as u32);
        }
        assert_eq!(repairs.damaged(DiskId(1)), WANTED_MAX);
    }
}
