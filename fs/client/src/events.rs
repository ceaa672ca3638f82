//! What happens in directories, told as it happens: for whoever would look at many of them again and again.
//!
//! An event says where to look, not what is there now: look, and trust what is found. What it keeps:
//! - everything that happens in a directory after [`add`](DirectoryEvents::add) returned is told by a later
//!   [`next`](DirectoryEvents::next), over any failover of masters; or [`Notice::Lost`] is, and then anything may have happened;
//! - an event that was told is seen by every later query of the same client to the masters. The kernel of a mount may show what
//!   was there before for as long as its `ttl`;
//! - nothing runs in the background: who does not ask for the next notice is told later, or of a loss.
//!
//! `master/docs/events.md` says how.

mod tracker;

use std::collections::BTreeMap;
use std::time::Duration;

use coord_types::InodeId;
use master_api::model::{DirectoryEvent, Query};
use master_api::{ClientError, MasterClient};

use self::tracker::Tracker;
use crate::Errno;

/// Longest wait of one call; the master client shortens it.
const WAIT: Duration = Duration::from_secs(30);

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something happened in these directories: what, in order, never none, at most as many as one answer of a master has (1,024). With
    /// [`EventKind::Gone`](master_api::model::EventKind::Gone) the directory is no more, and is not watched any longer.
    Changed(BTreeMap<InodeId, Vec<DirectoryEvent>>),
    /// Anything may have happened in any of them: look at everything again. They stay watched.
    Lost,
    /// These are not watched (any longer), and why: ENOENT if there is no such directory, EACCES if it may not be listed, ENOSPC if
    /// more are watched than a master keeps.
    Refused(BTreeMap<InodeId, Errno>),
}

/// Watches directories. One task's: it is moved, not shared.
#[derive(Debug)]
pub struct DirectoryEvents {
    master: MasterClient,
    tracker: Tracker,
}

impl DirectoryEvents {
    /// Begins with no directory.
    ///
    /// # Errors
    /// See [`ClientError`]. Masters that are away are waited for.
    pub async fn open(master: MasterClient) -> Result<Self, ClientError> {
        let mut events = Self { master, tracker: Tracker::new(rand::random()) };
        // From here on nothing is missed: a directory that is added is told of from the place that is known when it is.
        while !events.tracker.has_begun() {
            events.ask(Duration::ZERO).await?;
        }
        Ok(events)
    }

    /// Watches a directory by its number in the cluster ([`Rooted::inward`](crate::Rooted::inward) has it for a mount's). What happens
    /// there from now on will be told; look at it after this, not before.
    pub fn add(&mut self, directory: InodeId) {
        self.tracker.add(directory);
    }

    /// Watches the directory that a path from the root of the cluster names now, without following symbolic links. Gives its number.
    ///
    /// # Errors
    /// See [`ClientError`]; ENOENT, EACCES, ENAMETOOLONG among them.
    pub async fn add_path(&mut self, path: &[u8]) -> Result<InodeId, ClientError> {
        let path = bytes::Bytes::copy_from_slice(path);
        let found = self.master.query(Query::Resolve(path)).await?.attr;
        let directory = found.ok_or(master_api::Errno::ENOENT)?.ino;
        self.add(directory);
        Ok(directory)
    }

    /// Tells of a directory no more.
    pub fn remove(&mut self, directory: InodeId) {
        self.tracker.remove(directory);
    }

    /// How many are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next notice; waits as long as it takes. May be dropped at any time, and nothing is missed; each time costs the master a
    /// request.
    ///
    /// # Errors
    /// See [`ClientError`]: trying again gives the same, but for what people can change.
    pub async fn next(&mut self) -> Result<Notice, ClientError> {
        loop {
            if let Some(notice) = self.tracker.notice() {
                return Ok(notice);
            }
            self.ask(WAIT).await?;
        }
    }

    async fn ask(&mut self, wait: Duration) -> Result<(), ClientError> {
        let request = self.tracker.request(wait);
        let answer = self.master.watch(&request, None).await?;
        self.tracker.answered(&request, answer);
        Ok(())
    }
}
