//! Copies whole chunks to another member: before an activation, when the group is at rest ([`equalise`]), and to a syncing
//! member, beside the clients' writes ([`fill`]).
//!
//! A chunk is copied as it was at one version. For a syncing member it is at first read a little at a time, so that
//! other reads of the disk do not wait for all of it. If it changed meanwhile it is read at one moment: all its blocks
//! are looked up and pinned in one step, writes that come then go to other blocks. So a chunk that is written all the
//! time is copied in two attempts.

use std::sync::Arc;
use std::time::Duration;

use chunkserver_api::convert::crcs_to_bytes;
use chunkserver_api::pb;
use chunkserver_core::{Fault, PeerError};
use chunkserver_engine::{ChunkMeta, ReadOut};
use coord_types::{ChunkKey, DiskId, Epoch, Version, WRITE_SIZE_MAX};
use futures::stream::{self, StreamExt as _};
use kuafu::{CallOptions, Status};

use crate::group::Group;
use crate::node::Node;
use crate::replicate::{peer, peer_error};
use crate::service::read::may_show;
use crate::throttle::Throttle;

/// One piece of a chunk, written and synced at the member.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What was read for a syncing member is committed by then, or the group is in trouble and this begins anew.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read or sent at a time where clients must not feel it: as much as the event loop, which is one thread, does
/// in a tenth of a millisecond.
const GENTLE_PIECE_BYTES: u32 = 128 << 10;
/// A change may come between the look-ups the first time, a deletion later; not again and again.
const SNAPSHOTS_MAX: usize = 3;

/// A chunk as it was at one moment: its pieces with their offsets.
struct Snapshot {
    meta: ChunkMeta,
    pieces: Vec<(u32, ReadOut)>,
}

#[derive(Clone, Copy)]
enum Pace<'a> {
    /// Clients wait until it is done.
    Urgent,
    /// Clients must not feel it. Each piece is paid for with one half when it is read and the other when it is sent, so
    /// that both are spread over the time.
    Gentle(&'a Throttle),
}

impl Pace<'_> {
    fn piece_bytes(self) -> u32 {
        match self {
            Self::Urgent => WRITE_SIZE_MAX as u32,
            Self::Gentle(_) => GENTLE_PIECE_BYTES,
        }
    }

    async fn take_half(self, len_bytes: usize) {
        if let Self::Gentle(throttle) = self {
            throttle.take(len_bytes / 2).await;
        }
    }
}

/// Makes a chunk at a member what it is here. The group is at rest here, so the chunk does not change under this,
/// unless the master deletes it: then it is removed there too.
pub(crate) async fn equalise(
    node: &Arc<Node>,
    group: &Arc<Group>,
    disk: DiskId,
    at: (Epoch, u64),
    key: ChunkKey,
) -> Result<(), PeerError> {
    let _permit = node.installs.acquire().await.map_err(|_| PeerError::Failed)?;
    let snapshot = snapshot(node, group, key, Pace::Urgent).await?;
    match &snapshot {
        Some(snapshot) => {
            tracing::info!(?key, version = %snapshot.meta.version, %disk, "install a chunk on a member that differs");
            node.metrics.installs.add(1);
        }
        None => tracing::info!(?key, %disk, "remove a chunk the primary does not have"),
    }
    send(node, disk, at, (key, snapshot), Pace::Urgent)
        .await
        .map_err(|status| peer_error("install a chunk on", node, group, disk, &status))
}

/// Brings a chunk at a syncing member to what is committed here; gives the version.
pub(crate) async fn fill(
    node: &Arc<Node>,
    group: &Arc<Group>,
    disk: DiskId,
    at: (Epoch, u64),
    key: ChunkKey,
) -> Result<Version, PeerError> {
    let _place = node.fills.acquire().await.map_err(|_| PeerError::Failed)?;
    let permit = group.event(node, |replica, _| replica.may_read(at.0)).map_err(|_| PeerError::Failed)?;
    let pace = Pace::Gentle(&node.throttle);
    let snapshot = snapshot(node, group, key, pace).await?;
    let version = snapshot.as_ref().map_or(Version::NONE, |snapshot| snapshot.meta.version);
    // A syncing member gets what is committed only.
    let committed = may_show(node, group, permit, (key, version));
    match tokio::time::timeout(COMMIT_TIMEOUT, committed).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(PeerError::Failed),
    }
    tracing::debug!(?key, %version, %disk, "fill a chunk of a syncing member");
    send(node, disk, at, (key, snapshot), pace)
        .await
        .map_err(|status| peer_error("fill a chunk of", node, group, disk, &status))?;
    node.metrics.fills.add(1);
    Ok(version)
}

