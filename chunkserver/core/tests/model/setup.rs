//! A configuration: how large the group is, what clients want, what may go wrong and how often.

use coord_types::{ChunkKey, DataId, DiskId, Fence, GroupId};
use master_core::table::change::{Change, Rules};

use super::bug::Bug;

/// Disks of a configuration, at most.
pub(crate) const DISKS_MAX: usize = 4;

/// One run of the explorer. Every number is a bound: all ways to use up at most so much are explored.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Disks; the first `serving` are the group.
    pub(crate) disks: u32,
    pub(crate) serving: u32,
    pub(crate) rules: Rules,
    /// The chunk each write goes to; [`FENCE`]: it is a raise.
    pub(crate) writes: Vec<u32>,
    /// The fence each write is under, or raises to; none for those without a number here.
    pub(crate) fences: Vec<u64>,
    /// How often each write is sent: retries, and duplicates that come late.
    pub(crate) sends: u8,
    /// Reads that take time. (What a read in one moment would show is looked at in every state.)
    pub(crate) reads: u8,
    pub(crate) crashes: u8,
    /// Calls given up by who waits, wherever the message or the answer is by then.
    pub(crate) losses: u8,
    /// Messages that arrive twice.
    pub(crate) doubles: u8,
    /// Writes and installs that a disk refuses.
    pub(crate) disk_faults: u8,
    /// Back-offs that end: attempts after one that failed.
    pub(crate) retries: u8,
    /// What the master may do, each at most once, in any order its rules allow.
    pub(crate) changes: Vec<Change>,
    /// Commit messages are sent; else all of them are lost.
    pub(crate) commits: bool,
    /// Writes of a chunk the disk works on at the same time.
    pub(crate) depth: usize,
    /// Chunks in a page of a list.
    pub(crate) page: usize,
    /// Begins with processes that have just started; else with an activated group.
    pub(crate) cold: bool,
    /// A restarted primary's clock is behind the one it had.
    pub(crate) clock_back: bool,
    pub(crate) bug: Option<Bug>,
}

impl Setup {
    /// A group of so many disks, and nothing happens.
    pub(crate) fn group(serving: u32) -> Self {
        Self {
            disks: serving,
            serving,
            rules: Rules { replicas: serving, min_replicas: serving - 1 },
            writes: Vec::new(),
            fences: Vec::new(),
            sends: 1,
            reads: 0,
            crashes: 0,
            losses: 0,
            doubles: 0,
            disk_faults: 0,
            retries: 0,
            changes: Vec::new(),
            commits: false,
            depth: 2,
            page: 2,
            cold: false,
            clock_back: false,
            bug: None,
        }
    }

    pub(crate) fn keys(&self) -> u32 {
        self.writes.iter().max().map_or(0, |max| max + 1)
    }

    pub(crate) fn fence(&self, write: u8) -> Fence {
        self.fences.get(usize::from(write)).map_or(Fence::NONE, |fence| Fence(*fence))
    }

    pub(crate) fn is_raise(&self, write: u8) -> bool {
        self.writes[usize::from(write)] == FENCE
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// A mistake that makes a member act on what it would refuse.
    pub(crate) fn heeds_old_messages(&self) -> bool {
        matches!(
            self.bug,
            Some(
                Bug::WriteOfAnyActivation
                    | Bug::InstallOfAnyActivation
                    | Bug::ActivateOfAnyActivation
                    | Bug::MessagesOutliveProcesses
            )
        )
    }
}

/// Stands for the fence record among the chunks: behind the few there are.
pub(crate) const FENCE: u32 = 2;

/// The chunk with this index.
pub(crate) fn key(index: u32) -> ChunkKey {
    let index = if index == FENCE { ChunkKey::FENCE_INDEX } else { index };
    ChunkKey::new(GroupId(1), DataId(9), index)
}

/// The inverse of [`key`].
pub(crate) fn index(key: ChunkKey) -> u32 {
    if key.is_fence_record() { FENCE } else { key.chunk.index }
}

/// The disk at this place.
pub(crate) fn disk(at: usize) -> DiskId {
    DiskId(u32::try_from(at).expect("few disks") + 1)
}

/// The place of this disk.
pub(crate) fn place(disk: DiskId) -> usize {
    disk.0 as usize - 1
}
