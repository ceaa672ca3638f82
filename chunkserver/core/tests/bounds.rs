//! What a member keeps for others, and what it waits for, is bounded, whatever they do. One member alone, event by event.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::BTreeMap;
use std::ops::Bound;

use chunkserver_core::{
    Effect, Fault, Io, Limits, Listed, MemberInfo, Page, PeerError, Refusal, Replica, Replicate, Start,
    Store, View, Write,
};
use coord_types::{ChunkKey, DataId, DiskId, Epoch, GroupId, Stamp, Version};

const ME: DiskId = DiskId(1);
const PEER: DiskId = DiskId(2);
const EPOCH: Epoch = Epoch(1);

#[derive(Default)]
struct Chunks(BTreeMap<ChunkKey, Version>);

impl Store for Chunks {
    fn version(&self, key: ChunkKey) -> Result<Version, Fault> {
        Ok(self.0.get(&key).copied().unwrap_or(Version::NONE))
    }

    fn seen(&self, _: ChunkKey, _: Stamp) -> Result<bool, Fault> {
        Ok(false)
    }

    fn list(&self, after: Option<ChunkKey>, upto: Option<ChunkKey>) -> Result<Listed, Fault> {
        let range =
            (after.map_or(Bound::Unbounded, Bound::Excluded), upto.map_or(Bound::Unbounded, Bound::Included));
        let chunks = self.0.range(range).map(|(key, version)| (*key, *version)).collect();
        Ok(Listed { chunks, truncated: false })
    }
}

struct Member {
    replica: Replica<()>,
    disk: Chunks,
    limits: Limits,
}

fn key(index: u32) -> ChunkKey {
    ChunkKey::new(GroupId(1), DataId(1), index)
}

fn version(counter: u64) -> Version {
    Version { epoch: EPOCH, counter }
}

fn info(disk: DiskId) -> MemberInfo {
    MemberInfo { disk, incarnation: 0 }
}

fn page(chunks: Vec<(ChunkKey, Version)>, end: bool) -> Result<Page, PeerError> {
    Ok(Page { chunks, end, incarnation: 7 })
}

impl Member {
    fn new(chunks: impl IntoIterator<Item = u32>) -> Self {
        let limits = Limits::default();
        let replica = Replica::new(Start { me: ME, promised: EPOCH, limits });
        let disk = Chunks(chunks.into_iter().map(|index| (key(index), version(1))).collect());
        Self { replica, disk, limits }
    }

    /// Runs one event; the disk does at once what it is asked to. Gives what else is asked for.
    fn run(&mut self, event: impl FnOnce(&mut Replica<()>, &mut Io<'_, Chunks, ()>)) -> Vec<Effect<()>> {
        let mut effects = Vec::new();
        event(&mut self.replica, &mut Io { store: &self.disk, effects: &mut effects });
        let mut rest = Vec::new();
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                if let Effect::Apply { key, version, .. } = effect {
                    self.disk.0.insert(key, version);
                    let mut io = Io { store: &self.disk, effects: &mut effects };
                    self.replica.applied(key, version, Ok(0), &mut io);
                } else {
                    rest.push(effect);
                }
            }
        }
        rest
    }

    /// The primary, with the other members serving or syncing.
    fn lead(&mut self, serving: &[DiskId], syncing: &[DiskId]) -> Vec<Effect<()>> {
        let serving = [ME].iter().chain(serving).map(|disk| info(*disk)).collect();
        let syncing = syncing.iter().map(|disk| info(*disk)).collect();
        let view = View { epoch: EPOCH, serving, syncing, short: false };
        self.run(|replica, io| replica.table(view, 10, io))
    }

    /// The primary alone, with a syncing member that has no chunk, compared to its last page.
    fn fill(chunks: impl IntoIterator<Item = u32>) -> (Self, Vec<Effect<()>>) {
        let mut member = Self::new(chunks);
        member.lead(&[], &[PEER]);
        member.prepared(page(Vec::new(), true));
        let begun = member.prepared(page(Vec::new(), true));
        (member, begun)
    }

    fn prepared(&mut self, page: Result<Page, PeerError>) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.prepared(PEER, activation, page, io))
    }

    fn write(&mut self, index: u32) -> Vec<Effect<()>> {
        let write = Write { token: 1, key: key(index), epoch: EPOCH, stamp: None, content: () };
        self.run(|replica, io| replica.write(write, io))
    }

    fn filled(&mut self, index: u32, result: Result<Version, PeerError>) -> Vec<Effect<()>> {
        let activation = self.replica.activation();
        self.run(|replica, io| replica.filled(PEER, activation, key(index), result, io))
    }

    fn is_level(&self) -> bool {
        self.replica.level().any(|disk| disk == PEER)
    }
}

fn fills(effects: &[Effect<()>]) -> Vec<u32> {
    let index = |effect: &Effect<()>| match effect {
        Effect::Fill { key, .. } => Some(key.chunk.index),
        _ => None,
    };
    effects.iter().filter_map(index).collect()
}

fn forwards(effects: &[Effect<()>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Forward { .. })).count()
}

