//! The members, the network between them, the clients, and what is checked.

use std::collections::BTreeMap;

use chunkserver_core::{
    Done, Effect, Fault, Io, Page, PeerError, ReadPermit, ReadVerdict, Refusal, Replica, Replicate, Stage,
    Store, Token, Write,
};
use coord_types::{ChunkKey, DataId, DiskId, Epoch, Fence, GroupId, SessionId, Stamp, Version};
use master_core::table::change::Change;
use master_model::MemberState;

use super::master::Master;
use super::member::{Disk, Job, Member, PAGE, Rec};

/// Three in the group, one to replace another.
const DISKS: usize = 4;
/// The chance, in a thousand, that the master looks whether a member may come back.
const BRING_BACK: u64 = 600;

/// Chances in a thousand, for each step (or message, or job).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) crash: u64,
    pub(crate) disk: u64,
    pub(crate) epoch: u64,
    pub(crate) depth: usize,
    /// Reads look at the lease, as they must.
    pub(crate) leases: bool,
}

#[derive(Clone, Debug)]
enum Message {
    Replicate {
        at: (Epoch, u64),
        key: ChunkKey,
        previous: Version,
        version: Version,
        stamp: Option<Stamp>,
        write: u64,
    },
    Prepare {
        at: (Epoch, u64),
        after: Option<Option<ChunkKey>>,
        fill: bool,
    },
    Install {
        at: (Epoch, u64),
        key: ChunkKey,
        rec: Option<Rec>,
    },
    Activate {
        at: (Epoch, u64),
    },
    Commit {
        key: ChunkKey,
        version: Version,
    },
    Answer(Result<Option<Page>, PeerError>),
}

/// A message under way. Bound to the process it was sent to: a connection does not survive a restart.
#[derive(Clone, Debug)]
struct Flight {
    to: usize,
    incarnation: u64,
    call: u64,
    message: Message,
}

/// A call whose sender waits.
#[derive(Clone, Debug)]
struct Call {
    from: usize,
    incarnation: u64,
    peer: DiskId,
    activation: u64,
    about: About,
}

#[derive(Clone, Debug)]
enum About {
    Replicate(ChunkKey, Version),
    Prepare,
    Equalise(ChunkKey),
    Activate,
    Fill(ChunkKey, Version),
    Forward(ChunkKey),
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Attempt(u64),
    Fill(DiskId, u64),
}

/// Who waits for an answer of a replica.
#[derive(Clone, Debug)]
enum Who {
    Client(usize),
    Call {
        to: (usize, u64),
        call: u64,
        page: Option<Option<ChunkKey>>,
    },
    Read(PendingRead),
    /// What was read for a member that is being filled waits until it is committed.
    Fill {
        to: DiskId,
        at: (Epoch, u64),
        key: ChunkKey,
        rec: Option<Rec>,
    },
}

#[derive(Clone, Debug)]
struct PendingRead {
    member: usize,
    incarnation: u64,
    key: ChunkKey,
    rec: Rec,
    permit: ReadPermit,
    /// What was acknowledged, and the longest list shown, before the read began.
    acknowledged: Vec<u64>,
    shown: Vec<u64>,
}

#[derive(Clone, Debug)]
struct ClientWrite {
    key: ChunkKey,
    stamp: Stamp,
    acknowledged: bool,
}

