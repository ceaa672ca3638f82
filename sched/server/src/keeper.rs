//! Keeps the spool and the state in step: looks into directories when something happened there, and does what the state
//! wants done. All file operations are made here, on threads that may block.

mod looks;
mod todos;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::leading::Leading;
use crate::spool::{JobName, QueueName, Spool};

/// Notices that were not looked at yet. When it is full, whoever sends waits: nothing is lost, and a place that is named twice
/// is looked at once.
pub(crate) const NOTICES_MAX: usize = 4_096;
/// File operations at the same time. Each waits for the masters most of its time.
const OPERATIONS_MAX: usize = 16;
/// Looked at again after this long: a file that may still be written to; and whatever an event named, as this machine's kernel may show for a
/// second what was there before (the mount's `--ttl-ms`).
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where in the spool something can happen that matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Queues come and go.
    Root,
    /// `new/` of a queue.
    New(QueueName),
    /// `run/` of a queue: a job was removed.
    Run(QueueName),
    /// A job's directory: somebody wrote to `ctl`.
    Job(QueueName, JobName),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// There; `complete` are the inode numbers of files that were written out or moved there.
    At { place: Place, complete: Vec<u64> },
    /// Anywhere: some events were lost.
    Everywhere,
}

/// Tells of events in the directories it is asked to watch.
pub(crate) trait Watches: Send + Sync + 'static {
    fn watch(&self, place: Place, directory: &Path);
    fn unwatch(&self, place: &Place);
}

/// See the module.
pub(crate) struct Keeper {
    spool: Spool,
    leading: Arc<Leading>,
    watches: Arc<dyn Watches>,
    /// Queues and jobs that are watched.
    queues: BTreeSet<QueueName>,
    jobs: BTreeSet<(QueueName, JobName)>,
    /// To be looked at once more.
    again: BTreeSet<Place>,
}

impl Keeper {
    pub(crate) fn new(spool: Spool, leading: Arc<Leading>, watches: Arc<dyn Watches>) -> Self {
        Self {
            spool,
            leading,
            watches,
            queues: BTreeSet::new(),
            jobs: BTreeSet::new(),
            again: BTreeSet::new(),
        }
    }

    /// Begins to watch, then looks at everything: what happens meanwhile is told later.
    pub(crate) async fn begin(&mut self) {
        self.watches.watch(Place::Root, self.spool.root());
        let mut seen = looks::Seen::default();
        seen.add(Notice::Everywhere);
        let mut again = std::mem::take(&mut self.again);
        self.look(seen, &mut again).await;
        self.again = again;
    }

    /// Works until it is dropped.
    pub(crate) async fn run(mut self, mut notices: mpsc::Receiver<Notice>) {
        let mut again = std::mem::take(&mut self.again);
        loop {
            let look_again = async {
                if again.is_empty() {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            tokio::select! {
                () = self.leading.todo.notified() => self.do_all().await,
                first = notices.recv() => {
                    let Some(first) = first else { return };
                    let mut seen = looks::Seen::default();
                    seen.add(first);
                    while let Ok(more) = notices.try_recv() {
                        seen.add(more);
                    }
                    again.extend(seen.places().cloned());
                    self.look(seen, &mut again).await;
                }
                () = look_again => {
                    let mut seen = looks::Seen::default();
                    for place in std::mem::take(&mut again) {
                        seen.add(Notice::At { place, complete: Vec::new() });
                    }
                    self.look(seen, &mut again).await;
                }
            }
        }
    }
}

/// Runs a file operation on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that stops cancels such a task; then nobody waits for the answer.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
