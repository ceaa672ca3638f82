//! One member: the real replica, a disk, and the adapter that does what the replica asks (`chunkserver/server/src/replicate.rs`,
//! `fill.rs`, `service/replica.rs` in small). A step is a function of the member and what happens to it.

use chunkserver_core::{
    Done, Fault, Io, Limits, Page, PeerError, ReadVerdict, Refusal, Replica, Replicate, Stage, Start,
    Store as _, Token, View, Write,
};
use coord_types::{ChunkKey, DiskId, Epoch, Fence, SessionId, Stamp, Version};

use super::bug::Bug;
use super::disk::{Disk, Job, Shelf};
use super::message::{About, At, Body, Call, Message, Names, Read, Who};
use super::setup::{DISKS_MAX, Setup, disk, key, place};

/// The incarnation of the process at each place, 0 where none runs.
pub(crate) type Processes = [u8; DISKS_MAX];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) place: u8,
    pub(crate) incarnation: u8,
    /// The newest table it has.
    pub(crate) adopted: u8,
    /// Calls this process gave up.
    pub(super) given_up: u8,
    /// `None` while the process is down.
    pub(crate) replica: Option<Replica<u8>>,
    pub(crate) disk: Disk,
    pub(crate) jobs: Vec<Job>,
    pub(crate) tasks: Vec<Task>,
    /// Numbers of the calls it waits for, ascending.
    pub(crate) calls: Vec<u32>,
}

/// What the server does some time later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Task {
    Retry(u64),
    RetryFill(DiskId, u64),
    Fill(DiskId, At, ChunkKey),
}

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    Start,
    /// Which jobs became durable, one bit each.
    Crash {
        survivors: u8,
    },
    /// The number of a message.
    Deliver(u32),
    /// The number of a call: its connection broke, or it is not waited for any more.
    Fail {
        call: u32,
        given_up: bool,
    },
    Job {
        at: u8,
        refused: bool,
    },
    Task {
        at: u8,
    },
    Table {
        view: u32,
        version: u8,
    },
    Write(u8),
    /// The number of who waits: the end of a read.
    Read(u32),
}

/// What the others notice of a step.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Send(u32),
    Acknowledged {
        write: u8,
        epoch: Epoch,
    },
    Level {
        disk: DiskId,
        epoch: Epoch,
    },
    Active(Epoch),
    /// A read's answer: the number of who waited.
    Shown(u32),
}

impl Member {
    pub(crate) fn new(place: usize) -> Self {
        Self {
            place: u8::try_from(place).expect("few disks"),
            incarnation: 0,
            adopted: 0,
            given_up: 0,
            replica: None,
            disk: Disk::default(),
            jobs: Vec::new(),
            tasks: Vec::new(),
            calls: Vec::new(),
        }
    }
}

/// A member during a step.
pub(crate) struct Step<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) names: &'a mut Names,
    pub(crate) processes: Processes,
    pub(crate) member: Member,
    pub(crate) outputs: Vec<Output>,
}

