//! A disk as `chunkserver/docs` promises it: a chunk's version, windows and data are one atomic record; a write is there for good
//! when it is confirmed, and otherwise there whole or not at all after a crash. (That the engine keeps this on a medium that loses
//! and tears sectors is what its own crash tests show.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chunkserver_core::{Fault, Listed, Store};
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, Fence, GroupId, Stamp, Version, WriterWindow, note_stamp};

use crate::bug::Bug;
use crate::clock::{MS, Micros};
use crate::dice::Dice;

/// However slow a disk is, it ends what it began.
const SLOWEST: Micros = 3000 * MS;
/// Small, so that lists have several pages.
pub(crate) const PAGE: usize = 2;
/// With [`Bug::Unsynced`]: how long it takes until what is confirmed is on the medium.
const UNSYNCED_FOR: Micros = 200 * MS;

/// The content of a write as it travels.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) offset_bytes: u32,
    pub(crate) data: Bytes,
    pub(crate) block_crcs: Arc<[u32]>,
}

impl Content {
    /// Which write it is: every block begins with it.
    pub(crate) fn id(&self) -> u64 {
        block_id(&self.data)
    }

    fn blocks(&self) -> impl Iterator<Item = (u32, Block)> + '_ {
        let first = self.offset_bytes / BLOCK_SIZE as u32;
        let block = |at: usize| self.data.slice(at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE);
        self.block_crcs
            .iter()
            .enumerate()
            .map(move |(at, crc)| (first + at as u32, Block { data: block(at), crc: *crc }))
    }
}

/// The number in the first bytes of a block; 0 for zeros.
pub(crate) fn block_id(data: &[u8]) -> u64 {
    data.first_chunk::<8>().map_or(0, |id| u64::from_le_bytes(*id))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) data: Bytes,
    pub(crate) crc: u32,
}

/// A chunk as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) version: Version,
    pub(crate) windows: Vec<WriterWindow>,
    pub(crate) blocks: BTreeMap<u32, Block>,
    /// For the invariants only: every write that was ever applied, in order.
    pub(crate) writes: Vec<u64>,
}

impl Rec {
    /// Whether every block is as the newest write to it left it.
    pub(crate) fn intact(&self) -> bool {
        self.blocks.values().all(|block| crc32c::crc32c(&block.data) == block.crc)
    }
}

/// What the disk works on.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Apply { key: ChunkKey, previous: Version, version: Version, stamp: Option<Stamp>, content: Content },
    Install { key: ChunkKey, rec: Option<Arc<Rec>>, call: u64 },
    Promise { group: GroupId, epoch: Epoch },
}

impl Job {
    fn key(&self) -> Option<ChunkKey> {
        match self {
            Self::Apply { key, .. } | Self::Install { key, .. } => Some(*key),
            Self::Promise { .. } => None,
        }
    }
}

/// One disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) uuid: u64,
    /// What survives a crash.
    pub(crate) chunks: BTreeMap<ChunkKey, Rec>,
    promised: BTreeMap<GroupId, Epoch>,
    jobs: BTreeMap<u64, Job>,
    /// When each of them began, and what those that ended took of late: sum, and how many.
    began: BTreeMap<u64, Micros>,
    took: (Micros, u64),
    next_job: u64,
    /// When the newest job of a chunk will be done: jobs of a chunk end in order.
    last_done: BTreeMap<ChunkKey, Micros>,
    /// How many times slower than usual.
    pub(crate) slow: u64,
    pub(crate) failed: bool,
    bug: Option<Bug>,
    /// With [`Bug::Unsynced`]: what was there before writes that a crash takes back.
    undo: Vec<(Micros, ChunkKey, Option<Rec>)>,
}

/// What a crash did to what was under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crash {
    pub(crate) lost: u64,
    pub(crate) torn: u64,
    pub(crate) survived: u64,
}

