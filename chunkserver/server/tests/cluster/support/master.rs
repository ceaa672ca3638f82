//! A master that numbers servers and disks as they come, and makes its groups when there are three.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coord_types::{DiskId, GroupId};
use kuafu::{Address, CancellationToken, Request, Response, Server, Status};
use master_api::proto;
use parking_lot::Mutex;

/// Groups; their primaries go round.
pub(crate) const GROUPS: u32 = 6;
const REPLICAS: usize = 3;

#[derive(Debug, Default)]
struct State {
    /// By uuid; one disk each, with the server's number.
    servers: BTreeMap<Vec<u8>, proto::Server>,
    groups: Vec<proto::Group>,
    version: u64,
    scrub_period_ms: u64,
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
        let state = Arc::new(Mutex::new(State::default()));
        let address = Address::Unix(socket.to_owned());
        let server =
            Server::builder().service(proto::ClusterServer::new(Arc::new(Cluster(state.clone())))).build();
        let bound = server.bind(&address).await.expect("the master listens");
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(bound.serve(stop.clone())));
        Self { address, state, stop, task }
    }

    /// What chunkservers that register from now on are told. 0: not to scrub.
    pub(crate) fn set_scrub_period(&self, period: Duration) {
        self.state.lock().scrub_period_ms = u64::try_from(period.as_millis()).expect("a short period");
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
            disks: vec![id],
            cluster_id: "test".to_owned(),
            heartbeat_ms: 100,
            lease_ms: 4000,
            resync_bytes_per_s: 200 << 20,
            scrub_period_ms: state.scrub_period_ms,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatReply>, Status> {
        let state = self.0.lock();
        let known = state.servers.values().find(|server| server.id == request.message.server);
        let register_again = known.is_none_or(|server| server.incarnation != request.message.incarnation);
        let table_version = state.version;
        let table = (request.message.table_version != table_version).then(|| table(&state));
        Ok(Response::new(proto::HeartbeatReply { lease_ms: 4000, register_again, table_version, table }))
    }

    async fn report(
        &self,
        _request: Request<proto::ReportRequest>,
    ) -> Result<Response<proto::ReportReply>, Status> {
        Ok(Response::new(proto::ReportReply {}))
    }

    async fn may_drop(
        &self,
        _request: Request<proto::MayDropRequest>,
    ) -> Result<Response<proto::MayDropReply>, Status> {
        Ok(Response::new(proto::MayDropReply { may: false }))
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
        let until = std::time::Instant::now() + Duration::from_millis(request.message.wait_ms);
        loop {
            {
                let state = self.0.lock();
                if request.message.known_version != state.version {
                    return Ok(Response::new(proto::GetTableReply { table: Some(table(&state)) }));
                }
            }
            if std::time::Instant::now() >= until {
                return Ok(Response::new(proto::GetTableReply { table: None }));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn table(state: &State) -> proto::Table {
    proto::Table {
        version: state.version,
        servers: state.servers.values().cloned().collect(),
        groups: state.groups.clone(),
        replicas: 3,
        min_replicas: 2,
    }
}
