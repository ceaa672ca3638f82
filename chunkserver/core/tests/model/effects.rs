//! What a replica asks for, done: `chunkserver/server/src/replicate.rs` in small, with the mistakes that can be put into it.

use chunkserver_core::{Effect, Replica};
use coord_types::DiskId;

use super::bug::Bug;
use super::disk::Job;
use super::member::{Output, Step, Task, peer_place};
use super::message::{About, At, Body, Call, Message};
use super::setup::place;

impl Step<'_> {
    pub(super) fn effect(&mut self, effect: Effect<u8>) {
        match effect {
            Effect::Promise { epoch } => {
                if self.setup.has(Bug::ForgetPromise) {
                    self.event(|replica, io| replica.promised(epoch, io));
                } else {
                    self.member.jobs.push(Job::Promise(epoch));
                }
            }
            Effect::Apply { key, previous, version, content, .. } => {
                self.apply(Job::Apply { key, previous, version, write: content });
            }
            Effect::Replicate { peer, epoch, activation, key, previous, version, content, .. } => {
                let at = (epoch, activation);
                let body = Body::Replicate { at, key, previous, version, write: content };
                if self.setup.has(Bug::CommitEarly) {
                    self.send(peer, None, Body::Commit { key, version });
                }
                if self.setup.has(Bug::AcknowledgeEarly) {
                    self.send(peer, None, body);
                    self.event(|replica, io| {
                        replica.replicated(peer, activation, (key, version), Ok(()), io);
                    });
                } else {
                    self.call(peer, at, About::Replicate(key, version), body);
                }
            }
            Effect::Forward { peer, epoch, activation, key, previous, version, content, .. } => {
                let at = (epoch, activation);
                let body = Body::Replicate { at, key, previous, version, write: content };
                self.call(peer, at, About::Forward(key, version), body);
            }
            Effect::Committed { key, version } => {
                let others = self.member.replica.as_ref().and_then(Replica::others).unwrap_or_default();
                for other in others.into_iter().filter(|_| self.setup.commits) {
                    self.send(other, None, Body::Commit { key, version });
                }
            }
            Effect::Answer { token, result } => self.answer(token, result),
            Effect::Prepare { peer, epoch, activation, after, fill } => {
                let at = (epoch, activation);
                self.call(peer, at, About::Prepare { after, fill }, Body::Prepare { at, after, fill });
            }
            Effect::Equalise { peer, epoch, activation, key } => {
                let (at, rec) = ((epoch, activation), self.member.disk.chunks.get(&key).cloned());
                let body = Body::Install { at, key, rec };
                if self.setup.has(Bug::EqualiseEarly) {
                    self.send(peer, None, body);
                    self.event(|replica, io| replica.equalised(peer, activation, key, Ok(()), io));
                } else {
                    self.call(peer, at, About::Equalise(key), body);
                }
            }
            Effect::Activate { peer, epoch, activation } => {
                let at = (epoch, activation);
                self.call(peer, at, About::Activate, Body::Activate { at });
            }
            Effect::Retry { activation, .. } => {
                if !self.setup.has(Bug::ForgetRetry) {
                    self.later(Task::Retry(activation));
                }
            }
            Effect::RetryFill { peer, activation, .. } => self.later(Task::RetryFill(peer, activation)),
            Effect::Fill { peer, epoch, activation, key } => {
                self.later(Task::Fill(peer, (epoch, activation), key));
            }
            Effect::Level { peer, epoch } => self.outputs.push(Output::Level { disk: peer, epoch }),
            // Every member hears of every table some time anyway.
            Effect::Outdated { .. } => {}
        }
    }

    fn apply(&mut self, job: Job) {
        let Job::Apply { key, version, .. } = job else { unreachable!("what applies") };
        if !self.setup.has(Bug::Unsynced) {
            return self.member.jobs.push(job);
        }
        let before = self.member.disk.chunks.get(&key).cloned();
        let result = self.member.disk.finish(&job).map(|()| 1);
        self.member.jobs.push(Job::Unsynced { key, before });
        self.event(|replica, io| replica.applied(key, version, result, io));
    }

    fn later(&mut self, task: Task) {
        self.member.tasks.push(task);
        self.member.tasks.sort_unstable();
    }

    pub(super) fn call(&mut self, peer: DiskId, at: At, about: About, body: Body) {
        let to = place(peer);
        let incarnations = (self.member.incarnation, self.processes[to]);
        let (from, given_up) = (self.member.place, self.member.given_up);
        let call = Call { from, incarnations, to: peer_place(peer), at, about, given_up };
        let call = self.names.calls.number(call);
        if let Err(at) = self.member.calls.binary_search(&call) {
            self.member.calls.insert(at, call);
        }
        self.send(peer, Some(call), body);
    }

    /// To a process that runs; who called another one learns it when the call fails.
    pub(super) fn send(&mut self, peer: DiskId, call: Option<u32>, body: Body) {
        let incarnation = self.processes[place(peer)];
        if incarnation > 0 {
            let message = Message { from: self.member.place, to: peer_place(peer), incarnation, call, body };
            self.outputs.push(Output::Send(self.names.messages.number(message)));
        }
    }
}
