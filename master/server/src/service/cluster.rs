//! Chunkservers: registration, heartbeats, and the table of groups for whoever needs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::ServerId;
use kuafu::{Request, Response, Status};
use master_api::model::{DiskState, Server, StatFs, Table};
use master_api::proto;
use master_core::{Command, CommandReply};

use crate::app::{App, store_status};
use crate::soft::ServerSeen;

/// Serves `Cluster`.
pub(crate) struct Cluster(pub(crate) Arc<App>);

impl proto::Cluster for Cluster {
    async fn register_server(
        &self,
        request: Request<proto::RegisterServerRequest>,
    ) -> Result<Response<proto::RegisterServerReply>, Status> {
        let message = request.message;
        let seen = ServerSeen {
            incarnation: message.incarnation,
            heard: Instant::now(),
            disks: message.disks.clone(),
        };
        let (address, location) = (message.address.clone(), message.location.clone());
        let reply = self.0.command(&Command::RegisterServer(message), request.deadline).await?;
        let CommandReply::Registered(registered) = reply else {
            return Err(Status::internal("a chunkserver was not registered"));
        };
        tracing::info!(server = %registered.server, address, location, "chunkserver registered");
        for warning in &registered.warnings {
            tracing::warn!(warning, "chunkserver registered");
        }
        self.0.soft.heard_server(registered.server, seen);
        self.0.registered.notify_one();
        Ok(Response::new(proto::RegisterServerReply {
            server: registered.server.0,
            disks: registered.disks.iter().map(|disk| disk.0).collect(),
            cluster_id: registered.cluster_id,
            heartbeat_ms: millis(self.0.config.chunkserver_heartbeat),
            lease_ms: millis(self.0.config.chunkserver_lease),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let message = request.message;
        let server = ServerId(message.server);
        let view = self.0.current(request.deadline).await?;
        let registered = match self.0.soft.server(server) {
            Some(seen) => seen.incarnation == message.incarnation,
            // This leader has not heard of it yet: the table has.
            None => master_core::table::server(&view, server)
                .map_err(|error| store_status(&error))?
                .is_some_and(|known| known.incarnation == message.incarnation),
        };
        if registered {
            let seen =
                ServerSeen { incarnation: message.incarnation, heard: Instant::now(), disks: message.disks };
            self.0.soft.heard_server(server, seen);
        }
        let counters = master_core::counters(&view).map_err(|error| store_status(&error))?;
        Ok(Response::new(proto::HeartbeatReply {
            lease_ms: millis(self.0.config.chunkserver_lease),
            register_again: !registered,
            table_version: counters.map_or(0, |counters| counters.table_version),
        }))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableReply>, Status> {
        let view = self.0.current(request.deadline).await?;
        let counters = master_core::counters(&view).map_err(|error| store_status(&error))?;
        let version = counters.map_or(0, |counters| counters.table_version);
        if version == request.message.known_version {
            return Ok(Response::new(proto::GetTableReply { table: None }));
        }
        let table = table_seen(&self.0, &view)?;
        Ok(Response::new(proto::GetTableReply { table: Some(proto::Table::from(&table)) }))
    }
}

/// The size of the whole by the newest numbers of all disks.
pub(crate) fn usage_seen(app: &App, view: &coord_raft::View) -> Result<StatFs, Status> {
    let counters = master_core::counters(view).map_err(|error| store_status(&error))?;
    let cluster = master_core::table::cluster(view).map_err(|error| store_status(&error))?;
    let replicas = cluster.map_or(1, |cluster| u64::from(cluster.replicas.max(1)));
    let mut servers = master_core::table::servers(view).map_err(|error| store_status(&error))?;
    for server in &mut servers {
        refresh(app, server);
    }
    let disks = servers.iter().flat_map(|server| &server.disks).filter(|(_, disk)| !disk.failed);
    let (total, used) = disks.fold((0_u64, 0_u64), |(total, used), (_, disk)| {
        (total.saturating_add(disk.capacity_bytes), used.saturating_add(disk.used_bytes))
    });
    Ok(StatFs {
        total_bytes: total / replicas,
        used_bytes: used / replicas,
        inodes_used: counters.map_or(0, |counters| counters.inodes),
    })
}

/// Puts what the last heartbeat said of a server's disks in place of what it said when it registered.
fn refresh(app: &App, server: &mut Server) {
    let Some(seen) = app.soft.server(server.id) else { return };
    for disk in seen.disks.iter().filter_map(|disk| DiskState::try_from(disk).ok()) {
        for (_, state) in server.disks.iter_mut().filter(|(_, state)| state.uuid == disk.uuid) {
            *state = disk;
        }
    }
}

/// The table with what the leader heard from the chunkservers since.
pub(crate) fn table_seen(app: &App, view: &coord_raft::View) -> Result<Table, Status> {
    let mut table = master_core::table::table(view).map_err(|error| store_status(&error))?;
    let now = Instant::now();
    for server in table.servers_mut() {
        server.silent_ms = app.soft.server_silence(server.id, now).map_or(0, millis);
        refresh(app, server);
    }
    Ok(table)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
