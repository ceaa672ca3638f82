//! A member, and a disk in memory that does at once what it is asked to, unless it fails.

use std::collections::BTreeMap;
use std::ops::Bound;

use chunkserver_core::{
    Effect, Fault, Io, Limits, Listed, MemberInfo, Page, PeerError, Refusal, Replica, Replicate, Start,
    Store, View, Write,
};
use coord_types::{ChunkKey, DataId, DiskId, Epoch, Fence, GroupId, Stamp, Version};

pub(crate) const ME: DiskId = DiskId(1);
pub(crate) const PEER: DiskId = DiskId(2);
pub(crate) const SPARE: DiskId = DiskId(3);
pub(crate) const EPOCH: Epoch = Epoch(1);

#[derive(Default)]
pub(crate) struct Chunks(pub(crate) BTreeMap<ChunkKey, Version>);

impl Store for Chunks {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        Ok(self.0.get(&key).copied().unwrap_or(Version::NONE))
    }

    fn seen(&self, _: ChunkKey, _: Stamp) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Each raise here is by one, so the record's version counts them.
    fn fence(&self, record: ChunkKey) -> Result<Fence, Fault> {
        Ok(self.0.get(&record).map_or(Fence::NONE, |version| Fence(version.counter)))
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        let range =
            (after.map_or(Bound::Unbounded, Bound::Excluded), upto.map_or(Bound::Unbounded, Bound::Included));
        let chunks = self.0.range(range).map(|(key, version)| (*key, *version)).collect();
        Ok(Listed { chunks, truncated: false })
    }
}

pub(crate) struct Member {
    pub(crate) replica: Replica<()>,
    pub(crate) disk: Chunks,
    /// What the disk says to each write from now on.
    pub(crate) fault: Option<Fault>,
}

pub(crate) fn key(index: u32) -> ChunkKey {
    ChunkKey::new(GroupId(1), DataId(1), index)
}

pub(crate) fn version(counter: u64) -> Version {
    Version { epoch: EPOCH, counter }
}

fn info(disk: DiskId) -> MemberInfo {
    MemberInfo { disk, incarnation: 0 }
}

/// Of the process that runs the peer's disk.
pub(crate) const INCARNATION: u64 = 7;

pub(crate) fn page(chunks: Vec<(ChunkKey, Version)>, end: bool) -> Result<Page, PeerError> {
    Ok(Page { chunks, end, incarnation: INCARNATION })
}

/// A primary's write of the chunk 0 that follows the version before it.
pub(crate) fn replicate(token: u64, activation: u64, counter: u64) -> Replicate<()> {
    let previous = if counter == 1 { Version::NONE } else { version(counter - 1) };
    Replicate {
        token,
        epoch: EPOCH,
        activation,
        key: key(0),
        previous,
        version: version(counter),
        stamp: None,
        content: (),
    }
}

impl Member {
    pub(crate) fn new(chunks: impl IntoIterator<Item = u32>) -> Self {
        let replica = Replica::new(Start { me: ME, promised: EPOCH, limits: Limits::default() });
        let disk = Chunks(chunks.into_iter().map(|index| (key(index), version(1))).collect());
        Self { replica, disk, fault: None }
    }

    /// A secondary, activated with this number.
    pub(crate) fn follow(chunks: impl IntoIterator<Item = u32>, activation: u64) -> Self {
        let mut member = Self::new(chunks);
        member.prepare(1, (EPOCH, activation));
        member.activate(2, (EPOCH, activation));
        member
    }

