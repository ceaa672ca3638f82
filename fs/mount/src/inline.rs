//! How an operation runs: at once, where it arrived.
//!
//! The transport's thread polls the operation's future first, so that its request is on a socket before the thread
//! turns to the next one; no other thread is woken for that. Only if the future has to wait does it move: it lives in
//! a slot whose waker puts it on the runtime, where whoever brings the answer is running already. The answer is sent
//! from wherever the future ends.
//!
//! A hop to another thread on an idle core costs 25-50 µs, more than the whole operation; this saves one each way.
//!
//! Invariants: a slot is answered exactly once; a future is never polled by two threads at once, nor after its answer.
//!
//! | state \ event   | wake                       | poll says pending      | poll says ready, or given up |
//! | --------------- | -------------------------- | ---------------------- | ---------------------------- |
//! | idle            | scheduled, put on runtime  |                        | done                         |
//! | scheduled       | -                          |                        | done                         |
//! | running         | running again              | idle                   | done                         |
//! | running again   | -                          | scheduled, on runtime  | done                         |
//! | done            | -                          | -                      | -                            |

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use fs_client::OpResult;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::watch::{Given, Table, Ticket, Waiting};

/// Where an answer goes.
pub(crate) trait Answer: Send + 'static {
    fn answer(self, result: OpResult);
}

const IDLE: u8 = 0;
const SCHEDULED: u8 = 1;
const RUNNING: u8 = 2;
const RUNNING_AGAIN: u8 = 3;
const DONE: u8 = 4;

/// Polls `future` here and, if it has to wait, on `runtime` from then on. `given` says how long that may take and who
/// asked; `table` holds the operation while it waits.
pub(crate) fn start<F, A>(runtime: &Handle, table: &Arc<Table>, given: Given, future: F, answer: A)
where
    F: Future<Output = OpResult> + Send + 'static,
    A: Answer,
{
    let slot = Arc::new(Slot {
        state: AtomicU8::new(RUNNING),
        work: Mutex::new(Some(Work { future: Box::pin(future), answer })),
        runtime: runtime.clone(),
        table: Arc::clone(table),
        ticket: Mutex::new(None),
    });
    let ticket = table.enter(given, Arc::clone(&slot) as Arc<dyn Waiting>);
    *slot.ticket.lock() = ticket;
    let _entered = runtime.enter();
    slot.run();
}

struct Slot<F, A> {
    state: AtomicU8,
    /// `None` once answered. Held while the future is polled; a waker never takes it.
    work: Mutex<Option<Work<F, A>>>,
    runtime: Handle,
    table: Arc<Table>,
    ticket: Mutex<Option<Ticket>>,
}

struct Work<F, A> {
    future: Pin<Box<F>>,
    answer: A,
}

impl<F, A> Slot<F, A>
where
    F: Future<Output = OpResult> + Send + 'static,
    A: Answer,
{
    /// Polls once. The state is RUNNING.
    fn run(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut work = self.work.lock();
        let Some(waiting) = work.as_mut() else {
            // Given up between entering the table and the first poll: nobody else knew the ticket.
            drop(work);
            return self.leave();
        };
        match waiting.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => {
                let done = work.take();
                drop(work);
                self.finish(done, result);
            }
            Poll::Pending => {
                drop(work);
                if self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err()
                    && self
                        .state
                        .compare_exchange(RUNNING_AGAIN, SCHEDULED, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                {
                    self.schedule();
                }
            }
        }
    }

    fn schedule(self: &Arc<Self>) {
        let slot = Arc::clone(self);
        // On the runtime's own thread this lands in its next-task slot and runs right after the current one.
        self.runtime.spawn(async move {
            if slot.state.compare_exchange(SCHEDULED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                slot.run();
            }
        });
    }

    /// Answers, after the future and all it held is gone.
    fn finish(&self, done: Option<Work<F, A>>, result: OpResult) -> bool {
        let Some(Work { future, answer }) = done else { return false };
        self.state.store(DONE, Ordering::Release);
        drop(future);
        self.leave();
        answer.answer(result);
        true
    }

    fn leave(&self) {
        let ticket = self.ticket.lock().take();
        if let Some(ticket) = ticket {
            self.table.leave(ticket);
        }
    }
}

