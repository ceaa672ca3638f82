//! The namespace and sessions, for mounts. The hot path: a query is a lease check and some reads of the store, a
//! mutation goes straight into the log.

use std::sync::Arc;
use std::time::Instant;

use coord_raft::ProposalStamp;
use coord_types::SessionId;
use kuafu::{Code, Request, Response, Status};
use master_api::convert;
use master_api::model::{Answer, Errno, Mutation, Query};
use master_api::proto;
use master_core::{Command, CommandReply, OpError, session};
use prost::Message as _;

use crate::access::{Caller, Denied};
use crate::app::{App, being_made, store_status};
use crate::service::cluster::usage_seen;
use crate::service::watch;
use crate::tokens;

/// Serves `Namespace`.
pub(crate) struct Namespace(pub(crate) Arc<App>);

impl Namespace {
    fn lease_ms(&self) -> u64 {
        u64::try_from(self.0.config.session_lease.as_millis()).unwrap_or(u64::MAX)
    }
}

impl proto::Namespace for Namespace {
    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<proto::OpenSessionReply>, Status> {
        let caller = Caller::of(&self.0, &request, 0).await?;
        let description = request.message.description;
        let owner = caller.holder().name().to_owned();
        let open = Command::OpenSession { description: description.clone(), owner: owner.clone() };
        let reply = self.0.command(&open, request.deadline).await?;
        let CommandReply::SessionOpened(session) = reply else {
            return Err(Status::internal("a session was not opened"));
        };
        self.0.soft.heard_session(session, Instant::now());
        let cluster = master_core::table::cluster(&self.0.raft.view())
            .map_err(|error| store_status(&error))?
            .ok_or_else(being_made)?;
        self.0.soft.note_session_owner(session, owner.clone());
        tracing::info!(%session, description, owner, "session opened");
        Ok(Response::new(proto::OpenSessionReply {
            session: session.0,
            lease_ms: self.lease_ms(),
            cluster_id: cluster.cluster_id,
            lineage: self.0.lineage()?,
            token: tokens::whole(&self.0, &caller, session.0).await?,
        }))
    }

    async fn renew_session(
        &self,
        request: Request<proto::RenewSessionRequest>,
    ) -> Result<Response<proto::RenewSessionReply>, Status> {
        let id = SessionId(request.message.session);
        let view = self.0.current(request.deadline).await?;
        let caller = Caller::of(&self.0, &request, id.0).await?;
        if !session::is_open(&view, id).map_err(|error| store_status(&error))? {
            return Err(Status::not_found(format!("session {id} is over")));
        }
        self.0.soft.heard_session(id, Instant::now());
        let counters = master_core::counters(&view).map_err(|error| store_status(&error))?;
        Ok(Response::new(proto::RenewSessionReply {
            lease_ms: self.lease_ms(),
            table_version: counters.map_or(0, |counters| counters.table_version),
            lineage: self.0.lineage()?,
            token: tokens::whole(&self.0, &caller, id.0).await?,
        }))
    }

    async fn close_session(
        &self,
        request: Request<proto::CloseSessionRequest>,
    ) -> Result<Response<proto::CloseSessionReply>, Status> {
        let session = SessionId(request.message.session);
        match Caller::of(&self.0, &request, session.0).await {
            Ok(_) => {}
            // It has ended already.
            Err(status) if status.code == Code::NotFound => {
                return Ok(Response::new(proto::CloseSessionReply {}));
            }
            Err(status) => return Err(status),
        }
        end_session(&self.0, session, request.deadline).await?;
        tracing::info!(%session, "session closed");
        Ok(Response::new(proto::CloseSessionReply {}))
    }

    async fn mutate(
        &self,
        request: Request<proto::MutateRequest>,
    ) -> Result<Response<proto::MutateReply>, Status> {
        let caller = Caller::of(&self.0, &request, request.message.session).await?;
        let mut message = request.message;
        let asked = || {
            let op = message.op.clone().ok_or(Errno::EINVAL)?;
            Mutation::try_from(op).map_err(|invalid| convert::Invalid::errno(&invalid))
        };
        match caller.admit_mutation(asked, request.deadline).await {
            Ok(None) => {}
            Ok(Some(mutation)) => message.op = Some(mutation.into()),
            Err(Denied::Errno(errno)) => {
                let errno = errno.wire();
                return Ok(Response::new(proto::MutateReply { errno, ..proto::MutateReply::default() }));
            }
            Err(Denied::Status(status)) => return Err(status),
        }
        let stamp = ProposalStamp {
            session: SessionId(message.session),
            seq: message.sequence,
            acknowledged_below: message.acknowledged_below,
        };
        let reply = self.0.propose(Some(stamp), message.encode_to_vec().into(), request.deadline).await?;
        let reply = proto::MutateReply::decode(reply)
            .map_err(|error| Status::internal(format!("the reply of a mutation cannot be read: {error}")))?;
        Ok(Response::new(reply))
    }

    async fn query(
        &self,
        request: Request<proto::QueryRequest>,
    ) -> Result<Response<proto::QueryReply>, Status> {
        let caller = match Caller::of(&self.0, &request, request.message.session).await {
            // Looking needs no session; without one nothing is held open for the caller.
            Err(status) if status.code == Code::NotFound => Caller::of(&self.0, &request, 0).await?,
            caller => caller?,
        };
        let op = request.message.op.ok_or_else(|| Status::invalid_argument("the query asks nothing"))?;
        let answer = match Query::try_from(op) {
            Ok(Query::StatFs) => {
                let view = self.0.current(request.deadline).await?;
                Ok(Answer { stat_fs: Some(usage_seen(&self.0, &view)?), ..Answer::default() })
            }
            Ok(query) => {
                let view = self.0.current(request.deadline).await?;
                match caller.admit_query(&view, &query) {
                    Ok(()) => match master_core::query(&view, &query) {
                        Ok(answer) => Ok(answer),
                        Err(OpError::Errno(errno)) => Err(errno),
                        Err(error @ OpError::Store(_)) => return Err(store_status(&error)),
                    },
                    Err(Denied::Errno(errno)) => Err(errno),
                    Err(Denied::Status(status)) => return Err(status),
                }
            }
            Err(invalid) => Err(convert::Invalid::errno(&invalid)),
        };
        Ok(Response::new(answer.into()))
    }

    async fn tokens(
        &self,
        request: Request<proto::TokensRequest>,
    ) -> Result<Response<proto::TokensReply>, Status> {
        let view = self.0.current(request.deadline).await?;
        let caller = Caller::of(&self.0, &request, request.message.session).await?;
        if !session::is_open(&view, SessionId(request.message.session))
            .map_err(|error| store_status(&error))?
        {
            return Err(Status::not_found(format!("session {} is over", request.message.session)));
        }
        tokens::wanted(&self.0, &caller, &request.message, &view).await.map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<proto::WatchReply>, Status> {
        let caller = Caller::of(&self.0, &request, request.message.session).await?;
        watch::watch(&self.0, &caller, request.message, request.deadline).await.map(Response::new)
    }
}

/// Ends a session, in as many commands as its orphans need.
pub(crate) async fn end_session(app: &App, session: SessionId, deadline: Instant) -> Result<(), Status> {
    loop {
        match app.command(&Command::EndSession { session }, deadline).await? {
            CommandReply::SessionEnded(session::Ended::More) => {}
            CommandReply::SessionEnded(session::Ended::Gone) => {
                app.soft.forget_session(session);
                app.hub.forget_session(session);
                return Ok(());
            }
            other => return Err(Status::internal(format!("a session was not ended: {other:?}"))),
        }
    }
}
