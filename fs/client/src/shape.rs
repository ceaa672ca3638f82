//! What moves the end of a file and makes holes in it: truncate, extend, fallocate.
//!
//! Each holds the inode's `ops` exclusively (no write of this client is taken in meanwhile) and runs to its end even if
//! its caller is interrupted. Why no stale byte reappears (I8), with a crash after each step:
//!
//! Shorter, to N > 0:
//! 1. all in flight lands; if bytes were sent beyond what the master knows as the size, it is told that size first, so
//!    that step 2 counts them as garbage. Crash: a longer file with unsynced data, as if the truncate had not begun.
//! 2. SetAttr(size N): the master notes garbage_end = the old size. Crash: whoever makes the file longer sees
//!    garbage_end > size and zeroes [size, garbage_end) first.
//! 3. [N, garbage_end) is punched. Crash: as before, punched again some time.
//! 4. the caller is answered; `garbage_cleared` rides on the next CommitWrite.
//!
//! Shorter, to 0: one SetAttr gives the file a fresh data generation; nothing written before can ever be seen.
//!
//! Longer (truncate up, or a write beyond the end): [size, garbage_end) is punched first; if this client did not make
//! the generation, so is all of the gap, for a client that died may have sent bytes there that the master never heard
//! of. Then the new length is pending like that of a write. Crash before its commit: the old length.

use std::sync::Arc;

use coord_types::{BLOCK_SIZE, Fence};
use master_api::model::{Changes, Mutation, SetAttr};

use crate::chunks::DataError;
use crate::client::Client;
use crate::handle::FileHandle;
use crate::inode::{Source, State, now};
use crate::inode_table::Pin;
use crate::stripe::Stripes;
use crate::write::flush::{Depth, flush};
use crate::{Errno, OpReply, OpResult};

/// fallocate(2) asks for something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocation {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) mode: i32,
}

impl State {
    /// For who changes the file under this fence.
    fn stripes_of(&self, fence: Fence) -> Result<Stripes, Errno> {
        self.check_fence(fence)?;
        let layout = self.attr.layout.clone().ok_or(Errno::EINVAL)?;
        Ok(Stripes { layout, data: self.attr.data })
    }

    fn check_fence(&self, fence: Fence) -> Result<(), Errno> {
        if fence < self.fence { Err(Errno::ESTALE) } else { Ok(()) }
    }

    fn touch(&mut self) {
        let time = now();
        self.pending.mtime = Some(time);
        self.pending.ctime = Some(time);
    }
}

impl Client {
    /// Makes the file at least `size` long, the new bytes zero.
    pub(crate) async fn extend_to(self: &Arc<Self>, pin: &Pin, size: u64, fence: Fence) -> Result<(), Errno> {
        let (client, pin) = (Arc::clone(self), pin.clone());
        self.to_the_end(async move {
            let _alone = pin.ops.write().await;
            client.extend(&pin, size, fence).await
        })
        .await
    }

    /// The same, by who holds `ops` exclusively.
    async fn extend(self: &Arc<Self>, pin: &Pin, size: u64, fence: Fence) -> Result<(), Errno> {
        let (stripes, start, end) = {
            let state = pin.lock();
            state.check_fence(fence)?;
            let old = state.size();
            if size <= old {
                return Ok(());
            }
            let gap_end = if state.made_here { 0 } else { size };
            // `sent_end` is beyond the size only if a punch failed.
            (state.stripes_of(fence)?, old, state.garbage_end().max(gap_end).max(state.sent_end))
        };
        let delta = self.zero(pin, &stripes, (start, end), fence).await?;
        let mut state = pin.lock();
        state.check_fence(fence)?;
        state.garbage_cleared = true;
        state.pending.allocated_delta += delta;
        state.pending.size = Some(size);
        state.touch();
        self.flusher.note(pin, &mut state, self.config.flush_age);
        Ok(())
    }

    /// Makes a range zero, and takes note if the file was fenced meanwhile.
    async fn zero(
        &self,
        pin: &Pin,
        stripes: &Stripes,
        range: (u64, u64),
        fence: Fence,
    ) -> Result<i64, Errno> {
        let done = stripes.zero(&*self.chunks, range, fence).await;
        if let Err(DataError::Fenced(fence)) = done {
            pin.lock().fenced(fence);
        }
        Ok(done?)
    }

