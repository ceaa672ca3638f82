//! The whole: every process, the network between them, and one queue of events in the order of virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_types::{ChunkKey, DataId, DiskId, GroupId, ServerId, SessionId};
use master_core::command::Initialize;
use master_core::{Command, slow};
use master_model::Table;

use crate::client::{Client, Tasks};
use crate::clock::{Clock, MS, Micros, SECOND, Sleepers};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::master::{After, Master};
use crate::message::{About, Answer, End, Failure, Request};
use crate::nemesis::{Faults, Undo};
use crate::net::{Call, Net, Packet};
use crate::oracle::{Oracle, Shared};
use crate::raft::Log;
use crate::server::Server;
use crate::{Options, Violation};

pub(crate) const HEARTBEAT: Micros = 150 * MS;
pub(crate) const LEASE: Duration = Duration::from_millis(600);
pub(crate) const REPLACE_AFTER: Duration = Duration::from_millis(2500);
/// As in the product, with shorter times.
pub(crate) const SLOW: slow::Rules = slow::Rules {
    floor: Duration::from_millis(50),
    ratio: 4,
    after: Duration::from_millis(500),
    return_after: Duration::from_millis(800),
    servers_max: 1,
    percent_max: 34,
};
/// How often servers look for what is left of groups they are in no more.
pub(crate) const SURPLUS: Micros = 1500 * MS;
/// How often all disks are compared.
const SCAN: Micros = 250 * MS;

const MASTERS: usize = 3;
/// Six servers in four racks: a rack may be lost, and two share one.
const RACKS: [char; 6] = ['a', 'b', 'c', 'd', 'd', 'c'];
const CLIENTS: usize = 3;
pub(crate) const REPLICAS: u32 = 3;
pub(crate) const MIN_REPLICAS: u32 = 2;
/// Chunks of each group that clients work on.
const CHUNKS_PER_GROUP: u32 = 2;
/// Lines kept of what happened, when asked for.
const TRACE_MAX: usize = 120;

/// What a server set itself an alarm for.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Another alarm set since counts instead.
    Heartbeat {
        number: u64,
    },
    Follow,
    Surplus,
    Flush,
    Leave,
    Retry {
        group: GroupId,
        activation: u64,
    },
    RetryFill {
        group: GroupId,
        peer: DiskId,
        activation: u64,
    },
    ReadDone {
        read: u64,
    },
}

