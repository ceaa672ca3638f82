//! The talk with the job's master: one request at a time, which says everything; what is lost is said again.
//!
//! How long a request may wait depends on what there is to tell:
//! - reports wait for company for [`BATCH`], unless there is nothing left to run, and are then sent with no wait;
//! - with nothing to tell, the request waits at the master for [`WAIT`]. A report that comes meanwhile drops it: the master
//!   sends again what such a reply would have said, since it was not among what is held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{Backoff, CallOptions, RetryPolicy, Status};
use sched_api::proto::{self, PullReply, PullRequest, WorkClient};

use crate::config::Config;
use crate::desk::News;
use crate::find::Finder;
use crate::shared::{Pending, Shared};
use crate::task::Task;

/// How long a report waits for company. 125 requests a second cost a hundredth of a core; a job waits for its last reports only this long.
const BATCH: Duration = Duration::from_millis(8);
/// So many reports do not wait.
const BATCH_MAX: usize = 32;
/// Before a request that waits: instances that are shorter than this are reported without dropping one each time.
const LINGER: Duration = Duration::from_millis(25);
/// How long a request waits at the master.
const WAIT: Duration = Duration::from_secs(20);
/// For the answer, beyond the wait.
const MARGIN: Duration = Duration::from_secs(10);
/// Pauses between failed requests.
const PAUSES: RetryPolicy = RetryPolicy { first: Duration::from_millis(20), max: Duration::from_secs(2) };

/// Why the talk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The job's master said so.
    Dismissed,
    /// Fuxi's master does not know the job.
    JobUnknown,
}

/// See the module.
#[derive(Debug)]
pub struct Talk {
    config: Arc<Config>,
    shared: Arc<Shared>,
    finder: Finder,
}

impl Talk {
    #[must_use]
    pub fn new(config: Arc<Config>, shared: Arc<Shared>) -> Self {
        let finder = Finder::new(
            config.job.clone(),
            config.master.clone(),
            config.job_master.clone(),
            config.transport.clone(),
        );
        Self { config, shared, finder }
    }

    /// Talks until there is nobody to talk to any more. Failures do not end it.
    pub async fn run(mut self) -> Over {
        let mut pauses = PAUSES.pauses();
        let mut failed = false;
        loop {
            let result = match self.finder.client() {
                Some(client) => self.ask(&client).await,
                None => Err(Status::unavailable("nobody has said where the job's master is")),
            };
            match result {
                Ok(reply) => {
                    if failed {
                        tracing::info!("the job's master answers again");
                    }
                    failed = false;
                    pauses.reset();
                    self.finder.answered();
                    if self.take(reply) {
                        return Over::Dismissed;
                    }
                }
                Err(status) => {
                    self.shared.untold();
                    if !failed {
                        tracing::warn!(%status, "the job's master does not answer; going on, and asking again");
                    }
                    failed = true;
                    if self.look(&mut pauses, &status).await {
                        return Over::JobUnknown;
                    }
                }
            }
        }
    }

    /// Pauses, and asks where the job's master is. Whether the job has ended for good.
    async fn look(&mut self, pauses: &mut Backoff, status: &Status) -> bool {
        tokio::time::sleep(pauses.next_pause(status)).await;
        self.finder.look().await;
        self.finder.unknown_for(Instant::now()).is_some_and(|unknown| unknown >= self.config.give_up_after)
    }

    /// One request, as soon as it is worth one, and its answer.
    async fn ask(&self, client: &WorkClient) -> Result<PullReply, Status> {
        loop {
            let pending = self.gather().await;
            let wait = if pending.unacknowledged > 0 && !pending.is_idle { Duration::ZERO } else { WAIT };
            let request = self.request(wait);
            let options = CallOptions::within(wait + MARGIN);
            let call = client.pull(&request, &options);
            if wait.is_zero() {
                return call.await.map(|response| response.message);
            }
            tokio::select! {
                biased;
                result = call => return result.map(|response| response.message),
                () = self.reported() => {}
            }
        }
    }

    /// Waits until there is enough to tell, or nothing is to be expected.
    async fn gather(&self) -> Pending {
        let begun = Instant::now();
        loop {
            let pending = self.shared.pending();
            let until = match pending.since {
                _ if pending.is_idle || pending.unsent >= BATCH_MAX => return pending,
                // Reports of a request that failed have waited long enough.
                None if pending.unsent > 0 => return pending,
                Some(since) => since + BATCH,
                None => begun + LINGER,
            };
            if until <= Instant::now() {
                return pending;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.shared.changed.notified() => {}
            }
        }
    }

    /// Until there is a report that the request in flight did not have.
    async fn reported(&self) {
        while self.shared.pending().unsent == 0 {
            self.shared.changed.notified().await;
        }
    }

    fn request(&self, wait: Duration) -> PullRequest {
        let Config { job, grant, node, .. } = &*self.config;
        let ppm = self.shared.current.ppm();
        self.shared.tell(|desk| PullRequest {
            job: job.clone(),
            grant: *grant,
            node: node.clone(),
            holds: desk.holds().map(Into::into).collect(),
            finished: desk.finished().map(|(attempt, report)| report.to_proto(attempt)).collect(),
            progress: desk
                .running()
                .filter(|_| ppm > 0)
                .map(|attempt| proto::Progress { attempt: Some(attempt.into()), ppm })
                .into_iter()
                .collect(),
            room: u32::try_from(desk.room()).unwrap_or(u32::MAX),
            tasks_known: desk.tasks().collect(),
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        })
    }

    /// Whether the worker is dismissed.
    fn take(&self, reply: PullReply) -> bool {
        let exit = reply.exit;
        let news = News {
            acknowledged: reply.acknowledged.into_iter().map(Into::into).collect(),
            tasks: reply.tasks.into_iter().map(task).collect(),
            cancel: reply.cancel.into_iter().map(Into::into).collect(),
            work: reply.work.into_iter().filter_map(work).collect(),
        };
        let todo = self.shared.apply(news);
        if todo.refused > 0 {
            tracing::warn!(
                attempts = todo.refused,
                "the job's master sent attempts that were not asked for, or of unknown tasks"
            );
        }
        exit
    }
}

fn task(description: proto::TaskDescription) -> (u32, Arc<Task>) {
    (description.task, Arc::new(Task::from_description(description)))
}

fn work(work: proto::Assignment) -> Option<(crate::Attempt, Vec<crate::attempt::Piece>)> {
    Some((work.attempt?.into(), work.input.into_iter().map(Into::into).collect()))
}
