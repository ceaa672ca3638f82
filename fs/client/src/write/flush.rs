//! Making writes durable and telling the master, when somebody asks (fsync, close) and when they get old.
//!
//! The order, and what a crash of the client between two steps leaves:
//! 1. all data written before the flush is on the chunkservers (durable on every member). Crash: the file has its old
//!    length; bytes beyond it are of a dead writer and are zeroed by whoever makes the file longer (`extend`).
//! 2. the master is told size, times and attributes in one command. Crash before its answer: done or not done, both whole.
//! 3. the caller is answered.
//!
//! So no reader ever sees a length whose bytes are not there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use master_api::model::Mutation;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Errno;
use crate::client::Client;
use crate::inode::State;
use crate::inode_table::Pin;

/// How much a flush makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The data alone.
    Data,
    /// The data and what is needed to read it back: fdatasync.
    Size,
    /// Everything: fsync, close.
    All,
}

/// Inodes with something to send, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    /// Inner to every inode's lock. At most one entry an inode, so the memory budget bounds it.
    queue: Mutex<VecDeque<(Instant, Pin)>>,
    wake: Notify,
    /// Somebody is sending the oldest because memory is short.
    pressing: AtomicBool,
}

impl Flusher {
    /// The inode has something to send. Called under the inode's lock.
    pub(crate) fn note(&self, pin: &Pin, state: &mut State, age: Duration) {
        if state.queued {
            return;
        }
        state.queued = true;
        let mut queue = self.queue.lock();
        let first = queue.is_empty();
        queue.push_back((Instant::now() + age, pin.clone()));
        drop(queue);
        if first {
            self.wake.notify_one();
        }
    }

    /// The oldest inodes, at most `limit`, for the caller to send; `None` if another does so already.
    pub(crate) fn begin_press(&self, limit: usize) -> Option<Vec<Pin>> {
        if self.pressing.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(self.queue.lock().iter().take(limit).map(|(_, pin)| pin.clone()).collect())
    }

    pub(crate) fn end_press(&self) {
        self.pressing.store(false, Ordering::Release);
    }

    /// Waits for an inode to become old enough and takes it out.
    async fn due(&self) -> Pin {
        loop {
            let next = self.queue.lock().front().map(|(due, _)| *due);
            match next {
                None => self.wake.notified().await,
                Some(due) if due > Instant::now() => tokio::time::sleep_until(due).await,
                Some(_) => {
                    if let Some((_, pin)) = self.queue.lock().pop_front() {
                        return pin;
                    }
                }
            }
        }
    }

    /// Flushes what gets old, until the client is gone.
    pub(crate) async fn run(self: Arc<Self>, client: Weak<Client>) {
        loop {
            let pin = self.due().await;
            let Some(client) = client.upgrade() else { return };
            pin.lock().queued = false;
            // A task of its own: a server that is away holds up its own files only. Their number is bounded by the
            // memory they hold.
            client.runtime.spawn(flush(Arc::clone(&client), pin, Depth::All));
        }
    }
}

impl State {
    /// Whether the master has to be told before a flush of this depth is done.
    fn must_commit(&self, depth: Depth) -> bool {
        if self.orphan || self.gone {
            return false;
        }
        match depth {
            Depth::Data => false,
            Depth::Size => {
                self.pending.size.is_some() || self.committing.as_ref().is_some_and(|c| c.size.is_some())
            }
            Depth::All => !self.pending.is_empty() || self.committing.is_some(),
        }
    }
}

/// Makes durable what was written before now. Errors go to the inode's failures, from where each handle takes them.
pub(crate) async fn flush(client: Arc<Client>, pin: Pin, depth: Depth) {
    loop {
        let (jobs, written, size, shrinks) = {
            let mut state = pin.lock();
            state.dirty.hurry(0, u64::MAX);
            let jobs = client.launch(&pin, &mut state);
            (jobs, state.written, state.size(), state.shrinks)
        };
        client.start(jobs);
        pin.until(|state| state.oldest_write().is_none_or(|oldest| oldest > written).then_some(())).await;
        if !pin.lock().must_commit(depth) {
            return;
        }
        let _turn = pin.commit.lock().await;
        let commit = {
            let mut state = pin.lock();
            if state.shrinks != shrinks {
                // The length this flush began with is history.
                continue;
            }
            state.begin_commit(size)
        };
        // Somebody else's commit took it along.
        let Some(commit) = commit else { return };
        if let Err(errno) = client.tell(&pin, commit).await {
            tracing::warn!(ino = %pin.ino, %errno, "the master did not take what was written");
        }
        return;
    }
}

impl Client {
    /// Tells the master what [`State::begin_commit`] gave.
    pub(crate) async fn tell(&self, pin: &Pin, commit: Mutation) -> Result<(), Errno> {
        let answer = self.mutate(commit).await;
        pin.lock().end_commit(answer.clone().map(|mutated| mutated.attr));
        if answer == Err(Errno::ESTALE) {
            self.learn_fence(pin).await;
        }
        answer.map(drop)
    }

    /// Flushes for a caller; goes on without it if it is interrupted.
    pub(crate) async fn flush(self: &Arc<Self>, pin: &Pin, depth: Depth) {
        {
            let state = pin.lock();
            if state.dirty.is_empty() && state.flights.is_empty() && !state.must_commit(depth) {
                return;
            }
        }
        self.to_the_end(flush(Arc::clone(self), pin.clone(), depth)).await;
    }
}
