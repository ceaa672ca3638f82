//! A chunkserver: one `Replica` of `chunkserver-core` for each group, a disk, a lease, the newest table. Its loops towards the masters
//! are those of `chunkserver/server/src/heartbeat.rs`, with their constants scaled to the run's shorter leases.

pub(crate) mod effects;
pub(crate) mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunkserver_api::Read;
use chunkserver_core::{Io, Lease, MemberInfo, ReadPermit, Replica, Stage, Token, View};
use coord_types::{ChunkKey, DiskId, GroupId, ServerId, Version};
use master_model::{Group, MemberState, Table, proto};

use crate::bug::Bug;
use crate::clock::{Clock, MS, Micros};
use crate::disk::{Content, Disk, GroupStore, Rec};
use crate::message::{About, End, Failure, News, Reply, Request};
use crate::world::{Event, HEARTBEAT, LEASE, SURPLUS, Timer, World};

const CALL_TIMEOUT: Micros = 400 * MS;
const NEWS_PAUSE: Micros = 5 * MS;
const TABLE_WAIT_MS: u64 = 2000;
const TABLE_GRACE: Micros = 500 * MS;
const REPORT_PERIOD: Micros = 500 * MS;

/// Who waits for an answer of a replica.
#[derive(Debug)]
pub(crate) enum Who {
    /// A client's write.
    Write {
        call: u64,
        key: ChunkKey,
        id: u64,
    },
    /// Another member; `page`: what it wants of the list.
    Member {
        call: u64,
        group: GroupId,
        page: Option<Option<ChunkKey>>,
    },
    Read(u64),
    /// What was read for a member that is being filled waits until it is committed.
    Fill {
        peer: DiskId,
        at: (coord_types::Epoch, u64),
        key: ChunkKey,
        rec: Option<Arc<Rec>>,
    },
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct Reading {
    call: u64,
    read: Read,
    permit: ReadPermit,
    rec: Rec,
    /// Members that have not confirmed the epoch, if there is no lease.
    unconfirmed: usize,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) at: usize,
    pub(crate) up: bool,
    /// Grows with each start.
    pub(crate) life: u64,
    /// What it calls itself: from its wall clock, but growing.
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) uuid: u64,
    location: String,
    pub(crate) disk: Disk,
    pub(crate) disk_id: Option<DiskId>,
    pub(crate) id: Option<ServerId>,
    pub(crate) table: Arc<Table>,
    adopted: u64,
    pub(crate) lease: Lease,
    pub(crate) replicas: BTreeMap<GroupId, Replica<Content>>,
    waiting: BTreeMap<Token, Who>,
    reads: BTreeMap<u64, Reading>,
    commits: BTreeMap<DiskId, News>,
    flush_planned: bool,
    suspects: BTreeMap<ServerId, (Micros, bool)>,
    /// Which master is asked, by each of the two loops, and how often in a row it failed.
    masters: [usize; 2],
    failures: [u32; 2],
    beating: bool,
    /// Heartbeats of this process.
    beats: u64,
    /// The alarm for the next heartbeat that counts.
    next_beat: u64,
    /// A heartbeat is wanted at once.
    wanted: bool,
    joined: bool,
    /// Frozen until then: a stopped process, a host without CPU.
    pub(crate) frozen_until: Micros,
    /// Said goodbye, stops soon.
    pub(crate) leaving: bool,
}

/// "tcp://..." of a server.
pub(crate) fn address(at: usize) -> String {
    format!("tcp://10.0.0.{at}:7000")
}

/// The server at an address of the table.
pub(crate) fn at_address(address: &str) -> Option<usize> {
    address.strip_prefix("tcp://10.0.0.")?.strip_suffix(":7000")?.parse().ok()
}

pub(crate) fn uuid_bytes(uuid: u64) -> [u8; 16] {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&uuid.to_le_bytes());
    bytes
}

impl Server {
    pub(crate) fn new(at: usize, rack: char, clock: Clock, disk: Disk) -> Self {
        Self {
            at,
            up: false,
            life: 0,
            incarnation: 0,
            clock,
            uuid: 1000 + at as u64,
            location: format!("/r/{rack}/h{at}"),
            disk,
            disk_id: None,
            id: None,
            table: Arc::new(Table::default()),
            adopted: 0,
            lease: Lease::default(),
            replicas: BTreeMap::new(),
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            commits: BTreeMap::new(),
            flush_planned: false,
            suspects: BTreeMap::new(),
            masters: [0; 2],
            failures: [0; 2],
            beating: false,
            beats: 0,
            next_beat: 0,
            wanted: false,
            joined: false,
            frozen_until: 0,
            leaving: false,
        }
    }

