//! Does what the core asks: writes on the disk, messages to other members. Each effect becomes a task that ends with
//! exactly one event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chunkserver_api::convert::{crcs_from_bytes, parse_stale_detail};
use chunkserver_api::pb;
use chunkserver_core::{Effect, Fault, Page, PeerError};
use chunkserver_engine::{EngineError, PunchOp, WriteOp, Written};
use coord_types::{ChunkKey, DiskId, Epoch, Stamp, Version};
use kuafu::{CallOptions, Code, Status};

use crate::fill;
use crate::group::{Body, Content, Group, LIST_PAGE};
use crate::node::Node;

/// A write at a member: as long as a loaded disk may take. A member that died is noticed by its connection, much sooner.
const REPLICATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepare waits for the member's running writes.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);
const ACTIVATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause after an attempt failed, doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// A member that comes back is noticed this late at the worst.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// The same for a member that is being filled: nobody waits for it.
const FILL_BACKOFF_MIN: Duration = Duration::from_millis(100);
const FILL_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Begins an effect; the event that answers it comes later.
pub(crate) fn begin(node: &Arc<Node>, group: &Arc<Group>, effect: Effect<Content>) {
    let (node, group) = (node.clone(), group.clone());
    match effect {
        Effect::Apply { key, previous, version, stamp, content } => {
            let op = Op { key, previous, version, stamp, content };
            tokio::spawn(async move {
                let result = apply(&group, op).await;
                let result = group.outcome(&node, result).map(|written| written.allocated_delta_bytes);
                group.event(&node, |replica, io| replica.applied(key, version, result, io));
            });
        }
        Effect::Replicate { peer, epoch, activation, key, previous, version, stamp, content } => {
            let op = Op { key, previous, version, stamp, content };
            tokio::spawn(async move {
                let result = send(&node, peer, (epoch, activation), op).await;
                let result = result.map_err(|status| peer_error("write to", &node, &group, peer, &status));
                group.event(&node, |replica, io| {
                    replica.replicated(peer, activation, (key, version), result, io);
                });
            });
        }
        Effect::Promise { epoch } => {
            tokio::spawn(async move {
                // Without the promise on disk nothing goes on; the disk is out then anyway.
                if group.outcome(&node, group.disk.promise(group.id, epoch).await).is_ok() {
                    group.event(&node, |replica, io| replica.promised(epoch, io));
                }
            });
        }
        Effect::Prepare { peer, epoch, activation, after, fill } => {
            tokio::spawn(async move {
                let result = prepare(&node, &group, peer, (epoch, activation), (after, fill)).await;
                let result = result.map_err(|status| peer_error("prepare", &node, &group, peer, &status));
                group.event(&node, |replica, io| replica.prepared(peer, activation, result, io));
            });
        }
        Effect::Equalise { peer, epoch, activation, key } => {
            tokio::spawn(async move {
                let result = fill::equalise(&node, &group, peer, (epoch, activation), key).await;
                group.event(&node, |replica, io| replica.equalised(peer, activation, key, result, io));
            });
        }
        Effect::Activate { peer, epoch, activation } => {
            tokio::spawn(async move {
                let result = activate(&node, &group, peer, (epoch, activation)).await;
                let result = result.map_err(|status| peer_error("activate", &node, &group, peer, &status));
                group.event(&node, |replica, io| replica.activated(peer, activation, result, io));
            });
        }
        Effect::Retry { activation, attempt } => {
            let delay = BACKOFF_MAX.min(BACKOFF_MIN.saturating_mul(1 << attempt.min(8)));
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = node.stop.cancelled() => return,
                }
                group.event(&node, |replica, io| replica.retry(activation, io));
            });
        }
        Effect::Fill { peer, epoch, activation, key } => {
            tokio::spawn(async move {
                let result = fill::fill(&node, &group, peer, (epoch, activation), key).await;
                group.event(&node, |replica, io| replica.filled(peer, activation, key, result, io));
            });
        }
        Effect::Forward { peer, epoch, activation, key, previous, version, stamp, content } => {
            let op = Op { key, previous, version, stamp, content };
            node.metrics.forwards.add(1);
            tokio::spawn(async move {
                let result = send(&node, peer, (epoch, activation), op).await;
                let result =
                    result.map_err(|status| peer_error("forward a write to", &node, &group, peer, &status));
                group.event(&node, |replica, io| replica.forwarded(peer, activation, key, result, io));
            });
        }
        Effect::Level { peer, epoch } => {
            tracing::debug!(group = %group.id, %epoch, member = %peer, "a member that was filled is level");
            node.refresh.notify_one();
        }
        Effect::RetryFill { peer, activation, attempt } => {
            let delay = FILL_BACKOFF_MAX.min(FILL_BACKOFF_MIN.saturating_mul(1 << attempt.min(8)));
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = node.stop.cancelled() => return,
                }
                group.event(&node, |replica, io| replica.retry_fill(peer, activation, io));
            });
        }
        Effect::Outdated { epoch } => {
            tracing::debug!(group = %group.id, %epoch, "a member is at a newer epoch: fetch the table");
            node.refresh.notify_one();
        }
        Effect::Answer { .. } | Effect::Committed { .. } => unreachable!("done under the group's lock"),
    }
}

/// An ordered write.
struct Op {
    key: ChunkKey,
    previous: Version,
    version: Version,
    stamp: Option<Stamp>,
    content: Content,
}

