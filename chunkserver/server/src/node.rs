//! What all parts of one chunkserver share: disks, groups, table, connections.
//!
//! Lock order: `groups` or `table`, then a group's own lock; no lock is held across an await.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chunkserver_core::{MemberInfo, Stage, Token, View};
use chunkserver_engine::{EngineError, aside};
use coord_types::{DiskId, GroupId, ServerId};
use kuafu::{Address, CancellationToken};
use master_api::model::{MemberState, Table};
use master_api::proto;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};
use zhongkui_access::Access;

use crate::commits::Commits;
use crate::disks::Disk;
use crate::followed::Followed;
use crate::group::Group;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::repair::Repairs;
use crate::room;
use crate::scrub::ScrubPeriod;
use crate::service::replica::Assemblies;
use crate::space::Space;
use crate::throttle::Throttle;
use crate::tokens::Tokens;

/// Chunks on their way to other members at the same time. Each may hold 64 MiB there until its last piece is in.
const INSTALLS_MAX: usize = 4;

/// A server is reported once in so long, however many calls to it fail.
const REPORT_PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Suspect {
    noted: Instant,
    reported: bool,
}

/// News in one heartbeat; the rest goes with the next.
const NEWS_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Node {
    /// Drawn at the start of the process; grows from start to start.
    pub(crate) incarnation: u64,
    pub(crate) disks: Vec<Arc<Disk>>,
    pub(crate) followed: Followed,
    /// 0 before the first registration.
    pub(crate) server: AtomicU32,
    groups: RwLock<BTreeMap<GroupId, Vec<Arc<Group>>>>,
    table: Mutex<Arc<Table>>,
    /// Where all masters are, as the leader last said.
    masters: Mutex<Vec<Address>>,
    /// The version of the newest table of which every replica here has heard.
    adopted: AtomicU64,
    pub(crate) peers: Peers,
    pub(crate) access: Access,
    pub(crate) shown: Tokens,
    pub(crate) commits: Commits,
    pub(crate) space: Space,
    pub(crate) assemblies: Assemblies,
    pub(crate) installs: Semaphore,
    /// The same for members that are being filled. Apart, because such a chunk may wait for an activation, which may wait
    /// for an install.
    pub(crate) fills: Semaphore,
    pub(crate) throttle: Throttle,
    pub(crate) repairs: Repairs,
    pub(crate) scrub: ScrubPeriod,
    /// Servers of other members that could not be reached, and when that was last noted; the next heartbeat takes along
    /// who was noted since the one before.
    suspects: Mutex<BTreeMap<ServerId, Suspect>>,
    /// Somebody is ahead of our table, or the master should hear of something: send a heartbeat now.
    pub(crate) refresh: Notify,
    pub(crate) lease: Lease,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    renew_damaged: bool,
    /// A disk was condemned.
    pub(crate) condemned: CancellationToken,
    /// There is room again on a file system that a disk failed for lack of.
    pub(crate) room_again: CancellationToken,
    tokens: AtomicU64,
}

impl Node {
    pub(crate) fn new(disks: Vec<Arc<Disk>>, access: Access, renew_damaged: bool) -> Self {
        Self {
            incarnation: clock_nanos(),
            followed: Followed::load(&disks),
            disks,
            server: AtomicU32::new(0),
            groups: RwLock::default(),
            table: Mutex::default(),
            masters: Mutex::default(),
            adopted: AtomicU64::new(0),
            peers: Peers::default(),
            access,
            shown: Tokens::default(),
            commits: Commits::default(),
            space: Space::default(),
            assemblies: Assemblies::default(),
            installs: Semaphore::new(INSTALLS_MAX),
            fills: Semaphore::new(INSTALLS_MAX),
            suspects: Mutex::default(),
            throttle: Throttle::default(),
            repairs: Repairs::default(),
            scrub: ScrubPeriod::default(),
            refresh: Notify::new(),
            lease: Lease::default(),
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
            renew_damaged,
            condemned: CancellationToken::new(),
            room_again: CancellationToken::new(),
            tokens: AtomicU64::new(1),
        }
    }