impl Step<'_> {
    pub(crate) fn run(&mut self, input: Input, view: Option<View>) {
        match input {
            Input::Start => self.start(),
            Input::Crash { survivors } => self.crash(survivors),
            Input::Deliver(message) => {
                let message = self.names.messages.get(message).clone();
                self.deliver(message);
            }
            Input::Fail { call, given_up } => {
                self.member.given_up += u8::from(given_up);
                self.finish_call(call, Err(PeerError::Failed));
            }
            Input::Job { at, refused } => self.finish_job(at, refused),
            Input::Task { at } => {
                let task = self.member.tasks.remove(at.into());
                self.task(task);
            }
            Input::Table { view: _, version } => {
                self.member.adopted = version;
                let view = view.expect("the caller looked it up");
                let clock = self.clock(view.epoch);
                self.event(|replica, io| replica.table(view, clock, io));
            }
            Input::Write(write) => self.write(write),
            Input::Read(who) => self.end_read(who),
        }
        self.forget_dead_calls();
        let Some(replica) = &self.member.replica else { return };
        if replica.is_primary() && replica.stage() == Stage::Active {
            self.outputs.push(Output::Active(replica.epoch()));
        }
    }

    /// Of each process and epoch another one, far from all others.
    fn clock(&self, epoch: Epoch) -> u64 {
        let incarnation = u64::from(self.member.incarnation);
        let hour = if self.setup.clock_back { 9 - incarnation } else { incarnation };
        epoch.0 * 1000 + hour * 100
    }

    fn start(&mut self) {
        let limits = Limits { local_depth: self.setup.depth, ..Limits::default() };
        let me = disk(self.member.place.into());
        self.member.incarnation += 1;
        self.member.replica = Some(Replica::new(Start { me, promised: self.member.disk.promised, limits }));
    }

    fn crash(&mut self, survivors: u8) {
        let member = &mut self.member;
        member.disk.crash(&member.jobs, survivors);
        let disk = std::mem::take(&mut member.disk);
        *member = Member { incarnation: member.incarnation, disk, ..Member::new(member.place.into()) };
    }

    /// Runs an event, then its effects.
    pub(super) fn event<R>(
        &mut self,
        event: impl FnOnce(&mut Replica<u8>, &mut Io<'_, Shelf<'_>, u8>) -> R,
    ) -> Option<R> {
        let mut effects = Vec::new();
        let member = &mut self.member;
        let store = Shelf { disk: &member.disk, setup: self.setup };
        let result = event(member.replica.as_mut()?, &mut Io { store: &store, effects: &mut effects });
        for effect in effects {
            self.effect(effect);
        }
        Some(result)
    }

    pub(super) fn finish_call(&mut self, number: u32, result: Result<Option<Page>, PeerError>) {
        let Ok(at) = self.member.calls.binary_search(&number) else { return };
        self.member.calls.remove(at);
        let call = self.names.calls.get(number).clone();
        self.event(|replica, io| finish(replica, &call, result, io));
    }

    /// An answer to an older activation changes nothing: neither it nor the call needs to be kept. That this is so is
    /// tried out.
    fn forget_dead_calls(&mut self) {
        let Some(replica) = &self.member.replica else { return };
        let activation = replica.activation();
        let names = &self.names.calls;
        let (alive, dead) =
            self.member.calls.iter().partition::<Vec<_>, _>(|call| names.get(**call).at.1 == activation);
        for call in &dead {
            let store = Shelf { disk: &self.member.disk, setup: self.setup };
            for result in [Ok(Some(Page::default())), Err(PeerError::Failed)] {
                let (mut same, mut effects) = (replica.clone(), Vec::new());
                let io = &mut Io { store: &store, effects: &mut effects };
                finish(&mut same, names.get(*call), result, io);
                assert!(same == *replica && effects.is_empty(), "an answer to an older activation counts");
            }
        }
        self.member.calls = alive;
        let current = |task: &Task| match task {
            Task::Retry(of) | Task::RetryFill(_, of) => *of == activation,
            Task::Fill(..) => true,
        };
        self.member.tasks.retain(current);
    }

    pub(super) fn answer(&mut self, token: Token, result: Result<Done, Refusal>) {
        let number = u32::try_from(token).expect("tokens are numbers of who waits");
        match self.names.who.get(number).clone() {
            Who::Client(write) => {
                if result.is_ok() {
                    let epoch = self.member.replica.as_ref().expect("it runs").epoch();
                    self.outputs.push(Output::Acknowledged { write, epoch });
                }
            }
            Who::Member { call, page } => {
                let result = match result {
                    Ok(_) => Ok(Some(self.page(page))),
                    Err(refusal) => Err(peer_error(refusal)),
                };
                self.reply(call, result);
            }
            Who::Read(_) => {
                if result.is_ok() {
                    self.outputs.push(Output::Shown(number));
                }
            }
            Who::Fill { to, at, key, rec } => {
                let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
                if result.is_ok() {
                    self.call(to, at, About::Fill(key, version), Body::Install { at, key, rec });
                } else {
                    let failed = Err(PeerError::Failed);
                    self.event(|replica, io| replica.filled(to, at.1, key, failed, io));
                }
            }
        }
    }

    fn reply(&mut self, call: Option<u32>, result: Result<Option<Page>, PeerError>) {
        let Some(number) = call else { return };
        let caller = self.names.calls.get(number);
        let (to, incarnation) = (caller.from, caller.incarnations.0);
        let body = Body::Answer(result);
        let message = Message { from: self.member.place, to, incarnation, call, body };
        self.outputs.push(Output::Send(self.names.messages.number(message)));
    }

    fn page(&self, after: Option<Option<ChunkKey>>) -> Page {
        let incarnation = self.member.incarnation.into();
        let Some(after) = after else { return Page { incarnation, ..Page::default() } };
        let shelf = Shelf { disk: &self.member.disk, setup: self.setup };
        let listed = shelf.list(after, None).expect("memory does not fail");
        Page { chunks: listed.chunks, end: !listed.truncated, incarnation }
    }

    fn token(&mut self, who: Who) -> Token {
        self.names.who.number(who).into()
    }

    /// The attempt a message is taken for.
    fn taken_for(&self, at: At, body: &Body) -> At {
        let replica = self.member.replica.as_ref().expect("it runs");
        let mine = (replica.epoch(), replica.activation());
        let same_epoch = at.0 == mine.0;
        let heeds = match body {
            Body::Replicate { .. } => same_epoch && self.setup.has(Bug::WriteOfAnyActivation),
            Body::Install { .. } => same_epoch && self.setup.has(Bug::InstallOfAnyActivation),
            Body::Activate { .. } => same_epoch && self.setup.has(Bug::ActivateOfAnyActivation),
            Body::Prepare { .. } | Body::Commit { .. } | Body::Answer(_) => false,
        };
        if heeds { mine } else { at }
    }

    fn deliver(&mut self, message: Message) {
        let Message { call, body, .. } = message;
        let at = body.at().map(|at| self.taken_for(at, &body)).unwrap_or_default();
        match body {
            Body::Answer(result) => {
                if let Some(call) = call {
                    self.finish_call(call, result);
                }
            }
            Body::Commit { key, version } => {
                self.event(|replica, _| replica.committed(key, version));
            }
            Body::Replicate { key, previous, version, write, .. } => {
                let token = self.token(Who::Member { call, page: None });
                let (epoch, activation) = at;
                let stamp = Some(stamp(write));
                let content = write;
                let write = Replicate { token, epoch, activation, key, previous, version, stamp, content };
                self.event(|replica, io| replica.replicate(write, io));
            }
            Body::Prepare { after, fill, .. } => {
                let token = self.token(Who::Member { call, page: after });
                self.event(|replica, io| replica.prepare(token, at, fill, io));
            }
            Body::Activate { .. } => {
                let token = self.token(Who::Member { call, page: None });
                self.event(|replica, io| replica.activate(token, at, io));
            }
            Body::Install { key, rec, .. } => {
                match self.event(|replica, io| replica.install(at, key, io)).expect("it runs") {
                    Ok(()) => self.member.jobs.push(Job::Install { key, rec, reply: call }),
                    Err(refusal) => self.reply(call, Err(peer_error(refusal))),
                }
            }
        }
    }

    fn finish_job(&mut self, at: u8, refused: bool) {
        let job = self.member.jobs.remove(at.into());
        let result = if refused { Err(Fault::Full) } else { self.member.disk.finish(&job) };
        match job {
            Job::Promise(epoch) => {
                self.event(|replica, io| replica.promised(epoch, io));
            }
            Job::Apply { key, version, .. } => {
                let result = result.map(|()| 1);
                self.event(|replica, io| replica.applied(key, version, result, io));
            }
            Job::Install { key, reply, .. } => {
                self.event(|replica, io| replica.installed(key, io));
                self.reply(reply, result.map(|()| None).map_err(|_| PeerError::Failed));
            }
            Job::Unsynced { .. } => {}
        }
    }

    fn task(&mut self, task: Task) {
        match task {
            Task::Retry(activation) => {
                self.event(|replica, io| replica.retry(activation, io));
            }
            Task::RetryFill(peer, activation) => {
                self.event(|replica, io| replica.retry_fill(peer, activation, io));
            }
            Task::Fill(to, at, key) => self.fill(to, at, key),
        }
    }

    /// Reads the chunk; sends it when what was read is committed.
    fn fill(&mut self, to: DiskId, at: At, key: ChunkKey) {
        let rec = self.member.disk.chunks.get(&key).cloned();
        let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
        let token = self.token(Who::Fill { to, at, key, rec });
        if self.setup.has(Bug::FillUncommitted) {
            return self.answer(token, Ok(Done::default()));
        }
        let verdict = self.event(|replica, _| {
            replica.may_read(at.0).and_then(|permit| replica.read(token, permit, (key, version)))
        });
        match verdict.expect("it runs") {
            Ok(ReadVerdict::Wait) => {}
            Ok(ReadVerdict::Show) => self.answer(token, Ok(Done::default())),
            Err(refusal) => self.answer(token, Err(refusal)),
        }
    }

    fn write(&mut self, write: u8) {
        let token = self.token(Who::Client(write));
        let (key, stamp) = (key(self.setup.writes[usize::from(write)]), Some(stamp(write)));
        let mut fence = self.setup.fence(write);
        if self.setup.has(Bug::RaiseAtOnce) && !self.setup.is_raise(write) {
            if fence < self.member.disk.fence(key.fence_record(), self.setup) {
                return;
            }
            // So that no raise waits for it.
            fence = Fence(u64::MAX);
        }
        self.event(|replica, io| {
            let epoch = replica.epoch();
            replica.write(Write { token, key, epoch, stamp, fence, content: write }, io);
        });
    }

    fn end_read(&mut self, who: u32) {
        let Who::Read(Read { key, rec, permit, epoch, .. }) = self.names.who.get(who).clone() else { return };
        let late = self.setup.has(Bug::LateReadPermit);
        let verdict = self.event(|replica, _| {
            let permit = if late { replica.may_read(epoch)? } else { permit };
            replica.read(who.into(), permit, (key, rec.version))
        });
        if let Some(Ok(ReadVerdict::Show)) = verdict {
            self.outputs.push(Output::Shown(who));
        }
    }
}

