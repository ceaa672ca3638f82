//! Chunkservers: registration, heartbeats, and the table of groups for whoever needs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::{DiskId, GroupId, ServerId};
use kuafu::{Request, Response, Status};
use master_api::model::{DiskState, Server, StatFs, Table};
use master_api::proto;
use master_core::health::{GroupNews, ServerSeen};
use master_core::table::plan;
use master_core::{Command, CommandReply};

use zhongkui::{Rights, Target};
use zhongkui_access::Holder;
use zhongkui_access::holder::now;

use crate::app::{App, store_status};
use crate::background::groups;

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
            number: 0,
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
        // Of a lease this says nothing: it may have one from before.
        self.0.soft.heard_server(registered.server, seen, true);
        self.0.soft.news.notify_one();
        self.0.registered.notify_one();
        Ok(Response::new(proto::RegisterServerReply {
            server: registered.server.0,
            disks: registered.disks.iter().map(|disk| disk.0).collect(),
            cluster_id: registered.cluster_id,
            heartbeat_ms: millis(self.0.config.chunkserver_heartbeat),
            lease_ms: millis(self.0.config.chunkserver_lease),
            resync_bytes_per_s: self.0.config.resync_bytes_per_s,
            scrub_period_ms: millis(self.0.config.scrub_period),
            lineage: self.0.lineage()?,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let message = request.message;
        let server = ServerId(message.server);
        let view = self.0.current(request.deadline).await?;
        self.0.compare(message.known)?;
        let registered = match self.0.soft.server(server) {
            Some(seen) => seen.incarnation == message.incarnation,
            // This leader has not heard of it yet: the table has.
            None => master_core::table::server(&view, server)
                .map_err(|error| store_status(&error))?
                .is_some_and(|known| known.incarnation == message.incarnation),
        };
        let mut leased = false;
        if registered {
            let seen = ServerSeen {
                incarnation: message.incarnation,
                number: message.number,
                heard: Instant::now(),
                disks: message.disks,
            };
            leased = self.0.soft.heard_server(server, seen, message.leased);
            self.0.soft.group_loads(&message.loads, Instant::now());
            self.0.soft.group_news(message.news.iter().map(GroupNews::from));
            message.suspects.iter().for_each(|server| self.0.soft.suspect(ServerId(*server)));
        }
        // After it was heard: what was decided before that is in this table, and nothing is decided against it since.
        let table_version = table_version(&view)?;
        let table = if table_version == message.table_version {
            None
        } else {
            Some(proto::Table::from(&table_seen(&self.0, &view)?))
        };
        Ok(Response::new(proto::HeartbeatReply {
            lease_ms: if leased { millis(self.0.config.chunkserver_lease) } else { 0 },
            register_again: !registered,
            table_version,
            table,
            lineage: self.0.lineage()?,
            time_s: now().0.into(),
        }))
    }

    async fn get_table(
        &self,
        mut request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableReply>, Status> {
        admit_get_table(&mut request)?;
        let wanted = request.message;
        let until = Instant::now() + Duration::from_millis(wanted.wait_ms).min(TABLE_WAIT_MAX);
        let mut next = self.0.table_version.subscribe();
        let mut leadership = self.0.raft.watch_leadership();
        let mut masters = self.0.raft.watch_members();
        let mut stream = (wanted.server != 0).then(|| Stream::open(&self.0, ServerId(wanted.server)));
        let reply = loop {
            next.mark_unchanged();
            leadership.mark_unchanged();
            masters.mark_unchanged();
            let view = match self.0.current(request.deadline).await {
                Ok(view) => view,
                Err(status) => break Err(status),
            };
            if let Err(status) = self.0.compare(wanted.known.clone()) {
                break Err(status);
            }
            if table_version(&view)? != wanted.known_version {
                let table = table_seen(&self.0, &view)?;
                break Ok(self.0.table_reply(Some(proto::Table::from(&table)), self.0.lineage()?));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.0.masters_version() != wanted.masters_version {
                break Ok(self.0.table_reply(None, self.0.lineage()?));
            }
            tokio::select! {
                _ = next.changed() => {}
                _ = leadership.changed() => {}
                _ = masters.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        };
        if let Some(stream) = &mut stream {
            stream.ended = true;
        }
        reply.map(Response::new)
    }

    async fn report(
        &self,
        request: Request<proto::ReportRequest>,
    ) -> Result<Response<proto::ReportReply>, Status> {
        self.0.current(request.deadline).await?;
        self.0.soft.suspect(ServerId(request.message.server));
        Ok(Response::new(proto::ReportReply {}))
    }

    async fn goodbye(
        &self,
        request: Request<proto::GoodbyeRequest>,
    ) -> Result<Response<proto::GoodbyeReply>, Status> {
        let server = ServerId(request.message.server);
        self.0.current(request.deadline).await?;
        tracing::info!(%server, "chunkserver says goodbye");
        self.0.soft.gone(server, request.message.incarnation, true);
        while groups::round(&self.0).await? {}
        Ok(Response::new(proto::GoodbyeReply {}))
    }

    async fn may_drop(
        &self,
        request: Request<proto::MayDropRequest>,
    ) -> Result<Response<proto::MayDropReply>, Status> {
        let view = self.0.current(request.deadline).await?;
        let may = may_drop(&self.0, &view, &request.message)?;
        Ok(Response::new(proto::MayDropReply { may, lineage: self.0.lineage()? }))
    }
}

/// Clients need the table. Who says that a chunkserver lives, or that these masters are an old copy, must be one.
fn admit_get_table(request: &mut Request<proto::GetTableRequest>) -> Result<(), Status> {
    let holder = Holder::of(request)?;
    let method = Target::Method("feitian.master.v1.Cluster/GetTable");
    if request.message.server != 0 {
        holder.check(Rights::ADMINISTER, &method)?;
    } else if !holder.may(Rights::ADMINISTER, &method) {
        request.message.known = None;
    }
    Ok(())
}

/// As the leader sees the group now.
fn may_drop(app: &App, view: &coord_raft::View, wanted: &proto::MayDropRequest) -> Result<bool, Status> {
    let table = master_core::table::table(view).map_err(|error| store_status(&error))?;
    let seen = app.soft.seen(&table, &app.config.limits(), Instant::now());
    Ok(plan::may_drop(&table, &seen, GroupId(wanted.group), DiskId(wanted.disk)))
}

/// Longest that a call for the next table is held: well below what anything on the way may take for a dead call.
const TABLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// A call of a chunkserver that waits here. If it is dropped before it ended its connection broke.
struct Stream {
    app: Arc<App>,
    server: ServerId,
    ended: bool,
}

impl Stream {
    fn open(app: &Arc<App>, server: ServerId) -> Self {
        app.soft.stream_opened(server);
        Self { app: Arc::clone(app), server, ended: false }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.app.soft.stream_closed(self.server, !self.ended);
    }
}

fn table_version(view: &coord_raft::View) -> Result<u64, Status> {
    let counters = master_core::counters(view).map_err(|error| store_status(&error))?;
    Ok(counters.map_or(0, |counters| counters.table_version))
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
    for mut disk in seen.disks.iter().filter_map(|disk| DiskState::try_from(disk).ok()) {
        for (id, state) in server.disks.iter_mut().filter(|(_, state)| state.uuid == disk.uuid) {
            disk.vitals.pace = app.soft.pace(*id);
            disk.vitals.failing = disk.vitals.errors > app.config.errors_max;
            // A disk that another server replaced is not told so: its own server is gone.
            *state = DiskState { draining: state.draining, failed: state.failed || disk.failed, ..disk };
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
