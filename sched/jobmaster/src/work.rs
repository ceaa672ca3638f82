//! What workers ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use kuafu::{Bytes, Request, Response, Status};
use sched_api::proto;
use sched_job::{AttemptId, WorkerId};
use tokio::sync::oneshot;

use crate::input::Input;
use crate::mailbox::{Mailboxes, News};

/// No worker waits longer for news.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What of a call's deadline is left for the way back.
const WAY_BACK: Duration = Duration::from_millis(300);
/// When the leading thread has too much to do.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// What workers must know of a task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Described {
    pub(crate) spec: Bytes,
    pub(crate) sources: Vec<proto::Source>,
    pub(crate) pieces: Pieces,
}

/// What a task's instances read.
#[derive(Clone, Debug)]
pub(crate) enum Pieces {
    /// Every one all of these.
    All(Vec<proto::Piece>),
    /// Each one its own.
    Each(Vec<proto::Piece>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Pieces {
    fn of(&self, instance: u32) -> Vec<proto::Piece> {
        match self {
            Self::All(pieces) => pieces.clone(),
            Self::Each(pieces) => pieces.get(instance as usize).cloned().into_iter().collect(),
        }
    }
}

/// Serves `Work`.
pub(crate) struct Work {
    pub(crate) job: String,
    pub(crate) inputs: SyncSender<Input>,
    pub(crate) mail: Arc<Mailboxes>,
    pub(crate) tasks: Arc<BTreeMap<u32, Described>>,
}

impl Work {
    fn reply(&self, request: &proto::PullRequest, news: News) -> proto::PullReply {
        let work = |attempt: &AttemptId| {
            let described = self.tasks.get(&attempt.task.0);
            let input = described.map(|task| task.pieces.of(attempt.instance)).unwrap_or_default();
            proto::Assignment { attempt: Some(id(attempt)), input }
        };
        let mut unknown: Vec<u32> = news.assigned.iter().map(|attempt| attempt.task.0).collect();
        unknown.dedup();
        unknown.retain(|task| !request.tasks_known.contains(task));
        let describe = |task: u32| {
            let described = self.tasks.get(&task)?;
            Some(proto::TaskDescription {
                task,
                spec: described.spec.clone(),
                sources: described.sources.clone(),
            })
        };
        proto::PullReply {
            work: news.assigned.iter().map(work).collect(),
            cancel: news.cancelled.iter().map(id).collect(),
            acknowledged: news.acknowledged.iter().map(id).collect(),
            tasks: unknown.into_iter().filter_map(describe).collect(),
            exit: news.exit,
        }
    }
}

fn id(attempt: &AttemptId) -> proto::AttemptId {
    proto::AttemptId { task: attempt.task.0, instance: attempt.instance, attempt: attempt.attempt }
}

impl proto::Work for Work {
    async fn pull(&self, request: Request<proto::PullRequest>) -> Result<Response<proto::PullReply>, Status> {
        let now = Instant::now();
        let request_deadline = request.deadline.checked_sub(WAY_BACK).unwrap_or(now);
        let message = request.message;
        if message.job != self.job {
            return Err(Status::not_found(format!(
                "this is the master of job {}, not of {}",
                self.job, message.job
            )));
        }
        let worker = WorkerId(message.grant);
        let wait = Duration::from_millis(message.wait_ms.into()).min(WAIT_MAX);
        let until = (now + wait).min(request_deadline);
        let (answer, answered) = oneshot::channel();
        match self.inputs.try_send(Input::Pull(Box::new(message.clone()), answer)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Status::busy("the job's master has more to do than it can", BUSY_RETRY));
            }
            Err(TrySendError::Disconnected(_)) => return Err(Status::unavailable("the job is ending")),
        }
        // What follows from the report is in the mailbox before it is looked at, so nothing is assigned twice.
        if tokio::time::timeout_at(until.into(), answered).await.is_err() {
            return Ok(Response::new(proto::PullReply::default()));
        }
        loop {
            let there = match self.mail.take(worker) {
                Ok(news) => return Ok(Response::new(self.reply(&message, news))),
                Err(there) => there,
            };
            let notified = there.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Ok(news) = self.mail.take(worker) {
                return Ok(Response::new(self.reply(&message, news)));
            }
            if tokio::time::timeout_at(until.into(), notified).await.is_err() {
                return Ok(Response::new(proto::PullReply::default()));
            }
        }
    }
}
