//! The engine behind its public face: shared state and who touches it.
//!
//! A write runs as a task of its own ([`write`]), so that a caller that gives up cannot stop it half-way: it takes
//! its place in the chunk's line, verifies, allocates, writes data, and hands an update to the committer
//! ([`commit`]), which writes updates into the journal in groups, applies them and answers. The keeper ([`space`])
//! makes segments and writes blocks in advance. Reads ([`read`]) pin what they read.
//!
//! Invariants:
//! - one lock, [`Core::state`], never held across an await;
//! - updates of one chunk enter the journal in the order of its line;
//! - a disk block freed by frame F is handed out again only when (1) frames up to F need no look at data after a
//!   crash and (2) no reader of before is left: see [`Limbo`].

pub(crate) mod commit;
pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod space;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use coord_types::{BLOCK_SIZE, ChunkKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::alloc::{Allocator, Run};
use crate::buffer::BufferPool;
use crate::core::line::{Line, Ticket};
use crate::error::{EngineError, Failure, IoError};
use crate::index::{Change, Index, IndexError};
use crate::io::{FileId, Io};
use crate::journal::Ring;
use crate::latency::Latency;
use crate::superblock::Geometry;
use crate::types::{Stats, Usage};
use crate::update::Update;

pub(crate) const BLOCK: u64 = BLOCK_SIZE as u64;

pub(crate) struct Core {
    pub(crate) geometry: Geometry,
    pub(crate) pool: Arc<BufferPool>,
    /// Frames of this life carry it.
    pub(crate) salt: u64,
    pub(crate) state: Mutex<State>,
    /// Updates wait, data became durable, or a checkpoint ended: the committer looks.
    pub(crate) commit: Notify,
    /// Space runs low: the keeper looks.
    pub(crate) keeper: Notify,
    /// Blocks became free, or can no longer: writers that wait for them look.
    pub(crate) space: Notify,
    /// Something in flight ended: `close` looks.
    pub(crate) quiet: Notify,
    failure: OnceLock<Arc<Failure>>,
    /// Flush the metadata store on the calling task (simulations) instead of a blocking thread.
    pub(crate) inline_flush: bool,
    /// Segments that were missing or short when the disk was opened, and were made anew.
    pub(crate) lost: BTreeSet<u32>,
    /// Dropped last: it holds the directory's lock, and the next to open it finds the metadata store free.
    pub(crate) io: Arc<dyn Io>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("io", &self.io).field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) alloc: Allocator,
    /// Chunks with operations in flight.
    pub(crate) lines: HashMap<ChunkKey, Line>,
    pub(crate) next_ticket: u64,
    /// Updates that may go into the next frame.
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) journal: Ring,
    pub(crate) limbo: VecDeque<Limbo>,
    pub(crate) limbo_blocks: u64,
    /// Blocks being written in advance.
    pub(crate) ahead_blocks: u64,
    pub(crate) readers: Readers,
    /// The last frame applied.
    pub(crate) applied: u64,
    /// Frames up to here need no look at data after a crash, and the medium knows it.
    pub(crate) settled: u64,
    /// Somebody waits for blocks in limbo: write an empty frame if there is no other.
    pub(crate) want_settle: bool,
    pub(crate) checkpointing: bool,
    /// The keeper makes a segment.
    pub(crate) growing: bool,
    /// The file system below had no room; not asked again for a segment, or to write in advance, before this.
    pub(crate) host_full_until: Option<tokio::time::Instant>,
    /// Writers waiting for space.
    pub(crate) starving: usize,
    /// Write tasks that live.
    pub(crate) tasks: usize,
    pub(crate) stopping: bool,
    pub(crate) stats: Stats,
    /// Of frames of the journal, which every change waits for.
    pub(crate) latency: Latency,
}

/// Freed blocks that may not be handed out yet.
#[derive(Debug)]
pub(crate) struct Limbo {
    pub(crate) frame: u64,
    pub(crate) epoch: u64,
    pub(crate) runs: Vec<Run>,
}

/// Who reads: readers are counted by the epoch they began in; an epoch ends when blocks are freed.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    epoch: u64,
    active: BTreeMap<u64, u32>,
}

impl Readers {
    pub(crate) fn enter(&mut self) -> u64 {
        *self.active.entry(self.epoch).or_insert(0) += 1;
        self.epoch
    }

    pub(crate) fn leave(&mut self, epoch: u64) {
        if let Some(count) = self.active.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&epoch);
            }
        }
    }

    /// Ends the epoch: readers from now on cannot see what is being freed.
    pub(crate) fn turn(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch - 1
    }

    fn all_left(&self, epoch: u64) -> bool {
        self.active.first_key_value().is_none_or(|(oldest, _)| *oldest > epoch)
    }
}

