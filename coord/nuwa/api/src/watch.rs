//! Events, from a place on, gap-free and in order, over any number of members that come and go.

mod shared;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{ClientError, NuwaClient};
use crate::proto::{self, Event};

pub(crate) use self::shared::Connection;

/// How long a member waits before it says that there is nothing new. Below the time after which a member that does not answer
/// is doubted.
const WAIT: Duration = Duration::from_millis(800);

/// Users of a connection that only one watcher has: it, and the client.
const ALONE: usize = 2;

/// The next event that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub revision: u64,
    /// Of the events of that revision, from 0.
    pub number: u32,
}

impl Place {
    /// What happens from now on.
    pub const NOW: Self = Self { revision: 0, number: 0 };

    /// What happened after a revision.
    #[must_use]
    pub const fn after(revision: u64) -> Self {
        Self { revision: revision + 1, number: 0 }
    }
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    Event(Event),
    /// Events were dropped before this watcher came for them. What is there now is to be read; then [`Watcher::go_on`] from the
    /// revision of that. `first`: the oldest revision whose events are there.
    HistoryLost {
        first: u64,
    },
}

/// See [`NuwaClient::watch`].
#[derive(Debug)]
pub struct Watcher {
    client: NuwaClient,
    connection: Arc<Connection>,
    path: String,
    place: Place,
    /// Events that came and were not asked for yet, at most one answer's.
    buffered: VecDeque<Event>,
    newest: u64,
}

impl Watcher {
    pub(crate) fn new(client: NuwaClient, connection: Arc<Connection>, path: String, place: Place) -> Self {
        Self { client, connection, path, place, buffered: VecDeque::new(), newest: 0 }
    }

    /// The next event, once there is one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ClientError`]: the path is none, or no member is configured. It goes on asking while members are away.
    pub async fn next(&mut self) -> Result<Watched, ClientError> {
        loop {
            if let Some(event) = self.buffered.pop_front() {
                return Ok(Watched::Event(event));
            }
            if let Some(first) = self.ask(WAIT).await? {
                return Ok(Watched::HistoryLost { first });
            }
        }
    }

    /// With [`Place::NOW`]: returns once it is known when now was. Whatever happens after this call returned will be told.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn begin(&mut self) -> Result<(), ClientError> {
        while self.place == Place::NOW {
            self.ask(Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Events that can be had without waiting.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffered.len()
    }

    /// From where it would have to go on if nothing more were taken from it.
    #[must_use]
    pub fn place(&self) -> Place {
        let next = self.buffered.front();
        next.map_or(self.place, |event| Place { revision: event.revision, number: event.number })
    }

    /// The newest revision there was when a member last answered: how far behind this watcher is.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Goes on from another place.
    pub fn go_on(&mut self, from: Place) {
        self.place = from;
        self.buffered.clear();
    }

    /// One answer of a member. Gives what is still kept if history was lost.
    async fn ask(&mut self, wait: Duration) -> Result<Option<u64>, ClientError> {
        let request = proto::WatchRequest {
            path: self.path.clone(),
            from_revision: self.place.revision,
            from_number: self.place.number,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            events_max: 0,
        };
        // An answer that was asked for earlier does not say when now is.
        let reply = if self.place == Place::NOW || Arc::strong_count(&self.connection) <= ALONE {
            Arc::new(self.connection.ask(&request).await?)
        } else {
            self.connection.ask_shared(request).await?
        };
        self.client.saw(reply.revision);
        self.newest = self.newest.max(reply.revision);
        if reply.lost_first != 0 {
            return Ok(Some(reply.lost_first));
        }
        self.buffered.extend(reply.events.iter().cloned());
        self.place = Place { revision: reply.next_revision, number: reply.next_number };
        Ok(None)
    }
}