    /// What only lives in memory is gone.
    pub(crate) fn forget(&mut self) {
        let clock = self.clock;
        let disk = std::mem::replace(&mut self.disk, Disk::new(0, None));
        let (at, life, incarnation, uuid) = (self.at, self.life, self.incarnation, self.uuid);
        let location = self.location.clone();
        *self = Self { life, incarnation, uuid, location, ..Self::new(at, ' ', clock, disk) };
    }

    pub(crate) fn rack(&self) -> &str {
        self.location.split('/').nth(2).unwrap_or_default()
    }

    fn disk_states(&self, write_latency_us: Micros) -> Vec<proto::Disk> {
        vec![proto::Disk {
            write_latency_us,
            uuid: uuid_bytes(self.disk.uuid).to_vec().into(),
            capacity_bytes: 1 << 40,
            failed: self.disk.failed,
            ..proto::Disk::default()
        }]
    }

    /// `chunkserver/server/src/node.rs`, `group_news`.
    fn group_news(&self, bug: Option<Bug>) -> Vec<proto::GroupNews> {
        let mut news = Vec::new();
        for group in self.table.groups().filter(|group| group.primary() == self.disk_id) {
            let Some(replica) = self.replicas.get(&group.id).filter(|r| r.epoch() == group.epoch) else {
                continue;
            };
            let mut add = |level_disk| {
                let (group, epoch) = (group.id.0, group.epoch.0);
                news.push(proto::GroupNews { group, epoch, level_disk, damaged: false });
            };
            replica.level().for_each(|disk| add(disk.0));
            let joins = group.in_state(MemberState::Joining).next().is_some();
            let active = replica.stage() == Stage::Active || bug == Some(Bug::SettleEarly);
            if joins && replica.is_primary() && active {
                add(0);
            }
        }
        news
    }
}

impl World {
    pub(crate) fn find_server(&self, id: ServerId) -> Option<usize> {
        let table = &self.newest;
        table.server(id).and_then(|server| at_address(&server.address))
    }

    /// Runs an event on a replica, then its effects.
    pub(crate) fn event<R>(
        &mut self,
        s: usize,
        group: GroupId,
        event: impl FnOnce(&mut Replica<Content>, &mut Io<'_, GroupStore<'_>, Content>) -> R,
    ) -> Option<R> {
        let server = &mut self.servers[s];
        if !server.up {
            return None;
        }
        let mut effects = Vec::new();
        let replica = server.replicas.get_mut(&group)?;
        let before = replica.stage();
        let store = GroupStore { disk: &server.disk, group };
        let result = event(replica, &mut Io { store: &store, effects: &mut effects });
        let active = before != replica.stage() && replica.stage() == Stage::Active && replica.is_primary();
        for effect in effects {
            self.effect(s, group, effect);
        }
        if active {
            self.count("activations");
            self.refresh(s);
        }
        Some(result)
    }

    pub(crate) fn token(&mut self, s: usize, who: Who) -> Token {
        let token = self.fresh();
        self.servers[s].waiting.insert(token, who);
        token
    }

    /// Starts a process.
    pub(crate) fn start_server(&mut self, s: usize) {
        let server = &mut self.servers[s];
        server.forget();
        server.up = true;
        server.life += 1;
        // As the product draws it: by the clock, but growing from start to start.
        let clock = server.clock.wall_nanos(self.now);
        server.incarnation = clock.max(server.incarnation + 1);
        let masters = self.masters.len();
        let first = self.dice.index(masters);
        self.servers[s].masters = [first; 2];
        self.trace(|| format!("server {s} starts"));
        self.beat_in(s, 0);
        self.timer(s, 10 * MS, Timer::Follow);
        self.timer(s, SURPLUS, Timer::Surplus);
    }

    /// A heartbeat is wanted at once.
    pub(crate) fn refresh(&mut self, s: usize) {
        let server = &mut self.servers[s];
        if std::mem::replace(&mut server.wanted, true) || server.beating || server.failures[0] > 0 {
            return;
        }
        self.beat_in(s, NEWS_PAUSE);
    }

