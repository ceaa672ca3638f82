//! The tree and its sessions, for clients. The hot path: a change goes straight into the log.

use std::sync::Arc;

use bytes::Bytes;
use coord_raft::ProposalStamp;
use coord_types::SessionId;
use kuafu::{Request, Response, Status};
use nuwa_api::proto::{self, command};
use prost::Message as _;

use crate::app::App;
use crate::service::{read, watch};

/// Of one leader.
const SESSIONS_MAX: usize = 100_000;
/// A few of them end meanwhile.
const SESSIONS_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves `Nuwa`.
pub(crate) struct Tree(pub(crate) Arc<App>);

impl proto::Nuwa for Tree {
    async fn change(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::Reply>, Status> {
        let proto::ChangeRequest { stamp, command } = request.message;
        let command = command.ok_or_else(|| Status::invalid_argument("the change has no command"))?;
        if matches!(command.what, Some(command::What::OpenSession(_))) && self.0.leases.len() >= SESSIONS_MAX
        {
            return Err(Status::busy(format!("{SESSIONS_MAX} sessions are open"), SESSIONS_DELAY));
        }
        let stamp = stamp.map(|stamp| {
            self.0.leases.heard(stamp.session);
            ProposalStamp {
                session: SessionId(stamp.session),
                seq: stamp.sequence,
                acknowledged_below: stamp.acknowledged_below,
            }
        });
        let command = Bytes::from(command.encode_to_vec());
        Ok(Response::new(self.0.propose(stamp, command, request.deadline).await?))
    }

    async fn read(&self, request: Request<proto::ReadRequest>) -> Result<Response<proto::ReadReply>, Status> {
        Ok(Response::new(read::read(&self.0, request.message, request.deadline).await?))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<proto::WatchReply>, Status> {
        Ok(Response::new(watch::watch(&self.0, request.message, request.deadline).await?))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewReply>, Status> {
        let session = request.message.session;
        // First its time, then whether this member leads: nobody else began to before the time was given.
        let ttl = self.0.leases.heard(session);
        self.0.barrier(request.deadline).await?;
        if let Some(ttl) = ttl {
            let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
            return Ok(Response::new(proto::RenewReply { open: true, ttl_ms }));
        }
        let known = nuwa_core::query::session(&self.0.view(), session);
        match known.map_err(|error| crate::app::store_status(&error))? {
            // This leader has only just begun.
            Some(record) if !record.ending => Err(Status::unavailable("the sessions are not known yet")),
            Some(_) | None => Ok(Response::new(proto::RenewReply::default())),
        }
    }
}
