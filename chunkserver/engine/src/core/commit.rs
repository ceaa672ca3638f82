//! The committer: one task that makes updates durable, applies them and answers.
//!
//! Steps of an update, and what a power cut after each leaves (the argument in full: docs/disk-format.md):
//! 1. data is being written to free blocks: no record names them, they are free again after a restart;
//! 2. data is durable, the frame is not: as 1;
//! 3. the frame is durable: the update is found in the journal and applied. If its data was written at the same
//!    time (an early update), it is applied only if the data is there: all or nothing, and nobody was answered yet,
//!    because the answer waits for both;
//! 4. applied to the metadata store, in memory: as 3, the frame stays in the journal until the store is flushed;
//! 5. old blocks are handed out again, which needs a later durable frame that says that frames up to this one need
//!    no look at data ("settled"), or a flushed store: so whoever looks at the data of an early update after a
//!    crash still finds it.
//!
//! A few frames are written at a time; what comes meanwhile goes into the next. Frames are applied in order, each
//! once it, all before it and all early data of it are durable.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::alloc::Run;
use crate::buffer::PoolBuf;
use crate::core::{Core, Limbo, Queued, State};
use crate::error::{Damage, EngineError, Failure, IoError};
use crate::index::{Change, Outcome, Overlay};
use crate::io::{FileId, Op, WriteMode};
use crate::journal::{FRAME_BYTES_MAX, FRAME_BYTES_TARGET, Numbers, Place, encode_frame};
use crate::records::Applied;

/// Frames being written at a time. With one, an update that just missed a frame waits for that one and its own: at
/// 32 writes in flight a frame takes as long as a data write, and that halved the rate.
const WRITING_MAX: usize = 4;
/// A frame takes at most this part of the operations in flight, and a few at least. A frame's updates are answered
/// together, so with all of them in one frame they would go in step: all to the disk, then all to the processor, and
/// each waits for the other. That halved the rate of 4 KiB writes at 32 in flight, as measured beside fio.
const FRAMES_PER_ROUND: usize = 8;
const FRAME_UPDATES_MIN: usize = 4;

/// A frame in the journal or on its way there.
struct Frame {
    place: Place,
    settled: u64,
    updates: Vec<Queued>,
    written: bool,
}

/// The end of a frame's write.
type Written = (u64, Result<(), IoError>);

/// Frames from the first one that is not applied.
#[derive(Default)]
struct Frames {
    queue: VecDeque<Frame>,
    writing: FuturesUnordered<BoxFuture<'static, Written>>,
    /// All frames up to this one are durable.
    durable: u64,
}

impl Frame {
    fn data_done(&self) -> bool {
        self.updates.iter().all(Queued::data_done)
    }
}

impl Frames {
    /// The next frame that can be applied.
    fn pop_ready(&mut self) -> Option<Frame> {
        let first = self.queue.front()?;
        if first.place.sequence <= self.durable && first.data_done() { self.queue.pop_front() } else { None }
    }

    /// Notes a written frame. Returns up to where frames need no look at data after a crash: what a frame says of
    /// that counts once all frames before it are durable too, or a crash would not read it.
    fn note_written(&mut self, sequence: u64) -> u64 {
        if let Some(frame) = self.queue.iter_mut().find(|frame| frame.place.sequence == sequence) {
            frame.written = true;
        }
        let mut settled = 0;
        for frame in self.queue.iter().take_while(|frame| frame.written) {
            self.durable = self.durable.max(frame.place.sequence);
            settled = settled.max(frame.settled);
        }
        settled
    }
}

