//! What clients and other members ask of a server: `chunkserver/server/src/service`.

use chunkserver_api::{Read, ReadData};
use chunkserver_core::{Done, Effect, Page, ReadVerdict, Refusal, Replica, Replicate, Store as _};
use coord_types::{BLOCK_SIZE, ChunkKey, DiskId, Epoch, GroupId, Version};

use super::effects::DAMAGED;
use super::{Reading, Who};
use crate::bug::Bug;
use crate::clock::{Micros, SECOND};
use crate::disk::{Content, GroupStore, Job, Rec};
use crate::message::{About, Answer, End, Failure, Reply, Request};
use crate::world::{Timer, World};

const CONFIRM_TIMEOUT: Micros = SECOND;

/// Without a replica this process has promised nothing.
const UNKNOWN: Failure = Failure::Refused(Refusal::Stale { epoch: Epoch(0), activation: 0 });

impl World {
    pub(crate) fn server_request(&mut self, s: usize, call: u64, request: Request) {
        if let Err(refused) = self.serve(s, call, request) {
            self.reply(End::Server(s), call, Err(refused));
        }
    }

    /// `Ok`: the answer comes, or came, by another way.
    fn serve(&mut self, s: usize, call: u64, request: Request) -> Result<(), Failure> {
        match request {
            Request::Replicate { disk, at, key, previous, version, stamp, content, committed } => {
                self.committed_at(s, disk, &committed);
                self.replica(s, disk, key.group)?;
                let token = self.token(s, Who::Member { call, group: key.group, page: None });
                self.event(s, key.group, |replica, io| {
                    let (epoch, activation) = at;
                    let write =
                        Replicate { token, epoch, activation, key, previous, version, stamp, content };
                    replica.replicate(write, io);
                });
            }
            Request::Commit { disk, committed } => {
                self.committed_at(s, disk, &committed);
                self.reply(End::Server(s), call, Ok(Reply::Done));
            }
            Request::Prepare { disk, group, at, after, fill } => {
                self.is_here(s, disk)?;
                self.replica_or_new(s, disk, group);
                let token = self.token(s, Who::Member { call, group, page: after });
                self.event(s, group, |replica, io| replica.prepare(token, at, fill, io));
            }
            Request::Install { disk, at, key, rec } => {
                self.replica(s, disk, key.group)?;
                let allowed = self.event(s, key.group, |replica, io| replica.install(at, key, io));
                allowed.unwrap_or(Err(Refusal::NotServing)).map_err(Failure::Refused)?;
                self.job(s, Job::Install { key, rec, call });
            }
            Request::Activate { disk, group, at } => {
                self.replica(s, disk, group)?;
                let token = self.token(s, Who::Member { call, group, page: None });
                self.event(s, group, |replica, io| replica.activate(token, at, io));
            }
            Request::Join { disk, incarnation } => {
                let groups: Vec<_> = self.servers[s].replicas.keys().copied().collect();
                for group in groups {
                    self.event(s, group, |replica, io| replica.heard_of(disk, incarnation, io));
                }
                self.reply(End::Server(s), call, Ok(Reply::Done));
            }
            Request::Confirm { disk, group, epoch } => {
                self.replica(s, disk, group)?;
                let confirmed = self.event(s, group, |replica, _| replica.confirm(epoch));
                confirmed.unwrap_or(Err(Refusal::NotServing)).map_err(Failure::Refused)?;
                self.reply(End::Server(s), call, Ok(Reply::Done));
            }
            Request::Write { write, data } => {
                let key = write.key;
                self.for_clients(s, key.group, write.epoch)?;
                let block_crcs = write.block_crcs.into();
                let content = Content { offset_bytes: write.offset_bytes, data, block_crcs };
                let token = self.token(s, Who::Write { call, key, id: content.id() });
                let (epoch, stamp, fence) = (write.epoch, write.stamp, write.fence);
                self.event(s, key.group, |replica, io| {
                    replica.write(chunkserver_core::Write { token, key, epoch, stamp, fence, content }, io);
                });
            }
            Request::Read { read } => self.read(s, call, read)?,
            other => panic!("not for a chunkserver: {other:?}"),
        }
        Ok(())
    }

    fn is_here(&self, s: usize, disk: DiskId) -> Result<(), Failure> {
        let server = &self.servers[s];
        if server.disk_id == Some(disk) && !server.disk.failed { Ok(()) } else { Err(Failure::Unavailable) }
    }

    fn replica(&self, s: usize, disk: DiskId, group: GroupId) -> Result<(), Failure> {
        self.is_here(s, disk)?;
        if self.servers[s].replicas.contains_key(&group) { Ok(()) } else { Err(UNKNOWN) }
    }

    /// `service/chunk.rs`, `replica`.
    fn for_clients(&mut self, s: usize, group: GroupId, epoch: Epoch) -> Result<(), Failure> {
        let known = self.servers[s].replicas.get(&group).map(Replica::epoch);
        if known.is_none_or(|known| epoch > known) {
            self.refresh(s);
        }
        if known.is_some() { Ok(()) } else { Err(Failure::Unavailable) }
    }

    fn committed_at(&mut self, s: usize, disk: DiskId, news: &[(ChunkKey, Version)]) {
        if self.servers[s].disk_id != Some(disk) {
            return;
        }
        for (key, version) in news {
            self.event(s, key.group, |replica, _| replica.committed(*key, *version));
        }
    }

