//! The members, for people and programs.

use std::sync::Arc;
use std::time::Duration;

use coord_raft::{Leader, Newcomer, Removal};
use kuafu::{Address, CallOptions, Client, Request, Response, Status};
use nuwa_api::proto::{self, NuwaAdminClient};
use zhongkui_access::Holder;

use crate::access;
use crate::app::{App, raft_status};
use crate::service::export;

/// What a member is called in messages to people.
const KIND: &str = "member";
/// The new member's answer to who it is.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `NuwaAdmin`.
pub(crate) struct Admin(pub(crate) Arc<App>);

impl proto::NuwaAdmin for Admin {
    /// Answered by every member from what it knows.
    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusReply>, Status> {
        let raft = self.0.raft.status();
        let members = raft.members.iter().map(|(id, member)| proto::Member {
            id: *id,
            address: member.address.clone(),
            voter: member.voter,
            silent_ms: member.silence.map(|silence| silence.as_millis() as u64),
            matched_index: member.matched_index,
        });
        Ok(Response::new(proto::StatusReply {
            member_id: raft.node_id,
            leader: raft.leader.map(|leader| leader.address).unwrap_or_default(),
            leads: self.0.leads(),
            term: raft.term,
            last_log_index: raft.last_log_index,
            applied_index: raft.applied_index,
            revision: self.0.revision()?,
            members: members.collect(),
            failure: raft.failure.unwrap_or_default(),
            watchers: self.0.hub.waiters(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            restoring: self.0.is_restoring()?,
        }))
    }

    async fn add_member(
        &self,
        request: Request<proto::AddMemberRequest>,
    ) -> Result<Response<proto::AddMemberReply>, Status> {
        let text = request.message.address;
        let address: Address = text.parse().map_err(|error| {
            Status::invalid_argument(format!("{text:?} is no address of a member: {error}"))
        })?;
        self.0.raft.must_lead().map_err(raft_status)?;
        let newcomer = who(&self.0, &address).await?;
        let id = newcomer.member_id;
        let newcomer = Newcomer {
            kind: KIND,
            id,
            address: address.to_string(),
            last_log_index: newcomer.last_log_index,
        };
        let already = self.0.raft.admit(newcomer, request.deadline).await.map_err(raft_status)?;
        Ok(Response::new(proto::AddMemberReply { id, already }))
    }

    async fn remove_member(
        &self,
        request: Request<proto::RemoveMemberRequest>,
    ) -> Result<Response<proto::RemoveMemberReply>, Status> {
        let removal = self.0.raft.expel(KIND, request.message.id, request.deadline).await;
        match removal.map_err(raft_status)? {
            Removal::Done => Ok(Response::new(proto::RemoveMemberReply {})),
            Removal::AskLeader(leader) => Err(raft_status(Leader::not_leader(Some(&leader)))),
        }
    }

    async fn export(
        &self,
        request: Request<proto::ExportRequest>,
    ) -> Result<Response<proto::ExportReply>, Status> {
        access::check(&*Holder::of(&request)?, [access::export()])?;
        Ok(Response::new(export::export(&self.0, request.message, request.deadline).await?))
    }
}

async fn who(app: &App, address: &Address) -> Result<proto::StatusReply, Status> {
    let client = NuwaAdminClient::new(Client::new(address.clone(), app.config.access.transport()));
    let reply = client.status(&proto::StatusRequest {}, &CallOptions::within(ASK_TIMEOUT)).await;
    reply.map(|reply| reply.message).map_err(|error| {
        Status::invalid_argument(format!(
            "no member answers at {address} ({error}): start it there with --join first"
        ))
    })
}