impl Disk {
    pub(crate) fn new(uuid: u64, bug: Option<Bug>) -> Self {
        Self {
            uuid,
            chunks: BTreeMap::new(),
            promised: BTreeMap::new(),
            jobs: BTreeMap::new(),
            began: BTreeMap::new(),
            took: (0, 0),
            next_job: 0,
            last_done: BTreeMap::new(),
            slow: 1,
            failed: false,
            bug,
            undo: Vec::new(),
        }
    }

    pub(crate) fn promised(&self, group: GroupId) -> Epoch {
        self.promised.get(&group).copied().unwrap_or_default()
    }

    /// Takes a job; says which it is and when it will be done.
    pub(crate) fn begin(&mut self, job: Job, now: Micros, dice: &mut Dice) -> (u64, Micros) {
        let usual = if dice.chance(100) { dice.between(5 * MS, 60 * MS) } else { dice.between(100, 5 * MS) };
        let mut done = now + (usual * self.slow).min(SLOWEST);
        if let Some(key) = job.key() {
            let last = self.last_done.entry(key).or_default();
            done = done.max(*last + 1);
            *last = done;
        }
        self.next_job += 1;
        self.jobs.insert(self.next_job, job);
        self.began.insert(self.next_job, now);
        (self.next_job, done)
    }

    /// What a write takes of late (`chunkserver/engine/src/latency.rs`); a disk that has nothing to write is tried
    /// (`chunkserver/server/src/pace.rs`).
    pub(crate) fn latency(&mut self, now: Micros, dice: &mut Dice) -> Micros {
        let oldest = self.began.values().min().map_or(0, |began| now.saturating_sub(*began));
        if self.took.1 == 0 {
            self.took = (dice.between(100, 5 * MS) * self.slow, 1);
        }
        let mean = self.took.0 / self.took.1;
        // The next heartbeat tells of what ends until then.
        self.took = (0, 0);
        mean.max(oldest)
    }

    /// How long a read takes.
    pub(crate) const fn read_time(&self, dice: &mut Dice) -> Micros {
        dice.between(20, MS) * self.slow
    }

    /// The job becomes durable, and is confirmed. `None`: it is gone.
    pub(crate) fn finish(&mut self, job: u64, now: Micros) -> Option<(Job, Result<(), Fault>)> {
        let began = self.began.remove(&job);
        let job = self.jobs.remove(&job)?;
        self.took = (self.took.0 + now.saturating_sub(began.unwrap_or(now)), self.took.1 + 1);
        if self.failed {
            return Some((job, Err(Fault::Disk)));
        }
        if self.bug == Some(Bug::Unsynced)
            && let Job::Apply { key, .. } = &job
        {
            self.undo.retain(|(at, _, _)| at + UNSYNCED_FOR > now);
            self.undo.push((now, *key, self.chunks.get(key).cloned()));
        }
        let result = self.settle(&job);
        Some((job, result))
    }

    fn settle(&mut self, job: &Job) -> Result<(), Fault> {
        match job {
            Job::Apply { key, previous, version, stamp, content } => {
                if self.version(*key)? != *previous {
                    return Err(Fault::Conflict);
                }
                let rec = self.chunks.entry(*key).or_default();
                rec.version = *version;
                rec.blocks.extend(content.blocks());
                rec.writes.push(content.id());
                if let Some(stamp) = stamp {
                    note_stamp(&mut rec.windows, *stamp);
                }
            }
            Job::Install { key, rec: Some(rec), .. } => {
                self.chunks.insert(*key, Rec::clone(rec));
            }
            Job::Install { key, rec: None, .. } => {
                self.chunks.remove(key);
            }
            Job::Promise { group, epoch } => {
                let promised = self.promised.entry(*group).or_default();
                *promised = (*promised).max(*epoch);
            }
        }
        Ok(())
    }