impl Group {
    /// What the core may know of the engine's answer; a disk that failed is taken out.
    pub(crate) fn outcome<T>(&self, node: &Arc<Node>, result: Result<T, EngineError>) -> Result<T, Fault> {
        result.map_err(|error| {
            let fault = crate::disks::fault(&error);
            match fault {
                Fault::Disk => node.disk_failed(&self.disk, &error),
                Fault::Damaged => match error.damaged_chunk() {
                    // The repair tells what it finds. What it has no room for, the scrub finds again.
                    Some(key) => {
                        node.repairs.want(self.disk_id, key);
                    }
                    None => node.condemn(&self.disk, &error),
                },
                Fault::Full | Fault::Checksum | Fault::Invalid | Fault::Conflict => {
                    tracing::debug!(group = %self.id, %error, "the disk refused");
                }
            }
            fault
        })
    }
}

async fn apply(group: &Group, op: Op) -> Result<Written, EngineError> {
    let Op { key, previous: expect, version, stamp, content } = op;
    let Content { offset_bytes, chunk_size_bytes, body } = content;
    let engine = &group.disk.engine;
    match body {
        Body::Data { data, block_crcs } => {
            let block_crcs = crcs_from_bytes(&block_crcs)
                .map_err(|_| EngineError::Invalid { key, reason: "checksums are not whole words" })?;
            engine
                .write(WriteOp {
                    key,
                    expect,
                    version,
                    offset_bytes,
                    data,
                    block_crcs,
                    stamp,
                    chunk_size_bytes,
                })
                .await
        }
        Body::Punch { len_bytes } => {
            engine
                .punch(PunchOp { key, expect, version, offset_bytes, len_bytes, stamp, chunk_size_bytes })
                .await
        }
    }
}

pub(crate) fn peer(node: &Node, disk: DiskId) -> Result<pb::ReplicaClient, Status> {
    node.peers.of(disk).ok_or_else(|| Status::unavailable(format!("the table names no server for {disk:?}")))
}

async fn send(node: &Node, disk: DiskId, at: (Epoch, u64), op: Op) -> Result<(), Status> {
    let (block_crcs, punch_len_bytes, payload) = match op.content.body {
        Body::Data { data, block_crcs } => (block_crcs, 0, data),
        Body::Punch { len_bytes } => (Bytes::new(), len_bytes, Bytes::new()),
    };
    let request = pb::ReplicateRequest {
        chunk: Some(op.key.into()),
        epoch: at.0.0,
        previous: Some(op.previous.into()),
        version: Some(op.version.into()),
        offset_bytes: op.content.offset_bytes,
        block_crcs,
        punch_len_bytes,
        stamp: op.stamp.map(Into::into),
        chunk_size_bytes: op.content.chunk_size_bytes,
        disk: disk.0,
        activation: at.1,
        committed: node.commits.take(disk),
    };
    let options = CallOptions::within(REPLICATE_TIMEOUT).payload_covered();
    let reply = peer(node, disk)?.replicate_with_payload(&request, payload, &options).await?;
    node.space.note(disk, reply.message.available_bytes);
    Ok(())
}

async fn prepare(
    node: &Node,
    group: &Group,
    disk: DiskId,
    at: (Epoch, u64),
    (after, fill): (Option<Option<ChunkKey>>, bool),
) -> Result<Page, Status> {
    let request = pb::PrepareRequest {
        group: group.id.0,
        epoch: at.0.0,
        disk: disk.0,
        activation: at.1,
        after: after.flatten().map(Into::into),
        limit: if after.is_some() { LIST_PAGE as u32 } else { 0 },
        fill,
    };
    let reply = peer(node, disk)?.prepare(&request, &CallOptions::within(PREPARE_TIMEOUT)).await?.message;
    let chunks = reply.chunks.iter().map(|chunk| {
        let key = chunkserver_api::convert::key_from(chunk.chunk.as_ref());
        let version = chunk.version.map(Version::from);
        key.ok().zip(version).filter(|(key, _)| key.group == group.id)
    });
    let chunks = chunks.collect::<Option<Vec<_>>>();
    let chunks = chunks
        .filter(|chunks| chunks.is_sorted_by_key(|(key, _)| *key))
        .ok_or_else(|| Status::internal("the member's list is not one of this group's chunks in order"))?;
    Ok(Page { chunks, end: reply.end, incarnation: reply.incarnation })
}

async fn activate(node: &Node, group: &Group, disk: DiskId, at: (Epoch, u64)) -> Result<(), Status> {
    let request = pb::ActivateRequest { group: group.id.0, epoch: at.0.0, disk: disk.0, activation: at.1 };
    let reply = peer(node, disk)?.activate(&request, &CallOptions::within(ACTIVATE_TIMEOUT)).await?;
    node.space.note(disk, reply.message.available_bytes);
    Ok(())
}

pub(crate) fn peer_error(
    doing: &str,
    node: &Node,
    group: &Group,
    disk: DiskId,
    status: &Status,
) -> PeerError {
    tracing::debug!(group = %group.id, member = %disk, %status, "could not {doing} a member");
    if status.code == Code::Unavailable {
        node.suspect(disk);
    }
    match parse_stale_detail(&status.detail).filter(|_| status.code == Code::Stale) {
        Some((epoch, activation)) => PeerError::Stale { epoch, activation },
        None => PeerError::Failed,
    }
}
