//! Buffered writes, and sending them.
//!
//! | a written range | becomes | when |
//! | --- | --- | --- |
//! | new bytes | dirty | a write was answered |
//! | dirty | in flight | its piece is full; a flush, a read's or a punch's turn, memory pressure or age asks for it, and nothing in flight overlaps it and the file has room for more in flight |
//! | in flight | clean | the chunkservers have it durable |
//! | in flight | failed | the chunkservers refuse it for good (no space): the bytes are dropped, the error waits for fsync and close of every handle open now |
//! | dirty, in flight | refused | the file was fenced after it was opened: the bytes are dropped, its handles are stale for ever |

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::chunks::{ChunkWrite, DataError};
use crate::client::Client;
use crate::handle::{FileHandle, Through};
use crate::inode::{State, now};
use crate::inode_table::Pin;
use crate::write::dirty::PIECE;
use crate::write::flush::Depth;
use crate::write::memory::Reservation;
use crate::{Errno, OpReply, OpResult};

/// What a file may hold before its writer waits: twice what may be in flight. More would only be colder in the caches
/// when its turn comes.
const BACKLOG_MAX: u64 = 32 << 20;
/// And at most this share of the budget: one stream must not make all others wait.
const FILE_SHARE: u64 = 2;
/// Files hurried when memory is short, in one go.
const HURRIED_MAX: usize = 256;

/// A segment on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pin: Pin,
    start: u64,
    writes: Vec<ChunkWrite>,
}

/// What a try to buffer a write met.
pub(crate) enum Attempt {
    Done,
    Failed(Errno),
    /// The budget must give this much first.
    Memory(usize),
    /// The file has enough waiting already.
    Backlog,
    /// There is a gap to be zeroed between the end of the file and the write.
    Gap,
}

/// A write.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) offset: u64,
    pub(crate) data: &'a [u8],
    pub(crate) kill_privileges: bool,
    /// The kernel writes a mapped page back: it does not know through which handle the page was changed.
    pub(crate) mapped: bool,
}

impl State {
    /// The largest offset this file can have.
    pub(crate) fn limit(&self) -> u64 {
        let max = self.attr.layout.as_ref().map_or(0, coord_types::Layout::file_size_max_bytes);
        max.min(i64::MAX as u64)
    }

    /// Whether bytes nobody wrote in this life of the file may be beyond its end and before `offset`.
    pub(crate) fn has_gap(&self, offset: u64) -> bool {
        let size = self.size();
        offset > size && (!self.made_here || self.garbage_end().max(self.sent_end) > size)
    }
}

impl Client {
    /// Takes a write into the buffer, if nothing has to be waited for. The caller holds the inode's `ops`, shared.
    pub(crate) fn buffer(
        self: &Arc<Self>,
        handle: &FileHandle,
        input: Input<'_>,
        reservation: &mut Option<Reservation>,
    ) -> Attempt {
        let pin = &handle.inode;
        let mut state = pin.lock();
        if state.gone {
            return Attempt::Failed(Errno::EIO);
        }
        if handle.is_stale(&state) || (input.mapped && state.lowest_fence() < state.fence) {
            return Attempt::Failed(Errno::ESTALE);
        }
        let end = input.offset + input.data.len() as u64;
        if end > state.limit() {
            return Attempt::Failed(Errno::EFBIG);
        }
        if state.has_gap(input.offset) {
            return Attempt::Gap;
        }
        let held = state.dirty.bytes() + state.flights.bytes();
        if held > 0 && held >= self.backlog_max() {
            return Attempt::Backlog;
        }
        let cost = state.dirty.cost(input.offset, input.data.len());
        if reservation.as_ref().is_none_or(|reserved| reserved.bytes() < cost) {
            match self.memory.try_reserve(cost) {
                Some(reserved) => *reservation = Some(reserved),
                None => return Attempt::Memory(cost),
            }
        }
        let Some(reserved) = reservation else { return Attempt::Memory(cost) };
        state.written += 1;
        let numbered = (input.offset, state.written);
        state.dirty.write(numbered, input.data, &self.memory, reserved);
        let time = now();
        if end > state.size() {
            state.pending.size = Some(end);
        }
        state.pending.mtime = Some(time);
        state.pending.ctime = Some(time);
        if input.kill_privileges {
            state.pending.kill();
        }
        if handle.direct {
            // The kernel goes around its page cache and drops the pages itself, but a read at the same moment may bring
            // an old one back: not to be trusted at the next open.
            state.cached = None;
        }
        self.flusher.note(pin, &mut state, self.config.flush_age);
        let jobs = if state.dirty.has_ready() { self.launch(pin, &mut state) } else { Vec::new() };
        drop(state);
        self.start(jobs);
        Attempt::Done
    }

    /// A write, with all its waiting.
    pub(crate) async fn write(self: &Arc<Self>, handle: &Arc<FileHandle>, input: Input<'_>) -> OpResult {
        let written = u32::try_from(input.data.len()).map_err(|_| Errno::EINVAL)?;
        if !handle.writable {
            return Err(Errno::EBADF);
        }
        if input.offset.checked_add(input.data.len() as u64).is_none() {
            return Err(Errno::EFBIG);
        }
        if written == 0 {
            return Ok(OpReply::Written(0));
        }
        // In parts, so that what one needs of the budget has a bound.
        for (index, data) in input.data.chunks(PIECE as usize).enumerate() {
            let offset = input.offset + index as u64 * PIECE;
            self.write_part(handle, Input { offset, data, ..input }).await?;
        }
        let depth = match handle.through {
            Through::Buffered => return Ok(OpReply::Written(written)),
            Through::Data => Depth::Data,
            Through::DataAndSize => Depth::Size,
            Through::All => Depth::All,
        };
        self.flush(&handle.inode, depth).await;
        handle.take_error(&handle.inode.lock())?;
        Ok(OpReply::Written(written))
    }

