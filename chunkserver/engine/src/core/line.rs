//! A chunk's line: its operations in flight, in the order the caller gave them. Data of several is written at the
//! same time; their updates enter the journal in order.
//!
//! | in line | event | then |
//! | --- | --- | --- |
//! | working | update ready, all before it handed over | handed over |
//! | working | update ready, one before it is not | waits |
//! | working, waiting | one before it given up | out of the line: its version expects what will not come |
//! | working | given up | out of the line, and all after it |
//! | working, first | nothing to change | out of the line; the next learns that it is first |
//! | handed over | applied | out of the line; the next learns that it is first |
//!
//! What was handed over is never taken out except by being applied or by the disk's failure.

use std::collections::VecDeque;
use std::sync::Arc;

use coord_types::{ChunkKey, Version};
use tokio::sync::oneshot;

use crate::core::{Core, Queued, State};
use crate::error::EngineError;

/// A place in a chunk's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) key: ChunkKey,
    id: u64,
    expect: Version,
}

#[derive(Debug)]
pub(crate) struct Line {
    /// The version after all in line.
    tip: Version,
    /// The version before the first in line.
    base: Version,
    chunk_size_bytes: Option<u32>,
    places: VecDeque<Place>,
    /// How many of the first places were handed over.
    handed: usize,
}

#[derive(Debug)]
struct Place {
    id: u64,
    version: Version,
    ready: Option<Queued>,
    first: Option<oneshot::Sender<()>>,
}

impl Line {
    /// Hands over what is ready and has nothing unready before it.
    fn hand_over(&mut self, queue: &mut VecDeque<Queued>) {
        while let Some(queued) = self.places.get_mut(self.handed).and_then(|place| place.ready.take()) {
            self.handed += 1;
            queue.push_back(queued);
        }
    }

    /// Everything that waits for an answer.
    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Queued> {
        self.places.into_iter().filter_map(|place| place.ready)
    }
}

/// What an operation asks of the chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    pub(crate) key: ChunkKey,
    /// `None`: any version will do.
    pub(crate) expect: Option<Version>,
    pub(crate) version: Version,
    /// `None`: of whatever size; a new chunk takes what comes.
    pub(crate) chunk_size_bytes: Option<u32>,
}

/// A place in line that is given up unless the update was handed in.
pub(crate) struct InLine {
    core: Arc<Core>,
    ticket: Ticket,
    handed_in: bool,
}

impl Core {
    /// Takes a place in the chunk's line.
    pub(crate) fn admit(self: &Arc<Self>, admission: Admission) -> Result<InLine, EngineError> {
        let Admission { key, expect, version, chunk_size_bytes } = admission;
        let mut state = self.state.lock();
        self.check()?;
        let record = state.index.chunk(key);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                drop(state);
                return Err(self.index_error(error));
            }
        };
        let state = &mut *state;
        let id = state.next_ticket;
        let line = state.lines.get(&key);
        let current = line
            .map_or_else(|| record.as_ref().map_or(Version::NONE, |record| record.version), |line| line.tip);
        if let Some(expected) = expect
            && current != expected
        {
            return Err(EngineError::VersionMismatch { key, expected, current });
        }
        let recorded = match line {
            Some(line) => line.chunk_size_bytes,
            None => record.as_ref().map(|record| record.chunk_size_bytes),
        };
        if let (Some(_), Some(recorded_bytes), Some(given_bytes)) = (expect, recorded, chunk_size_bytes)
            && recorded_bytes != given_bytes
        {
            return Err(EngineError::ChunkSize { key, recorded_bytes, given_bytes });
        }
        state.next_ticket += 1;
        let line = state.lines.entry(key).or_insert_with(|| Line {
            tip: current,
            base: current,
            chunk_size_bytes: None,
            places: VecDeque::new(),
            handed: 0,
        });
        line.tip = version;
        line.chunk_size_bytes = chunk_size_bytes;
        line.places.push_back(Place { id, version, ready: None, first: None });
        Ok(InLine { core: self.clone(), ticket: Ticket { key, id, expect: current }, handed_in: false })
    }
}

