//! One member: the replica, its disk in memory, what the disk works on.

use std::collections::{BTreeMap, BTreeSet};

use chunkserver_core::{Fault, Limits, Listed, Replica, Start, Store};
use coord_types::{ChunkKey, DiskId, Epoch, Fence, Stamp, Version};

/// Small, so that lists have several pages.
pub(crate) const PAGE: usize = 2;

/// A chunk as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) version: Version,
    pub(crate) writes: Vec<u64>,
    pub(crate) seen: BTreeSet<Stamp>,
}

/// What survives a crash.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) chunks: BTreeMap<ChunkKey, Rec>,
    pub(crate) promised: Epoch,
}

impl Store for Disk {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        Ok(self.chunks.get(&key).map_or(Version::NONE, |rec| rec.version))
    }

    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault> {
        Ok(self.chunks.get(&key).is_some_and(|rec| rec.seen.contains(&stamp)))
    }

    /// Nobody fences here: the model check does.
    fn fence(&self, _: ChunkKey) -> Result<Fence, Fault> {
        Ok(Fence::NONE)
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        let mut chunks: Vec<_> = self
            .chunks
            .iter()
            .filter(|(key, _)| {
                after.is_none_or(|after| **key > after) && upto.is_none_or(|upto| **key <= upto)
            })
            .map(|(key, rec)| (*key, rec.version))
            .collect();
        let truncated = chunks.len() > PAGE;
        chunks.truncate(PAGE);
        Ok(Listed { chunks, truncated })
    }
}

/// What the disk works on.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Apply { key: ChunkKey, previous: Version, version: Version, stamp: Option<Stamp>, write: u64 },
    Install { key: ChunkKey, rec: Option<Rec>, call: u64 },
    Promise(Epoch),
}

impl Job {
    pub(crate) fn key(&self) -> Option<ChunkKey> {
        match self {
            Self::Apply { key, .. } | Self::Install { key, .. } => Some(*key),
            Self::Promise(_) => None,
        }
    }
}

impl Disk {
    /// Makes a job durable; an apply fails if the chunk is not at the version before it.
    pub(crate) fn finish(&mut self, job: &Job) -> Result<(), Fault> {
        match job {
            Job::Apply { key, previous, version, stamp, write } => {
                if self.version(*key)? != *previous {
                    return Err(Fault::Conflict);
                }
                let rec = self.chunks.entry(*key).or_default();
                rec.version = *version;
                rec.writes.push(*write);
                rec.seen.extend(*stamp);
            }
            Job::Install { key, rec: Some(rec), .. } => {
                self.chunks.insert(*key, rec.clone());
            }
            Job::Install { key, rec: None, .. } => {
                self.chunks.remove(key);
            }
            Job::Promise(epoch) => self.promised = self.promised.max(*epoch),
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: DiskId,
    pub(crate) incarnation: u64,
    pub(crate) disk: Disk,
    /// `None` while the process is down.
    pub(crate) replica: Option<Replica<u64>>,
    pub(crate) jobs: Vec<Job>,
}

impl Member {
    pub(crate) fn new(id: DiskId) -> Self {
        Self { id, incarnation: 0, disk: Disk::default(), replica: None, jobs: Vec::new() }
    }

    pub(crate) fn start(&mut self, depth: usize) {
        self.incarnation += 1;
        let limits = Limits { local_depth: depth, ..Limits::default() };
        self.replica = Some(Replica::new(Start { me: self.id, promised: self.disk.promised, limits }));
    }

    /// Power goes: of each chunk's jobs, the first few may have become durable.
    pub(crate) fn crash(&mut self, mut survives: impl FnMut() -> bool) {
        self.replica = None;
        let mut stopped = BTreeSet::new();
        for job in std::mem::take(&mut self.jobs) {
            if stopped.contains(&job.key()) {
                continue;
            }
            if survives() {
                let _ = self.disk.finish(&job);
            } else {
                stopped.insert(job.key());
            }
        }
    }

    /// A job that may be done now: the first of its chunk.
    pub(crate) fn job_at(&self, pick: usize) -> Option<usize> {
        let mut keys = BTreeSet::new();
        let firsts: Vec<_> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| keys.insert(job.key()))
            .map(|(at, _)| at)
            .collect();
        firsts.get(pick % firsts.len().max(1)).copied()
    }
}
