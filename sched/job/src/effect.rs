//! What a job wants done, in order.
//!
//! [`Effect::Append`] comes before all others of one [`crate::Job::drain`], and must be durable (written and synced) before any
//! effect after it is carried out. If it can not be made durable the job master must stop at once, without a second try: after a
//! failed sync nobody knows what is on the disk, and the next job master reads what is.

use std::fmt;

use crate::ids::{AttemptId, NodeName, TaskId, Time, UnitId, WorkerId};
use crate::record::Record;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append these as one frame ([`crate::journal::frame`]) and sync; then go on.
    Append(Vec<Record>),
    /// Tell the worker that these reports need not be repeated.
    Acknowledge { worker: WorkerId, attempts: Vec<AttemptId> },
    /// Give these to the worker, which runs them one after another. Attempts of piped tasks stand next to each other with the
    /// same instance and number, and run together.
    Assign { worker: WorkerId, attempts: Vec<AttemptId> },
    /// Tell the worker to end this one, or not to begin it; it answers with [`crate::Outcome::Cancelled`] (or as it ended).
    Cancel { worker: WorkerId, attempt: AttemptId },
    /// Rename the `outputs` names of the attempt's temporary directory into place. May be repeated after a crash: what is in place
    /// already stays. Answered by [`crate::Event::Promoted`].
    Promote { attempt: AttemptId, outputs: u32 },
    /// Remove the attempt's temporary directory, if it is there.
    Discard { attempt: AttemptId },
    /// Tell the master how many of a unit the job wants in all.
    Want(Want),
    /// Give the worker's grant back; the worker is to end.
    Release { worker: WorkerId },
    /// All nodes on which the job wants no worker for now.
    AvoidNodes { nodes: Vec<NodeName> },
    /// All instances of the task are done and their outputs in place. Comes again if an output was lost and made again.
    TaskDone { task: TaskId },
    /// For people.
    Tell(HumanEvent),
    /// The last effect.
    Ended { outcome: JobOutcome },
}

/// How many of a unit are wanted in all, those held included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Of what.
    pub unit: UnitId,
    /// Rises with each change of any unit's want, also from one job master to the next.
    pub version: u64,
    /// In all.
    pub total: u64,
    /// Nodes that have the most waiting instances' inputs, and how many; the most first, a bounded number.
    pub preferred: Vec<(NodeName, u64)>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Every task is done.
    Done,
    /// In a sentence.
    Failed { reason: String },
    /// By whom.
    Killed { by: String },
}

impl fmt::Display for JobOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobOutcome::Done => f.write_str("done"),
            JobOutcome::Failed { reason } => write!(f, "failed: {reason}"),
            JobOutcome::Killed { by } => write!(f, "killed by {by}"),
        }
    }
}

/// A line of the job's `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HumanEvent {
    /// When, as the job was told.
    pub at: Time,
    /// For programs.
    pub kind: EventKind,
    /// For people.
    pub text: String,
}

/// What a [`HumanEvent`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A job master began, or went on.
    Opened,
    /// A task is done.
    TaskDone,
    /// An attempt failed.
    Failure,
    /// An instance failed for good.
    GivenUp,
    /// A worker is no more.
    WorkerLost,
    /// A second attempt of a slow instance.
    Backup,
    /// An instance runs again since its output is lost.
    Again,
    /// Nodes are avoided, or no more.
    Nodes,
    /// The job was paused, resumed or killed.
    Order,
    /// The job ended.
    Ended,
}

impl EventKind {
    /// One word, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Opened => "opened",
            EventKind::TaskDone => "task-done",
            EventKind::Failure => "failure",
            EventKind::GivenUp => "given-up",
            EventKind::WorkerLost => "worker-lost",
            EventKind::Backup => "backup",
            EventKind::Again => "again",
            EventKind::Nodes => "nodes",
            EventKind::Order => "order",
            EventKind::Ended => "ended",
        }
    }
}
