//! Exports that are under way: checkpoints of the store, kept for whoever reads them page by page.
//!
//! Invariants: there are at most [`EXPORTS_MAX`], those being made and those being dropped included; each goes when it is ended, when no page of it
//! was asked for in [`IDLE_MAX`], or when it is [`AGE_MAX`] old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coord_raft::Checkpoint;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Each keeps files on the disk that the store would delete.
const EXPORTS_MAX: usize = 2;
/// Between two pages. A client that waits for its own disk is faster.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A tree that takes longer to read than this is not one for Nuwa.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// One export. Dropping the last handle closes a store and deletes files: not on the event loop.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) checkpoint: Checkpoint,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Kept {
    export: Arc<Export>,
    asked: Instant,
    ends: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Exports {
    kept: Mutex<HashMap<u64, Kept>>,
    slots: Arc<Semaphore>,
    newest: AtomicU64,
}

impl Default for Exports {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(EXPORTS_MAX));
        Self { kept: Mutex::default(), slots, newest: AtomicU64::new(0) }
    }
}

impl Exports {
    /// Room for one more, if there is any.
    pub(crate) fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Keeps a new one, under a number that none before had, one before a restart neither.
    pub(crate) fn keep(&self, checkpoint: Checkpoint, slot: OwnedSemaphorePermit) -> (u64, Arc<Export>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX >> 1);
        let last = self.newest.fetch_max(number, Ordering::Relaxed);
        let number = if number > last { number } else { self.newest.fetch_add(1, Ordering::Relaxed) + 1 };
        let export = Arc::new(Export { checkpoint, _slot: slot });
        let asked = Instant::now();
        let kept = Kept { export: Arc::clone(&export), asked, ends: asked + AGE_MAX };
        self.kept.lock().insert(number, kept);
        (number, export)
    }

    /// One that is there, and stays for another while.
    pub(crate) fn find(&self, number: u64) -> Option<Arc<Export>> {
        let mut kept = self.kept.lock();
        let kept = kept.get_mut(&number)?;
        kept.asked = Instant::now();
        Some(Arc::clone(&kept.export))
    }

    /// Nobody wants it any more.
    pub(crate) fn end(&self, number: u64) -> Option<Arc<Export>> {
        self.kept.lock().remove(&number).map(|kept| kept.export)
    }

    /// Those whose time is over.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<Arc<Export>> {
        let is_due = |kept: &Kept| now >= kept.ends || now.duration_since(kept.asked) >= IDLE_MAX;
        self.kept.lock().extract_if(|_, kept| is_due(kept)).map(|(_, kept)| kept.export).collect()
    }

    /// The member stops.
    pub(crate) fn take_all(&self) -> Vec<Arc<Export>> {
        self.kept.lock().drain().map(|(_, kept)| kept.export).collect()
    }
}

#[cfg(test)]
mod tests {
    use nuwa_model::proto::{Command, OpenSession, command};
    use prost::Message as _;

    use super::*;
    use crate::{Config, NuwaServer};

    #[tokio::test]
    async fn an_export_goes_when_nobody_reads_it_or_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let address = kuafu::Address::Unix(dir.path().join("1.sock"));
        let config = Config::new(1, [(1, address)].into(), dir.path().join("data"));
        let server = NuwaServer::start(config).await.unwrap();
        let app = server.app();
        let what = Some(command::What::OpenSession(OpenSession::default()));
        let command = bytes::Bytes::from(Command { what }.encode_to_vec());
        while app.propose(None, command.clone(), Instant::now() + IDLE_MAX).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let exports = Exports::default();
        let slots = [exports.reserve().unwrap(), exports.reserve().unwrap()];
        assert!(exports.reserve().is_none());
        let mut numbers = Vec::new();
        for slot in slots {
            numbers.push(exports.keep(app.raft.checkpoint().await.unwrap(), slot).0);
        }
        assert!(numbers[0] < numbers[1], "each has its own");
        let now = Instant::now();
        assert!(exports.take_due(now).is_empty());
        // One of them was asked for again a moment ago.
        exports.kept.lock().get_mut(&numbers[0]).unwrap().asked = now - IDLE_MAX;
        assert!(exports.find(numbers[1]).is_some());
        drop(exports.take_due(Instant::now()));
        assert!(exports.find(numbers[0]).is_none() && exports.find(numbers[1]).is_some());
        exports.kept.lock().get_mut(&numbers[1]).unwrap().ends = now;
        drop(exports.take_due(Instant::now()));
        assert!(exports.find(numbers[1]).is_none(), "however often it was asked for");
        assert!(exports.reserve().is_some(), "there is room again");
        server.shutdown().await;
    }
}
