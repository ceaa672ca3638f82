//! A master that numbers servers and disks as they come, and makes its groups when there are three.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::{DiskId, GroupId};
use kuafu::{Address, CancellationToken, Request, Response, Server, Status};
use master_api::proto;
use parking_lot::Mutex;
use zhongkui_access::Access;

/// Groups; their primaries go round.
pub(crate) const GROUPS: u32 = 6;
const REPLICAS: usize = 3;

#[derive(Debug)]
struct State {
    /// By uuid; one disk each, with the server's number.
    servers: BTreeMap<Vec<u8>, proto::Server>,
    groups: Vec<proto::Group>,
    version: u64,
    scrub_period_ms: u64,
    lease_ms: u64,
    heartbeat_ms: u64,
    /// When heartbeats of the third server came, and whether it had a lease.
    heartbeats: Vec<(Instant, bool)>,
    /// Calls for the table of servers that are not registered.
    looks: u32,
    /// The last of each server.
    last: BTreeMap<u32, proto::HeartbeatRequest>,
    /// Heartbeats are told of a newer table and do not get it.
    withheld: bool,
    /// Tables that are sent make no sense.
    spoilt: bool,
    /// The next registration is answered without numbers.
    unnumbered: bool,
    /// Groups whose data may go, and those that were asked about.
    may_drop: BTreeSet<u32>,
    asked_to_drop: Vec<u32>,
    cluster_id: &'static str,
    /// As it is shown; the epoch of a master that was restored.
    epoch: u64,
    /// Taken off the end of the log that is shown.
    behind: u64,
}

impl State {
    fn lineage(&self) -> Option<proto::Lineage> {
        let log_index = self.version.saturating_sub(self.behind);
        Some(proto::Lineage { cluster_id: self.cluster_id.to_owned(), epoch: self.epoch, log_index })
    }
}

#[derive(Debug)]
struct Cluster(Arc<Mutex<State>>);

/// A running master.
pub(crate) struct FakeMaster {
    pub(crate) address: Address,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl FakeMaster {
    pub(crate) async fn start(socket: &Path) -> Self {
        let state = Arc::new(Mutex::new(State {
            servers: BTreeMap::new(),
            groups: Vec::new(),
            version: 0,
            scrub_period_ms: 0,
            lease_ms: 4000,
            heartbeat_ms: 100,
            heartbeats: Vec::new(),
            looks: 0,
            last: BTreeMap::new(),
            withheld: false,
            spoilt: false,
            unnumbered: false,
            may_drop: BTreeSet::new(),
            asked_to_drop: Vec::new(),
            cluster_id: "test",
            epoch: 5,
            behind: 0,
        }));
        let address = Address::Unix(socket.to_owned());
        let server = Server::builder()
            .authorizer(Access::process().guard().build())
            .service(proto::ClusterServer::new(Arc::new(Cluster(state.clone()))))
            .build();
        let bound = server.bind(&address).await.expect("the master listens");
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(bound.serve(stop.clone())));
        Self { address, state, stop, task }
    }

    /// What chunkservers that register from now on are told. 0: not to scrub.
    pub(crate) fn set_scrub_period(&self, period: Duration) {
        self.state.lock().scrub_period_ms = u64::try_from(period.as_millis()).expect("a short period");
    }

    /// How long leases last that are granted from now on.
    pub(crate) fn set_lease(&self, lease: Duration) {
        self.state.lock().lease_ms = u64::try_from(lease.as_millis()).expect("a short lease");
    }

    /// How often servers that register from now on say that they are there.
    pub(crate) fn set_heartbeat(&self, period: Duration) {
        self.state.lock().heartbeat_ms = u64::try_from(period.as_millis()).expect("a short period");
    }

    /// When heartbeats of the third server came, and whether it had a lease.
    pub(crate) fn heartbeats(&self) -> Vec<(Instant, bool)> {
        self.state.lock().heartbeats.clone()
    }

    /// The last heartbeat of the server that has this disk.
    pub(crate) fn last_heartbeat(&self, disk: DiskId) -> Option<proto::HeartbeatRequest> {
        let state = self.state.lock();
        let server = state.servers.values().find(|server| server.disks.contains(&disk.0))?;
        state.last.get(&server.id).cloned()
    }

    /// And looks.
    pub(crate) fn forget_heartbeats(&self) {
        let mut state = self.state.lock();
        state.heartbeats.clear();
        state.looks = 0;
    }

    /// How often servers that are not registered looked whether to follow.
    pub(crate) fn looks(&self) -> u32 {
        self.state.lock().looks
    }

    /// From now on there is always a newer table than what servers have, and heartbeats do not bring it.
    pub(crate) fn withhold_tables(&self) {
        self.state.lock().withheld = true;
    }

    /// What answers show from now on: a cluster epoch, and a log that is that much shorter than it is.
    pub(crate) fn show(&self, epoch: u64, behind: u64) {
        let mut state = self.state.lock();
        (state.epoch, state.behind) = (epoch, behind);
    }

    /// Whose master answers say that it is, from now on.
    pub(crate) fn belong_to(&self, cluster_id: &'static str) {
        self.state.lock().cluster_id = cluster_id;
    }

    pub(crate) fn spoil_tables(&self, spoilt: bool) {
        self.state.lock().spoilt = spoilt;
    }

    pub(crate) fn leave_out_disks_once(&self) {
        self.state.lock().unnumbered = true;
    }

