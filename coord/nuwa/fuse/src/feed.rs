//! `.events`: changes as lines of JSON, pulled from a watch as they are read.
//!
//! Invariants: at most [`BUFFER_BYTES`] and one line wait to be read, the rest stays in Nuwa's history; nothing is left out without a
//! line that says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fs_client::{Errno, PollAgain};
use nuwa_api::{Path, Place, Session, SessionState, Watched, Watcher, json};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::errno::errno;
use crate::keeper::Keeper;

const FEED: &str = ".events";
/// Lines that wait to be read; no more are asked for beyond it.
const BUFFER_BYTES: usize = 1 << 20;
/// Polls that wait for the next line; the kernel polls a file again that was told of too often.
const POLLERS_MAX: usize = 64;

#[derive(Debug)]
struct State {
    waiting: VecDeque<u8>,
    /// All that was ever told, in bytes.
    told: u64,
    last: SystemTime,
    ended: bool,
    /// Somebody looked where the end is: the next read that finds nothing says that this is it.
    was_looked_for: bool,
    pollers: Vec<PollAgain>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is more to read.
    more: Notify,
    /// There is room.
    room: Notify,
}

/// An open one.
#[derive(Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
    pulling: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.pulling.abort();
    }
}

impl Feed {
    /// From a place on; [`Place::NOW`] is when this returns.
    pub(crate) async fn open(keeper: &Keeper, directory: &Path, from: Place) -> Result<Self, Errno> {
        let session = keeper.session().await.map_err(|error| errno(&error))?;
        let mut watcher = keeper.client().watch(directory.as_str(), from);
        watcher.begin().await.map_err(|error| errno(&error))?;
        let state = State {
            waiting: VecDeque::new(),
            told: 0,
            last: SystemTime::now(),
            ended: false,
            was_looked_for: false,
            pollers: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), more: Notify::new(), room: Notify::new() });
        let pulling = tokio::spawn(pull(Arc::clone(&shared), watcher, session));
        Ok(Self { shared, pulling })
    }

    /// At most so many bytes, once there are some; none at the end.
    pub(crate) async fn read(&self, len_bytes: usize) -> Bytes {
        loop {
            let mut more = std::pin::pin!(self.shared.more.notified());
            more.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                if !state.waiting.is_empty() {
                    let len = len_bytes.min(state.waiting.len());
                    let bytes: Vec<u8> = state.waiting.drain(..len).collect();
                    self.shared.room.notify_one();
                    return bytes.into();
                }
                if state.ended || std::mem::take(&mut state.was_looked_for) {
                    return Bytes::new();
                }
            }
            more.await;
        }
    }

    /// Whether a read would return at once; if not, `again` is told when it would.
    pub(crate) fn poll(&self, again: PollAgain) -> bool {
        let mut state = self.shared.state.lock();
        let ready = !state.waiting.is_empty() || state.ended;
        if !ready && state.pollers.len() < POLLERS_MAX {
            state.pollers.push(again);
        }
        ready
    }

    /// Bytes told so far, and when the last were.
    pub(crate) fn size(&self) -> (u64, SystemTime) {
        let state = self.shared.state.lock();
        (state.told, state.last)
    }

    pub(crate) fn end_is_looked_for(&self) {
        self.shared.state.lock().was_looked_for = true;
    }
}

impl Shared {
    fn tell(&self, line: &serde_json::Value) {
        let pollers = {
            let mut state = self.state.lock();
            let line = format!("{line}\n");
            state.told += line.len() as u64;
            state.last = SystemTime::now();
            state.waiting.extend(line.as_bytes());
            std::mem::take(&mut state.pollers)
        };
        self.wake(pollers);
    }

    fn end(&self) {
        let pollers = {
            let mut state = self.state.lock();
            state.ended = true;
            std::mem::take(&mut state.pollers)
        };
        self.wake(pollers);
    }

    fn wake(&self, pollers: Vec<PollAgain>) {
        self.more.notify_waiters();
        if !pollers.is_empty() {
            // A write to the kernel, which may wait for whoever reads from us.
            tokio::task::spawn_blocking(move || pollers.iter().for_each(PollAgain::tell));
        }
    }

    async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.state.lock().waiting.len() < BUFFER_BYTES {
                return;
            }
            room.await;
        }
    }
}

async fn pull(shared: Arc<Shared>, mut watcher: Watcher, session: Arc<Session>) {
    let mut state = session.watch_state();
    let mut lost = std::pin::pin!(state.wait_for(|state| *state == SessionState::Lost));
    loop {
        shared.has_room().await;
        let watched = tokio::select! {
            biased;
            watched = watcher.next() => watched,
            _ = lost.as_mut() => {
                shared.tell(&json!({"kind": "session_lost"}));
                return shared.end();
            }
        };
        match watched {
            Ok(Watched::Event(event)) => shared.tell(&json::event(&event)),
            Ok(Watched::HistoryLost { first }) => {
                shared.tell(&json!({"kind": "history_lost", "first": first}));
                watcher.go_on(Place { revision: first, number: 0 });
            }
            Err(error) => {
                tracing::error!(%error, "watch a directory");
                return shared.end();
            }
        }
    }
}

/// Whether a name is `.events` or `.events@REVISION`, and from where on.
pub(crate) fn feed_named(name: &[u8]) -> Option<Result<Place, Errno>> {
    let rest = name.strip_prefix(FEED.as_bytes())?;
    if rest.is_empty() {
        return Some(Ok(Place::NOW));
    }
    // Another name that begins like this is a name like any other.
    let revision = std::str::from_utf8(rest.strip_prefix(b"@")?).ok().and_then(|text| text.parse().ok());
    Some(match revision {
        Some(revision) if revision > 0 => Ok(Place { revision, number: 0 }),
        _ => Err(Errno::EINVAL),
    })
}
