//! Numbers a session's changes, so that each is made exactly once.
//!
//! Invariants: a number is used for one change only, whatever happens to it; `acknowledged_below` never passes a change
//! that may still be asked for again; no number is [`WINDOW`] above one that may.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Servers keep at least so many answers of a session.
const WINDOW: u64 = 1000;

/// The numbers of one session.
#[derive(Debug, Default)]
pub struct Sequences {
    inner: Mutex<Inner>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    /// Numbers whose callers still wait.
    outstanding: BTreeSet<u64>,
}

/// One change's number. While it lives, servers keep the answer.
#[derive(Debug)]
pub struct Ticket {
    sequences: Arc<Sequences>,
    pub sequence: u64,
    pub acknowledged_below: u64,
}

impl Sequences {
    /// The next number; the first is 1. Waits while the oldest that somebody waits for lies too far back.
    pub async fn next(self: &Arc<Self>) -> Ticket {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before the look: a number that is given back between the two counts.
            freed.as_mut().enable();
            if let Some(ticket) = self.try_next() {
                return ticket;
            }
            freed.await;
        }
    }

    fn try_next(self: &Arc<Self>) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        let sequence = inner.last + 1;
        if inner.outstanding.first().is_some_and(|oldest| sequence - oldest >= WINDOW) {
            return None;
        }
        inner.last = sequence;
        inner.outstanding.insert(sequence);
        let acknowledged_below = inner.outstanding.first().copied().unwrap_or(sequence);
        Some(Ticket { sequences: Arc::clone(self), sequence, acknowledged_below })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.sequences.inner.lock().outstanding.remove(&self.sequence);
        self.sequences.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn acknowledges_only_what_nobody_waits_for() {
        let sequences = Arc::new(Sequences::default());
        let first = sequences.try_next().unwrap();
        let second = sequences.try_next().unwrap();
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!((first.acknowledged_below, second.acknowledged_below), (1, 1));
        drop(first);
        assert_eq!(sequences.try_next().unwrap().acknowledged_below, 2);
        drop(second);
        assert_eq!(sequences.try_next().unwrap().acknowledged_below, 4);
    }

    #[test]
    fn no_number_is_far_above_one_that_is_waited_for() {
        let sequences = Arc::new(Sequences::default());
        let oldest = sequences.try_next().unwrap();
        while let Some(ticket) = sequences.try_next() {
            assert!(ticket.sequence - oldest.sequence < WINDOW);
        }
        let mut next = std::pin::pin!(sequences.next());
        assert!(next.as_mut().now_or_never().is_none());
        drop(oldest);
        let mut next = std::pin::pin!(sequences.next());
        assert_eq!(next.as_mut().now_or_never().unwrap().sequence, WINDOW + 1);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_oldest_is_done() {
        let sequences = Arc::new(Sequences::default());
        let oldest = sequences.next().await;
        let others: Vec<_> = (2..=WINDOW).map(|_| sequences.try_next().unwrap()).collect();
        let waiting = tokio::spawn({
            let sequences = Arc::clone(&sequences);
            async move { sequences.next().await.sequence }
        });
        tokio::task::yield_now().await;
        drop(oldest);
        assert_eq!(waiting.await.unwrap(), WINDOW + 1);
        drop(others);
    }
}
