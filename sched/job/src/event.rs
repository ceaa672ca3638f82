//! What a job is told. Nothing here is believed: an id that does not exist, a worker nobody knows, a report that is repeated or
//! late changes nothing but that it is answered.
//!
//! Of one request of a worker the job master makes, in this order: [`Event::Adopted`] if the job does not know the worker (see
//! [`crate::Job::knows`]); else [`Event::Finished`] and [`Event::Progress`] for each, then [`Event::Holds`]; then
//! [`Event::Pull`]. Then it drains the effects once.

use crate::ids::{AttemptId, NodeName, UnitId, WorkerId};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The master granted a unit; its worker is being started.
    Granted { worker: WorkerId, unit: UnitId, node: NodeName },
    /// All grants the master knows of were told: after this a new job master waits only for the workers of these.
    GrantsComplete,
    /// The master took a grant back. Not a failure of anything that ran in it.
    Revoked { worker: WorkerId },
    /// A worker called for the first time and holds nothing.
    WorkerJoined { worker: WorkerId, unit: UnitId, node: NodeName },
    /// A worker ended or is out of reach.
    WorkerLost { worker: WorkerId, reason: LossReason },
    /// A worker that a former job master started says what it has.
    Adopted {
        worker: WorkerId,
        unit: UnitId,
        node: NodeName,
        running: Vec<AttemptId>,
        finished: Vec<Finished>,
    },
    /// All a worker was given and has not reported as finished: what it lacks is assigned again (a reply was lost), what it has
    /// too much is cancelled.
    Holds { worker: WorkerId, attempts: Vec<AttemptId> },
    /// A worker has room for so many more. Stands until the next one: work that appears later is assigned by it.
    Pull { worker: WorkerId, room: u32 },
    /// A worker began with an attempt.
    Started { worker: WorkerId, attempt: AttemptId },
    /// How far it is, of 1,000,000.
    Progress { worker: WorkerId, attempt: AttemptId, done_ppm: u32 },
    /// An attempt ended.
    Finished { worker: WorkerId, report: Finished },
    /// The answer to [`crate::Effect::Promote`].
    Promoted { attempt: AttemptId, result: Promotion },
    /// Time passed; about once a second, and at [`crate::Job::next_wake`].
    Tick,
    /// No new attempts from now on; those that run go on.
    Pause,
    /// As before.
    Resume,
    /// Cancel everything and end. `by` is for people.
    Kill { by: String },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub attempt: AttemptId,
    /// How.
    pub outcome: Outcome,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// What it said last, for people ("" if nothing).
    pub message: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well. `outputs` names in its temporary directory wait for promotion.
    Ok { outputs: u32, bytes: u64 },
    /// With an exit code that is not 0.
    Exit(i32),
    /// Killed by a signal, not by us.
    Signal(i32),
    /// It ran longer than the task's timeout, and was ended.
    Timeout,
    /// What this instance of an earlier task made is not there.
    LostInput { task: crate::TaskId, instance: u32 },
    /// Its program does not exist or can not be executed. It will not exist elsewhere either: the job fails.
    NoSuchProgram,
    /// It used more memory than its unit has.
    OutOfMemory,
    /// The machine could not run it (no space, no processes); another one may.
    Machine,
    /// It was cancelled.
    Cancelled,
}

/// Why a worker is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// Its process ended by itself; in words.
    Died(String),
    /// Its machine is out of reach.
    NodeLost,
}

/// What became of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// All outputs are in place, whether now or by an earlier try.
    Placed,
    /// The outputs are neither in the temporary directory nor in place: the instance must run again.
    Missing,
}
