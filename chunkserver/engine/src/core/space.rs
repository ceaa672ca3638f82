//! Space: who gets blocks, and the keeper, which makes segments and writes blocks in advance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coord_types::BLOCK_SIZE;
use tokio::time::Instant;

use crate::alloc::{Run, SMALL_BLOCKS};
use crate::buffer::PoolBuf;
use crate::core::{BLOCK, Core, State};
use crate::error::{EngineError, Failure};
use crate::io::{Op, WriteMode};

/// Kept back from ordinary writes: one per cent of the disk, at least 64 MiB, at most an eighth.
const RESERVE_MIN_BYTES: u64 = 64 << 20;
/// A writer waits so long for blocks that are being freed or made.
const SPACE_WAIT: Duration = Duration::from_secs(5);
/// The file system below is asked again for room after this.
const HOST_FULL_PAUSE: Duration = Duration::from_secs(5);
/// A new segment is made when fewer free blocks than this are left, or a quarter of a segment.
const GROW_BELOW_BYTES: u64 = 64 << 20;
/// Blocks written in advance at a time, and how many are kept so: half a second of what one disk takes in small
/// synced writes, and less than what opening would notice.
const AHEAD_STEP: u32 = 64;
const AHEAD_BLOCKS: u64 = 1024;

/// Blocks there are and blocks in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) capacity: u64,
    pub(crate) used: u64,
}

/// May a request take from the reserve?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Ordinary,
    /// It frees at least as much as it takes.
    Reserve,
}

enum Job {
    Grow { index: u32, blocks: u32 },
    WriteAhead(Run),
}

impl Core {
    pub(crate) fn reserve_blocks(&self) -> u64 {
        let capacity = self.geometry.capacity_blocks;
        (capacity / 100).max(RESERVE_MIN_BYTES / BLOCK).min(capacity / 8)
    }

    pub(crate) fn space_of(&self, state: &State) -> Space {
        let total = state.alloc.total_blocks();
        let capacity = if state.host_full_until.is_some() { total } else { self.geometry.capacity_blocks };
        Space { capacity, used: total - state.alloc.free_blocks() - state.limbo_blocks - state.ahead_blocks }
    }

    /// Takes `blocks` blocks, in one run if there is one.
    pub(crate) async fn allocate(&self, blocks: u32, claim: Claim) -> Result<Vec<Run>, EngineError> {
        if blocks == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + SPACE_WAIT;
        let mut starving = None;
        loop {
            let mut notified = std::pin::pin!(self.space.notified());
            notified.as_mut().enable();
            {
                let mut state = self.state.lock();
                self.check()?;
                let space = self.space_of(&state);
                let reserve = if claim == Claim::Reserve { 0 } else { self.reserve_blocks() };
                let available = space.capacity.saturating_sub(space.used).saturating_sub(reserve);
                let full = EngineError::Full {
                    needed_bytes: u64::from(blocks) * BLOCK,
                    available_bytes: available * BLOCK,
                };
                if available < u64::from(blocks) {
                    return Err(full);
                }
                if let Some(runs) = self.try_allocate(&mut state, blocks) {
                    if self.job_waits(&state, blocks <= SMALL_BLOCKS) {
                        self.keeper.notify_one();
                    }
                    return Ok(runs);
                }
                // Enough is free, but not to be had yet: in limbo, or in a segment not made.
                if state.limbo.is_empty() && state.ahead_blocks == 0 && !self.can_grow(&state) {
                    return Err(full);
                }
                if Instant::now() >= deadline {
                    return Err(full);
                }
                state.want_settle |= !state.limbo.is_empty();
                starving.get_or_insert_with(|| Starving::new(self, &mut state));
            }
            self.commit.notify_one();
            self.keeper.notify_one();
            let _ = tokio::time::timeout_at(deadline, notified).await;
        }
    }

    fn try_allocate(&self, state: &mut State, blocks: u32) -> Option<Vec<Run>> {
        if let Some(run) = state.alloc.allocate_run(blocks) {
            return Some(vec![run]);
        }
        // A segment yet to be made has the run: worth waiting for, scattered blocks stay scattered.
        if self.can_grow(state) && state.alloc.free_blocks() < u64::from(self.geometry.segment_blocks) {
            return None;
        }
        state.alloc.allocate_scattered(blocks)
    }

