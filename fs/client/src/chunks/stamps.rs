//! Numbers the writes of each chunk, so that a retry is recognised (I5).
//!
//! Invariants: a number is used for one write only, and numbers of one chunk only grow; the newest number given out
//! is less than [`Stamp::WINDOW`] above the oldest still unanswered.
//!
//! A chunk nobody writes to is forgotten. When it is written again its numbers go on above every number this client
//! ever used for any chunk: they may skip, they never repeat.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coord_types::{ChunkKey, Stamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Window {
    next: u64,
    unanswered: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    windows: HashMap<ChunkKey, Window>,
    /// The highest number given out for any chunk.
    highest: u64,
}

/// The numbers of all chunks.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    inner: Mutex<Inner>,
    answered: Notify,
}

/// One write's number; the window moves on when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    stamps: Arc<Stamps>,
    key: ChunkKey,
    pub(crate) seq: u64,
}

impl Stamps {
    /// Waits for room in the chunk's window.
    pub(crate) async fn next(self: &Arc<Self>, key: ChunkKey) -> Ticket {
        loop {
            if let Some(ticket) = self.try_next(key) {
                return ticket;
            }
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if let Some(ticket) = self.try_next(key) {
                return ticket;
            }
            answered.await;
        }
    }

    fn try_next(self: &Arc<Self>, key: ChunkKey) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        let above_all = inner.highest + 1;
        let window =
            inner.windows.entry(key).or_insert_with(|| Window { next: above_all, ..Window::default() });
        let seq = window.next;
        if window.unanswered.first().is_some_and(|oldest| seq - oldest >= Stamp::WINDOW) {
            return None;
        }
        window.next += 1;
        window.unanswered.insert(seq);
        inner.highest = inner.highest.max(seq);
        Some(Ticket { stamps: Arc::clone(self), key, seq })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.stamps.inner.lock();
        let Some(window) = inner.windows.get_mut(&self.key) else { return };
        window.unanswered.remove(&self.seq);
        if window.unanswered.is_empty() {
            inner.windows.remove(&self.key);
        }
        drop(inner);
        self.stamps.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, GroupId};
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_window_is_bounded_by_the_oldest_unanswered_write() {
        let stamps = Arc::new(Stamps::default());
        let key = ChunkKey::new(GroupId(1), DataId(1), 0);
        let other = ChunkKey::new(GroupId(1), DataId(1), 1);
        let mut tickets: Vec<_> = (0..Stamp::WINDOW).map(|_| stamps.try_next(key).unwrap()).collect();
        // All but the oldest answered: still no room, for the chunk tells apart by distance, not by count.
        tickets.truncate(1);
        let waiting = stamps.next(key);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        let elsewhere = stamps.try_next(other).unwrap();
        tickets.clear();
        let next = waiting.now_or_never().expect("there is room again");
        assert!(next.seq > Stamp::WINDOW, "numbers grow");
        drop(next);
        assert!(stamps.try_next(key).unwrap().seq > elsewhere.seq, "forgotten chunks go on above all");
    }
}
