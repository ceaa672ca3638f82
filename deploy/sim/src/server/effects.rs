//! What a replica asks for, done: `chunkserver/server/src/replicate.rs`, `fill.rs` and `group.rs`.

use std::sync::Arc;

use chunkserver_core::{Done, Effect, Fault, PeerError, ReadVerdict, Refusal};
use coord_types::{ChunkKey, DiskId, Epoch, GroupId, Version};

use super::Who;
use crate::bug::Bug;
use crate::clock::{MS, Micros, SECOND};
use crate::disk::{Content, Job};
use crate::message::{About, Answer, End, Failure, Reply, Request};
use crate::world::{Event, Timer, World};

const REPLICATE_TIMEOUT: Micros = 10 * SECOND;
const PREPARE_TIMEOUT: Micros = 5 * SECOND;
const BACKOFF_MIN: Micros = 25 * MS;
const BACKOFF_MAX: Micros = 250 * MS;
const FILL_BACKOFF_MIN: Micros = 100 * MS;
const FILL_BACKOFF_MAX: Micros = 2 * SECOND;

/// The failure of a chunk that does not have its checksums.
pub(crate) const DAMAGED: Failure = Failure::Refused(Refusal::Fault(Fault::Damaged));

impl World {
    pub(crate) fn effect(&mut self, s: usize, group: GroupId, effect: Effect<Content>) {
        match effect {
            Effect::Promise { epoch } => self.job(s, Job::Promise { group, epoch }),
            Effect::Apply { key, previous, version, stamp, content } => {
                self.job(s, Job::Apply { key, previous, version, stamp, content });
            }
            Effect::Replicate { peer, epoch, activation, key, previous, version, stamp, content } => {
                let (at, committed) = ((epoch, activation), self.take_commits(s, peer));
                let request =
                    Request::Replicate { disk: peer, at, key, previous, version, stamp, content, committed };
                let at = (key, version);
                if self.options.bug == Some(Bug::AckEarly) {
                    self.ask_peer(s, peer, request, About::Nothing, REPLICATE_TIMEOUT);
                    self.event(s, group, |replica, io| replica.replicated(peer, activation, at, Ok(()), io));
                    return;
                }
                let about = About::Replicate { group, peer, activation, at };
                self.ask_peer(s, peer, request, about, REPLICATE_TIMEOUT);
            }
            Effect::Forward { peer, epoch, activation, key, previous, version, stamp, content } => {
                self.count("writes forwarded to members being filled");
                let (at, committed) = ((epoch, activation), self.take_commits(s, peer));
                let request =
                    Request::Replicate { disk: peer, at, key, previous, version, stamp, content, committed };
                let about = About::Forward { group, peer, activation, key };
                self.ask_peer(s, peer, request, about, REPLICATE_TIMEOUT);
            }
            Effect::Committed { key, version } => self.tell_commit(s, group, key, version),
            Effect::Answer { token, result } => self.answer(s, token, result),
            Effect::Prepare { peer, epoch, activation, after, fill } => {
                let request = Request::Prepare { disk: peer, group, at: (epoch, activation), after, fill };
                self.ask_peer(s, peer, request, About::Prepare { group, peer, activation }, PREPARE_TIMEOUT);
            }
            Effect::Equalise { peer, epoch, activation, key } => {
                self.equalise(s, peer, (epoch, activation), key);
            }
            Effect::Activate { peer, epoch, activation } => {
                let request = Request::Activate { disk: peer, group, at: (epoch, activation) };
                self.ask_peer(s, peer, request, About::Activate { group, peer, activation }, PREPARE_TIMEOUT);
            }
            Effect::Retry { activation, attempt } => {
                let delay = BACKOFF_MAX.min(BACKOFF_MIN << attempt.min(8));
                self.timer(s, delay, Timer::Retry { group, activation });
            }
            Effect::RetryFill { peer, activation, attempt } => {
                let delay = FILL_BACKOFF_MAX.min(FILL_BACKOFF_MIN << attempt.min(8));
                self.timer(s, delay, Timer::RetryFill { group, peer, activation });
            }
            Effect::Fill { peer, epoch, activation, key } => self.fill(s, peer, (epoch, activation), key),
            Effect::Level { .. } | Effect::Outdated { .. } => self.refresh(s),
        }
    }