/// An update on its way into the journal.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) update: Update,
    /// Set once the data is durable; `None` if it was before the update was queued.
    pub(crate) data: Option<Arc<AtomicBool>>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) done: oneshot::Sender<Result<Change, EngineError>>,
}

impl Queued {
    pub(crate) fn data_done(&self) -> bool {
        self.data.as_ref().is_none_or(|done| done.load(Ordering::Acquire))
    }
}

/// What [`Core::new`] starts from.
pub(crate) struct Start {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) geometry: Geometry,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) inline_flush: bool,
    pub(crate) index: Index,
    pub(crate) alloc: Allocator,
    pub(crate) journal: Ring,
    pub(crate) salt: u64,
    pub(crate) lost: BTreeSet<u32>,
}

impl Core {
    pub(crate) fn new(start: Start) -> Self {
        let applied = start.journal.next_sequence() - 1;
        Self {
            io: start.io,
            geometry: start.geometry,
            pool: start.pool,
            salt: start.salt,
            state: Mutex::new(State {
                index: start.index,
                alloc: start.alloc,
                lines: HashMap::new(),
                next_ticket: 0,
                queue: VecDeque::new(),
                journal: start.journal,
                limbo: VecDeque::new(),
                limbo_blocks: 0,
                ahead_blocks: 0,
                readers: Readers::default(),
                applied,
                settled: applied,
                want_settle: false,
                checkpointing: false,
                growing: false,
                host_full_until: None,
                starving: 0,
                tasks: 0,
                stopping: false,
                stats: Stats::default(),
                latency: Latency::default(),
            }),
            commit: Notify::new(),
            keeper: Notify::new(),
            space: Notify::new(),
            quiet: Notify::new(),
            failure: OnceLock::new(),
            inline_flush: start.inline_flush,
            lost: start.lost,
        }
    }

    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.get().cloned()
    }

    /// Refuses if the disk is out.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(EngineError::Failed(failure.clone())),
        }
    }

    /// Takes the disk out. The first failure stays; whoever waits is answered with it.
    pub(crate) fn fail(&self, failure: Failure) -> EngineError {
        let is_close = matches!(failure, Failure::Closed);
        let failure = self.failure.get_or_init(|| {
            if !is_close {
                tracing::error!(error = %failure, "the disk failed and is out; everything is refused from here on");
            }
            Arc::new(failure)
        });
        let mut state = self.state.lock();
        let queue = std::mem::take(&mut state.queue);
        let lines = std::mem::take(&mut state.lines);
        drop(state);
        for queued in queue.into_iter().chain(lines.into_values().flat_map(Line::into_waiting)) {
            let _ = queued.done.send(Err(EngineError::Failed(failure.clone())));
        }
        self.commit.notify_one();
        self.keeper.notify_one();
        self.space.notify_waiters();
        self.quiet.notify_waiters();
        EngineError::Failed(failure.clone())
    }

    pub(crate) fn fail_io(&self, error: IoError) -> EngineError {
        self.fail(Failure::Io(error))
    }

    /// The answer to an operation that met bad metadata: damage is told, a failed store takes the disk out.
    pub(crate) fn index_error(&self, error: IndexError) -> EngineError {
        match error {
            IndexError::Damage(damage) => EngineError::Damaged(damage),
            IndexError::Kv(error) => self.fail(Failure::Kv(error)),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let state = self.state.lock();
        let space = self.space_of(&state);
        Usage {
            capacity_bytes: space.capacity * BLOCK,
            used_bytes: space.used * BLOCK,
            reserve_bytes: self.reserve_blocks() * BLOCK,
        }
    }

    /// Where a disk block lies.
    pub(crate) fn place(&self, block: u64) -> (FileId, u64) {
        let per_segment = u64::from(self.geometry.segment_blocks);
        let segment = u32::try_from(block / per_segment).expect("a disk has at most 512 segments");
        (FileId::Segment(segment), block % per_segment * BLOCK)
    }
}

impl State {
    /// Frees what may be handed out by now. Returns whether anything was.
    pub(crate) fn release_limbo(&mut self) -> bool {
        let mut any = false;
        // In order of frames and of epochs alike.
        while let Some(oldest) = self.limbo.front()
            && oldest.frame <= self.settled
            && self.readers.all_left(oldest.epoch)
        {
            let limbo = self.limbo.pop_front().expect("just seen");
            for run in limbo.runs {
                self.limbo_blocks -= u64::from(run.len);
                self.alloc.free(run);
            }
            any = true;
        }
        any
    }
}