    /// The part of the list that was asked for, or the promise alone.
    pub(crate) fn page(&self, s: usize, group: GroupId, page: Option<Option<ChunkKey>>) -> Answer {
        let server = &self.servers[s];
        let incarnation = server.incarnation;
        let Some(after) = page else { return Ok(Reply::Page(Page { incarnation, ..Page::default() })) };
        let store = GroupStore { disk: &server.disk, group };
        let listed = store.list(after, None).map_err(|fault| Failure::Refused(Refusal::Fault(fault)))?;
        Ok(Reply::Page(Page { chunks: listed.chunks, end: !listed.truncated, incarnation }))
    }

    /// `service/read.rs`: the disk first, then the lease, then whether it may be shown.
    fn read(&mut self, s: usize, call: u64, read: Read) -> Result<(), Failure> {
        let key = read.key;
        self.for_clients(s, key.group, read.epoch)?;
        let permit = self.event(s, key.group, |replica, _| replica.may_read(read.epoch));
        let permit = permit.unwrap_or(Err(Refusal::NotServing)).map_err(Failure::Refused)?;
        let rec = self.servers[s].disk.chunks.get(&key).cloned().unwrap_or_default();
        let id = self.fresh();
        self.servers[s].reads.insert(id, Reading { call, read, permit, rec, unconfirmed: 0 });
        let delay = self.servers[s].disk.read_time(&mut self.dice);
        self.timer(s, delay, Timer::ReadDone { read: id });
        Ok(())
    }

    /// The engine was read: `lease.rs`, `check`.
    pub(crate) fn read_done(&mut self, s: usize, id: u64) {
        let now = self.servers[s].clock.instant(self.now);
        let Some(reading) = self.servers[s].reads.get(&id) else { return };
        let (group, epoch) = (reading.read.key.group, reading.read.epoch);
        if self.servers[s].lease.holds(now) || self.options.bug == Some(Bug::NoLease) {
            return self.may_show(s, id);
        }
        if self.servers[s].lease.ended() {
            return self.show(s, id, Err(Refusal::NotServing));
        }
        self.count("reads without a lease");
        let others = self.servers[s].replicas.get(&group).and_then(Replica::others);
        let Some(others) = others else { return self.show(s, id, Err(Refusal::NotServing)) };
        if others.is_empty() {
            return self.may_show(s, id);
        }
        if let Some(reading) = self.servers[s].reads.get_mut(&id) {
            reading.unconfirmed = others.len();
        }
        for peer in others {
            let Some(to) = self.peer(s, peer) else { return self.show(s, id, Err(Refusal::NotServing)) };
            let request = Request::Confirm { disk: peer, group, epoch };
            let about = About::Confirm { read: id, peer };
            self.call(End::Server(s), End::Server(to), request, about, CONFIRM_TIMEOUT);
        }
    }

    pub(crate) fn confirmed(&mut self, s: usize, id: u64, yes: bool) {
        let Some(reading) = self.servers[s].reads.get_mut(&id) else { return };
        if !yes {
            return self.show(s, id, Err(Refusal::NotServing));
        }
        reading.unconfirmed -= 1;
        if reading.unconfirmed == 0 {
            self.may_show(s, id);
        }
    }

    fn may_show(&mut self, s: usize, id: u64) {
        let Some(reading) = self.servers[s].reads.get(&id) else { return };
        let (key, version, permit) = (reading.read.key, reading.rec.version, reading.permit);
        let token = self.token(s, Who::Read(id));
        let verdict = self.event(s, key.group, |replica, io| {
            let verdict = replica.read(token, permit, (key, version));
            if matches!(verdict, Ok(ReadVerdict::Show)) {
                io.effects.push(Effect::Answer { token, result: Ok(Done::default()) });
            }
            verdict
        });
        if let Some(Err(refusal)) = verdict {
            self.servers[s].waiting.remove(&token);
            self.show(s, id, Err(refusal));
        }
    }

    /// The end of a read.
    pub(crate) fn show(&mut self, s: usize, id: u64, result: Result<(), Refusal>) {
        let Some(Reading { call, read, rec, .. }) = self.servers[s].reads.remove(&id) else { return };
        let answer = match result {
            Err(refusal) => Err(Failure::Refused(refusal)),
            Ok(()) if !rec.intact() => Err(DAMAGED),
            Ok(()) => Ok(Reply::Data(cut(&read, &rec))),
        };
        self.reply(End::Server(s), call, answer);
    }
}

/// Whole blocks of the range, as the engine gives them.
fn cut(read: &Read, rec: &Rec) -> ReadData {
    let block = BLOCK_SIZE as u32;
    let first = read.offset_bytes / block;
    let end = (read.offset_bytes + read.len_bytes).div_ceil(block);
    let hole = (first..end).all(|at| !rec.blocks.contains_key(&at));
    let (mut data, mut block_crcs) = (Vec::new(), Vec::new());
    if !hole {
        let zeros = [0; BLOCK_SIZE];
        for at in first..end {
            match rec.blocks.get(&at) {
                Some(block) => {
                    data.extend_from_slice(&block.data);
                    block_crcs.push(block.crc);
                }
                None => {
                    data.extend_from_slice(&zeros);
                    block_crcs.push(crc32c::crc32c(&zeros));
                }
            }
        }
    }
    ReadData { version: rec.version, data_offset_bytes: first * block, data: data.into(), block_crcs, hole }
}