    /// Sets a file's size, and what else `changes` names, in one step.
    pub(crate) async fn truncate(self: &Arc<Self>, pin: &Pin, changes: Changes) -> Result<(), Errno> {
        let Some(size) = changes.size_bytes else { return Ok(()) };
        let (client, pin) = (Arc::clone(self), pin.clone());
        self.to_the_end(async move {
            let _alone = pin.ops.write().await;
            let (limit, old, gone, fence) = {
                let state = pin.lock();
                // By name is as if opened now.
                let fence = changes.fence.unwrap_or(state.fence);
                state.check_fence(fence)?;
                (state.limit(), state.size(), state.gone, fence)
            };
            if gone {
                return Err(Errno::EIO);
            }
            if size > limit {
                return Err(Errno::EFBIG);
            }
            // To nothing is always told the master: also an empty file may have been given bytes by somebody else.
            if size < old || size == 0 {
                return client.shrink(&pin, size, changes).await;
            }
            client.extend(&pin, size, fence).await?;
            {
                let mut state = pin.lock();
                state.check_fence(fence)?;
                state.touch();
                state.pending.change(&Changes { size_bytes: None, ..changes });
                client.flusher.note(&pin, &mut state, client.config.flush_age);
                if state.orphan || (state.writers > 0 && changes.fence.is_some()) {
                    return Ok(());
                }
            }
            // Nobody will fsync or close what is not open, and what is open may have been fenced: tell the master now.
            client.commit_now(&pin).await
        })
        .await
    }

    /// Flushes for an operation without a handle, and says how that ended.
    async fn commit_now(self: &Arc<Self>, pin: &Pin) -> Result<(), Errno> {
        let (before, fence) = {
            let state = pin.lock();
            (state.failures.count, state.fence)
        };
        flush(Arc::clone(self), pin.clone(), Depth::All).await;
        let state = pin.lock();
        state.check_fence(fence)?;
        state.failures.since(before).map_or(Ok(()), Err)
    }

    async fn shrink(self: &Arc<Self>, pin: &Pin, size: u64, changes: Changes) -> Result<(), Errno> {
        let _turn = pin.commit.lock().await;
        // What is dirty stays so until the master agreed. What is in flight lands first, and nothing takes off
        // meanwhile, or it could land after the punch.
        pin.lock().frozen = true;
        let done = self.shrink_frozen(pin, size, changes).await;
        let jobs = {
            let mut state = pin.lock();
            state.frozen = false;
            self.launch(pin, &mut state)
        };
        self.start(jobs);
        pin.notify();
        done
    }

    async fn shrink_frozen(self: &Arc<Self>, pin: &Pin, size: u64, changes: Changes) -> Result<(), Errno> {
        let (tell_size, local) = {
            let mut state = pin.lock();
            // Nothing of what goes was ever sent or told: it goes here only. By name, other mounts' bytes may have to go, too.
            let local = changes.fence.is_some()
                && size > 0
                && size >= state.attr.size_bytes
                && size >= state.sent_end;
            if local {
                state.shrink_here(size, &changes);
                self.flusher.note(pin, &mut state, self.config.flush_age);
            }
            (size > 0 && state.sent_end > state.attr.size_bytes, local)
        };
        if local {
            return Ok(());
        }
        pin.until(|state| state.flights.is_empty().then_some(())).await;
        if tell_size {
            self.tell_sent(pin).await?;
        }
        // What is held back goes along, or it would be lost with the pending times.
        let (set, fence_before) = {
            let mut state = pin.lock();
            let mut held = std::mem::take(&mut state.pending);
            held.mtime = None;
            held.change(&Changes { size_bytes: None, ..changes });
            let fence = changes.fence;
            let set = Changes { size_bytes: Some(size), fence, ..held.changes().unwrap_or_default() };
            state.committing = Some(held);
            (set, state.fence)
        };
        let answer = self.mutate(Mutation::SetAttr(SetAttr { ino: pin.ino, changes: set })).await;
        if answer == Err(Errno::ESTALE) {
            self.learn_fence(pin).await;
        }
        let garbage = {
            let mut state = pin.lock();
            let held = state.committing.take().unwrap_or_default();
            let attr = match answer {
                Ok(mutated) => mutated.attr.ok_or(Errno::EIO)?,
                Err(errno) => {
                    state.hold_again(held, fence_before);
                    return Err(if errno == Errno::ENOENT { Errno::ESTALE } else { errno });
                }
            };
            state.shrinks += 1;
            state.dirty.truncate(size);
            state.pending.size = None;
            let sent_end = state.sent_end;
            let fresh = attr.data != state.attr.data;
            state.refresh(attr, Source::OurChange);
            state.garbage_cleared = false;
            if fresh {
                state.made_here = true;
                state.sent_end = 0;
                state.pending.allocated_delta = 0;
            } else {
                state.pending.allocated_delta += held.allocated_delta;
            }
            // Of a file without a name the master was not told how far data was sent: it dies with us.
            let garbage_end = state.attr.garbage_end_bytes.max(sent_end);
            let fence = changes.fence.unwrap_or(state.fence);
            if fresh || garbage_end <= size {
                None
            } else {
                Some((state.stripes_of(fence)?, garbage_end, fence))
            }
        };
        if let Some((stripes, garbage_end, fence)) = garbage {
            let delta = self.zero(pin, &stripes, (size, garbage_end), fence).await?;
            let mut state = pin.lock();
            state.garbage_cleared = true;
            state.sent_end = state.sent_end.min(size);
            state.pending.allocated_delta += delta;
            if delta != 0 {
                self.flusher.note(pin, &mut state, self.config.flush_age);
            }
        }
        Ok(())
    }