impl<F, A> Wake for Slot<F, A>
where
    F: Future<Output = OpResult> + Send + 'static,
    A: Answer,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let next = match state {
                IDLE => SCHEDULED,
                RUNNING => RUNNING_AGAIN,
                _ => return,
            };
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if next == SCHEDULED => return self.schedule(),
                Ok(_) => return,
                Err(seen) => state = seen,
            }
        }
    }
}

impl<F, A> Waiting for Slot<F, A>
where
    F: Future<Output = OpResult> + Send + 'static,
    A: Answer,
{
    fn give_up(&self, result: OpResult) -> bool {
        let _entered = self.runtime.enter();
        let done = self.work.lock().take();
        self.finish(done, result)
    }
}

impl<F, A> fmt::Debug for Slot<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use fs_client::{Errno, OpReply};
    use tokio::sync::oneshot;

    use super::*;
    use crate::watch::Patience;

    struct Send(mpsc::SyncSender<(OpResult, ThreadId)>);

    impl Answer for Send {
        fn answer(self, result: OpResult) {
            self.0.send((result, thread::current().id())).unwrap();
        }
    }

    const GIVEN: Given = Given { pid: 0, patience: Patience::Endless };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn what_need_not_wait_is_answered_on_the_spot() {
        let runtime = runtime();
        let table = Table::new();
        let (tx, rx) = mpsc::sync_channel(1);
        start(runtime.handle(), &table, GIVEN, async { Ok(OpReply::Ok) }, Send(tx));
        let (result, on) = rx.try_recv().expect("answered before start returned");
        assert!(matches!(result, Ok(OpReply::Ok)));
        assert_eq!(on, thread::current().id());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn what_waits_goes_on_where_the_answer_comes() {
        let runtime = runtime();
        let table = Table::new();
        let (tx, rx) = mpsc::sync_channel(1);
        let (wake, woken) = oneshot::channel();
        let future = async move {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            woken.await.map_err(|_| Errno::EIO)
        };
        start(runtime.handle(), &table, GIVEN, future, Send(tx));
        assert_eq!(table.len(), 1);
        assert!(rx.try_recv().is_err());
        wake.send(OpReply::Written(3)).unwrap();
        let (result, on) = rx.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(result, Ok(OpReply::Written(3))));
        assert_ne!(on, thread::current().id());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn giving_up_drops_the_future_and_answers_once() {
        let runtime = runtime();
        let table = Table::new();
        let (tx, rx) = mpsc::sync_channel(2);
        let (mut wake, woken) = oneshot::channel::<()>();
        let future = async move {
            let _ = woken.await;
            Ok(OpReply::Ok)
        };
        start(runtime.handle(), &table, GIVEN, future, Send(tx));
        table.give_up_all(Errno::EINTR);
        assert!(matches!(rx.recv().unwrap().0, Err(Errno::EINTR)));
        runtime.block_on(wake.closed());
        table.give_up_all(Errno::EINTR);
        assert!(rx.try_recv().is_err());
        assert_eq!(table.len(), 0);
    }

    /// Wakes from many threads while the future runs: none may be lost, or the operation would hang.
    #[test]
    fn no_wake_is_lost() {
        let runtime = runtime();
        let table = Table::new();
        let (tx, rx) = mpsc::sync_channel(64);
        for _ in 0..2_000 {
            let (a, b) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
            let (a2, b2) = (Arc::clone(&a), Arc::clone(&b));
            let waker = runtime.spawn(async move {
                a2.notify_one();
                b2.notify_one();
            });
            let future = async move {
                a.notified().await;
                b.notified().await;
                Ok(OpReply::Ok)
            };
            start(runtime.handle(), &table, GIVEN, future, Send(tx.clone()));
            assert!(rx.recv_timeout(Duration::from_secs(10)).unwrap().0.is_ok());
            runtime.block_on(waker).unwrap();
        }
        assert_eq!(table.len(), 0);
    }
}