    fn beat_in(&mut self, s: usize, delay: Micros) {
        let number = self.fresh();
        self.servers[s].next_beat = number;
        self.timer(s, delay, Timer::Heartbeat { number });
    }

    pub(crate) fn timer(&mut self, s: usize, delay: Micros, timer: Timer) {
        let life = self.servers[s].life;
        self.at(self.now + delay, Event::ServerTimer { server: s, life, timer });
    }

    pub(crate) fn server_timer(&mut self, s: usize, timer: Timer) {
        match timer {
            Timer::Heartbeat { number } => {
                if self.servers[s].next_beat == number {
                    self.beat(s);
                }
            }
            Timer::Follow => self.follow(s),
            Timer::Surplus => self.surplus(s),
            Timer::Flush => self.flush_commits(s),
            Timer::Retry { group, activation } => {
                self.event(s, group, |replica, io| replica.retry(activation, io));
            }
            Timer::RetryFill { group, peer, activation } => {
                self.event(s, group, |replica, io| replica.retry_fill(peer, activation, io));
            }
            Timer::ReadDone { read } => self.read_done(s, read),
            Timer::Leave => {
                if self.servers[s].leaving {
                    self.stop_server(s);
                }
            }
        }
    }

    fn beat(&mut self, s: usize) {
        let now = self.now;
        let server = &mut self.servers[s];
        if server.beating || server.leaving {
            return;
        }
        server.beating = true;
        server.wanted = false;
        server.beats += 1;
        let latency = server.disk.latency(now, &mut self.dice);
        let to = End::Master(server.masters[0]);
        let Some(id) = server.id else {
            let request = proto::RegisterServerRequest {
                uuid: uuid_bytes(server.uuid).to_vec().into(),
                address: address(s),
                location: server.location.clone(),
                disks: server.disk_states(latency),
                incarnation: server.incarnation,
                cluster_id: String::new(),
            };
            self.call(End::Server(s), to, Request::Register(request), About::Register, CALL_TIMEOUT);
            return;
        };
        let sent = server.clock.instant(now);
        let new = server.suspects.iter_mut().filter(|(_, (_, reported))| !*reported);
        let suspects = new.map(|(server, (_, reported))| {
            *reported = true;
            server.0
        });
        let suspects = suspects.collect();
        let request = proto::HeartbeatRequest {
            server: id.0,
            incarnation: server.incarnation,
            disks: server.disk_states(latency),
            table_version: server.table.version,
            news: server.group_news(self.options.bug),
            suspects,
            leased: server.lease.holds(sent),
            number: if self.options.bug == Some(Bug::LateHeartbeat) { 0 } else { server.beats },
            known: None,
            loads: Vec::new(),
        };
        let timeout = CALL_TIMEOUT.min(LEASE_US / 4);
        self.call(End::Server(s), to, Request::Heartbeat(request), About::Heartbeat { sent }, timeout);
    }

    fn follow(&mut self, s: usize) {
        let server = &self.servers[s];
        let Some(id) = server.id else { return self.timer(s, 50 * MS, Timer::Follow) };
        let request = proto::GetTableRequest {
            known_version: server.table.version,
            wait_ms: TABLE_WAIT_MS,
            server: id.0,
            incarnation: server.incarnation,
            masters_version: 0,
            known: None,
        };
        let to = End::Master(server.masters[1]);
        let timeout = TABLE_WAIT_MS * MS + TABLE_GRACE;
        self.call(End::Server(s), to, Request::GetTable(request), About::Follow, timeout);
    }

    /// A loop's call failed: the next master, after a pause once all were asked.
    pub(crate) fn next_master(&mut self, s: usize, which: usize, failure: Failure) -> Micros {
        let masters = self.masters.len();
        let server = &mut self.servers[s];
        server.failures[which] = server.failures[which].saturating_add(1);
        server.masters[which] = match failure {
            Failure::NotLeader(Some(hint)) => hint,
            _ => (server.masters[which] + 1) % masters,
        };
        let rounds = server.failures[which] / masters as u32;
        if rounds == 0 { MS } else { (500 * MS).min((50 * MS) << rounds.min(8)) }
    }