impl InLine {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The version before this operation.
    pub(crate) fn before(&self) -> Version {
        self.ticket.expect
    }

    /// Waits until all before it are applied.
    pub(crate) async fn first(&self) -> Result<(), EngineError> {
        let wait = {
            let mut state = self.core.state.lock();
            let Some(line) = state.lines.get_mut(&self.ticket.key) else { return Err(self.out(&mut state)) };
            match line.places.iter().position(|place| place.id == self.ticket.id) {
                Some(0) => return Ok(()),
                Some(at) => {
                    let (sender, receiver) = oneshot::channel();
                    line.places[at].first = Some(sender);
                    receiver
                }
                None => return Err(self.out(&mut state)),
            }
        };
        match wait.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.out(&mut self.core.state.lock())),
        }
    }

    /// Hands the update in; it goes to the journal once all before it did.
    pub(crate) fn hand_in(mut self, queued: Queued) {
        self.handed_in = true;
        let mut guard = self.core.state.lock();
        let state = &mut *guard;
        let line = state.lines.get_mut(&self.ticket.key);
        let place = line.and_then(|line| {
            let at = line.places.iter().position(|place| place.id == self.ticket.id)?;
            Some((line, at))
        });
        let Some((line, at)) = place else {
            let error = self.out(state);
            drop(guard);
            let _ = queued.done.send(Err(error));
            return;
        };
        line.places[at].ready = Some(queued);
        line.hand_over(&mut state.queue);
        drop(guard);
        self.core.commit.notify_one();
    }

    /// Leaves the line without having changed anything; what comes after goes on. For the first in line.
    pub(crate) fn leave(mut self) {
        self.handed_in = true;
        let mut guard = self.core.state.lock();
        let state = &mut *guard;
        if let Some(line) = state.lines.get_mut(&self.ticket.key) {
            line.handed += 1;
            line.hand_over(&mut state.queue);
            state.advance(self.ticket);
        }
        drop(guard);
        self.core.commit.notify_one();
    }

    /// Why the place is gone.
    fn out(&self, state: &mut State) -> EngineError {
        if let Err(error) = self.core.check() {
            return error;
        }
        let key = self.ticket.key;
        let current = match state.lines.get(&key) {
            Some(line) => line.tip,
            None => state.index.chunk(key).ok().flatten().map_or(Version::NONE, |record| record.version),
        };
        EngineError::VersionMismatch { key, expected: self.ticket.expect, current }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        if self.handed_in {
            return;
        }
        let mut state = self.core.state.lock();
        let waiting = state.give_up(self.ticket);
        drop(state);
        let key = self.ticket.key;
        for (expected, current, queued) in waiting {
            let _ = queued.done.send(Err(EngineError::VersionMismatch { key, expected, current }));
        }
    }
}

impl State {
    /// Takes a place and all after it out of the line. Returns those whose updates were handed in.
    fn give_up(&mut self, ticket: Ticket) -> Vec<(Version, Version, Queued)> {
        let Some(line) = self.lines.get_mut(&ticket.key) else { return Vec::new() };
        let Some(at) = line.places.iter().position(|place| place.id == ticket.id) else { return Vec::new() };
        let tip = if at == 0 { line.base } else { line.places[at - 1].version };
        line.tip = tip;
        let mut expected = tip;
        let mut waiting = Vec::new();
        for place in line.places.drain(at..) {
            if let Some(queued) = place.ready {
                waiting.push((expected, tip, queued));
            }
            expected = place.version;
        }
        if line.places.is_empty() {
            self.lines.remove(&ticket.key);
        }
        waiting
    }

    /// The first in line was applied.
    pub(crate) fn advance(&mut self, ticket: Ticket) {
        let Some(line) = self.lines.get_mut(&ticket.key) else { return };
        let Some(place) = line.places.pop_front() else { return };
        assert!(place.id == ticket.id, "updates of a chunk are applied in the order of its line");
        line.base = place.version;
        line.handed -= 1;
        match line.places.front_mut() {
            Some(next) => {
                if let Some(first) = next.first.take() {
                    let _ = first.send(());
                }
            }
            None => {
                self.lines.remove(&ticket.key);
            }
        }
    }
}
