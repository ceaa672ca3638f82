//! What reaches the thread that leads the job, in one bounded queue.

use sched_api::proto;
use sched_job::{AttemptId, Promotion};
use tokio::sync::oneshot;

/// Inputs that wait. Workers have one request each under way, so this is reached with a thousand workers; then they wait.
pub(crate) const INPUTS_MAX: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) enum Input {
    /// A worker asks; answered when all that follows from it was done and is in its mailbox.
    Pull(Box<proto::PullRequest>, oneshot::Sender<()>),
    /// The master answered.
    Master(Box<proto::JobReply>),
    Promoted(AttemptId, Promotion),
    /// This process was told to stop. The job goes on under another one.
    Stop,
}
