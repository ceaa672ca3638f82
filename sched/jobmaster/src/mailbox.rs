//! What is to be told to each worker, until its next request takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use sched_job::{AttemptId, WorkerId};
use tokio::sync::Notify;

/// What one worker is told. Said twice is said once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) assigned: BTreeSet<AttemptId>,
    pub(crate) cancelled: BTreeSet<AttemptId>,
    pub(crate) acknowledged: BTreeSet<AttemptId>,
    /// Its grant was given back.
    pub(crate) exit: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<BTreeMap<WorkerId, (News, Arc<Notify>)>>);

impl Mailboxes {
    pub(crate) fn put(&self, worker: WorkerId, put: impl FnOnce(&mut News)) {
        let mut boxes = self.0.lock();
        let (news, there) = boxes.entry(worker).or_default();
        put(news);
        there.notify_waiters();
    }

    /// Takes what there is. An exit stays: a worker that did not hear it asks again.
    pub(crate) fn take(&self, worker: WorkerId) -> Result<News, Arc<Notify>> {
        let mut boxes = self.0.lock();
        let (news, there) = boxes.entry(worker).or_default();
        if news.is_empty() {
            return Err(Arc::clone(there));
        }
        let exit = news.exit;
        Ok(std::mem::replace(news, News { exit, ..News::default() }))
    }

    /// The worker is no more.
    pub(crate) fn remove(&self, worker: WorkerId) {
        if let Some((_, there)) = self.0.lock().remove(&worker) {
            there.notify_waiters();
        }
    }
}