    /// Runs one event; the disk does at once what it is asked to. Gives what else is asked for.
    pub(crate) fn run(
        &mut self,
        event: impl FnOnce(&mut Replica<()>, &mut Io<'_, Chunks, ()>),
    ) -> Vec<Effect<()>> {
        let mut effects = Vec::new();
        event(&mut self.replica, &mut Io { store: &self.disk, effects: &mut effects });
        let mut rest = Vec::new();
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                if let Effect::Apply { key, version, .. } = effect {
                    let result = self.fault.map_or(Ok(0), Err);
                    if result.is_ok() {
                        self.disk.0.insert(key, version);
                    }
                    let mut io = Io { store: &self.disk, effects: &mut effects };
                    self.replica.applied(key, version, result, &mut io);
                } else {
                    rest.push(effect);
                }
            }
        }
        rest
    }

    /// The primary, with the other members serving or syncing.
    pub(crate) fn lead(&mut self, serving: &[DiskId], syncing: &[DiskId]) -> Vec<Effect<()>> {
        self.table(EPOCH, &[&[ME], serving].concat(), syncing)
    }

    pub(crate) fn table(&mut self, epoch: Epoch, serving: &[DiskId], syncing: &[DiskId]) -> Vec<Effect<()>> {
        let infos = |disks: &[DiskId]| disks.iter().map(|disk| info(*disk)).collect();
        let view = View { epoch, serving: infos(serving), syncing: infos(syncing), short: false };
        self.run(|replica, io| replica.table(view, 10, io))
    }

    /// The primary alone, with a syncing member that has no chunk, compared to its last page.
    pub(crate) fn fill(chunks: impl IntoIterator<Item = u32>) -> (Self, Vec<Effect<()>>) {
        let mut member = Self::new(chunks);
        member.lead(&[], &[PEER]);
        member.prepared(page(Vec::new(), true));
        let begun = member.prepared(page(Vec::new(), true));
        (member, begun)
    }

    pub(crate) fn prepared(&mut self, page: Result<Page, PeerError>) -> Vec<Effect<()>> {
        self.prepared_by(PEER, page)
    }

    pub(crate) fn prepared_by(&mut self, peer: DiskId, page: Result<Page, PeerError>) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.prepared(peer, activation, page, io))
    }

    pub(crate) fn activated(&mut self) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.activated(PEER, activation, Ok(()), io))
    }

    pub(crate) fn equalised(&mut self, index: u32, result: Result<(), PeerError>) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.equalised(PEER, activation, key(index), result, io))
    }

    pub(crate) fn replicated(&mut self, index: u32, version: Version) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.replicated(PEER, activation, (key(index), version), Ok(()), io))
    }

    pub(crate) fn write(&mut self, index: u32) -> Vec<Effect<()>> {
        self.write_under(index, Fence::NONE)
    }

    pub(crate) fn write_under(&mut self, index: u32, fence: Fence) -> Vec<Effect<()>> {
        let (epoch, key) = (self.replica.epoch(), key(index));
        let write = Write { token: 1, key, epoch, stamp: None, fence, content: () };
        self.run(|replica, io| replica.write(write, io))
    }

    pub(crate) fn raise(&mut self, token: u64, fence: Fence) -> Vec<Effect<()>> {
        let (epoch, key) = (self.replica.epoch(), key(0).fence_record());
        let write = Write { token, key, epoch, stamp: Some(fence.stamp()), fence, content: () };
        self.run(|replica, io| replica.write(write, io))
    }

    pub(crate) fn filled(&mut self, index: u32, result: Result<Version, PeerError>) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.filled(PEER, activation, key(index), result, io))
    }

    pub(crate) fn is_level(&self) -> bool {
        self.replica.level().any(|disk| disk == PEER)
    }

    /// A primary prepares this member, as one that serves.
    pub(crate) fn prepare(&mut self, token: u64, at: (Epoch, u64)) -> Vec<Effect<()>> {
        self.run(|replica, io| replica.prepare(token, at, false, io))
    }

    pub(crate) fn activate(&mut self, token: u64, at: (Epoch, u64)) -> Vec<Effect<()>> {
        self.run(|replica, io| replica.activate(token, at, io))
    }

    pub(crate) fn replicate(&mut self, write: Replicate<()>) -> Vec<Effect<()>> {
        self.run(|replica, io| replica.replicate(write, io))
    }

    pub(crate) fn install(&mut self, at: (Epoch, u64), index: u32) -> Result<(), Refusal> {
        let mut result = Ok(());
        let effects = self.run(|replica, io| result = replica.install(at, key(index), io));
        assert_eq!(effects, []);
        result
    }

    /// The disk puts in place what came by an install.
    pub(crate) fn installed(&mut self, index: u32, version: Version) -> Vec<Effect<()>> {
        self.disk.0.insert(key(index), version);
        self.run(|replica, io| replica.installed(key(index), io))
    }
}

pub(crate) fn fills(effects: &[Effect<()>]) -> Vec<u32> {
    let index = |effect: &Effect<()>| match effect {
        Effect::Fill { key, .. } => Some(key.chunk.index),
        _ => None,
    };
    effects.iter().filter_map(index).collect()
}

pub(crate) fn forwards(effects: &[Effect<()>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Forward { .. })).count()
}

/// What the only caller was told, if nothing else happened.
pub(crate) fn answer(effects: &[Effect<()>]) -> Option<Result<Version, Refusal>> {
    match effects {
        [Effect::Answer { result, .. }] => Some(result.map(|done| done.version)),
        _ => None,
    }
}