    /// Gives back blocks that no record names.
    pub(crate) fn give_back(&self, runs: Vec<Run>) {
        if runs.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        runs.into_iter().for_each(|run| state.alloc.free(run));
        drop(state);
        self.space.notify_waiters();
    }

    fn can_grow(&self, state: &State) -> bool {
        state.alloc.segments() < self.geometry.segments() && host_may_have_room(state)
    }

    fn wants_growth(&self, state: &State) -> bool {
        let low = (GROW_BELOW_BYTES / BLOCK).min(u64::from(self.geometry.segment_blocks) / 4);
        !state.growing && self.can_grow(state) && (state.alloc.free_blocks() <= low || state.starving > 0)
    }

    fn wants_ahead(&self, state: &State) -> bool {
        let wanted = AHEAD_BLOCKS.min(self.geometry.capacity_blocks / 64);
        let at_hand = state.alloc.pooled_blocks() + state.alloc.recent_small() as u64;
        at_hand < wanted && state.alloc.free_blocks() > 4 * wanted && host_may_have_room(state)
    }

    fn job_waits(&self, state: &State, small: bool) -> bool {
        self.wants_growth(state) || (small && self.wants_ahead(state))
    }

    fn next_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        if state.stopping || self.failure().is_some() {
            return None;
        }
        if self.wants_growth(&state) {
            state.growing = true;
            let index = state.alloc.segments();
            return Some(Job::Grow { index, blocks: self.geometry.blocks_of(index) });
        }
        if state.alloc.segments() > 0 && self.wants_ahead(&state) {
            let step = AHEAD_STEP
                .min(u32::try_from(self.geometry.capacity_blocks / 64).unwrap_or(AHEAD_STEP))
                .max(1);
            let run = state.alloc.take_for_pool(step)?;
            state.ahead_blocks += u64::from(run.len);
            return Some(Job::WriteAhead(run));
        }
        None
    }

    /// Makes segments and writes blocks in advance until the engine goes.
    pub(crate) async fn keep_space(self: Arc<Self>) {
        let zeros: Bytes = PoolBuf::from_heap(AHEAD_STEP as usize * BLOCK_SIZE).freeze();
        loop {
            while let Some(job) = self.next_job() {
                match job {
                    Job::Grow { index, blocks } => self.grow(index, blocks).await,
                    Job::WriteAhead(run) => self.write_ahead(run, &zeros).await,
                }
                self.space.notify_waiters();
            }
            if self.state.lock().stopping || self.failure().is_some() {
                return;
            }
            self.keeper.notified().await;
        }
    }

    async fn grow(&self, index: u32, blocks: u32) {
        let made = self.io.create_segment(index, u64::from(blocks) * BLOCK).await;
        let mut state = self.state.lock();
        state.growing = false;
        match made {
            Ok(()) => {
                state.host_full_until = None;
                state.alloc.add_segment(blocks);
            }
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "the file system below the disk is full; the disk holds less than it was formatted for");
                state.host_full_until = Some(Instant::now() + HOST_FULL_PAUSE);
            }
            Err(error) => {
                drop(state);
                self.fail(Failure::Io(error));
            }
        }
    }

    /// Small synced writes to blocks never written cost twice as much (the file system must commit that they are
    /// written now): a few are written in advance.
    async fn write_ahead(&self, run: Run, zeros: &Bytes) {
        let (file, offset) = self.place(run.start);
        let data = zeros.slice(..run.len as usize * BLOCK_SIZE);
        let written = self.io.submit(file, offset, Op::Write { data, mode: WriteMode::Durable }).await;
        let mut state = self.state.lock();
        state.ahead_blocks -= u64::from(run.len);
        match written {
            Ok(()) => {
                state.stats.blocks_ahead += u64::from(run.len);
                state.alloc.pool(run);
            }
            Err(error) if error.is_full() => {
                state.alloc.free(run);
                state.host_full_until = Some(Instant::now() + HOST_FULL_PAUSE);
            }
            Err(error) => {
                drop(state);
                self.fail(Failure::Io(error));
            }
        }
    }
}

fn host_may_have_room(state: &State) -> bool {
    state.host_full_until.is_none_or(|until| Instant::now() >= until)
}

/// Counts a writer among those that wait for space.
struct Starving<'a> {
    core: &'a Core,
}

impl<'a> Starving<'a> {
    fn new(core: &'a Core, state: &mut State) -> Self {
        state.starving += 1;
        Self { core }
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.core.state.lock().starving -= 1;
    }
}