async fn snapshot(
    node: &Arc<Node>,
    group: &Arc<Group>,
    key: ChunkKey,
    pace: Pace<'_>,
) -> Result<Option<Snapshot>, PeerError> {
    let engine = &group.disk.engine;
    let source = |fault| match fault {
        Fault::Damaged => PeerError::SourceDamaged,
        Fault::Full | Fault::Checksum | Fault::Invalid | Fault::Disk | Fault::Conflict => PeerError::Failed,
    };
    for attempt in 0..SNAPSHOTS_MAX {
        let Some(meta) = group.outcome(node, engine.stat(key)).map_err(source)? else { return Ok(None) };
        let ranges = group.outcome(node, engine.map(key)).map_err(source)?;
        let pace = if attempt == 0 { pace } else { Pace::Urgent };
        let cut: Vec<_> = pieces(&ranges, pace.piece_bytes()).collect();
        let at_once = if matches!(pace, Pace::Gentle(_)) { 1 } else { cut.len().max(1) };
        // Each read looks its blocks up when it is first polled: if all may run, now, before anything else runs.
        let reads = cut.into_iter().map(|(offset, len)| async move {
            pace.take_half(len as usize).await;
            (offset, len, engine.read(key, offset, len).await)
        });
        let mut pieces = Vec::new();
        let mut whole = true;
        let reads: Vec<_> = stream::iter(reads).buffered(at_once).collect().await;
        for (offset_bytes, len_bytes, read) in reads {
            let read = group.outcome(node, read).map_err(source)?;
            whole &= read.version == meta.version && !read.hole && read.data.len() == len_bytes as usize;
            pieces.push((offset_bytes, read));
        }
        if whole {
            return Ok(Some(Snapshot { meta, pieces }));
        }
    }
    Err(PeerError::Failed)
}

/// Sends a chunk, or that it is to be gone.
async fn send(
    node: &Node,
    disk: DiskId,
    at: (Epoch, u64),
    (key, snapshot): (ChunkKey, Option<Snapshot>),
    pace: Pace<'_>,
) -> Result<(), Status> {
    let client = peer(node, disk)?;
    let options = CallOptions::within(INSTALL_TIMEOUT).payload_covered();
    let mut request = pb::InstallRequest {
        chunk: Some(key.into()),
        epoch: at.0.0,
        disk: disk.0,
        activation: at.1,
        first: true,
        ..pb::InstallRequest::default()
    };
    let Some(Snapshot { meta, pieces }) = snapshot else {
        request.last = true;
        request.remove = true;
        client.install(&request, &options).await?;
        return Ok(());
    };
    request.version = Some(meta.version.into());
    request.chunk_size_bytes = meta.chunk_size_bytes;
    request.windows = meta
        .windows
        .iter()
        .map(|w| pb::WriterWindow { session: w.session.0, newest: w.newest, seen: w.seen })
        .collect();
    let mut pieces = pieces.into_iter().peekable();
    if pieces.peek().is_none() {
        request.last = true;
        client.install(&request, &options).await?;
        return Ok(());
    }
    while let Some((offset_bytes, read)) = pieces.next() {
        request.offset_bytes = offset_bytes;
        request.block_crcs = crcs_to_bytes(&read.block_crcs);
        request.last = pieces.peek().is_none();
        pace.take_half(read.data.len()).await;
        if let Pace::Gentle(_) = pace {
            node.metrics.filled_bytes.add(read.data.len() as u64);
        }
        client.install_with_payload(&request, read.data, &options).await?;
        request.first = false;
    }
    Ok(())
}

/// Cuts ranges into pieces: offset and length of each.
pub(crate) fn pieces(ranges: &[(u32, u32)], piece_bytes: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    ranges.iter().flat_map(move |(offset, len)| {
        let end = offset + len;
        (*offset..end).step_by(piece_bytes as usize).map(move |at| (at, piece_bytes.min(end - at)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_long_as_asked_for_and_cover_the_ranges() {
        const MIB: u32 = 1 << 20;
        let cut: Vec<_> = pieces(&[(0, 4096), (8192, 2 * MIB + 4096)], MIB).collect();
        assert_eq!(cut, [(0, 4096), (8192, MIB), (8192 + MIB, MIB), (8192 + 2 * MIB, 4096)]);
        assert_eq!(pieces(&[], MIB).count(), 0);
    }
}