    pub(crate) fn token(&self) -> Token {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn server_id(&self) -> Option<ServerId> {
        Some(self.server.load(Ordering::Relaxed)).filter(|id| *id != 0).map(ServerId)
    }

    /// Empty until the leader said it.
    pub(crate) fn masters(&self) -> Vec<Address> {
        self.masters.lock().clone()
    }

    pub(crate) fn learn_masters(&self, masters: Vec<Address>) {
        if !masters.is_empty() {
            *self.masters.lock() = masters;
        }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.lock().clone()
    }

    /// The newest table that every replica here follows.
    pub(crate) fn adopted(&self) -> u64 {
        self.adopted.load(Ordering::Acquire)
    }

    pub(crate) fn disk(&self, id: DiskId) -> Option<&Arc<Disk>> {
        self.disks.iter().find(|disk| disk.id() == Some(id))
    }

    /// The replica of a group on a disk.
    pub(crate) fn replica(&self, disk: DiskId, group: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&group)?.iter().find(|replica| replica.disk_id == disk).cloned()
    }

    /// The same, made if there is none yet.
    pub(crate) fn replica_or_new(
        &self,
        disk: &Arc<Disk>,
        id: DiskId,
        group: GroupId,
    ) -> Result<Arc<Group>, EngineError> {
        if let Some(replica) = self.replica(id, group) {
            return Ok(replica);
        }
        let promised = disk.promised(group)?;
        let mut groups = self.groups.write();
        let replicas = groups.entry(group).or_default();
        if let Some(replica) = replicas.iter().find(|replica| replica.disk_id == id) {
            return Ok(replica.clone());
        }
        let replica = Arc::new(Group::new(group, id, disk.clone(), promised));
        replicas.push(replica.clone());
        Ok(replica)
    }

    /// The replica of a group that should answer clients: the primary if one of our disks is it, or one that serves.
    pub(crate) fn replica_for_clients(&self, group: GroupId) -> Option<Arc<Group>> {
        let groups = self.groups.read();
        let replicas = groups.get(&group)?;
        if let [only] = replicas.as_slice() {
            return Some(only.clone());
        }
        replicas
            .iter()
            .find(|replica| replica.is_primary())
            .or_else(|| replicas.iter().find(|replica| replica.is_serving()))
            .or_else(|| replicas.first())
            .cloned()
    }

    pub(crate) fn replicas(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().flatten().cloned().collect()
    }

    /// Whether a group with members elsewhere has to go on without this server when it stops.
    pub(crate) fn is_missed(&self) -> bool {
        let table = self.table();
        let mine: Vec<_> = self.disks.iter().filter_map(|disk| disk.id()).collect();
        table.groups().any(|group| {
            let here = group.serving().filter(|disk| mine.contains(disk)).count();
            here > 0 && here < group.serving().count()
        })
    }

    /// What the master should hear of the groups led from here: who is level, which epoch with a joining member is active, and
    /// where another member should lead.
    pub(crate) fn group_news(&self) -> Vec<proto::GroupNews> {
        let table = self.table();
        let mut news = Vec::new();
        for group in table.groups() {
            let Some(replica) = group.primary().and_then(|disk| self.replica(disk, group.id)) else {
                continue;
            };
            if replica.epoch() != group.epoch {
                continue;
            }
            let mut add = |level_disk, damaged| {
                let (group, epoch) = (group.id.0, group.epoch.0);
                news.push(proto::GroupNews { group, epoch, level_disk, damaged });
            };
            if group.in_state(MemberState::Syncing).next().is_some() {
                replica.level().into_iter().for_each(|disk| add(disk.0, false));
            }
            let joins = group.in_state(MemberState::Joining).next().is_some();
            // A member that could not be made equal must not serve: it may lack what was acknowledged.
            let equal = !replica.is_broken();
            if joins && equal && replica.is_primary() && replica.stage() == Stage::Active {
                add(0, false);
            }
            if replica.is_broken() {
                add(0, true);
            }
        }
        news.truncate(NEWS_MAX);
        news
    }