#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        to: End,
        life: u64,
        packet: Box<Packet>,
    },
    /// A message waits for a cut network.
    Resend {
        from: End,
        to: End,
        life: u64,
        packet: Box<Packet>,
        left: u32,
    },
    CallOver {
        call: u64,
        failure: Failure,
    },
    NoSuchPeer {
        server: usize,
        life: u64,
        about: Box<About>,
    },
    DiskDone {
        server: usize,
        life: u64,
        job: u64,
    },
    ServerTimer {
        server: usize,
        life: u64,
        timer: Timer,
    },
    ClientFollow {
        client: usize,
    },
    Commit {
        proposal: u64,
    },
    Apply {
        master: usize,
    },
    Unknown {
        master: usize,
        life: u64,
        after: Box<After>,
    },
    LookAtLeader,
    Elected {
        master: usize,
        life: u64,
        term: u64,
    },
    Deposed {
        master: usize,
        life: u64,
        term: u64,
    },
    GroupsRound {
        master: usize,
        life: u64,
        term: u64,
        tick: bool,
    },
    Barrier {
        master: usize,
        life: u64,
        from: End,
        call: u64,
        request: Box<Request>,
    },
    HeldOver {
        master: usize,
        life: u64,
        call: u64,
    },
    Probe {
        master: usize,
        life: u64,
        server: ServerId,
        incarnation: u64,
        left: u32,
    },
    Nemesis,
    Undo(Undo),
    Scan,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) dice: Dice,
    pub(crate) now: Micros,
    queue: BTreeMap<(Micros, u64), Event>,
    next: u64,
    hash: u64,
    pub(crate) events: u64,
    pub(crate) sleepers: Arc<Sleepers>,
    pub(crate) tasks: Tasks,
    pub(crate) clients: Vec<Client>,
    pub(crate) servers: Vec<Server>,
    pub(crate) masters: Vec<Master>,
    pub(crate) log: Log,
    /// A master that applies everything at once and never fails: what the log says.
    truth: Master,
    pub(crate) newest: Arc<Table>,
    pub(crate) net: Net,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) faults: Faults,
    pub(crate) healed: bool,
    pub(crate) oracle: Shared,
    /// Who acknowledged writes of a group in an epoch.
    pub(crate) acknowledged_by: BTreeMap<(GroupId, coord_types::Epoch), DiskId>,
    /// Disks that do not exist any more.
    pub(crate) destroyed: BTreeSet<DiskId>,
    pub(crate) depth: usize,
    counters: BTreeMap<&'static str, u64>,
    traced: VecDeque<String>,
    pub(crate) violation: Option<Violation>,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut dice = Dice::new(options.seed);
        let origin = Instant::now();
        // Clocks differ by less than the 5 % a leader allows for.
        let mut clock = || Clock::new(origin, i64::try_from(dice.below(40_000)).unwrap_or(0) - 20_000);
        let masters = (0..MASTERS).map(|_| Master::new(clock())).collect();
        let truth = Master::new(clock());
        let clocks: Vec<_> = RACKS.iter().map(|_| clock()).collect();
        let servers = RACKS.iter().zip(clocks).enumerate();
        let servers = servers
            .map(|(at, (rack, clock))| Server::new(at, *rack, clock, Disk::new(100 + at as u64, options.bug)))
            .collect();
        let depth = usize::try_from(dice.between(1, 4)).unwrap_or(1);
        let faults = Faults::draw(&mut dice);
        let sleepers = Arc::new(Sleepers::default());
        let clients = (0..CLIENTS).map(|at| Client::new(at, origin, sleepers.clone(), dice.next())).collect();
        Self {
            options,
            dice,
            now: 0,
            queue: BTreeMap::new(),
            next: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            sleepers,
            tasks: Tasks::default(),
            clients,
            servers,
            masters,
            log: Log::default(),
            truth,
            newest: Arc::new(Table::default()),
            net: Net::default(),
            calls: BTreeMap::new(),
            faults,
            healed: true,
            oracle: Shared::new(Oracle::default().into()),
            acknowledged_by: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            depth,
            counters: BTreeMap::new(),
            traced: VecDeque::new(),
            violation: None,
        }
    }

    /// A number never used before.
    pub(crate) const fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn at(&mut self, time: Micros, event: Event) {
        let number = self.fresh();
        self.queue.insert((time, number), event);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub(crate) fn count_many(&mut self, what: &'static str, many: u64) {
        *self.counters.entry(what).or_default() += many;
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            if self.traced.len() >= TRACE_MAX {
                self.traced.pop_front();
            }
            self.traced.push_back(format!("{:>10.3} ms  {}", self.now as f64 / 1000.0, line()));
        }
    }

    /// Something must not be: the run ends.
    pub(crate) fn violate(&mut self, invariant: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.trace(|| format!("{invariant}: {what}"));
            self.violation = Some(Violation { invariant, what });
        }
    }

    /// A chance in a thousand, while there are faults.
    pub(crate) fn chance(&mut self, per_thousand: u64) -> bool {
        !self.healed && self.dice.chance(per_thousand)
    }

    /// One more entry is in the log.
    pub(crate) fn committed(&mut self) {
        let Some(entry) = self.log.entries.last() else { return };
        self.truth.apply(&entry.command, entry.time_nanos);
        let old = std::mem::replace(&mut self.newest, self.truth.table());
        if old.version != self.newest.version {
            self.check_table(&old);
        }
    }

    /// All masters, brought up to date, hold the same.
    pub(crate) fn stores(&mut self) -> Vec<crate::master::Dump> {
        (0..self.masters.len()).for_each(|master| drop(self.apply_all(master)));
        let all = self.masters.iter().chain([&self.truth]);
        all.map(|master| crate::master::dump(&master.kv)).collect()
    }

    /// Runs until `done` says so, something is wrong, or it is too late. Whether it was in time.
    fn run_until(&mut self, end: Micros, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let mut look = self.now;
        loop {
            self.run_tasks();
            if self.violation.is_some() {
                return false;
            }
            if self.now >= look {
                look = self.now + 20 * MS;
                if done(self) {
                    return true;
                }
            }
            let queued = self.queue.keys().next().map(|(time, _)| *time);
            let Some(next) = queued.into_iter().chain(self.sleepers.next()).min() else { return done(self) };
            if next > end {
                self.now = end;
                return done(self);
            }
            self.now = self.now.max(next);
            self.sleepers.advance(self.now);
            if queued == Some(next)
                && let Some((_, event)) = self.queue.pop_first()
            {
                self.events += 1;
                self.dispatch(event);
            }
            self.mix(self.now);
            let drawn = self.dice.clone().next() ^ self.next;
            self.mix(drawn);
        }
    }

    const fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    fn run_tasks(&mut self) {
        while self.tasks.poll_ready() {
            self.send_outgoing();
        }
        let ended = self.oracle.lock().error.take();
        if let Some((invariant, what)) = ended {
            self.violate(invariant, || what);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Deliver { to, life, packet } => self.deliver(to, life, packet),
            Event::Resend { from, to, life, packet, left } => self.resend((from, to), life, packet, left),
            Event::CallOver { call, failure } => self.finish_call(call, Err(failure)),
            Event::NoSuchPeer { server, life, about } => {
                if self.lives(server, life) {
                    self.server_answered(server, *about, Err(Failure::Unavailable));
                }
            }
            Event::DiskDone { server, life, job } => {
                if self.lives(server, life) {
                    match self.frozen(server) {
                        Some(until) => self.at(until, Event::DiskDone { server, life, job }),
                        None => self.disk_done(server, job),
                    }
                }
            }
            Event::ServerTimer { server, life, timer } => {
                if self.lives(server, life) {
                    match self.frozen(server) {
                        Some(until) => self.at(until, Event::ServerTimer { server, life, timer }),
                        None => self.server_timer(server, timer),
                    }
                }
            }
            Event::ClientFollow { client } => self.client_follow(client),
            Event::Commit { proposal } => self.try_commit(proposal),
            Event::Apply { master } => {
                if self.masters[master].up {
                    self.apply_all(master);
                }
            }
            Event::Unknown { master, life, after } => {
                if self.master_lives(master, life) {
                    self.proposed(master, *after, None);
                }
            }
            Event::LookAtLeader => self.look_at_leader(),
            Event::Elected { master, life, term } => {
                if self.master_lives(master, life) {
                    self.master_elected(master, term);
                }
            }
            Event::Deposed { master, life, term } => {
                let old = self.masters[master].leading.as_ref().is_some_and(|leading| leading.term < term);
                if self.master_lives(master, life) && old {
                    self.master_deposed(master);
                }
            }
            Event::GroupsRound { master, life, term, tick } => self.groups_round(master, life, term, tick),
            Event::Barrier { master, life, from, call, request } => {
                if self.master_lives(master, life) {
                    self.master_reads(master, from, call, *request);
                }
            }
            Event::HeldOver { master, life, call } => {
                if self.master_lives(master, life) {
                    self.held_over(master, call);
                }
            }
            Event::Probe { master, life, server, incarnation, left } => {
                if self.master_lives(master, life) {
                    self.probe(master, life, server, incarnation, left);
                }
            }
            Event::Nemesis => self.nemesis(),
            Event::Undo(undo) => self.undo(undo),
            Event::Scan => {
                self.scan();
                self.at(self.now + SCAN, Event::Scan);
            }
        }
    }

    fn lives(&self, server: usize, life: u64) -> bool {
        self.servers[server].up && self.servers[server].life == life
    }

    pub(crate) fn master_lives(&self, master: usize, life: u64) -> bool {
        self.masters[master].up && self.masters[master].life == life
    }

    /// Until when the process is stopped, if it is.
    pub(crate) fn frozen(&self, server: usize) -> Option<Micros> {
        Some(self.servers[server].frozen_until).filter(|until| *until > self.now)
    }

    /// What came for a process as the answer to a call of its own.
    pub(crate) fn finish_call(&mut self, call: u64, answer: Answer) {
        if let Some(Call { from: End::Server(server), .. }) = self.calls.get(&call)
            && let Some(until) = self.frozen(*server)
        {
            let failure = match answer {
                Err(failure) => failure,
                Ok(_) => unreachable!("answers wait in the network"),
            };
            self.at(until, Event::CallOver { call, failure });
            return;
        }
        let Some(Call { from, life, about, .. }) = self.calls.remove(&call) else { return };
        match from {
            End::Server(server) => {
                if self.lives(server, life) {
                    self.server_answered(server, about, answer);
                }
            }
            End::Client(client) => self.client_answered(client, about, answer),
            End::Master(_) => {}
        }
    }

    /// One run. The safety phase with faults, then the liveness phase without.
    pub(crate) fn run(&mut self) {
        self.boot();
        if self.violation.is_some() {
            return;
        }
        self.healed = false;
        self.start_work();
        self.at(self.now, Event::Nemesis);
        self.at(self.now, Event::Scan);
        let end = self.now + self.options.seconds * SECOND;
        self.run_until(end, |_| false);
        self.heal();
        let bound = self.now + self.options.bound_seconds * SECOND;
        if !self.run_until(bound, Self::at_rest) {
            let why = self.unrest();
            return self.violate("liveness", || format!("not at rest in time: {why}"));
        }
        self.read_everything();
        let bound = self.now + SECOND * 10;
        if !self.run_until(bound, |world| world.tasks.is_idle()) {
            return self.violate("liveness", || "reads of a healthy cluster did not end".to_owned());
        }
        self.scan();
        self.check_end();
    }

    /// A cluster without faults: masters, servers, groups, sessions.
    fn boot(&mut self) {
        self.elect();
        self.at(self.now, Event::LookAtLeader);
        self.run_until(SECOND, |world| {
            world.log.leader.is_some_and(|leader| world.masters[leader].leading.is_some())
        });
        let leader = self.log.leader.expect("all masters are up");
        let cluster = Initialize {
            cluster_id: "simulated".to_owned(),
            replicas: REPLICAS,
            min_replicas: MIN_REPLICAS,
            groups_per_disk: 2,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        };
        self.propose(leader, Command::Initialize(cluster).encode(), After::Nothing);
        for client in 0..CLIENTS {
            let command = Command::OpenSession { description: String::new(), owner: String::new() };
            self.propose(leader, command.encode(), After::Nothing);
            // Numbered from 1 in the order of the log.
            self.clients[client].session(SessionId(client as u64 + 1));
        }
        self.run_until(self.now + SECOND, |world| world.log.entries.len() > CLIENTS);
        for server in 0..RACKS.len() {
            self.start_server(server);
        }
        self.run_until(self.now + 5 * SECOND, |world| world.servers.iter().all(|server| server.id.is_some()));
        self.propose(leader, Command::FormGroups.encode(), After::Nothing);
        self.run_until(self.now + 5 * SECOND, |world| world.newest.groups().next().is_some());
        let keys = self.newest.groups().flat_map(|group| {
            let id = group.id;
            (0..CHUNKS_PER_GROUP).map(move |index| ChunkKey::new(id, DataId(9), index))
        });
        self.oracle.lock().keys = keys.collect();
        for client in 0..CLIENTS {
            self.at(self.now, Event::ClientFollow { client });
        }
        if !self.run_until(self.now + 10 * SECOND, Self::at_rest) {
            let why = self.unrest();
            self.violate("liveness", || format!("the cluster did not begin: {why}"));
        }
    }

    pub(crate) fn outcome(self) -> crate::Outcome {
        let acknowledged = self.oracle.lock().acknowledged;
        let shown = self.oracle.lock().shown;
        let mut counters = self.counters;
        counters.insert("epochs", self.newest.groups().map(|group| group.epoch.0 - 1).sum());
        counters.insert("writes acknowledged", acknowledged);
        counters.insert("reads shown", shown);
        counters.insert("events", self.events);
        crate::Outcome {
            seed: self.options.seed,
            hash: self.hash,
            counters,
            violation: self.violation,
            trace: self.traced.into(),
        }
    }

    /// Sends a call; its answer, or that none comes, will be told to `about`.
    pub(crate) fn call(&mut self, from: End, to: End, request: Request, about: About, timeout: Micros) {
        let call = self.fresh();
        let life = self.life(from);
        self.calls.insert(call, Call { from, life, to, about });
        self.at(self.now + timeout, Event::CallOver { call, failure: Failure::Deadline });
        self.transmit(from, to, Packet::Request { call, from, request });
    }

    pub(crate) fn reply(&mut self, from: End, call: u64, answer: Answer) {
        let Some(to) = self.calls.get(&call).map(|call| call.from) else { return };
        self.transmit(from, to, Packet::Answer { call, answer });
    }

    pub(crate) fn life(&self, end: End) -> u64 {
        match end {
            End::Server(server) => self.servers[server].life,
            End::Master(master) => self.masters[master].life,
            End::Client(_) => 1,
        }
    }

    pub(crate) fn is_up(&self, end: End) -> bool {
        match end {
            End::Server(server) => self.servers[server].up,
            End::Master(master) => self.masters[master].up,
            End::Client(_) => true,
        }
    }

    pub(crate) fn arrived(&mut self, to: End, packet: Packet) {
        match (to, packet) {
            (End::Server(server), Packet::Request { call, request, .. }) => {
                self.server_request(server, call, request)
            }
            (End::Master(master), Packet::Request { call, from, request }) => {
                self.master_request(master, from, call, request);
            }
            (End::Client(_), Packet::Request { .. }) => {}
            (_, Packet::Answer { call, answer }) => self.finish_call(call, answer),
        }
    }
}
