//! Writes, punches and raises of clients, at the primary.

use std::sync::Arc;

use chunkserver_api::pb;
use chunkserver_api::{Punch, RaiseFence, Write};
use chunkserver_core::Done;
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, Fence, Stamp};
use kuafu::{Request, Response, Status};
use zhongkui::Rights;

use crate::group::{Body, Content};
use crate::node::Node;
use crate::service::{chunk, invalid, status};
use crate::space::offered_bytes;

/// What a raise writes to a fence record: a hole in a chunk that has nothing else. The number is in its stamp.
const RAISE: Content = Content {
    offset_bytes: 0,
    chunk_size_bytes: 64 << 10,
    body: Body::Punch { len_bytes: BLOCK_SIZE as u32 },
};

pub(crate) async fn write(
    node: Arc<Node>,
    request: Request<pb::WriteRequest>,
) -> Result<Response<pb::WriteReply>, Status> {
    let len_bytes = request.payload.len();
    let write = Write::from_request(&request.message, len_bytes).map_err(invalid)?;
    chunk::must_have_token(&node, &request, write.key.chunk.data, Rights::WRITE)?;
    let content = Content {
        offset_bytes: write.offset_bytes,
        chunk_size_bytes: write.chunk_size_bytes,
        body: Body::Data { data: request.payload, block_crcs: request.message.block_crcs },
    };
    let done = order(&node, write.key, write.epoch, (write.stamp, write.fence), content).await?;
    node.metrics.writes.add(1);
    node.metrics.written_bytes.add(len_bytes as u64);
    Ok(Response::new(pb::WriteReply {
        version: Some(done.version.into()),
        allocated_delta_bytes: done.allocated_delta_bytes,
    }))
}

pub(crate) async fn punch(
    node: Arc<Node>,
    request: Request<pb::PunchRequest>,
) -> Result<Response<pb::PunchReply>, Status> {
    let punch = Punch::try_from(&request.message).map_err(invalid)?;
    chunk::must_have_token(&node, &request, punch.key.chunk.data, Rights::WRITE)?;
    let content = Content {
        offset_bytes: punch.offset_bytes,
        chunk_size_bytes: punch.chunk_size_bytes,
        body: Body::Punch { len_bytes: punch.len_bytes },
    };
    let done = order(&node, punch.key, punch.epoch, (punch.stamp, punch.fence), content).await?;
    node.metrics.punches.add(1);
    Ok(Response::new(pb::PunchReply {
        version: Some(done.version.into()),
        allocated_delta_bytes: done.allocated_delta_bytes,
    }))
}

pub(crate) async fn raise_fence(
    node: Arc<Node>,
    request: Request<pb::RaiseFenceRequest>,
) -> Result<Response<pb::RaiseFenceReply>, Status> {
    let RaiseFence { record, epoch, fence } = (&request.message).try_into().map_err(invalid)?;
    chunk::must_have_token(&node, &request, record.chunk.data, Rights::WRITE)?;
    order(&node, record, epoch, (Some(fence.stamp()), fence), RAISE).await?;
    node.metrics.raises.add(1);
    Ok(Response::new(pb::RaiseFenceReply {}))
}

async fn order(
    node: &Arc<Node>,
    key: ChunkKey,
    epoch: Epoch,
    (stamp, fence): (Option<Stamp>, Fence),
    content: Content,
) -> Result<Done, Status> {
    let group = chunk::replica(node, key.group, epoch)?;
    if let Body::Data { data, .. } = &content.body {
        let needed = data.len() as u64;
        if offered_bytes(&group.disk.engine.usage()) < needed {
            return Err(Status::full(format!("the primary's disk {:?} is full", group.disk_id)));
        }
        if let Some(disk) = group.peers().iter().find(|disk| node.space.lacks(**disk, needed)) {
            return Err(Status::full(format!("{disk:?}, a member of {:?}, is full", key.group)));
        }
    }
    group.load.note(match &content.body {
        Body::Data { data, .. } => data.len() as u64,
        Body::Punch { .. } => 0,
    });
    group
        .ask(node, |token, replica, io| {
            replica.write(chunkserver_core::Write { token, key, epoch, stamp, fence, content }, io);
        })
        .await
        .map_err(status)
}