    /// Power goes: of each chunk's jobs, the first few happen to have reached the medium; the data of others is torn, where no
    /// record leads.
    pub(crate) fn crash(&mut self, now: Micros, dice: &mut Dice) -> Crash {
        let mut crash = Crash::default();
        for (at, key, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            if at + UNSYNCED_FOR > now {
                crash.lost += 1;
                match before {
                    Some(before) => self.chunks.insert(key, before),
                    None => self.chunks.remove(&key),
                };
            }
        }
        let mut stopped = BTreeSet::new();
        for (_, job) in std::mem::take(&mut self.jobs) {
            if self.failed || stopped.contains(&job.key()) {
                crash.lost += 1;
            } else if dice.chance(400) {
                crash.survived += 1;
                // It may be refused: then it did nothing.
                let _ = self.settle(&job);
            } else {
                stopped.insert(job.key());
                crash.lost += 1;
                if dice.chance(500) && matches!(job, Job::Apply { .. }) {
                    crash.torn += 1;
                    self.tear(job);
                }
            }
        }
        self.last_done.clear();
        self.began.clear();
        self.took = (0, 0);
        self.slow = 1;
        crash
    }

    /// Half of a write's data is on the medium. Nothing leads there: the record comes after the data.
    fn tear(&mut self, job: Job) {
        if self.bug != Some(Bug::RecordFirst) {
            return;
        }
        let Job::Apply { key, previous, version, stamp, mut content } = job else { return };
        let mut data = content.data.to_vec();
        let half = data.len() - BLOCK_SIZE / 2;
        data[half..].fill(0xEE);
        content.data = data.into();
        let _ = self.settle(&Job::Apply { key, previous, version, stamp, content });
    }
}

impl Store for Disk {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        if self.failed {
            return Err(Fault::Disk);
        }
        Ok(self.chunks.get(&key).map_or(Version::NONE, |rec| rec.version))
    }

    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault> {
        if self.failed {
            return Err(Fault::Disk);
        }
        if self.bug == Some(Bug::ForgetStamp) {
            return Ok(false);
        }
        let windows = self.chunks.get(&key).map_or(&[][..], |rec| &rec.windows);
        Ok(windows.iter().any(|window| window.session == stamp.session && window.has_seen(stamp.seq)))
    }

    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault> {
        if self.failed {
            return Err(Fault::Disk);
        }
        Ok(self.chunks.get(&record).map_or(Fence::NONE, |rec| Fence::recorded(&rec.windows)))
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        if self.failed {
            return Err(Fault::Disk);
        }
        let within =
            |key: &ChunkKey| after.is_none_or(|after| *key > after) && upto.is_none_or(|upto| *key <= upto);
        let mut chunks: Vec<_> =
            self.chunks.iter().filter(|(key, _)| within(key)).map(|(key, rec)| (*key, rec.version)).collect();
        let truncated = chunks.len() > PAGE;
        chunks.truncate(PAGE);
        Ok(Listed { chunks, truncated })
    }
}

/// One group's chunks of a disk, as its replica sees them.
#[derive(Debug)]
pub(crate) struct GroupStore<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) group: GroupId,
}

impl Store for GroupStore<'_> {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        self.disk.version(key)
    }

    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault> {
        self.disk.seen(key, stamp)
    }

    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault> {
        self.disk.fence(record)
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        list_group(self.disk, self.group, after, upto)
    }
}

/// The group's chunks after `after`, up to and with `upto`, at most a page.
fn list_group(
    disk: &Disk,
    group: GroupId,
    after: Option<ChunkKey>,
    upto: Option<ChunkKey>,
) -> Result<Listed, Fault> {
    let first = ChunkKey::new(group, coord_types::DataId(0), 0);
    let last = ChunkKey::new(group, coord_types::DataId(u64::MAX), u32::MAX);
    // No chunk has the key `first`: data ids begin at 1.
    disk.list(Some(after.unwrap_or(first)), Some(upto.unwrap_or(last)))
}