impl Core {
    /// Runs until the engine goes and nothing is in flight.
    pub(crate) async fn run_committer(self: Arc<Self>) {
        let mut frames = Frames { durable: self.state.lock().applied, ..Frames::default() };
        loop {
            if self.failure().is_some() {
                return self.refuse_frames(frames);
            }
            while let Some(frame) = frames.pop_ready() {
                if let Err(failure) = self.apply(frame) {
                    self.fail(failure);
                }
            }
            self.checkpoint_if_due();
            while frames.writing.len() < WRITING_MAX && self.start_frame(&mut frames) {}
            if frames.queue.is_empty() && self.is_done() {
                return;
            }
            tokio::select! {
                biased;
                Some((sequence, result)) = frames.writing.next() => {
                    self.frame_written(sequence, result, &mut frames);
                }
                () = self.commit.notified() => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.stopping && state.queue.is_empty() && state.tasks == 0
    }

    fn refuse_frames(&self, frames: Frames) {
        let Err(error) = self.check() else { return };
        for queued in frames.queue.into_iter().flat_map(|frame| frame.updates) {
            let _ = queued.done.send(Err(error.clone()));
        }
    }

    /// Gathers what waits into a frame and starts to write it. `false` if there is nothing or no room.
    fn start_frame(&self, frames: &mut Frames) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.queue.is_empty() && !state.want_settle {
            return false;
        }
        let count = gather(&state.queue, state.tasks);
        let sequence = state.journal.next_sequence();
        // Nothing of a frame needs a look after a crash if its data is durable before it is written.
        let unsettled =
            frames.queue.iter().find(|frame| !frame.data_done()).map(|frame| frame.place.sequence);
        let own_done = state.queue.iter().take(count).all(Queued::data_done);
        let settled = unsettled.unwrap_or(if own_done { sequence + 1 } else { sequence }) - 1;
        let said = frames.queue.back().map_or(0, |frame| frame.settled).max(state.settled);
        if count == 0 && settled <= said {
            // An empty frame would say nothing new yet.
            return false;
        }
        let numbers = Numbers { sequence, settled, durable: frames.durable };
        let updates = state.queue.iter().take(count).map(|queued| &queued.update);
        let frame = encode_frame(self.salt, numbers, updates);
        debug_assert!(frame.len() <= FRAME_BYTES_MAX, "a frame is too long to be read back");
        let Some(place) = state.journal.place(frame.len() as u64) else { return false };
        state.want_settle = false;
        let updates = state.queue.drain(..count).collect();
        frames.queue.push_back(Frame { place, settled, updates, written: false });
        let mut buffer = self.pool.allocate(frame.len());
        buffer.copy_from_slice(&frame);
        let op = Op::Write { data: PoolBuf::freeze(buffer), mode: WriteMode::Durable };
        state.latency.begin(sequence, Instant::now());
        let completion = self.io.submit(FileId::Journal, place.offset_bytes, op);
        frames.writing.push(async move { (sequence, completion.await) }.boxed());
        true
    }

    fn frame_written(&self, sequence: u64, result: Result<(), IoError>, frames: &mut Frames) {
        if let Err(error) = result {
            self.fail_io(error);
            return;
        }
        let settled = frames.note_written(sequence);
        let mut state = self.state.lock();
        state.latency.end(sequence, Instant::now());
        state.settled = state.settled.max(settled);
        self.release(&mut state);
    }

    pub(crate) fn release(&self, state: &mut State) {
        if state.release_limbo() && state.starving > 0 {
            self.space.notify_waiters();
        }
    }

    /// Applies a durable frame and answers its updates.
    fn apply(&self, frame: Frame) -> Result<(), Failure> {
        let mut answers: Vec<(oneshot::Sender<Result<Change, EngineError>>, Change)> =
            Vec::with_capacity(frame.updates.len());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut overlay = Overlay::default();
        let mut freed: Vec<Run> = Vec::new();
        let mut tickets = Vec::with_capacity(frame.updates.len());
        for queued in frame.updates {
            match state.index.apply(&mut overlay, &queued.update)? {
                Outcome::Applied(mut change) => {
                    freed.append(&mut change.freed);
                    answers.push((queued.done, change));
                    tickets.extend(queued.ticket);
                }
                // The line ordered them; if that failed, stop before anything worse happens.
                Outcome::Mismatch { .. } => {
                    let reason = "an update does not follow the chunk's version";
                    return Err(Failure::Damage(Damage::JournalRecord {
                        sequence: frame.place.sequence,
                        reason,
                    }));
                }
            }
        }
        let Place { sequence, end_bytes, .. } = frame.place;
        state.index.commit(overlay, Applied { sequence, end_bytes, salt: self.salt })?;
        state.applied = sequence;
        state.stats.frames += 1;
        state.stats.updates += answers.len() as u64;
        if !freed.is_empty() {
            state.limbo_blocks += freed.iter().map(|run| u64::from(run.len)).sum::<u64>();
            let epoch = state.readers.turn();
            state.limbo.push_back(Limbo { frame: sequence, epoch, runs: freed });
            state.want_settle |= state.starving > 0;
        }
        tickets.into_iter().for_each(|ticket| state.advance(ticket));
        self.release(state);
        drop(guard);
        for (done, change) in answers {
            let _ = done.send(Ok(change));
        }
        Ok(())
    }

    /// Lets the journal's older half go: what it says is in the metadata store, which is made durable.
    fn checkpoint_if_due(self: &Arc<Self>) {
        let upto = {
            let mut state = self.state.lock();
            if state.checkpointing || !state.journal.needs_release(state.applied) {
                return;
            }
            state.checkpointing = true;
            state.applied
        };
        let kv = self.state.lock().index.kv().clone();
        if self.inline_flush {
            let flushed = kv.flush();
            self.checkpointed(upto, flushed);
            return;
        }
        let core = self.clone();
        tokio::task::spawn_blocking(move || {
            let flushed = kv.flush();
            core.checkpointed(upto, flushed);
        });
    }

    fn checkpointed(&self, upto: u64, flushed: Result<(), coord_kv::KvError>) {
        {
            let mut state = self.state.lock();
            state.checkpointing = false;
            if flushed.is_ok() {
                state.stats.checkpoints += 1;
                state.journal.release(upto);
                state.settled = state.settled.max(upto);
                self.release(&mut state);
            }
        }
        if let Err(error) = flushed {
            self.fail(Failure::Kv(error));
        }
        self.commit.notify_one();
    }
}

/// How many waiting updates make the next frame.
fn gather(queue: &VecDeque<Queued>, in_flight: usize) -> usize {
    let mut bytes = 0;
    queue
        .iter()
        .take(in_flight.div_ceil(FRAMES_PER_ROUND).max(FRAME_UPDATES_MIN))
        .take_while(|queued| {
            let first = bytes == 0;
            bytes += queued.update.len_bytes();
            first || bytes <= FRAME_BYTES_TARGET
        })
        .count()
}