    pub(crate) fn job(&mut self, s: usize, job: Job) {
        let now = self.now;
        let (job, done) = self.servers[s].disk.begin(job, now, &mut self.dice);
        let life = self.servers[s].life;
        self.at(done, Event::DiskDone { server: s, life, job });
    }

    /// The disk is done with a job.
    pub(crate) fn disk_done(&mut self, s: usize, job: u64) {
        let now = self.now;
        let Some((job, result)) = self.servers[s].disk.finish(job, now) else { return };
        match job {
            Job::Promise { group, epoch } => {
                if result.is_ok() {
                    self.event(s, group, |replica, io| replica.promised(epoch, io));
                }
            }
            Job::Apply { key, version, .. } => {
                let result = result.map(|()| 1);
                self.event(s, key.group, |replica, io| replica.applied(key, version, result, io));
            }
            Job::Install { key, call, .. } => {
                self.event(s, key.group, |replica, io| replica.installed(key, io));
                let answer = result.map(|()| Reply::Done);
                let answer = answer.map_err(|fault| Failure::Refused(Refusal::Fault(fault)));
                self.reply(End::Server(s), call, answer);
            }
        }
    }

    fn ask_peer(&mut self, s: usize, peer: DiskId, request: Request, about: About, timeout: Micros) {
        match self.peer(s, peer) {
            Some(to) => self.call(End::Server(s), End::Server(to), request, about, timeout),
            None => {
                let life = self.servers[s].life;
                self.at(self.now + MS, Event::NoSuchPeer { server: s, life, about: Box::new(about) });
            }
        }
    }

    /// `fill.rs`, `equalise`: the group is at rest, the chunk does not change under this.
    fn equalise(&mut self, s: usize, peer: DiskId, at: (Epoch, u64), key: ChunkKey) {
        let (group, activation) = (key.group, at.1);
        let rec = self.servers[s].disk.chunks.get(&key).cloned();
        if rec.as_ref().is_some_and(|rec| !rec.intact()) {
            let failed = Err(PeerError::SourceDamaged);
            self.event(s, group, |replica, io| replica.equalised(peer, activation, key, failed, io));
            return;
        }
        self.count(if rec.is_some() { "chunks installed" } else { "chunks removed by comparison" });
        let request = Request::Install { disk: peer, at, key, rec: rec.map(Arc::new) };
        let about = About::Equalise { group, peer, activation, key };
        self.ask_peer(s, peer, request, about, REPLICATE_TIMEOUT);
    }

    /// `fill.rs`, `fill`: reads the chunk at this moment; sends it when what was read is committed.
    fn fill(&mut self, s: usize, peer: DiskId, at: (Epoch, u64), key: ChunkKey) {
        let rec = self.servers[s].disk.chunks.get(&key).cloned();
        let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
        if rec.as_ref().is_some_and(|rec| !rec.intact()) {
            let failed = Err(PeerError::SourceDamaged);
            self.event(s, key.group, |replica, io| replica.filled(peer, at.1, key, failed, io));
            return;
        }
        let token = self.token(s, Who::Fill { peer, at, key, rec: rec.map(Arc::new) });
        let verdict = self.event(s, key.group, |replica, _| {
            replica.may_read(at.0).and_then(|permit| replica.read(token, permit, (key, version)))
        });
        match verdict {
            Some(Ok(ReadVerdict::Show)) => self.answer(s, token, Ok(Done::default())),
            Some(Err(refusal)) => self.answer(s, token, Err(refusal)),
            Some(Ok(ReadVerdict::Wait)) | None => {}
        }
    }

