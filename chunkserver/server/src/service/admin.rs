//! The `ChunkAdmin` service: a look inside, by frames and by gRPC.

use std::sync::Arc;

use chunkserver_api::pb;
use chunkserver_core::Stage;
use kuafu::{Request, Response, Status};

use crate::node::Node;

#[derive(Debug)]
pub(crate) struct AdminService(pub(crate) Arc<Node>);

impl pb::ChunkAdmin for AdminService {
    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusReply>, Status> {
        let node = &self.0;
        let disks = node.disks.iter().map(|disk| {
            let usage = disk.engine.usage();
            let failure = disk.engine.failure();
            pb::DiskStatus {
                disk: disk.id().map_or(0, |id| id.0),
                uuid: disk.engine.disk_uuid().to_vec().into(),
                path: disk.path.display().to_string(),
                capacity_bytes: usage.capacity_bytes,
                used_bytes: usage.used_bytes,
                chunks: disk.engine.chunk_count(),
                failed: failure.is_some(),
                failure: failure.map_or_else(String::new, |failure| failure.to_string()),
            }
        });
        let groups = node.replicas().into_iter().map(|group| pb::GroupStatus {
            group: group.id.0,
            epoch: group.epoch().0,
            primary: group.is_primary(),
            active: group.stage() == Stage::Active,
            syncing: group.stage() == Stage::Syncing,
            chunks_behind: group.behind() as u64,
        });
        let reply = pb::StatusReply {
            server: node.server_id().map_or(0, |id| id.0),
            disks: disks.collect(),
            groups: groups.collect(),
        };
        Ok(Response::new(reply))
    }
}