pub(crate) struct World {
    random: u64,
    faults: Faults,
    healed: bool,
    members: Vec<Member>,
    /// Members learn late what it decides.
    master: Master,
    untold: Vec<(usize, u64)>,
    flights: Vec<Flight>,
    calls: BTreeMap<u64, Call>,
    retries: Vec<(usize, u64, Timer)>,
    waiting: BTreeMap<Token, (usize, u64, Who)>,
    reads: Vec<PendingRead>,
    writes: Vec<ClientWrite>,
    shown: BTreeMap<ChunkKey, Vec<u64>>,
    shown_count: usize,
    joined: usize,
    forwarded: usize,
    next: u64,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let members: Vec<_> = (0..DISKS).map(|at| Member::new(DiskId(at as u32 + 1))).collect();
        let mut world = Self {
            random: seed,
            faults,
            healed: false,
            members,
            master: Master::new((1..=3).map(DiskId)),
            untold: Vec::new(),
            flights: Vec::new(),
            calls: BTreeMap::new(),
            retries: Vec::new(),
            waiting: BTreeMap::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            shown: BTreeMap::new(),
            shown_count: 0,
            joined: 0,
            forwarded: 0,
            next: 1,
        };
        for at in 0..DISKS {
            world.start(at);
        }
        world
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.writes.iter().filter(|write| write.acknowledged).count()
    }

    /// Members that were filled and joined.
    pub(crate) fn joined(&self) -> usize {
        self.joined
    }

    /// Writes forwarded to members that were being filled.
    pub(crate) fn forwarded(&self) -> usize {
        self.forwarded
    }

    pub(crate) fn shown(&self) -> usize {
        self.shown_count
    }

    /// splitmix64.
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }

    fn chance(&mut self, per_thousand: u64) -> bool {
        !self.healed && (self.draw(1000) as u64) < per_thousand
    }

    /// Nanoseconds of a clock that is set back now and then: what it shows grows or is some number never seen.
    fn clock(&mut self) -> u64 {
        let now = self.fresh() << 20;
        if self.chance(100) { now >> 6 } else { now }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn start(&mut self, at: usize) {
        self.members[at].start(self.faults.depth);
        // The table shows the new incarnation to everybody, some time.
        self.tell_everybody();
    }

    fn tell_everybody(&mut self) {
        for other in 0..DISKS {
            self.untold.push((other, self.members[other].incarnation));
        }
    }

    fn at(&self, disk: DiskId) -> usize {
        self.find(disk).expect("a disk that exists")
    }

    /// One that exists or that the group still names.
    fn any_disk(&mut self) -> DiskId {
        let pick = self.draw(DISKS + 3);
        let named = self.master.group.members.get(pick).map(|member| member.disk);
        named.unwrap_or_else(|| self.members[pick - 3].id)
    }

    /// `None`: it was destroyed.
    fn find(&self, disk: DiskId) -> Option<usize> {
        self.members.iter().position(|member| member.id == disk)
    }

    fn crash(&mut self, at: usize) {
        let mut coins: Vec<bool> = (0..64).map(|_| self.draw(2) == 0).collect();
        self.members[at].crash(|| coins.pop().unwrap_or(false));
        self.waiting.retain(|_, (member, _, _)| *member != at);
        // Connections break: who waits for this process is told, what it waits for is forgotten.
        self.calls.retain(|_, call| call.from != at);
        let id = self.members[at].id;
        self.master.leased.remove(&id);
        let broken: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.peer == id).map(|(call, _)| *call).collect();
        for call in broken {
            self.finish_call(call, Err(PeerError::Failed));
        }
    }

    /// Runs an event, then its effects.
    fn event<R>(
        &mut self,
        at: usize,
        event: impl FnOnce(&mut Replica<u64>, &mut Io<'_, Disk, u64>) -> R,
    ) -> Option<R> {
        let mut effects = Vec::new();
        let member = &mut self.members[at];
        let replica = member.replica.as_mut()?;
        let result = event(replica, &mut Io { store: &member.disk, effects: &mut effects });
        for effect in effects {
            self.effect(at, effect);
        }
        Some(result)
    }

    fn effect(&mut self, at: usize, effect: Effect<u64>) {
        let me = self.members[at].incarnation;
        match effect {
            Effect::Promise { epoch } => self.members[at].jobs.push(Job::Promise(epoch)),
            Effect::Apply { key, previous, version, stamp, content } => {
                self.members[at].jobs.push(Job::Apply { key, previous, version, stamp, write: content });
            }
            Effect::Replicate { peer, epoch, activation, key, previous, version, stamp, content } => {
                let at_ = (epoch, activation);
                let message = Message::Replicate { at: at_, key, previous, version, stamp, write: content };
                self.call(at, peer, activation, About::Replicate(key, version), message);
            }
            Effect::Committed { key, version } => {
                for to in (0..DISKS).filter(|to| *to != at) {
                    self.send(to, 0, Message::Commit { key, version });
                }
            }
            Effect::Answer { token, result } => self.answer(token, result),
            Effect::Prepare { peer, epoch, activation, after, fill } => {
                let message = Message::Prepare { at: (epoch, activation), after, fill };
                self.call(at, peer, activation, About::Prepare, message);
            }
            Effect::Equalise { peer, epoch, activation, key } => {
                let rec = self.members[at].disk.chunks.get(&key).cloned();
                let message = Message::Install { at: (epoch, activation), key, rec };
                self.call(at, peer, activation, About::Equalise(key), message);
            }
            Effect::Activate { peer, epoch, activation } => {
                let message = Message::Activate { at: (epoch, activation) };
                self.call(at, peer, activation, About::Activate, message);
            }
            Effect::Retry { activation, .. } => self.retries.push((at, me, Timer::Attempt(activation))),
            Effect::RetryFill { peer, activation, .. } => {
                self.retries.push((at, me, Timer::Fill(peer, activation)));
            }
            Effect::Level { peer, epoch } => {
                self.master.level.insert((epoch, peer));
            }
            Effect::Forward { peer, epoch, activation, key, previous, version, stamp, content } => {
                self.forwarded += 1;
                let at_ = (epoch, activation);
                let message = Message::Replicate { at: at_, key, previous, version, stamp, write: content };
                self.call(at, peer, activation, About::Forward(key), message);
            }
            Effect::Fill { peer, epoch, activation, key } => self.fill(at, peer, (epoch, activation), key),
            Effect::Outdated { .. } => self.untold.push((at, me)),
        }
    }

    /// Reads the chunk; sends it when what was read is committed.
    fn fill(&mut self, at: usize, to: DiskId, epoch: (Epoch, u64), key: ChunkKey) {
        let rec = self.members[at].disk.chunks.get(&key).cloned();
        let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
        let token = self.wait(at, Who::Fill { to, at: epoch, key, rec });
        let verdict = self.event(at, |replica, _| {
            replica.may_read(epoch.0).and_then(|permit| replica.read(token, permit, (key, version)))
        });
        match verdict.expect("it runs") {
            Ok(ReadVerdict::Wait) => {}
            Ok(ReadVerdict::Show) => self.answer(token, Ok(Done::default())),
            Err(refusal) => self.answer(token, Err(refusal)),
        }
    }

    fn call(&mut self, from: usize, peer: DiskId, activation: u64, about: About, message: Message) {
        let call = self.fresh();
        let incarnation = self.members[from].incarnation;
        self.calls.insert(call, Call { from, incarnation, peer, activation, about });
        match self.find(peer) {
            Some(to) => self.send(to, call, message),
            None => self.send(from, call, Message::Answer(Err(PeerError::Failed))),
        }
    }

    fn send(&mut self, to: usize, call: u64, message: Message) {
        let incarnation = self.members[to].incarnation;
        if self.members[to].replica.is_some() {
            self.flights.push(Flight { to, incarnation, call, message });
        } else if !matches!(message, Message::Answer(_)) {
            // Connection refused, noticed later.
            let error = Message::Answer(Err(PeerError::Failed));
            if let Some(from) = self.calls.get(&call).map(|call| call.from) {
                self.send(from, call, error);
            }
        }
    }

    fn finish_call(&mut self, call: u64, result: Result<Option<Page>, PeerError>) {
        let Some(Call { from, incarnation, peer, activation, about }) = self.calls.remove(&call) else {
            return;
        };
        if self.members[from].incarnation != incarnation {
            return;
        }
        let plain = result.clone().map(|_| ());
        self.event(from, |replica, io| match about {
            About::Replicate(key, version) => replica.replicated(peer, activation, (key, version), plain, io),
            About::Prepare => {
                replica.prepared(peer, activation, result.map(|page| page.expect("a page")), io);
            }
            About::Equalise(key) => replica.equalised(peer, activation, key, plain, io),
            About::Activate => replica.activated(peer, activation, plain, io),
            About::Fill(key, version) => {
                replica.filled(peer, activation, key, plain.map(|()| version), io);
            }
            About::Forward(key) => replica.forwarded(peer, activation, key, plain, io),
        });
    }

    fn wait(&mut self, at: usize, who: Who) -> Token {
        let token = self.fresh();
        let incarnation = self.members[at].incarnation;
        self.waiting.insert(token, (at, incarnation, who));
        token
    }

    fn answer(&mut self, token: Token, result: Result<Done, Refusal>) {
        let Some((at, incarnation, who)) = self.waiting.remove(&token) else { return };
        assert_eq!(self.members[at].incarnation, incarnation, "an answer of a dead process");
        match who {
            Who::Client(write) => {
                if result.is_ok() && !self.chance(self.faults.loss * 3) {
                    self.acknowledge(write);
                }
            }
            Who::Call { to, call, page } => {
                let result = match result {
                    Ok(_) => Ok(Some(self.page(at, page))),
                    Err(Refusal::Stale { epoch, activation }) => Err(PeerError::Stale { epoch, activation }),
                    Err(_) => Err(PeerError::Failed),
                };
                if self.members[to.0].incarnation == to.1 {
                    self.send(to.0, call, Message::Answer(result));
                }
            }
            Who::Read(read) => {
                if result.is_ok() {
                    self.show(read);
                }
            }
            Who::Fill { to, at: epoch, key, rec } => {
                let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
                if result.is_ok() {
                    let message = Message::Install { at: epoch, key, rec };
                    self.call(at, to, epoch.1, About::Fill(key, version), message);
                } else {
                    let failed = Err(PeerError::Failed);
                    self.event(at, |replica, io| replica.filled(to, epoch.1, key, failed, io));
                }
            }
        }
    }

    fn page(&self, at: usize, after: Option<Option<ChunkKey>>) -> Page {
        let incarnation = self.members[at].incarnation;
        let Some(after) = after else { return Page { chunks: vec![], end: false, incarnation } };
        let listed = self.members[at].disk.list(after, None).expect("memory does not fail");
        assert!(listed.chunks.len() <= PAGE);
        Page { chunks: listed.chunks, end: !listed.truncated, incarnation }
    }

    fn deliver(&mut self, flight: Flight) {
        let Flight { to, incarnation, call, message } = flight;
        if self.members[to].incarnation != incarnation || self.members[to].replica.is_none() {
            return;
        }
        let sender = self.calls.get(&call).map(|call| (call.from, call.incarnation));
        // A late message of a call that was given up is still acted on; nobody hears the answer.
        let back = sender.unwrap_or((to, 0));
        match message {
            Message::Answer(result) => self.finish_call(call, result),
            Message::Commit { key, version } => {
                self.event(to, |replica, _| replica.committed(key, version));
            }
            Message::Replicate { at, key, previous, version, stamp, write } => {
                let token = self.wait(to, Who::Call { to: back, call, page: None });
                let (epoch, activation) = at;
                let write =
                    Replicate { token, epoch, activation, key, previous, version, stamp, content: write };
                self.event(to, |replica, io| replica.replicate(write, io));
            }
            Message::Prepare { at, after, fill } => {
                let token = self.wait(to, Who::Call { to: back, call, page: after });
                self.event(to, |replica, io| replica.prepare(token, at, fill, io));
            }
            Message::Activate { at } => {
                let token = self.wait(to, Who::Call { to: back, call, page: None });
                self.event(to, |replica, io| replica.activate(token, at, io));
            }
            Message::Install { at, key, rec } => {
                let allowed = self.event(to, |replica, io| replica.install(at, key, io)).expect("it runs");
                match allowed {
                    Ok(()) => self.members[to].jobs.push(Job::Install { key, rec, call }),
                    Err(_) if sender.is_some() => {
                        self.send(back.0, call, Message::Answer(Err(PeerError::Failed)));
                    }
                    Err(_) => {}
                }
            }
        }
    }

    fn finish_job(&mut self, at: usize) {
        let pick = self.draw(16);
        let Some(index) = self.members[at].job_at(pick) else { return };
        let job = self.members[at].jobs.remove(index);
        let refuses = !matches!(job, Job::Promise(_)) && self.chance(self.faults.disk);
        let result = if refuses { Err(Fault::Full) } else { self.members[at].disk.finish(&job) };
        match job {
            Job::Promise(epoch) => {
                self.event(at, |replica, io| replica.promised(epoch, io));
            }
            Job::Apply { key, version, .. } => {
                let result = result.map(|()| 1);
                self.event(at, |replica, io| replica.applied(key, version, result, io));
            }
            Job::Install { key, call, .. } => {
                self.event(at, |replica, io| replica.installed(key, io));
                if let Some(from) = self.calls.get(&call).map(|call| call.from) {
                    let result = result.map(|()| None).map_err(|_| PeerError::Failed);
                    self.send(from, call, Message::Answer(result));
                }
            }
        }
    }

    fn key(&mut self) -> ChunkKey {
        let index = self.draw(5) as u32;
        ChunkKey::new(GroupId(1), DataId(9), index)
    }

    fn new_write(&mut self) {
        let key = self.key();
        let session = SessionId(1 + self.draw(2) as u64);
        let stamp = Stamp { session, seq: self.fresh() };
        self.writes.push(ClientWrite { key, stamp, acknowledged: false });
        self.send_write(self.writes.len() - 1);
    }

    /// Sends a write (again) to who the client believes is primary.
    fn send_write(&mut self, write: usize) {
        let wrong = self.chance(50);
        let primary = self.at(self.master.group.primary().expect("somebody serves"));
        let at = if wrong { self.draw(DISKS) } else { primary };
        let Some(replica) = &self.members[at].replica else { return };
        // A client's table may be as old as the member's.
        let epoch = if wrong { replica.epoch() } else { self.master.group.epoch };
        let token = self.wait(at, Who::Client(write));
        let ClientWrite { key, stamp, .. } = self.writes[write];
        let content = write as u64;
        self.event(at, |replica, io| {
            let fence = Fence::NONE;
            replica.write(Write { token, key, epoch, stamp: Some(stamp), fence, content }, io);
        });
    }

    fn acknowledge(&mut self, write: usize) {
        self.writes[write].acknowledged = true;
    }

    fn acknowledged_of(&self, key: ChunkKey) -> Vec<u64> {
        let mine = self.writes.iter().enumerate().filter(|(_, write)| write.acknowledged && write.key == key);
        mine.map(|(id, _)| id as u64).collect()
    }

    fn begin_read(&mut self) {
        let member = self.draw(DISKS);
        let key = self.key();
        let own = self.members[member].replica.as_ref().map_or(Epoch(0), Replica::epoch);
        let epoch = if self.draw(2) == 0 { own } else { self.master.group.epoch };
        let Some(Ok(permit)) = self.event(member, |replica, _| replica.may_read(epoch)) else { return };
        let read = PendingRead {
            member,
            incarnation: self.members[member].incarnation,
            key,
            permit,
            rec: self.members[member].disk.chunks.get(&key).cloned().unwrap_or_default(),
            acknowledged: self.acknowledged_of(key),
            shown: self.shown.get(&key).cloned().unwrap_or_default(),
        };
        self.reads.push(read);
    }

    fn finish_read(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let pick = self.draw(self.reads.len());
        let read = self.reads.swap_remove(pick);
        if self.members[read.member].incarnation != read.incarnation {
            return;
        }
        if self.faults.leases && !self.may_answer(read.member) {
            return;
        }
        let at = (read.key, read.rec.version);
        let token = self.wait(read.member, Who::Read(read.clone()));
        match self.event(read.member, |replica, _| replica.read(token, read.permit, at)) {
            Some(Ok(ReadVerdict::Wait)) => {}
            Some(Ok(ReadVerdict::Show)) => {
                self.waiting.remove(&token);
                self.show(read);
            }
            Some(Err(_)) | None => {
                self.waiting.remove(&token);
            }
        }
    }

    /// By its lease, or because all other members of its epoch follow it still.
    fn may_answer(&self, member: usize) -> bool {
        let id = self.members[member].id;
        let Some(replica) = &self.members[member].replica else { return false };
        let confirms = |disk: &DiskId| {
            let other = self.find(*disk).and_then(|at| self.members[at].replica.as_ref());
            other.is_some_and(|other| other.confirm(replica.epoch()).is_ok())
        };
        self.master.leased.contains(&id) || replica.others().is_some_and(|others| others.iter().all(confirms))
    }

    /// A reader sees this.
    fn show(&mut self, read: PendingRead) {
        let PendingRead { member, key, rec, acknowledged, shown, .. } = read;
        for write in &acknowledged {
            assert!(rec.writes.contains(write), "I4: member {member} does not show write {write} of {key:?}");
        }
        assert!(rec.writes.starts_with(&shown), "I4: {:?} was shown, then {:?}", shown, rec.writes);
        let longest = self.shown.entry(key).or_default();
        let (short, long) = if longest.len() < rec.writes.len() {
            (&*longest, &rec.writes)
        } else {
            (&rec.writes, &*longest)
        };
        assert!(long.starts_with(short), "{long:?} and {short:?} were both shown");
        if longest.len() < rec.writes.len() {
            longest.clone_from(&rec.writes);
        }
        self.shown_count += 1;
    }

    pub(crate) fn step(&mut self) {
        match self.draw(16) {
            0..=5 => self.network(),
            6..=9 => {
                let at = self.draw(DISKS);
                self.finish_job(at);
            }
            10 => self.new_write(),
            11 => {
                // A retry, also of what was acknowledged: a duplicate that comes late.
                if !self.writes.is_empty() {
                    let recent = self.writes.len().min(10);
                    let write = self.writes.len() - 1 - self.draw(recent);
                    self.send_write(write);
                }
            }
            12 => self.begin_read(),
            13 => self.finish_read(),
            14 => self.timers(),
            _ => self.fate(),
        }
    }

    fn network(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let pick = self.draw(self.flights.len());
        if self.chance(self.faults.loss) {
            // Given up by its sender; the message itself is lost, or comes late.
            let call = self.flights[pick].call;
            if self.chance(500) {
                self.flights.swap_remove(pick);
            }
            self.finish_call(call, Err(PeerError::Failed));
            return;
        }
        let flight = if self.chance(self.faults.loss)
            && !matches!(self.flights[pick].message, Message::Install { .. })
        {
            self.flights[pick].clone()
        } else {
            self.flights.swap_remove(pick)
        };
        self.deliver(flight);
    }

    fn timers(&mut self) {
        if !self.untold.is_empty() {
            let pick = self.draw(self.untold.len());
            let (at, incarnation) = self.untold.swap_remove(pick);
            if self.members[at].incarnation == incarnation {
                let members = &self.members;
                let at_ = |disk: DiskId| members.iter().find(|member| member.id == disk);
                let view = self.master.view(|disk| at_(disk).map_or(0, |member| member.incarnation));
                if self.members[at].replica.is_some() {
                    self.master.leased.insert(self.members[at].id);
                }
                let clock = self.clock();
                self.event(at, |replica, io| replica.table(view, clock, io));
            }
        }
        if !self.retries.is_empty() {
            let pick = self.draw(self.retries.len());
            let (at, incarnation, timer) = self.retries.swap_remove(pick);
            if self.members[at].incarnation == incarnation {
                self.event(at, |replica, io| match timer {
                    Timer::Attempt(activation) => replica.retry(activation, io),
                    Timer::Fill(disk, activation) => replica.retry_fill(disk, activation, io),
                });
            }
        }
    }

    fn fate(&mut self) {
        let at = self.draw(DISKS);
        if self.members[at].replica.is_none() {
            if self.healed || self.draw(4) == 0 {
                self.start(at);
            }
        } else if self.chance(self.faults.crash) {
            self.crash(at);
        }
        let disk = self.any_disk();
        if self.chance(self.faults.epoch) {
            match self.draw(7) {
                0 | 1 => self.change(Change::Out(disk)),
                4 => self.change(Change::Add(disk)),
                5 => self.change(Change::Drop(disk)),
                3 => self.destroy(disk),
                2 => self.change(Change::Lead(disk)),
                _ => {
                    let spare = self.any_disk();
                    self.change(Change::Replace { absent: disk, spare });
                }
            }
        } else if self.chance(BRING_BACK) {
            self.bring_back(disk);
        }
    }

    /// The disk is no more; an empty one with another number takes its slot.
    fn destroy(&mut self, disk: DiskId) {
        let Some(at) = self.find(disk) else { return };
        if !self.master.change(Change::Lost(disk)) {
            return;
        }
        if self.members[at].replica.is_some() {
            self.crash(at);
        }
        let id = DiskId(100 + self.fresh() as u32);
        let incarnation = self.members[at].incarnation;
        self.members[at] = Member { incarnation, ..Member::new(id) };
        self.start(at);
    }

    /// The next change on the way of this member back to serving, if it is due.
    fn bring_back(&mut self, disk: DiskId) {
        let epoch = self.master.group.epoch;
        let primary = self.at(self.master.group.primary().expect("somebody serves"));
        let active = self.members[primary]
            .replica
            .as_ref()
            .is_some_and(|replica| replica.epoch() == epoch && replica.stage() == Stage::Active);
        match self.master.state(disk) {
            Some(MemberState::Offline) => match self.find(disk) {
                Some(at) if self.members[at].replica.is_some() => self.change(Change::Sync(disk)),
                Some(_) => {}
                None => {
                    let mut spare = self.members.iter().map(|member| member.id);
                    match spare.find(|disk| self.master.state(*disk).is_none()) {
                        Some(spare) => self.change(Change::Replace { absent: disk, spare }),
                        // All are in a group that was moving.
                        None => self.change(Change::Drop(disk)),
                    }
                }
            },
            Some(MemberState::Syncing) if self.master.level.contains(&(epoch, disk)) => {
                self.joined += 1;
                self.change(Change::Join(disk));
            }
            Some(MemberState::Joining) if active => self.change(Change::Settle(disk)),
            // Refused, but of a group that has one too many.
            Some(MemberState::Serving) => self.change(Change::Drop(disk)),
            Some(_) | None => {}
        }
    }

    fn change(&mut self, change: Change) {
        if self.master.change(change) {
            self.tell_everybody();
        }
    }

    /// Faults stop; everything that waits gets done.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        for at in 0..DISKS {
            if self.members[at].replica.is_none() {
                self.start(at);
            }
        }
        self.tell_everybody();
        for round in 0.. {
            assert!(round < 400, "not at rest: {:?} {:?}", self.stages(), self.master);
            for _ in 0..200 {
                match self.draw(3) {
                    0 => self.network(),
                    1 => {
                        let at = self.draw(DISKS);
                        self.finish_job(at);
                    }
                    _ => self.timers(),
                }
            }
            let open: Vec<_> =
                (0..self.writes.len()).filter(|write| !self.writes[*write].acknowledged).collect();
            let idle = self.flights.is_empty()
                && self.untold.is_empty()
                && self.members.iter().all(|member| member.jobs.is_empty());
            let disks: Vec<_> = self.master.group.members.iter().map(|member| member.disk).collect();
            disks.into_iter().for_each(|disk| self.bring_back(disk));
            let whole = self.master.group.members.iter().all(|m| m.state == MemberState::Serving);
            if idle && open.is_empty() && whole && self.stages() == [Stage::Active; 3] {
                return;
            }
            if idle {
                open.into_iter().for_each(|write| self.send_write(write));
            }
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let replica = |disk| self.find(disk).and_then(|at| self.members[at].replica.as_ref());
        let stage = |disk| replica(disk).map_or(Stage::Out, Replica::stage);
        self.master.group.members.iter().map(|member| stage(member.disk)).collect()
    }

    pub(crate) fn lose_a_write(&mut self) {
        for rec in self.members[1].disk.chunks.values_mut() {
            rec.writes.pop();
        }
    }

    pub(crate) fn check(&self) {
        for (a, b) in [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)] {
            for (key, rec) in &self.members[a].disk.chunks {
                if let Some(other) = self.members[b].disk.chunks.get(key)
                    && other.version == rec.version
                    && self.faults.loss + self.faults.crash > 0
                {
                    assert_eq!(rec, other, "equal versions of {key:?} hold different bytes");
                }
            }
        }
        for member in &self.members {
            for (key, rec) in &member.disk.chunks {
                let mut once = rec.writes.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(
                    once.len(),
                    rec.writes.len(),
                    "I5: a write of {key:?} was applied twice: {:?}",
                    rec.writes
                );
            }
            if self.master.state(member.id) != Some(MemberState::Serving) {
                continue;
            }
            for (id, write) in self.writes.iter().enumerate().filter(|(_, write)| write.acknowledged) {
                let here = member.disk.chunks.get(&write.key);
                let has = here.is_some_and(|rec| rec.writes.contains(&(id as u64)));
                assert!(
                    has || self.lost_on_purpose(),
                    "I1: {:?} lacks the acknowledged write {id}",
                    member.id
                );
            }
        }
    }

    /// Only the harness' own test takes writes away; there, readers must notice.
    fn lost_on_purpose(&self) -> bool {
        self.faults.loss + self.faults.crash == 0
    }

    pub(crate) fn check_healed(&self) {
        let disks: Vec<_> =
            self.master.group.members.iter().map(|m| &self.members[self.at(m.disk)]).collect();
        let [a, b, c] = disks[..] else { panic!("three members") };
        assert_eq!(a.disk.chunks, b.disk.chunks);
        assert_eq!(a.disk.chunks, c.disk.chunks);
        for member in [a, b, c] {
            let replica = member.replica.as_ref().expect("healed");
            assert_eq!(replica.backlog(), 0, "{:?} has something in flight for ever", member.id);
        }
    }
}
