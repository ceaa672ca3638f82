//! A disk of the model, and what it works on.

use std::collections::BTreeMap;

use chunkserver_core::{Fault, Listed, Store};
use coord_types::{ChunkKey, Epoch, Fence, Stamp, Version};

use super::bug::Bug;
use super::setup::Setup;

/// A chunk: its bytes are the list of writes applied, in order; two lists are equal if and only if the bytes are,
/// whatever the writes overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rec {
    pub(crate) version: Version,
    pub(crate) writes: Vec<u8>,
}

/// What survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) chunks: BTreeMap<ChunkKey, Rec>,
    pub(crate) promised: Epoch,
}

/// What the disk works on. Jobs of a chunk end in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Apply {
        key: ChunkKey,
        previous: Version,
        version: Version,
        write: u8,
    },
    /// `reply`: the call that waits for it.
    Install {
        key: ChunkKey,
        rec: Option<Rec>,
        reply: Option<u32>,
    },
    Promise(Epoch),
    /// Done and confirmed, but a crash takes it back: what was there before.
    Unsynced {
        key: ChunkKey,
        before: Option<Rec>,
    },
}

impl Job {
    pub(crate) const fn key(&self) -> Option<ChunkKey> {
        match self {
            Self::Apply { key, .. } | Self::Install { key, .. } | Self::Unsynced { key, .. } => Some(*key),
            Self::Promise(_) => None,
        }
    }
}

/// The jobs that may end now: the first of each chunk.
pub(crate) fn firsts(jobs: &[Job]) -> impl Iterator<Item = usize> + '_ {
    (0..jobs.len()).filter(|at| jobs[..*at].iter().all(|before| before.key() != jobs[*at].key()))
}

/// What may have become durable of them when power goes: of each chunk's jobs, the first few. One bit for each job.
pub(crate) fn survivors(jobs: &[Job]) -> impl Iterator<Item = u8> + '_ {
    let survives = |mask: u8, at: usize| mask & (1 << at) != 0;
    (0..1u8 << jobs.len()).filter(move |mask| {
        (0..jobs.len()).all(|at| {
            !survives(*mask, at)
                || (0..at).all(|before| jobs[before].key() != jobs[at].key() || survives(*mask, before))
        })
    })
}

impl Disk {
    /// What a fence record holds.
    pub(crate) fn fence(&self, record: ChunkKey, setup: &Setup) -> Fence {
        let raises = self.chunks.get(&record).map_or(&[][..], |rec| &rec.writes);
        raises.iter().map(|raise| setup.fence(*raise)).max().unwrap_or_default()
    }

    fn put(&mut self, key: ChunkKey, rec: Option<Rec>) {
        match rec {
            Some(rec) => self.chunks.insert(key, rec),
            None => self.chunks.remove(&key),
        };
    }

    /// Makes a job durable; an apply fails if the chunk is not at the version before it.
    pub(crate) fn finish(&mut self, job: &Job) -> Result<(), Fault> {
        match job {
            Job::Apply { key, previous, version, write } => {
                if self.chunks.get(key).map_or(Version::NONE, |rec| rec.version) != *previous {
                    return Err(Fault::Conflict);
                }
                let rec = self.chunks.entry(*key).or_default();
                rec.version = *version;
                rec.writes.push(*write);
            }
            Job::Install { key, rec, .. } => self.put(*key, rec.clone()),
            Job::Promise(epoch) => self.promised = self.promised.max(*epoch),
            Job::Unsynced { .. } => {}
        }
        Ok(())
    }

    /// Power goes.
    pub(crate) fn crash(&mut self, jobs: &[Job], survivors: u8) {
        for (_, job) in jobs.iter().enumerate().filter(|(at, _)| survivors & (1 << at) != 0) {
            // It may be refused: then it did nothing.
            let _ = self.finish(job);
        }
        for (at, job) in jobs.iter().enumerate().rev() {
            if let Job::Unsynced { key, before } = job
                && survivors & (1 << at) == 0
            {
                self.put(*key, before.clone());
            }
        }
    }
}

/// A disk as its replica sees it.
#[derive(Debug)]
pub(crate) struct Shelf<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) setup: &'a Setup,
}

impl Store for Shelf<'_> {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        Ok(self.disk.chunks.get(&key).map_or(Version::NONE, |rec| rec.version))
    }

    fn seen(&self, key: ChunkKey, stamp: Stamp) -> Result<bool, Fault> {
        let seen = |rec: &Rec| rec.writes.iter().any(|write| u64::from(*write) == stamp.seq);
        Ok(!self.setup.has(Bug::ForgetStamp) && self.disk.chunks.get(&key).is_some_and(seen))
    }

    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault> {
        if self.setup.has(Bug::ForgetFence) {
            return Ok(Fence::NONE);
        }
        Ok(self.disk.fence(record, self.setup))
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        let within =
            |key: &ChunkKey| after.is_none_or(|after| *key > after) && upto.is_none_or(|upto| *key <= upto);
        let mut chunks: Vec<_> = self
            .disk
            .chunks
            .iter()
            .filter(|(key, _)| within(key))
            .map(|(key, rec)| (*key, rec.version))
            .collect();
        let truncated = chunks.len() > self.setup.page;
        chunks.truncate(self.setup.page);
        Ok(Listed { chunks, truncated })
    }
}
