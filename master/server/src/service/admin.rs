//! Administration, for people and programs: by frames and by gRPC.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use coord_types::{DiskId, InodeId};
use kuafu::{Request, Response, Status};
use master_api::model::{Attr, Query, Table};
use master_api::proto;
use master_core::{Command, CommandReply};

use crate::access::{Caller, Denied};
use crate::app::{App, store_status};
use crate::service::cluster::{table_seen, usage_seen};
use crate::service::masters;

/// Serves `Admin`.
pub(crate) struct Admin(pub(crate) Arc<App>);

impl proto::Admin for Admin {
    /// Answered by every member from what it knows; `leader_id` says whom to ask for more.
    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusReply>, Status> {
        let raft = self.0.raft.status();
        let view = self.0.raft.view();
        let cluster = master_core::table::cluster(&view).map_err(|error| store_status(&error))?;
        let counters = master_core::counters(&view).map_err(|error| store_status(&error))?;
        let leader_id = raft.leader.as_ref().map_or(0, |leader| leader.id);
        let members = raft
            .members
            .iter()
            .map(|(id, member)| proto::MasterMember {
                id: *id,
                address: member.address.clone(),
                voter: member.voter,
                leader: *id == leader_id,
                silent_ms: member.silence.map_or(0, |silence| silence.as_millis() as u64),
            })
            .collect();
        let usage = usage_seen(&self.0, &view)?;
        Ok(Response::new(proto::StatusReply {
            cluster_id: cluster.map(|cluster| cluster.cluster_id).unwrap_or_default(),
            member_id: raft.node_id,
            leader_id,
            term: raft.term,
            last_log_index: raft.last_log_index,
            applied_index: raft.applied_index,
            members,
            table: Some(proto::Table::from(&table_seen(&self.0, &view)?)),
            usage: Some(usage.into()),
            sessions: counters.map_or(0, |counters| counters.sessions),
            deletions_pending: counters.map_or(0, |counters| counters.deletions_pending),
            lineage: self.0.lineage()?,
        }))
    }

    async fn r#where(
        &self,
        request: Request<proto::WhereRequest>,
    ) -> Result<Response<proto::WhereReply>, Status> {
        let caller = Caller::of(&self.0, &request, 0).await?;
        let file = request.message.file.ok_or_else(|| Status::invalid_argument("no file is named"))?;
        let view = self.0.current(request.deadline).await?;
        match find(&view, file, &caller) {
            Ok(attr) => {
                let table = table_seen(&self.0, &view)?;
                let groups = groups_of(&attr, &table);
                Ok(Response::new(proto::WhereReply { errno: 0, attr: Some((&attr).into()), groups }))
            }
            Err(Denied::Errno(errno)) => {
                let errno = errno.wire();
                Ok(Response::new(proto::WhereReply { errno, ..proto::WhereReply::default() }))
            }
            Err(Denied::Status(status)) => Err(status),
        }
    }

    async fn add_master(
        &self,
        request: Request<proto::AddMasterRequest>,
    ) -> Result<Response<proto::AddMasterReply>, Status> {
        masters::add(&self.0, &request.message, request.deadline).await.map(Response::new)
    }

    async fn remove_master(
        &self,
        request: Request<proto::RemoveMasterRequest>,
    ) -> Result<Response<proto::RemoveMasterReply>, Status> {
        masters::remove(&self.0, request.message.id, request.deadline).await?;
        Ok(Response::new(proto::RemoveMasterReply {}))
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainReply>, Status> {
        let proto::DrainRequest { disks, draining } = request.message;
        let command = Command::DrainDisks { disks: disks.iter().copied().map(DiskId).collect(), draining };
        self.0.command(&command, request.deadline).await?;
        tracing::info!(?disks, draining, "disks marked");
        // Groups may be missing without these disks, or become possible with them.
        self.0.registered.notify_one();
        self.0.soft.news.notify_one();
        Ok(Response::new(proto::DrainReply {}))
    }

    async fn new_epoch(
        &self,
        request: Request<proto::NewEpochRequest>,
    ) -> Result<Response<proto::NewEpochReply>, Status> {
        self.0.current(request.deadline).await?;
        self.0.superseded.store(false, Ordering::Relaxed);
        let reply = self.0.command(&Command::NewEpoch, request.deadline).await?;
        let CommandReply::Epoch(epoch) = reply else {
            return Err(Status::internal("the cluster epoch was not raised"));
        };
        tracing::warn!(
            epoch,
            "the cluster epoch was raised: the state is an older copy that is to be followed"
        );
        Ok(Response::new(proto::NewEpochReply { epoch }))
    }

    async fn set_replicas(
        &self,
        request: Request<proto::SetReplicasRequest>,
    ) -> Result<Response<proto::SetReplicasReply>, Status> {
        let proto::SetReplicasRequest { replicas, min_replicas } = request.message;
        self.0.command(&Command::SetReplicas { replicas, min_replicas }, request.deadline).await?;
        tracing::info!(replicas, min_replicas, "replicas set");
        self.0.registered.notify_one();
        self.0.soft.news.notify_one();
        Ok(Response::new(proto::SetReplicasReply {}))
    }

    async fn move_master(
        &self,
        request: Request<proto::MoveMasterRequest>,
    ) -> Result<Response<proto::MoveMasterReply>, Status> {
        masters::move_to(&self.0, &request.message.address, request.deadline).await?;
        Ok(Response::new(proto::MoveMasterReply {}))
    }
}

fn find(view: &coord_raft::View, file: proto::where_request::File, caller: &Caller) -> Result<Attr, Denied> {
    let query = match file {
        proto::where_request::File::Path(path) => Query::Resolve(path),
        proto::where_request::File::Ino(ino) => Query::GetAttr(InodeId(ino)),
    };
    caller.admit_query(view, &query)?;
    let answer = master_core::query(view, &query)?;
    answer.attr.ok_or(Denied::Errno(master_api::Errno::ENOENT))
}

fn groups_of(attr: &Attr, table: &Table) -> Vec<proto::WhereGroup> {
    let groups = attr.layout.iter().flat_map(|layout| layout.groups());
    groups
        .filter_map(|id| table.group(*id))
        .map(|group| proto::WhereGroup {
            group: group.id.0,
            epoch: group.epoch.0,
            places: group
                .members
                .iter()
                .map(|member| {
                    let server = table.server_of(member.disk);
                    proto::Place {
                        disk: member.disk.0,
                        server: server.map_or(0, |server| server.id.0),
                        address: server.map(|server| server.address.clone()).unwrap_or_default(),
                        location: server.map(|server| server.location.clone()).unwrap_or_default(),
                        state: proto::MemberState::from(member.state).into(),
                    }
                })
                .collect(),
        })
        .collect()
}