    async fn write_part(self: &Arc<Self>, handle: &FileHandle, input: Input<'_>) -> Result<(), Errno> {
        let pin = &handle.inode;
        let mut reservation = None;
        loop {
            let attempt = {
                let _shared = pin.ops.read().await;
                self.buffer(handle, input, &mut reservation)
            };
            match attempt {
                Attempt::Done => return Ok(()),
                Attempt::Failed(errno) => return Err(errno),
                Attempt::Gap => self.extend_to(pin, input.offset, handle.fence).await?,
                Attempt::Memory(bytes) => {
                    drop(reservation.take());
                    self.press();
                    reservation = Some(self.memory.reserve(bytes).await);
                }
                Attempt::Backlog => {
                    drop(reservation.take());
                    self.hurry(pin);
                    let limit = self.backlog_max();
                    pin.until(|state| (state.dirty.bytes() + state.flights.bytes() < limit).then_some(()))
                        .await;
                }
            }
        }
    }

    fn backlog_max(&self) -> u64 {
        (self.config.memory_bytes / FILE_SHARE).min(BACKLOG_MAX)
    }

    /// Sends all of a file's dirty data as soon as may be.
    fn hurry(self: &Arc<Self>, pin: &Pin) {
        let jobs = {
            let mut state = pin.lock();
            state.dirty.hurry(0, u64::MAX);
            self.launch(pin, &mut state)
        };
        self.start(jobs);
    }

    /// Memory is short: sends the oldest files' data.
    fn press(self: &Arc<Self>) {
        // One at a time is enough: what is dirty now is on its way when it is done, what is not is sent by age.
        let Some(oldest) = self.flusher.begin_press(HURRIED_MAX) else { return };
        for pin in oldest {
            self.hurry(&pin);
        }
        self.flusher.end_press();
    }

    /// Moves what is ready into flight. Under the inode's lock; [`start`](Self::start) the jobs after it.
    pub(crate) fn launch(&self, pin: &Pin, state: &mut State) -> Vec<Job> {
        let mut jobs = Vec::new();
        let Some(layout) = state.attr.layout.as_ref() else { return jobs };
        while state.flights.has_room() && !state.frozen {
            let flights = &state.flights;
            let Some(sealed) = state.dirty.take_ready(|start, end| flights.is_free(start, end)) else {
                break;
            };
            let data = state.attr.data;
            let mut rest = sealed.data.clone();
            let mut crcs = sealed.block_crcs.as_slice();
            let mut writes = Vec::with_capacity(1);
            for slice in layout.slices(data, sealed.start, sealed.data.len() as u64) {
                let part = rest.split_to(slice.len_bytes as usize);
                // A chunk's end is a block's end, so no checksum belongs to two slices.
                let blocks = chunkserver_api::checksum::piece_count(slice.offset_bytes, part.len());
                let (mine, others) = crcs.split_at(blocks);
                crcs = others;
                writes.push(ChunkWrite {
                    key: slice.key,
                    offset_bytes: slice.offset_bytes,
                    data: part,
                    block_crcs: mine.to_vec(),
                    chunk_size_bytes: layout.chunk_size_bytes(),
                    fence: state.fence,
                });
            }
            state.sent_end = state.sent_end.max(sealed.end_exclusive());
            state.flights.start(sealed.start, sealed.data, data, sealed.first_seq);
            jobs.push(Job { pin: pin.clone(), start: sealed.start, writes });
        }
        jobs
    }

    /// Sends, from this thread as far as the sockets take it.
    pub(crate) fn start(self: &Arc<Self>, jobs: Vec<Job>) {
        for job in jobs {
            self.detach(send(Arc::clone(self), job));
        }
    }
}

/// Sends one segment and takes note of its landing.
fn send(client: Arc<Client>, job: Job) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Job { pin, start, mut writes } = job;
        let sent = match (writes.pop(), writes.is_empty()) {
            (Some(only), true) => client.chunks.write(only).await,
            (last, _) => {
                let all = writes.into_iter().chain(last).map(|write| client.chunks.write(write));
                futures::future::join_all(all).await.into_iter().sum::<Result<i64, DataError>>()
            }
        };
        let jobs = {
            let mut state = pin.lock();
            let flight = state.flights.land(start);
            match sent {
                Ok(delta) if flight.is_some_and(|flight| flight.generation == state.attr.data) => {
                    state.pending.allocated_delta += delta;
                }
                Ok(_) => {}
                Err(DataError::Fenced(fence)) => {
                    state.fenced(fence);
                    state.refused_below = state.refused_below.max(fence);
                }
                Err(error) => {
                    tracing::warn!(ino = %pin.ino, offset = start, %error, "written data is lost");
                    state.failures.add(error.into());
                }
            }
            client.launch(&pin, &mut state)
        };
        pin.notify();
        for job in jobs {
            // Not through `start`: with answers that come at once that would recurse as deep as there are segments.
            client.runtime.spawn(send(Arc::clone(&client), job));
        }
    })
}
