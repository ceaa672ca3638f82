//! The members, the network between them, the clients, and what is checked.

use std::collections::BTreeMap;

use chunkserver_core::{
    Done, Effect, Fault, Io, MemberInfo, Page, PeerError, ReadPermit, ReadVerdict, Refusal, Replica,
    Replicate, Stage, Store, Token, View, Write,
};
use coord_types::{ChunkKey, DataId, DiskId, Epoch, GroupId, SessionId, Stamp, Version};

use super::member::{Disk, Job, Member, PAGE, Rec};

/// Chances in a thousand, for each step (or message, or job).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) crash: u64,
    pub(crate) disk: u64,
    pub(crate) epoch: u64,
    pub(crate) depth: usize,
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
}

/// Who waits for an answer of a replica.
#[derive(Clone, Debug)]
enum Who {
    Client(usize),
    Call { to: (usize, u64), call: u64, page: Option<Option<ChunkKey>> },
    Read(PendingRead),
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
    /// The master's view; members learn it late.
    view: View,
    untold: Vec<(usize, u64)>,
    flights: Vec<Flight>,
    calls: BTreeMap<u64, Call>,
    retries: Vec<(usize, u64, u64)>,
    waiting: BTreeMap<Token, (usize, u64, Who)>,
    reads: Vec<PendingRead>,
    writes: Vec<ClientWrite>,
    shown: BTreeMap<ChunkKey, Vec<u64>>,
    shown_count: usize,
    next: u64,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let members: Vec<_> = (0..3).map(|at| Member::new(DiskId(at + 1))).collect();
        let serving = members.iter().map(|m| MemberInfo { disk: m.id, incarnation: 0 }).collect();
        let mut world = Self {
            random: seed,
            faults,
            healed: false,
            members,
            view: View { epoch: Epoch(1), serving },
            untold: Vec::new(),
            flights: Vec::new(),
            calls: BTreeMap::new(),
            retries: Vec::new(),
            waiting: BTreeMap::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            shown: BTreeMap::new(),
            shown_count: 0,
            next: 1,
        };
        for at in 0..3 {
            world.start(at);
        }
        world
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.writes.iter().filter(|write| write.acknowledged).count()
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
        let incarnation = self.members[at].incarnation;
        // The table shows the new incarnation to everybody, some time.
        let id = self.members[at].id;
        for member in &mut self.view.serving {
            if member.disk == id {
                member.incarnation = incarnation;
            }
        }
        for other in 0..3 {
            self.untold.push((other, self.members[other].incarnation));
        }
    }

    fn crash(&mut self, at: usize) {
        let mut coins: Vec<bool> = (0..64).map(|_| self.draw(2) == 0).collect();
        self.members[at].crash(|| coins.pop().unwrap_or(false));
        self.waiting.retain(|_, (member, _, _)| *member != at);
        // Connections break: who waits for this process is told, what it waits for is forgotten.
        self.calls.retain(|_, call| call.from != at);
        let id = self.members[at].id;
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
                for to in (0..3).filter(|to| *to != at) {
                    self.send(to, 0, Message::Commit { key, version });
                }
            }
            Effect::Answer { token, result } => self.answer(token, result),
            Effect::Prepare { peer, epoch, activation, after } => {
                let message = Message::Prepare { at: (epoch, activation), after };
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
            Effect::Retry { activation, .. } => self.retries.push((at, me, activation)),
            Effect::Outdated { .. } => self.untold.push((at, me)),
        }
    }

    fn call(&mut self, from: usize, peer: DiskId, activation: u64, about: About, message: Message) {
        let call = self.fresh();
        let incarnation = self.members[from].incarnation;
        self.calls.insert(call, Call { from, incarnation, peer, activation, about });
        let to = self.members.iter().position(|member| member.id == peer).expect("a member");
        self.send(to, call, message);
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
            Message::Prepare { at, after } => {
                let token = self.wait(to, Who::Call { to: back, call, page: after });
                self.event(to, |replica, io| replica.prepare(token, at, io));
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
            Job::Install { call, .. } => {
                self.event(at, |replica, io| replica.installed(io));
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
        let wrong = self.chance(20);
        let target = if wrong { DiskId(1 + self.draw(3) as u32) } else { self.view.serving[0].disk };
        let at = self.members.iter().position(|member| member.id == target).expect("a member");
        if self.members[at].replica.is_none() {
            return;
        }
        let token = self.wait(at, Who::Client(write));
        let ClientWrite { key, stamp, .. } = self.writes[write];
        let epoch = self.view.epoch;
        let content = write as u64;
        self.event(at, |replica, io| {
            replica.write(Write { token, key, epoch, stamp: Some(stamp), content }, io);
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
        let member = self.draw(3);
        let key = self.key();
        let epoch = self.view.epoch;
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
                let at = self.draw(3);
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
                let view = self.view.clone();
                let clock = self.clock();
                self.event(at, |replica, io| replica.table(view, clock, io));
            }
        }
        if !self.retries.is_empty() {
            let pick = self.draw(self.retries.len());
            let (at, incarnation, activation) = self.retries.swap_remove(pick);
            if self.members[at].incarnation == incarnation {
                self.event(at, |replica, io| replica.retry(activation, io));
            }
        }
    }

    fn fate(&mut self) {
        let at = self.draw(3);
        if self.members[at].replica.is_none() {
            if self.healed || self.draw(4) == 0 {
                self.start(at);
            }
        } else if self.chance(self.faults.crash) {
            self.crash(at);
        }
        if self.chance(self.faults.epoch) {
            // All three have every acknowledged write: any of them may lead the next epoch.
            self.view.epoch.0 += 1;
            let by = self.draw(3);
            self.view.serving.rotate_left(by);
            for other in 0..3 {
                self.untold.push((other, self.members[other].incarnation));
            }
        }
    }

    /// Faults stop; everything that waits gets done.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        for at in 0..3 {
            if self.members[at].replica.is_none() {
                self.start(at);
            }
            self.untold.push((at, self.members[at].incarnation));
        }
        for round in 0.. {
            assert!(round < 400, "not at rest: {:?}", self.stages());
            for _ in 0..200 {
                match self.draw(3) {
                    0 => self.network(),
                    1 => {
                        let at = self.draw(3);
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
            if idle && open.is_empty() && self.stages() == [Stage::Active; 3] {
                return;
            }
            if idle {
                open.into_iter().for_each(|write| self.send_write(write));
            }
        }
    }

    fn stages(&self) -> Vec<Stage> {
        self.members.iter().map(|m| m.replica.as_ref().map_or(Stage::Out, Replica::stage)).collect()
    }

    pub(crate) fn lose_a_write(&mut self) {
        for rec in self.members[1].disk.chunks.values_mut() {
            rec.writes.pop();
        }
    }

    pub(crate) fn check(&self) {
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
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
        let [a, b, c] = &self.members[..] else { panic!("three members") };
        assert_eq!(a.disk.chunks, b.disk.chunks);
        assert_eq!(a.disk.chunks, c.disk.chunks);
        for member in &self.members {
            let replica = member.replica.as_ref().expect("healed");
            assert_eq!(replica.backlog(), 0, "{:?} has something in flight for ever", member.id);
        }
    }
}
