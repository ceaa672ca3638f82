//! Reads and maps, at any serving member: look at the disk first, then at the lease, then ask whether what was found may
//! be shown. In this order: each says that the answer before it still counted after the disk was read.

use std::sync::Arc;

use chunkserver_api::convert::crcs_to_bytes;
use chunkserver_api::pb;
use chunkserver_api::{Map, Read};
use chunkserver_core::{ReadPermit, ReadVerdict, Refusal};
use coord_types::{ChunkKey, Version};
use kuafu::{Request, Response, Status};
use zhongkui::Rights;

use crate::group::Group;
use crate::lease;
use crate::node::Node;
use crate::service::{chunk, invalid, status};

pub(crate) async fn read(
    node: Arc<Node>,
    request: Request<pb::ReadRequest>,
) -> Result<Response<pb::ReadReply>, Status> {
    let read = Read::try_from(&request.message).map_err(invalid)?;
    chunk::must_have_token(&node, &request, read.key.chunk.data, Rights::READ)?;
    let group = chunk::replica(&node, read.key.group, read.epoch)?;
    let permit = group.event(&node, |replica, _| replica.may_read(read.epoch)).map_err(status)?;
    let found = group.disk.engine.read(read.key, read.offset_bytes, read.len_bytes).await;
    let found = group.outcome(&node, found).map_err(|fault| status(Refusal::Fault(fault)))?;
    lease::check(&node, &group, read.epoch).await?;
    may_show(&node, &group, permit, (read.key, found.version)).await?;
    node.metrics.reads.add(1);
    node.metrics.read_bytes.add(found.data.len() as u64);
    let reply = pb::ReadReply {
        version: Some(found.version.into()),
        payload_offset_bytes: found.payload_offset_bytes,
        block_crcs: crcs_to_bytes(&found.block_crcs),
        hole: found.hole,
    };
    // The engine has verified the blocks and the client will: the frame needs no checksum of its own.
    Ok(Response::with_covered_payload(reply, found.data))
}

pub(crate) async fn map(
    node: Arc<Node>,
    request: Request<pb::MapRequest>,
) -> Result<Response<pb::MapReply>, Status> {
    let map = Map::try_from(&request.message).map_err(invalid)?;
    chunk::must_have_token(&node, &request, map.key.chunk.data, Rights::READ)?;
    let group = chunk::replica(&node, map.key.group, map.epoch)?;
    let permit = group.event(&node, |replica, _| replica.may_read(map.epoch)).map_err(status)?;
    let engine = &group.disk.engine;
    // Nothing runs between the two look-ups: they show one version.
    let found = engine.stat(map.key).and_then(|meta| Ok((meta, engine.map(map.key)?)));
    let (meta, ranges) = group.outcome(&node, found).map_err(|fault| status(Refusal::Fault(fault)))?;
    let version = meta.map_or(Version::NONE, |meta| meta.version);
    lease::check(&node, &group, map.epoch).await?;
    may_show(&node, &group, permit, (map.key, version)).await?;
    let ranges = ranges
        .into_iter()
        .map(|(offset_bytes, len_bytes)| pb::DataRange { offset_bytes, len_bytes })
        .collect();
    Ok(Response::new(pb::MapReply { ranges }))
}

/// Waits, at the primary, until the version that was read is committed.
pub(crate) async fn may_show(
    node: &Arc<Node>,
    group: &Arc<Group>,
    permit: ReadPermit,
    at: (ChunkKey, Version),
) -> Result<(), Status> {
    let mut verdict = Ok(ReadVerdict::Show);
    let answer = group.ask(node, |token, replica, io| {
        verdict = replica.read(token, permit, at);
        if !matches!(verdict, Ok(ReadVerdict::Wait)) {
            io.effects.push(chunkserver_core::Effect::Answer { token, result: Ok(Default::default()) });
        }
    });
    let answer = answer.await;
    verdict.map_err(status)?;
    answer.map_err(status)?;
    Ok(())
}
