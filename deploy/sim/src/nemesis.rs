//! What goes wrong, and when. Each run draws which kinds of faults it has and how often (a run with a few kinds goes deeper into
//! them than one with all), then hurts something every now and then and undoes it after a while.

use coord_types::ServerId;
use master_core::Command;
use master_model::MemberState;

use crate::clock::{MS, Micros, SECOND};
use crate::disk::Disk;
use crate::master::After;
use crate::message::End;
use crate::world::{Event, World};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashMany,
    Freeze,
    Cut,
    CutOneWay,
    CutPair,
    Split,
    CutMasters,
    CutClient,
    SlowDisk,
    EmptyDisk,
    FailDisk,
    Depose,
    CrashMaster,
    Leave,
    StepClock,
    Burst,
    Drain,
}

const KINDS: [Kind; 18] = [
    Kind::Crash,
    Kind::CrashMany,
    Kind::Freeze,
    Kind::Cut,
    Kind::CutOneWay,
    Kind::CutPair,
    Kind::Split,
    Kind::CutMasters,
    Kind::CutClient,
    Kind::SlowDisk,
    Kind::EmptyDisk,
    Kind::FailDisk,
    Kind::Depose,
    Kind::CrashMaster,
    Kind::Leave,
    Kind::StepClock,
    Kind::Burst,
    Kind::Drain,
];

/// What a run has of faults. Chances are in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    kinds: Vec<Kind>,
    /// Mean time between two.
    period: Micros,
    pub(crate) loss: u64,
    pub(crate) late: u64,
    pub(crate) double: u64,
    /// A leader is deposed after it committed and before it knows.
    pub(crate) depose: u64,
}

impl Faults {
    pub(crate) fn draw(dice: &mut crate::dice::Dice) -> Self {
        let some = dice.between(250, 900);
        Self {
            kinds: KINDS.into_iter().filter(|_| dice.chance(some)).collect(),
            period: dice.between(80 * MS, 700 * MS),
            loss: dice.pick(&[0, 0, 2, 10, 30]).unwrap_or(0),
            late: dice.pick(&[0, 0, 2, 10]).unwrap_or(0),
            double: dice.pick(&[0, 5, 20]).unwrap_or(0),
            depose: dice.pick(&[0, 20, 100]).unwrap_or(0),
        }
    }
}

/// The end of a fault.
#[derive(Debug)]
pub(crate) enum Undo {
    StartServer(usize),
    StartMaster(usize),
    Mend(Vec<(End, End)>),
    FastDisk(usize),
    NoBurst,
    Undrain(usize),
}

impl World {
    pub(crate) fn nemesis(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.dice.between(self.faults.period / 4, self.faults.period * 2);
        self.at(self.now + pause, Event::Nemesis);
        let Some(kind) = self.dice.pick(&self.faults.kinds.clone()) else { return };
        let s = self.dice.index(self.servers.len());
        let short = self.dice.between(20 * MS, 400 * MS);
        let long = self.dice.between(300 * MS, 4 * SECOND);
        let span = if self.dice.chance(500) { short } else { long };
        self.trace(|| format!("nemesis: {kind:?}, server {s}, for {} ms", span / MS));
        match kind {
            Kind::Crash => self.crash_for(s, span),
            Kind::CrashMany => {
                for at in 0..self.servers.len() {
                    if self.dice.chance(600) {
                        self.crash_for(at, span);
                    }
                }
            }
            Kind::Freeze => {
                self.count("processes stopped for a while");
                self.servers[s].frozen_until = self.now + span;
            }
            Kind::Cut => self.cut_around(End::Server(s), span, true),
            Kind::CutOneWay => self.cut_around(End::Server(s), span, false),
            Kind::CutPair => {
                let other = (s + 1 + self.dice.index(self.servers.len() - 1)) % self.servers.len();
                self.count("network cuts");
                self.cut(
                    vec![(End::Server(s), End::Server(other)), (End::Server(other), End::Server(s))],
                    span,
                );
            }
            Kind::Split => self.split(span),
            Kind::CutMasters => {
                let master = self.dice.index(self.masters.len());
                let both = self.dice.chance(600);
                self.cut_around(End::Master(master), span, both);
            }
            Kind::CutClient => {
                let client = self.dice.index(self.clients.len());
                self.cut_around(End::Client(client), span, true);
            }
            Kind::SlowDisk => {
                self.count("slow disks");
                self.servers[s].disk.slow = self.dice.between(10, 300);
                self.at(self.now + span, Event::Undo(Undo::FastDisk(s)));
            }
            Kind::EmptyDisk => self.empty_disk(s, span),
            Kind::FailDisk => {
                if self.servers[s].up && self.may_lose(s) {
                    self.count("disks that failed");
                    self.destroy(s);
                    self.fail_disk(s);
                    // Somebody puts another disk in.
                    self.at(self.now + span + SECOND, Event::Undo(Undo::StartServer(s)));
                }
            }
            Kind::Depose => self.elect(),
            Kind::CrashMaster => self.crash_master(span),
            Kind::Leave => {
                if self.servers[s].up && !self.servers[s].leaving {
                    self.count("graceful stops");
                    self.leave(s);
                    self.at(self.now + span + SECOND / 2, Event::Undo(Undo::StartServer(s)));
                }
            }
            Kind::StepClock => {
                self.count("clock steps");
                let step = i64::try_from(self.dice.below(20 * SECOND)).unwrap_or(0);
                self.servers[s].clock.wall_offset_us += step - 10 * SECOND as i64;
                let master = self.dice.index(self.masters.len());
                self.masters[master].clock.wall_offset_us -= step / 2;
            }
            Kind::Burst => {
                self.count("bursts of lost messages");
                self.net.burst = self.dice.between(50, 400);
                self.at(self.now + short, Event::Undo(Undo::NoBurst));
            }
            Kind::Drain => self.drain(s, span),
        }
    }