    /// Tells the master how far data was sent, so that it counts it as garbage when the file gets shorter.
    async fn tell_sent(&self, pin: &Pin) -> Result<(), Errno> {
        let commit = {
            let mut state = pin.lock();
            let sent_end = state.sent_end;
            state.pending.size = state.pending.size.max(Some(sent_end));
            state.begin_commit(sent_end)
        };
        let Some(commit) = commit else { return Ok(()) };
        self.tell(pin, commit).await
    }

    /// fallocate: room is never reserved (a full disk is told by fsync), so the plain mode only moves the end.
    pub(crate) async fn fallocate(self: &Arc<Self>, handle: &FileHandle, asked: Allocation) -> OpResult {
        const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP_SIZE;
        const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_RANGE_KEEP: i32 = ZERO_RANGE | KEEP_SIZE;
        let Allocation { offset, len, mode } = asked;
        if !handle.writable {
            return Err(Errno::EBADF);
        }
        let (zero, keep) = match mode {
            0 => (false, false),
            KEEP_SIZE => (false, true),
            PUNCH_HOLE | ZERO_RANGE_KEEP => (true, true),
            ZERO_RANGE => (true, false),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if end > handle.inode.lock().limit() {
            return Err(Errno::EFBIG);
        }
        let (client, pin, fence) = (Arc::clone(self), handle.inode.clone(), handle.fence);
        self.to_the_end(async move {
            let _alone = pin.ops.write().await;
            {
                let state = pin.lock();
                if state.gone {
                    return Err(Errno::EIO);
                }
                state.check_fence(fence)?;
            }
            if zero {
                client.punch(&pin, (offset, end), fence).await?;
            }
            if !keep {
                client.extend(&pin, end, fence).await?;
            }
            Ok(())
        })
        .await?;
        if handle.through != crate::handle::Through::Buffered {
            self.flush(&handle.inode, Depth::All).await;
            handle.take_error(&handle.inode.lock())?;
        }
        Ok(OpReply::Ok)
    }

    /// Makes [start, end) zero as far as the file goes.
    async fn punch(self: &Arc<Self>, pin: &Pin, (start, end): (u64, u64), fence: Fence) -> Result<(), Errno> {
        let (stripes, end, jobs) = {
            let mut state = pin.lock();
            let size = state.size();
            if start >= size {
                return Ok(());
            }
            // To the end of the last block: then the block itself is freed, and beyond the size there is nothing.
            let end = end.min(size.next_multiple_of(BLOCK_SIZE as u64));
            state.dirty.hurry(start, end);
            (state.stripes_of(fence)?, end, self.launch(pin, &mut state))
        };
        self.start(jobs);
        pin.until(|state| {
            let clear = state.dirty.next_in(start, end).is_none() && state.flights.is_free(start, end);
            clear.then_some(())
        })
        .await;
        let delta = self.zero(pin, &stripes, (start, end), fence).await?;
        let mut state = pin.lock();
        state.pending.allocated_delta += delta;
        state.check_fence(fence)?;
        state.touch();
        self.flusher.note(pin, &mut state, self.config.flush_age);
        Ok(())
    }
}

impl State {
    /// Shortens what only this client knows of.
    fn shrink_here(&mut self, size: u64, changes: &Changes) {
        self.shrinks += 1;
        self.dirty.truncate(size);
        self.pending.size = Some(size).filter(|size| *size > self.attr.size_bytes);
        self.touch();
        self.pending.change(&Changes { size_bytes: None, ..*changes });
    }
}