#[test]
fn two_chunks_are_on_their_way_at_a_time_and_a_damaged_one_is_left_out() {
    let (mut member, begun) = Member::fill(0..5);
    assert_eq!(fills(&begun), [0, 1]);
    assert_eq!(fills(&member.filled(0, Ok(version(1)))), [2]);
    assert_eq!(fills(&member.filled(1, Err(PeerError::SourceDamaged))), [3]);
    assert_eq!(fills(&member.filled(2, Ok(version(1)))), [4]);
    assert!(!member.is_level());
    member.filled(3, Ok(version(1)));
    let last = member.filled(4, Ok(version(1)));
    assert!(member.is_level() && matches!(last[..], [Effect::Level { peer: PEER, .. }]), "{last:?}");
}

#[test]
fn writes_are_kept_during_an_install_up_to_a_bound_and_then_it_begins_again() {
    for (writes, again) in [(64, false), (65, true)] {
        let (mut member, _) = Member::fill([0]);
        for _ in 0..writes {
            assert_eq!(forwards(&member.write(0)), 0, "the chunk is on its way");
        }
        // It was read after the first of them.
        let after = member.filled(0, Ok(version(2)));
        assert_eq!(fills(&after).len(), usize::from(again), "{writes} writes");
        assert_eq!(forwards(&after), if again { 0 } else { writes - 1 });
    }
}

#[test]
fn writes_that_are_not_answered_are_forwarded_up_to_a_bound_and_then_chunks_are_installed() {
    let (mut member, _) = Member::fill([]);
    assert!(member.is_level());
    for index in 0..64 {
        assert_eq!(forwards(&member.write(index)), 1);
    }
    let beyond = member.write(64);
    assert_eq!((forwards(&beyond), fills(&beyond)), (0, vec![64]));
    assert!(!member.is_level());
    let activation = member.replica.activation();
    let failed =
        member.run(|replica, io| replica.forwarded(PEER, activation, key(3), Err(PeerError::Failed), io));
    assert_eq!(fills(&failed), [3], "a write that did not arrive is made good");
    assert_eq!(forwards(&member.write(65)), 1, "there is room again");
}

#[test]
fn a_member_that_lists_the_same_page_again_is_not_asked_for_ever() {
    let mut member = Member::new(0..3);
    member.lead(&[PEER], &[]);
    member.prepared(page(Vec::new(), true));
    let first = vec![(key(0), version(1)), (key(1), version(1))];
    let next = member.prepared(page(first.clone(), false));
    assert!(matches!(next[..], [Effect::Prepare { after: Some(Some(_)), .. }]), "{next:?}");
    let again = member.prepared(page(first, false));
    assert!(matches!(again[..], [Effect::Retry { .. }]), "{again:?}");
}

#[test]
fn a_secondary_holds_back_a_bounded_number_of_early_writes() {
    let mut member = Member::new([]);
    let at = (EPOCH, 5);
    member.run(|replica, io| replica.prepare(1, at, false, io));
    member.run(|replica, io| replica.activate(2, at, io));
    let early = |token, counter| Replicate {
        token,
        epoch: EPOCH,
        activation: 5,
        key: key(0),
        previous: version(counter - 1),
        version: version(counter),
        stamp: None,
        content: (),
    };
    let bound = member.limits.early_max as u64;
    for counter in 2..2 + bound {
        assert_eq!(member.run(|replica, io| replica.replicate(early(counter, counter), io)), []);
    }
    let beyond = member.run(|replica, io| replica.replicate(early(9999, 9999), io));
    assert_eq!(beyond, [Effect::Answer { token: 9999, result: Err(Refusal::Busy) }]);
    let mut first = early(1, 1);
    first.previous = Version::NONE;
    let answers = member.run(|replica, io| replica.replicate(first, io));
    assert_eq!(answers.len() as u64, bound + 1, "the first one lets all that waited for it go on");
}

/// A primary's spell that is over has no say any more, within its epoch too.
#[test]
fn a_secondary_takes_nothing_of_an_activation_that_is_over() {
    let mut member = Member::new([]);
    let at = (EPOCH, 5);
    member.run(|replica, io| replica.prepare(1, at, false, io));
    member.run(|replica, io| replica.activate(2, at, io));
    let refused = |effects: Vec<Effect<()>>| matches!(effects[..], [Effect::Answer { result: Err(_), .. }]);
    assert!(refused(member.run(|replica, io| replica.prepare(3, (EPOCH, 4), false, io))));
    let write = |token, activation| Replicate {
        token,
        epoch: EPOCH,
        activation,
        key: key(0),
        previous: Version::NONE,
        version: version(1),
        stamp: None,
        content: (),
    };
    assert!(refused(member.run(|replica, io| replica.replicate(write(4, 4), io))));
    assert!(member.disk.0.is_empty());
    member.run(|replica, io| replica.replicate(write(5, 5), io));
    assert_eq!(member.disk.0.len(), 1);
}

#[test]
fn a_primary_is_nobodys_secondary_in_its_epoch() {
    let mut member = Member::new([]);
    member.lead(&[], &[]);
    let answer = member.run(|replica, io| replica.prepare(1, (EPOCH, 99), false, io));
    assert!(matches!(answer[..], [Effect::Answer { result: Err(_), .. }]), "{answer:?}");
}