    fn crash_for(&mut self, s: usize, span: Micros) {
        if self.servers[s].up {
            self.count("crashes of chunkservers");
            self.stop_server(s);
            self.at(self.now + span, Event::Undo(Undo::StartServer(s)));
        }
    }

    /// The process is gone, as by kill -9 or a power cut.
    pub(crate) fn stop_server(&mut self, s: usize) {
        self.trace(|| format!("server {s} is gone"));
        let now = self.now;
        let crash = self.servers[s].disk.crash(now, &mut self.dice);
        self.count_many("writes lost at a crash", crash.lost);
        self.count_many("writes torn at a crash", crash.torn);
        self.count_many("unconfirmed writes that survived", crash.survived);
        let id = self.servers[s].id;
        self.servers[s].up = false;
        self.connections_break(End::Server(s));
        for master in 0..self.masters.len() {
            if let Some(id) = id
                && self.net.open(End::Server(s), End::Master(master))
            {
                self.streams_broken(master, id);
            }
        }
        self.servers[s].forget();
    }

    fn cut(&mut self, ways: Vec<(End, End)>, span: Micros) {
        for (from, to) in &ways {
            self.net.cut(*from, *to);
        }
        self.at(self.now + span, Event::Undo(Undo::Mend(ways)));
    }

    /// Everybody is on one of two sides, for once with few servers on the side of some clients.
    fn split(&mut self, span: Micros) {
        self.count("networks split in two");
        let few = self.dice.between(100, 500);
        let servers = (0..self.servers.len()).map(End::Server).collect::<Vec<_>>();
        let masters = (0..self.masters.len()).map(End::Master).collect::<Vec<_>>();
        let clients = (0..self.clients.len()).map(End::Client).collect::<Vec<_>>();
        let all = servers.into_iter().chain(masters).chain(clients);
        let sides: Vec<_> = all.map(|end| (end, self.dice.chance(few))).collect();
        let mut ways = Vec::new();
        for (from, side) in &sides {
            let others = sides.iter().filter(|(_, other)| other != side);
            ways.extend(others.map(|(to, _)| (*from, *to)));
        }
        self.cut(ways, span);
    }

    /// Cuts an end off from all others, or from some.
    fn cut_around(&mut self, end: End, span: Micros, both: bool) {
        self.count(if both { "network cuts" } else { "network cuts in one direction" });
        let servers = (0..self.servers.len()).map(End::Server);
        let masters = (0..self.masters.len()).map(End::Master);
        let clients = (0..self.clients.len()).map(End::Client);
        let others: Vec<_> = servers.chain(masters).chain(clients).filter(|other| *other != end).collect();
        let some = if self.dice.chance(500) { 1000 } else { 500 };
        let outwards = self.dice.chance(500);
        let mut ways = Vec::new();
        for other in others.into_iter().filter(|_| self.dice.chance(some)).collect::<Vec<_>>() {
            if both || outwards {
                ways.push((end, other));
            }
            if both || !outwards {
                ways.push((other, end));
            }
        }
        self.cut(ways, span);
    }

    /// Whether the disk may be lost for good. Not if the masters, who may not know it yet, could go on to take out the last member
    /// that holds everything: that is more than a group of three with two for each write is made for.
    fn may_lose(&self, s: usize) -> bool {
        let Some(disk) = self.servers[s].disk_id else { return false };
        self.newest.groups().all(|group| {
            let others = group.in_state(MemberState::Serving).filter(|other| *other != disk);
            let intact = others.filter(|other| self.at_disk(*other).is_some()).count();
            if !group.serving().any(|member| member == disk) {
                return intact >= 1;
            }
            // Down to two members can be taken out, also of those that join meanwhile.
            let most = group.serving().count() + group.in_state(MemberState::Syncing).count();
            intact >= 1 && intact + 1 >= most
        })
    }