    /// The group goes on without the disk.
    pub(crate) fn take_out(&self, disk: DiskId, group: GroupId) {
        let mut state = self.state.lock();
        state.version += 1;
        let group = state.groups.iter_mut().find(|known| known.id == group.0).expect("a group");
        group.epoch += 1;
        group.members.retain(|member| member.disk != disk.0);
    }

    pub(crate) fn may_drop(&self, group: GroupId) {
        self.state.lock().may_drop.insert(group.0);
    }

    /// The groups whose data somebody wanted to delete, as they were asked about.
    pub(crate) fn asked_to_drop(&self) -> Vec<u32> {
        self.state.lock().asked_to_drop.clone()
    }

    /// The master is away from now on.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        self.task.take().expect("it runs").await.expect("it ends without a panic");
    }

    pub(crate) fn has_groups(&self) -> bool {
        !self.state.lock().groups.is_empty()
    }

    pub(crate) fn primary(&self, group: GroupId) -> DiskId {
        let state = self.state.lock();
        let group = state.groups.iter().find(|known| known.id == group.0).expect("a group");
        DiskId(group.members[0].disk)
    }

    pub(crate) fn disk_of(&self, address: &str) -> Option<DiskId> {
        let state = self.state.lock();
        state.servers.values().find(|server| server.address == address).map(|server| DiskId(server.disks[0]))
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl proto::Cluster for Cluster {
    async fn register_server(
        &self,
        request: Request<proto::RegisterServerRequest>,
    ) -> Result<Response<proto::RegisterServerReply>, Status> {
        let message = request.message;
        let mut state = self.0.lock();
        let next = u32::try_from(state.servers.len()).expect("few") + 1;
        let server = state.servers.entry(message.uuid.to_vec()).or_insert_with(|| proto::Server {
            id: next,
            disks: vec![next],
            ..proto::Server::default()
        });
        server.address = message.address;
        server.location = message.location;
        server.incarnation = message.incarnation;
        server.disk_states = message.disks;
        let id = server.id;
        state.version += 1;
        if state.servers.len() == REPLICAS && state.groups.is_empty() {
            let disks: Vec<_> = state.servers.values().map(|server| server.disks[0]).collect();
            state.groups = (0..GROUPS)
                .map(|group| {
                    let mut members: Vec<_> = disks
                        .iter()
                        .map(|disk| proto::Member { disk: *disk, state: proto::MemberState::Serving as i32 })
                        .collect();
                    members.rotate_left(group as usize % REPLICAS);
                    proto::Group { id: group + 1, epoch: 1, members }
                })
                .collect();
        }
        Ok(Response::new(proto::RegisterServerReply {
            server: id,
            disks: if std::mem::take(&mut state.unnumbered) { Vec::new() } else { vec![id] },
            cluster_id: "test".to_owned(),
            heartbeat_ms: state.heartbeat_ms,
            lease_ms: state.lease_ms,
            resync_bytes_per_s: 200 << 20,
            scrub_period_ms: state.scrub_period_ms,
            lineage: state.lineage(),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let mut state = self.0.lock();
        if request.message.server == 3 {
            state.heartbeats.push((Instant::now(), request.message.leased));
        }
        let known = state.servers.values().find(|server| server.id == request.message.server);
        let register_again = known.is_none_or(|server| server.incarnation != request.message.incarnation);
        let table_version = state.version + u64::from(state.withheld || state.spoilt);
        let news = request.message.table_version != table_version && !state.withheld;
        let table = news.then(|| table(&state));
        let lease_ms = state.lease_ms;
        state.last.insert(request.message.server, request.message);
        let lineage = state.lineage();
        Ok(Response::new(proto::HeartbeatReply {
            lease_ms,
            register_again,
            table_version,
            table,
            lineage,
            time_s: 0,
        }))
    }

    async fn report(
        &self,
        _request: Request<proto::ReportRequest>,
    ) -> Result<Response<proto::ReportReply>, Status> {
        Ok(Response::new(proto::ReportReply {}))
    }

    async fn may_drop(
        &self,
        request: Request<proto::MayDropRequest>,
    ) -> Result<Response<proto::MayDropReply>, Status> {
        let mut state = self.0.lock();
        let group = request.message.group;
        state.asked_to_drop.push(group);
        let may = state.may_drop.contains(&group);
        Ok(Response::new(proto::MayDropReply { may, lineage: state.lineage() }))
    }

    async fn goodbye(
        &self,
        _request: Request<proto::GoodbyeRequest>,
    ) -> Result<Response<proto::GoodbyeReply>, Status> {
        Ok(Response::new(proto::GoodbyeReply {}))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableReply>, Status> {
        // News are looked for now and then: a test's master need not be quick.
        let until = Instant::now() + Duration::from_millis(request.message.wait_ms);
        // Of a server that has no number yet.
        self.0.lock().looks += u32::from(request.message.server == 0);
        loop {
            {
                let state = self.0.lock();
                if request.message.known_version != state.version || state.spoilt {
                    return Ok(Response::new(proto::GetTableReply {
                        table: Some(table(&state)),
                        lineage: state.lineage(),
                        ..proto::GetTableReply::default()
                    }));
                }
            }
            if Instant::now() >= until {
                return Ok(Response::new(proto::GetTableReply {
                    table: None,
                    ..proto::GetTableReply::default()
                }));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn table(state: &State) -> proto::Table {
    let mut groups = state.groups.clone();
    if state.spoilt {
        groups.iter_mut().for_each(|group| group.members[0].state = 99);
    }
    proto::Table {
        version: state.version + u64::from(state.spoilt),
        servers: state.servers.values().cloned().collect(),
        groups,
        replicas: 3,
        min_replicas: 2,
    }
}
