//! A master while it leads: the state, and who waits for it to change.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::state::State;

/// See the module.
#[derive(Debug)]
pub(crate) struct Leading {
    state: Mutex<State>,
    /// There is something to be done in the spool.
    pub(crate) todo: Notify,
}

impl Leading {
    pub(crate) fn new(fence: u64) -> Self {
        Self { state: Mutex::new(State::new(fence, Instant::now())), todo: Notify::new() }
    }

    /// Does something with the state. Short: everybody waits.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock();
        let done = act(&mut state, Instant::now());
        let is_something_to_do = !state.todo.is_empty();
        drop(state);
        if is_something_to_do {
            self.todo.notify_one();
        }
        done
    }
}
