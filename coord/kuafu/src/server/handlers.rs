//! The calls of one connection that are being handled: futures in slots, polled by the connection's own task.
//!
//! A new future is polled at once; one that is ready then costs no more than that. Each slot has a waker of its own, made
//! once and used again by later calls, which names the slot to poll. (FuturesUnordered would allocate for each call,
//! poll new futures twice, and cannot drop a chosen one, which cancelling and deadlines need.)

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::message::RawResponse;
use crate::service::HandlerFuture;
use crate::status::Status;

/// What a connection must know of a call when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallInfo {
    pub(super) id: u64,
    /// Index into the server's methods.
    pub(super) method: usize,
    pub(super) deadline: Instant,
    pub(super) started: Instant,
    pub(super) received_bytes: usize,
}

pub(super) type Finished = (CallInfo, Result<RawResponse, Status>);

struct Slot {
    call: Option<(CallInfo, HandlerFuture)>,
    waker: Arc<SlotWaker>,
}

struct SlotWaker {
    index: u32,
    /// Already in the ready queue, which therefore is never longer than there are slots.
    queued: AtomicBool,
    shared: Arc<Ready>,
}

#[derive(Default)]
struct Ready {
    queue: Mutex<Vec<u32>>,
    task: AtomicWaker,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.shared.queue.lock().push(self.index);
            self.shared.task.wake();
        }
    }
}

/// The slots.
#[derive(Default)]
pub(super) struct Handlers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: Arc<Ready>,
    /// Taken from the ready queue, not polled yet.
    polling: Vec<u32>,
    /// No call's deadline is earlier. May be too early, never too late.
    earliest: Option<Instant>,
    received_bytes: usize,
}

impl Handlers {
    /// The task that polls: woken when a future is.
    pub(super) fn register(&self, waker: &Waker) {
        self.ready.task.register(waker);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Message and payload bytes of the calls being handled.
    pub(super) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Polls a new call. Its result if it is ready; otherwise it stays.
    pub(super) fn start(&mut self, info: CallInfo, mut future: HandlerFuture) -> Option<Finished> {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("bounded by in_flight_max");
            let waker = SlotWaker { index, queued: AtomicBool::new(false), shared: Arc::clone(&self.ready) };
            self.slots.push(Slot { call: None, waker: Arc::new(waker) });
            index
        });
        let slot = &mut self.slots[index as usize];
        if let Poll::Ready(result) = poll(&mut future, &slot.waker) {
            self.free.push(index);
            return Some((info, result));
        }
        self.earliest = Some(self.earliest.map_or(info.deadline, |at| at.min(info.deadline)));
        self.received_bytes += info.received_bytes;
        slot.call = Some((info, future));
        None
    }

    /// Polls calls that were woken, at most `polls` of them, until one is ready.
    pub(super) fn poll_next(&mut self, polls: &mut usize) -> Option<Finished> {
        while *polls > 0 {
            if self.polling.is_empty() {
                std::mem::swap(&mut self.polling, &mut *self.ready.queue.lock());
                // First come, first served.
                self.polling.reverse();
            }
            let index = self.polling.pop()?;
            let slot = &mut self.slots[index as usize];
            // Before polling: a wake-up during the poll counts.
            slot.waker.queued.store(false, Ordering::Release);
            let Some((_, future)) = &mut slot.call else { continue };
            *polls -= 1;
            if let Poll::Ready(result) = poll(future, &slot.waker) {
                let info = self.remove(index).expect("it was just polled");
                return Some((info, result));
            }
        }
        None
    }

    /// Whether [`poll_next`](Self::poll_next) was left with work.
    pub(super) fn has_ready(&self) -> bool {
        !self.polling.is_empty() || !self.ready.queue.lock().is_empty()
    }

    /// Drops the call with this id.
    pub(super) fn cancel(&mut self, id: u64) -> Option<CallInfo> {
        let index =
            self.slots.iter().position(|slot| matches!(&slot.call, Some((info, _)) if info.id == id))?;
        self.remove(u32::try_from(index).expect("bounded by in_flight_max"))
    }

    /// Drops calls whose deadline passed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<CallInfo> {
        if self.earliest.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let late = |slot: &Slot| matches!(&slot.call, Some((info, _)) if info.deadline <= now);
        let indices: Vec<u32> =
            (0u32..).zip(&self.slots).filter(|(_, slot)| late(slot)).map(|(index, _)| index).collect();
        let expired = indices.into_iter().filter_map(|index| self.remove(index)).collect();
        self.earliest =
            self.slots.iter().filter_map(|slot| slot.call.as_ref()).map(|(info, _)| info.deadline).min();
        expired
    }

    /// Drops all calls.
    pub(super) fn clear(&mut self) -> Vec<CallInfo> {
        let indices = 0..u32::try_from(self.slots.len()).expect("bounded by in_flight_max");
        indices.filter_map(|index| self.remove(index)).collect()
    }

    fn remove(&mut self, index: u32) -> Option<CallInfo> {
        let (info, future) = self.slots[index as usize].call.take()?;
        drop(future);
        self.free.push(index);
        self.received_bytes -= info.received_bytes;
        if self.free.len() == self.slots.len() {
            self.earliest = None;
        }
        Some(info)
    }
}

/// Without tokio's cooperation budget: it is meant for a task with one future, and a hundred handlers share this task.
/// The connection bounds its turns itself.
fn poll(future: &mut HandlerFuture, waker: &Arc<SlotWaker>) -> Poll<Result<RawResponse, Status>> {
    let waker = Waker::from(Arc::clone(waker));
    pin!(tokio::task::unconstrained(future)).poll(&mut Context::from_waker(&waker))
}