    /// The disk's data is gone for good.
    fn destroy(&mut self, s: usize) {
        self.destroyed.extend(self.servers[s].disk_id);
    }

    fn empty_disk(&mut self, s: usize, span: Micros) {
        if !self.may_lose(s) || !self.servers[s].up {
            return;
        }
        self.count("disks that came back empty");
        self.destroy(s);
        self.stop_server(s);
        self.replace_disk(s);
        self.at(self.now + span, Event::Undo(Undo::StartServer(s)));
    }

    fn replace_disk(&mut self, s: usize) {
        let uuid = 1000 + self.fresh();
        self.servers[s].disk = Disk::new(uuid, self.options.bug);
        // With all of its disks a server loses its name.
        if self.dice.chance(300) {
            self.servers[s].uuid = uuid;
        }
    }

    fn crash_master(&mut self, span: Micros) {
        let up = (0..self.masters.len()).filter(|master| self.masters[*master].up);
        let up: Vec<_> = up.collect();
        let Some(master) = self.dice.pick(&up) else { return };
        self.count("crashes of masters");
        let kept = self.dice.index(self.masters[master].kv.pending() + 1);
        self.masters[master].crash(kept);
        if self.log.leader == Some(master) {
            self.log.leader = None;
        }
        self.connections_break(End::Master(master));
        self.at(self.now + span, Event::Undo(Undo::StartMaster(master)));
    }

    fn drain(&mut self, s: usize, span: Micros) {
        let Some(disk) = self.servers[s].disk_id else { return };
        if self.propose_anywhere(&Command::DrainDisks { disks: vec![disk], draining: true }) {
            self.count("disks drained");
            self.at(self.now + span + SECOND, Event::Undo(Undo::Undrain(s)));
        }
    }

    fn propose_anywhere(&mut self, command: &Command) -> bool {
        let leader = (0..self.masters.len()).find(|master| self.truly_leads(*master));
        let Some(leader) = leader else { return false };
        self.propose(leader, command.encode(), After::Nothing);
        true
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::StartServer(s) => {
                if self.servers[s].disk.failed {
                    self.stop_server(s);
                    self.replace_disk(s);
                }
                if !self.servers[s].up {
                    self.start_server(s);
                } else if self.servers[s].leaving {
                    self.at(self.now + SECOND / 2, Event::Undo(Undo::StartServer(s)));
                }
            }
            Undo::StartMaster(master) => {
                if !self.masters[master].up {
                    self.masters[master].up = true;
                    self.masters[master].life += 1;
                }
            }
            Undo::Mend(ways) => ways.into_iter().for_each(|(from, to)| self.net.mend(from, to)),
            Undo::FastDisk(s) => self.servers[s].disk.slow = 1,
            Undo::NoBurst => self.net.burst = 0,
            Undo::Undrain(s) => {
                let disks = self.drained();
                if !disks.is_empty()
                    && !self.propose_anywhere(&Command::DrainDisks { disks, draining: false })
                {
                    self.at(self.now + SECOND / 2, Event::Undo(Undo::Undrain(s)));
                }
            }
        }
    }

    /// Disks that are to be emptied.
    pub(crate) fn drained(&self) -> Vec<coord_types::DiskId> {
        let disks = self.newest.servers().flat_map(|server| &server.disks);
        disks.filter(|(_, state)| state.draining).map(|(disk, _)| *disk).collect()
    }

    /// Faults stop; the clients begin nothing new.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "faults stop".to_owned());
        self.healed = true;
        self.oracle.lock().stopped = true;
        self.net.mend_all();
        for s in 0..self.servers.len() {
            self.servers[s].frozen_until = 0;
            self.servers[s].disk.slow = 1;
            self.undo(Undo::StartServer(s));
        }
        for master in 0..self.masters.len() {
            self.undo(Undo::StartMaster(master));
        }
        self.at(self.now + MS, Event::Undo(Undo::Undrain(0)));
    }

    /// The server whose disk this is now.
    pub(crate) fn at_disk(&self, disk: coord_types::DiskId) -> Option<usize> {
        if self.destroyed.contains(&disk) {
            return None;
        }
        let server: ServerId = self.newest.server_of(disk)?.id;
        let uuid = self
            .newest
            .server(server)?
            .disks
            .iter()
            .find(|(id, _)| *id == disk)
            .map(|(_, state)| state.uuid)?;
        self.servers.iter().position(|server| crate::server::uuid_bytes(server.disk.uuid) == uuid)
    }
}
