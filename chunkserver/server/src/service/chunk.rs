//! The `Chunk` service: what file system clients call.

use std::future::Future;
use std::sync::Arc;

use chunkserver_api::pb;
use coord_types::{DataId, Epoch, GroupId};
use kuafu::{Request, Response, Status};
use zhongkui::Rights;

use crate::group::Group;
use crate::node::Node;
use crate::service::{read, write};

#[derive(Debug)]
pub(crate) struct ChunkService(pub(crate) Arc<Node>);

impl pb::Chunk for ChunkService {
    fn write(
        &self,
        request: Request<pb::WriteRequest>,
    ) -> impl Future<Output = Result<Response<pb::WriteReply>, Status>> + Send {
        write::write(self.0.clone(), request)
    }

    fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> impl Future<Output = Result<Response<pb::ReadReply>, Status>> + Send {
        read::read(self.0.clone(), request)
    }

    fn punch(
        &self,
        request: Request<pb::PunchRequest>,
    ) -> impl Future<Output = Result<Response<pb::PunchReply>, Status>> + Send {
        write::punch(self.0.clone(), request)
    }

    fn raise_fence(
        &self,
        request: Request<pb::RaiseFenceRequest>,
    ) -> impl Future<Output = Result<Response<pb::RaiseFenceReply>, Status>> + Send {
        write::raise_fence(self.0.clone(), request)
    }

    async fn show_tokens(
        &self,
        request: Request<pb::ShowTokensRequest>,
    ) -> Result<Response<pb::ShowTokensReply>, Status> {
        self.0.shown.show(&self.0.access, &request)?;
        Ok(Response::new(pb::ShowTokensReply {}))
    }

    fn map(
        &self,
        request: Request<pb::MapRequest>,
    ) -> impl Future<Output = Result<Response<pb::MapReply>, Status>> + Send {
        read::map(self.0.clone(), request)
    }
}

/// Whether the caller was given a token for these data.
pub(crate) fn must_have_token<T>(
    node: &Node,
    request: &Request<T>,
    data: DataId,
    needs: Rights,
) -> Result<(), Status> {
    node.shown.check(request, data, needs, node.followed.known().epoch)
}

/// The replica that answers; a client that knows a newer epoch than we makes us ask the master.
pub(crate) fn replica(node: &Node, group: GroupId, epoch: Epoch) -> Result<Arc<Group>, Status> {
    let replica = node.replica_for_clients(group);
    if replica.as_ref().is_none_or(|replica| epoch > replica.epoch()) {
        node.refresh.notify_one();
    }
    replica.ok_or_else(|| Status::unavailable(format!("this server has no disk of {group:?} (yet)")))
}