    pub(crate) fn registered(&mut self, s: usize, answer: Result<Reply, Failure>) {
        self.servers[s].beating = false;
        match answer {
            Ok(Reply::Registered { server, disk }) => {
                self.servers[s].failures[0] = 0;
                self.servers[s].id = Some(server);
                self.servers[s].disk_id.get_or_insert(disk);
                self.beat_in(s, 0);
            }
            Ok(other) => panic!("{other:?}"),
            Err(failure) => {
                let pause = self.next_master(s, 0, failure);
                self.beat_in(s, pause);
            }
        }
    }

    pub(crate) fn beat_answered(
        &mut self,
        s: usize,
        sent: std::time::Instant,
        answer: Result<Reply, Failure>,
    ) {
        self.servers[s].beating = false;
        match answer {
            Ok(Reply::Beat { leased, register_again, version, table }) => {
                self.servers[s].failures[0] = 0;
                if register_again {
                    self.servers[s].id = None;
                }
                if let Some(table) = table {
                    self.adopt(s, &table);
                }
                let server = &mut self.servers[s];
                let mut news = false;
                if !leased {
                    news = server.lease.call_back();
                } else if server.adopted >= version {
                    server.lease.extend(sent, LEASE);
                }
                let pause = if news || server.wanted { NEWS_PAUSE } else { HEARTBEAT };
                let pause = if register_again { 0 } else { pause };
                self.beat_in(s, pause);
            }
            Ok(other) => panic!("{other:?}"),
            Err(failure) => {
                let pause = self.next_master(s, 0, failure);
                self.beat_in(s, pause);
            }
        }
    }

    pub(crate) fn followed(&mut self, s: usize, answer: Result<Reply, Failure>) {
        match answer {
            Ok(Reply::Table(table)) => {
                self.servers[s].failures[1] = 0;
                let mut pause = 0;
                if let Some(table) = table {
                    let before = self.servers[s].table.version;
                    self.adopt(s, &table);
                    if self.servers[s].table.version == before {
                        pause = 100 * MS;
                    }
                }
                self.timer(s, pause, Timer::Follow);
            }
            Ok(other) => panic!("{other:?}"),
            Err(failure) => {
                let pause = self.next_master(s, 1, failure);
                self.timer(s, pause, Timer::Follow);
            }
        }
    }

    /// `node.rs`, `adopt`.
    fn adopt(&mut self, s: usize, table: &Arc<Table>) {
        if table.version < self.servers[s].table.version {
            return;
        }
        self.servers[s].table = table.clone();
        if !self.servers[s].disk.failed
            && let Some(id) = self.servers[s].disk_id
        {
            for group in table.groups() {
                if group.state_of(id).is_some() || self.servers[s].replicas.contains_key(&group.id) {
                    self.adopt_group(s, id, group, table);
                }
            }
        }
        let server = &mut self.servers[s];
        server.adopted = server.adopted.max(table.version);
        if !std::mem::replace(&mut server.joined, true) {
            self.join(s);
        }
    }

    fn adopt_group(&mut self, s: usize, id: DiskId, group: &Group, table: &Table) {
        let info = |disk| MemberInfo {
            disk,
            incarnation: table.server_of(disk).map_or(0, |server| server.incarnation),
        };
        let serving: Vec<_> = group.serving().map(info).collect();
        let syncing = group.in_state(MemberState::Syncing).map(info).collect();
        let short = serving.len() < table.min_replicas as usize;
        let view = View { epoch: group.epoch, serving, syncing, short };
        self.replica_or_new(s, id, group.id);
        let clock = self.servers[s].clock.wall_nanos(self.now);
        self.event(s, group.id, |replica, io| replica.table(view, clock, io));
    }

    pub(crate) fn replica_or_new(&mut self, s: usize, id: DiskId, group: GroupId) {
        let depth = self.depth;
        let server = &mut self.servers[s];
        server.replicas.entry(group).or_insert_with(|| {
            let limits = chunkserver_core::Limits { local_depth: depth, ..Default::default() };
            Replica::new(chunkserver_core::Start { me: id, promised: server.disk.promised(group), limits })
        });
    }

    /// `heartbeat.rs`, `join`.
    fn join(&mut self, s: usize) {
        let server = &self.servers[s];
        let (Some(disk), incarnation) = (server.disk_id, server.incarnation) else { return };
        let mine = server.table.groups().filter(|group| group.state_of(disk).is_some());
        let primaries: BTreeSet<_> =
            mine.filter_map(Group::primary).filter(|primary| *primary != disk).collect();
        for primary in primaries {
            if let Some(to) = self.peer(s, primary) {
                let request = Request::Join { disk, incarnation };
                self.call(End::Server(s), End::Server(to), request, About::Nothing, CALL_TIMEOUT);
            }
        }
    }