    /// A replica's answer for whoever waits under the token.
    pub(crate) fn answer(&mut self, s: usize, token: u64, result: Result<Done, Refusal>) {
        let Some(who) = self.servers[s].waiting.remove(&token) else { return };
        match who {
            Who::Write { call, key, id } => {
                if result.is_ok() {
                    self.write_acknowledged(s, key, id);
                }
                let written = result.map(|done| {
                    let Done { version, allocated_delta_bytes } = done;
                    Reply::Written(chunkserver_api::Written { version, allocated_delta_bytes })
                });
                self.reply(End::Server(s), call, written.map_err(Failure::Refused));
            }
            Who::Member { call, group, page } => {
                let answer = match result {
                    Err(refusal) => Err(Failure::Refused(refusal)),
                    Ok(_) => self.page(s, group, page),
                };
                self.reply(End::Server(s), call, answer);
            }
            Who::Read(read) => self.show(s, read, result.map(|_| ())),
            Who::Fill { peer, at, key, rec } => {
                let group = key.group;
                if result.is_err() {
                    let failed = Err(PeerError::Failed);
                    self.event(s, group, |replica, io| replica.filled(peer, at.1, key, failed, io));
                    return;
                }
                self.count("chunks filled");
                let version = rec.as_ref().map_or(Version::NONE, |rec| rec.version);
                let about = About::Fill { group, peer, activation: at.1, at: (key, version) };
                let request = Request::Install { disk: peer, at, key, rec };
                self.ask_peer(s, peer, request, about, REPLICATE_TIMEOUT);
            }
        }
    }

    /// A call of this server to another one, or to a master, has ended.
    pub(crate) fn server_answered(&mut self, s: usize, about: About, answer: Answer) {
        if let Some(peer) = about.peer().filter(|_| matches!(answer, Err(Failure::Unavailable))) {
            self.suspect_disk(s, peer);
        }
        let page = match &answer {
            Ok(Reply::Page(page)) => Some(page.clone()),
            Ok(_) | Err(_) => None,
        };
        let plain = match &answer {
            Ok(_) => Ok(()),
            Err(Failure::Refused(Refusal::Stale { epoch, activation })) => {
                Err(PeerError::Stale { epoch: *epoch, activation: *activation })
            }
            Err(_) => Err(PeerError::Failed),
        };
        match about {
            About::Register => self.registered(s, answer),
            About::Heartbeat { sent } => self.beat_answered(s, sent, answer),
            About::Follow => self.followed(s, answer),
            About::MayDrop { group } => self.may_drop_answered(s, group, answer),
            About::Goodbye => self.timer(s, 0, Timer::Leave),
            About::Confirm { read, .. } => self.confirmed(s, read, plain.is_ok()),
            About::Replicate { group, peer, activation, at } => {
                self.event(s, group, |replica, io| replica.replicated(peer, activation, at, plain, io));
            }
            About::Forward { group, peer, activation, key } => {
                self.event(s, group, |replica, io| replica.forwarded(peer, activation, key, plain, io));
            }
            About::Prepare { group, peer, activation } => {
                let page = plain.map(|()| page.expect("the answer to Prepare is a page"));
                self.event(s, group, |replica, io| replica.prepared(peer, activation, page, io));
            }
            About::Equalise { group, peer, activation, key } => {
                self.event(s, group, |replica, io| replica.equalised(peer, activation, key, plain, io));
            }
            About::Fill { group, peer, activation, at: (key, version) } => {
                let result = plain.map(|()| version);
                self.event(s, group, |replica, io| replica.filled(peer, activation, key, result, io));
            }
            About::Activate { group, peer, activation } => {
                self.event(s, group, |replica, io| replica.activated(peer, activation, plain, io));
            }
            About::Nothing | About::ClientCall(_) | About::ClientFollow => {}
        }
    }

    /// The disk fails under a running server: its groups stop, the next heartbeat tells.
    pub(crate) fn fail_disk(&mut self, s: usize) {
        self.servers[s].disk.failed = true;
        let groups: Vec<_> = self.servers[s].replicas.keys().copied().collect();
        for group in groups {
            self.event(s, group, |replica, io| replica.stop(io));
        }
        self.refresh(s);
    }
}