    /// A member's server could not be reached: the master should look.
    pub(crate) fn suspect(&self, disk: DiskId) {
        let Some(server) = self.table().server_of(disk).map(|server| server.id) else { return };
        let now = Instant::now();
        let mut suspects = self.suspects.lock();
        if suspects.get(&server).is_some_and(|known| now.duration_since(known.noted) < REPORT_PERIOD) {
            return;
        }
        suspects.insert(server, Suspect { noted: now, reported: false });
        self.refresh.notify_one();
    }

    /// Who was noted since this was last asked.
    pub(crate) fn take_suspects(&self) -> Vec<u32> {
        let mut suspects = self.suspects.lock();
        let new = suspects.iter_mut().filter(|(_, suspect)| !suspect.reported);
        new.map(|(server, suspect)| {
            suspect.reported = true;
            server.0
        })
        .collect()
    }

    /// Takes a newer table into use.
    pub(crate) fn adopt(self: &Arc<Self>, table: Table) {
        let table = Arc::new(table);
        {
            let mut known = self.table.lock();
            if table.version < known.version {
                return;
            }
            *known = table.clone();
        }
        self.peers.update(&table, &self.access.transport());
        for group in table.groups() {
            for disk in self.disks.iter().filter(|disk| !disk.failed()) {
                let Some(id) = disk.id() else { continue };
                // Also one that was removed: it must hear of the epoch without it.
                if group.state_of(id).is_some() || self.replica(id, group.id).is_some() {
                    self.adopt_group(disk, id, group, &table);
                }
            }
        }
        // A table that another task adopts meanwhile is newer: it tells the replicas the same and more.
        self.adopted.fetch_max(table.version, Ordering::AcqRel);
    }

    fn adopt_group(
        self: &Arc<Self>,
        disk: &Arc<Disk>,
        id: DiskId,
        group: &master_api::model::Group,
        table: &Table,
    ) {
        let info = |disk| MemberInfo {
            disk,
            incarnation: table.server_of(disk).map_or(0, |server| server.incarnation),
        };
        let serving = group.serving().map(info).collect();
        let syncing = group.in_state(MemberState::Syncing).map(info).collect();
        let short = group.serving().count() < table.min_replicas as usize;
        let view = View { epoch: group.epoch, serving, syncing, short };
        match self.replica_or_new(disk, id, group.id) {
            Ok(replica) => replica.table(self, view),
            Err(error) => tracing::error!(group = %group.id, disk = %id, %error, "take a group into use"),
        }
    }

    /// The disk failed: its groups stop, the next heartbeat tells the master.
    pub(crate) fn disk_failed(self: &Arc<Self>, disk: &Arc<Disk>, error: &EngineError) {
        let mut stopped = 0;
        for replica in self.replicas() {
            if Arc::ptr_eq(&replica.disk, disk) && replica.stop(self) {
                stopped += 1;
            }
        }
        if stopped > 0 {
            tracing::error!(path = %disk.path.display(), %error, groups = stopped, "the disk failed and is out");
        }
        let Some(failure) = disk.engine.failure() else { return };
        if failure.is_damage() {
            self.condemn(disk, error);
        }
        if failure.is_full() && disk.waits_for_room() {
            tokio::spawn(room::wait(self.clone(), disk.clone()));
        }
    }

    /// Metadata of the disk is not what was written: the next start makes the disk anew.
    pub(crate) fn condemn(&self, disk: &Disk, error: &EngineError) {
        let path = disk.path.display();
        tracing::error!(%path, %error, "damaged metadata");
        if !self.renew_damaged || self.condemned.is_cancelled() {
            return;
        }
        match aside::condemn(&disk.path, &error.to_string()) {
            Ok(()) => self.condemned.cancel(),
            Err(error) => tracing::error!(%path, %error, "cannot note that the disk is to be made anew"),
        }
    }

    /// The process goes: everything that holds disks is let go.
    pub(crate) fn forget_groups(self: &Arc<Self>) {
        for replica in self.replicas() {
            replica.stop(self);
        }
        self.groups.write().clear();
    }
}

/// Nanoseconds since 1970. Used only for numbers that should grow from start to start; where they do not (a clock set
/// back), the protocol notices.
pub(crate) fn clock_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
}