    /// Where the table says that a disk is.
    pub(crate) fn peer(&self, s: usize, disk: DiskId) -> Option<usize> {
        self.servers[s].table.server_of(disk).and_then(|server| at_address(&server.address))
    }

    /// `node.rs`, `suspect`.
    pub(crate) fn suspect_disk(&mut self, s: usize, disk: DiskId) {
        let now = self.now;
        let server = &mut self.servers[s];
        let Some(id) = server.table.server_of(disk).map(|server| server.id) else { return };
        if server.suspects.get(&id).is_some_and(|(noted, _)| now < noted + REPORT_PERIOD) {
            return;
        }
        server.suspects.insert(id, (now, false));
        self.refresh(s);
    }

    /// `commits.rs`.
    pub(crate) fn tell_commit(&mut self, s: usize, group: GroupId, key: ChunkKey, version: Version) {
        let others = self.servers[s].replicas.get(&group).and_then(Replica::others).unwrap_or_default();
        for disk in others {
            self.servers[s].commits.entry(disk).or_default().push((key, version));
        }
        if !std::mem::replace(&mut self.servers[s].flush_planned, true) {
            self.timer(s, MS, Timer::Flush);
        }
    }

    pub(crate) fn take_commits(&mut self, s: usize, disk: DiskId) -> News {
        self.servers[s].commits.remove(&disk).unwrap_or_default()
    }

    fn flush_commits(&mut self, s: usize) {
        self.servers[s].flush_planned = false;
        for (disk, committed) in std::mem::take(&mut self.servers[s].commits) {
            if let Some(to) = self.peer(s, disk) {
                let request = Request::Commit { disk, committed };
                self.call(End::Server(s), End::Server(to), request, About::Nothing, CALL_TIMEOUT);
            }
        }
    }

    /// `surplus.rs`.
    fn surplus(&mut self, s: usize) {
        self.timer(s, SURPLUS, Timer::Surplus);
        let server = &self.servers[s];
        let Some(disk) = server.disk_id.filter(|_| !server.disk.failed) else { return };
        let groups: BTreeSet<_> = server.disk.chunks.keys().map(|key| key.group).collect();
        let to = End::Master(server.masters[0]);
        let left =
            |group: &GroupId| server.table.group(*group).is_some_and(|group| group.state_of(disk).is_none());
        for group in groups.into_iter().filter(left).collect::<Vec<_>>() {
            let request = Request::MayDrop { disk, group };
            self.call(End::Server(s), to, request, About::MayDrop { group }, CALL_TIMEOUT);
        }
    }

    pub(crate) fn may_drop_answered(&mut self, s: usize, group: GroupId, answer: Result<Reply, Failure>) {
        let Ok(Reply::MayDrop(true)) = answer else { return };
        let server = &mut self.servers[s];
        let out = server.replicas.get(&group).is_none_or(|replica| replica.stage() == Stage::Out);
        let member = server
            .table
            .group(group)
            .is_some_and(|g| server.disk_id.is_some_and(|d| g.state_of(d).is_some()));
        if !out || member {
            return;
        }
        let before = server.disk.chunks.len();
        server.disk.chunks.retain(|key, _| key.group != group);
        if server.disk.chunks.len() < before {
            self.count("replicas deleted");
        }
    }

    /// The process is told to stop: its lease ends, it says goodbye, it goes.
    pub(crate) fn leave(&mut self, s: usize) {
        let server = &mut self.servers[s];
        server.lease.end();
        server.leaving = true;
        if let Some(id) = server.id {
            let request = Request::Goodbye { server: id, incarnation: server.incarnation };
            let to = End::Master(server.masters[0]);
            self.call(End::Server(s), to, request, About::Goodbye, CALL_TIMEOUT);
        }
        self.timer(s, CALL_TIMEOUT + MS, Timer::Leave);
    }
}

const LEASE_US: Micros = LEASE.as_micros() as Micros;
const _: () = assert!(LEASE.as_millis() >= 3 * (HEARTBEAT / MS) as u128);
