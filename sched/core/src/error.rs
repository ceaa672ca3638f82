//! Why an event was refused; a refused event has changed nothing.

use thiserror::Error;

use crate::ids::{JobId, NodeId, QueueId, UnitId};

/// An event that makes no sense. None may be retried as it is: something else must change first.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// No such node.
    #[error("node {0} is not known: it must register first")]
    UnknownNode(NodeId),
    /// No such queue.
    #[error("queue {0} is not defined: define it, or use another one")]
    UnknownQueue(QueueId),
    /// No such job.
    #[error("job {0} is not running")]
    UnknownJob(JobId),
    /// The queue still has something in it.
    #[error(
        "queue {queue} cannot be removed: it has {children} child queues, {jobs} jobs and resources in use: {in_use}"
    )]
    QueueInUse {
        /// The queue.
        queue: QueueId,
        /// Its child queues.
        children: usize,
        /// Its jobs.
        jobs: usize,
        /// True if grants of ended jobs are still being stopped.
        in_use: bool,
    },
    /// The parents would form a ring.
    #[error("queue {queue} cannot be part of queue {parent}, which is part of it")]
    QueueRing {
        /// The queue.
        queue: QueueId,
        /// Its wanted parent.
        parent: QueueId,
    },
    /// The tree would be too deep.
    #[error("queue {queue} would be at level {level} of the quota tree, which has at most {max}")]
    QueueDepth {
        /// The queue.
        queue: QueueId,
        /// The level.
        level: usize,
        /// The limit.
        max: usize,
    },
    /// The guarantee is above the limit.
    #[error("queue {0} has a minimum above its maximum")]
    QueueBounds(QueueId),
    /// The weight is zero.
    #[error("queue {0} has weight 0: give at least 1")]
    QueueWeight(QueueId),
    /// A unit that needs nothing would fit anywhere without end.
    #[error("unit {unit} of job {job} needs no resources: name at least one")]
    EmptyUnit {
        /// The job.
        job: JobId,
        /// The unit.
        unit: UnitId,
    },
    /// An amount is beyond what arithmetic is sure for.
    #[error("{subject} has an amount above 2^40: check its unit (cpu is in 1/1000, memory and disk in MiB)")]
    Amount {
        /// Whose.
        subject: String,
    },
    /// Something is at its limit.
    #[error("there are {max} {what} already, as many as are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}
