//! The desk between the thread that runs attempts and the task that talks to the job's master.
//!
//! The lock is held for moments, never over IO. The talker is woken once per batch (first report, or nothing left to do), not once
//! per report: waking it costs more than a short instance's bookkeeping.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::attempt::Attempt;
use crate::current::{Current, Stop};
use crate::desk::{Assignment, Desk, News, Todo};
use crate::report::Report;

#[derive(Debug)]
struct State {
    desk: Desk,
    closing: bool,
    /// Since when the oldest report waits that was in no request yet.
    unsent_since: Option<Instant>,
    unsent: usize,
}

/// See the module. Shared by reference count.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Something is to be told, or the runner has stopped.
    pub changed: Notify,
    /// What runs, to be stopped from outside.
    pub current: Arc<Current>,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Reports that were in no request yet.
    pub unsent: usize,
    pub since: Option<Instant>,
    /// Reports that are not acknowledged.
    pub unacknowledged: usize,
    pub is_idle: bool,
}

impl Shared {
    #[must_use]
    pub fn new(desk: Desk, current: Arc<Current>) -> Self {
        let state = State { desk, closing: false, unsent_since: None, unsent: 0 };
        Self { state: Mutex::new(state), work: Condvar::new(), changed: Notify::new(), current }
    }

    /// The next attempt, as soon as there is one; `None` when the worker ends. For the runner.
    pub fn take(&self) -> Option<Assignment> {
        let mut state = self.state.lock();
        loop {
            if state.closing {
                return None;
            }
            if let Some(assignment) = state.desk.begin() {
                // Here, under the lock, so that a cancellation of this very attempt cannot fall between the two.
                self.current.prepare(assignment.attempt);
                return Some(assignment);
            }
            self.work.wait(&mut state);
        }
    }

    /// What ran has ended. For the runner.
    pub fn end(&self, attempt: Attempt, report: Report) {
        let mut state = self.state.lock();
        state.desk.end(attempt, report);
        state.unsent += 1;
        let first = state.unsent_since.is_none();
        if first {
            state.unsent_since = Some(Instant::now());
        }
        let idle = state.desk.is_idle();
        drop(state);
        if first || idle {
            self.changed.notify_one();
        }
    }

    /// Takes in what the master said, and ends what it cancelled.
    pub fn apply(&self, news: News) -> Todo {
        let mut state = self.state.lock();
        let todo = state.desk.apply(news);
        if let Some(attempt) = todo.stop {
            self.current.stop(attempt, Stop::Cancel);
        }
        drop(state);
        self.work.notify_one();
        todo
    }

    /// Looks at the desk for a request that tells all of it.
    pub fn tell<T>(&self, look: impl FnOnce(&Desk) -> T) -> T {
        let mut state: MutexGuard<'_, State> = self.state.lock();
        state.unsent = 0;
        state.unsent_since = None;
        look(&state.desk)
    }

    /// A request that told everything has failed: it is all to be told again.
    pub fn untold(&self) {
        let mut state = self.state.lock();
        let all = state.desk.finished().len();
        state.unsent = all;
    }

    /// What there is to tell.
    pub fn pending(&self) -> Pending {
        let state = self.state.lock();
        Pending {
            unsent: state.unsent,
            since: state.unsent_since,
            unacknowledged: state.desk.finished().len(),
            is_idle: state.desk.is_idle(),
        }
    }

    /// Begins nothing more, and ends what runs.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        if let Some(attempt) = state.desk.running() {
            self.current.stop(attempt, Stop::Cancel);
        }
        drop(state);
        self.work.notify_all();
    }
}