/// A call of this replica has ended.
fn finish(
    replica: &mut Replica<u8>,
    call: &Call,
    result: Result<Option<Page>, PeerError>,
    io: &mut Io<'_, Shelf<'_>, u8>,
) {
    let (peer, activation) = (disk(call.to.into()), call.at.1);
    let plain = result.clone().map(|_| ());
    match call.about {
        About::Replicate(key, version) => replica.replicated(peer, activation, (key, version), plain, io),
        About::Prepare { .. } => {
            replica.prepared(peer, activation, result.map(Option::unwrap_or_default), io);
        }
        About::Equalise(key) => replica.equalised(peer, activation, key, plain, io),
        About::Activate => replica.activated(peer, activation, plain, io),
        About::Fill(key, version) => replica.filled(peer, activation, key, plain.map(|()| version), io),
        About::Forward(key, _) => replica.forwarded(peer, activation, key, plain, io),
    }
}

fn stamp(write: u8) -> Stamp {
    Stamp { session: SessionId(1), seq: write.into() }
}

fn peer_error(refusal: Refusal) -> PeerError {
    match refusal {
        Refusal::Stale { epoch, activation } => PeerError::Stale { epoch, activation },
        Refusal::NotPrimary
        | Refusal::Fenced { .. }
        | Refusal::NotCommitted
        | Refusal::NotServing
        | Refusal::Busy
        | Refusal::Fault(_) => PeerError::Failed,
    }
}

pub(super) fn peer_place(peer: DiskId) -> u8 {
    u8::try_from(place(peer)).expect("few disks")
}
