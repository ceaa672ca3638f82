//! One job of Fuxi: its tasks, instances and attempts, and the journal that lets another job master go on with it.
//!
//! Events go in with the time, effects come out in order; no IO, no clock, no randomness, no threads. The job master's
//! process does what the effects say. `sched/docs/journal.md` has the tables of states and events, the byte map of the
//! journal, and what a crash between any two effects leaves.
//!
//! Read in this order: [`plan`] (what is to be done), [`event`] and [`effect`] (the vocabulary), [`record`] (what is
//! durable), [`journal`] (its bytes), `stage` (the instances of one task, compactly), `worker`, `nodes` (whom to avoid),
//! [`job`] (the state machine; its children are one concern each), [`report`] (what people see).
//!
//! Invariants:
//! - an instance is done only by a `Won` record, and a winner's outputs are promoted only after that record is durable;
//! - an instance that is neither fresh nor done is in its stage's map, so an array of a million costs two bits each;
//! - an attempt's number is never given twice, not even by another generation of the job master.

pub mod effect;
pub mod event;
pub mod ids;
pub mod job;
pub mod journal;
pub mod plan;
pub mod record;
pub mod report;
pub mod settings;

mod bits;
mod codec;
mod locality;
mod median;
mod nodes;
mod outbox;
mod stage;
mod worker;

pub use effect::{Effect, EventKind, HumanEvent, JobOutcome, Want};
pub use event::{Event, Finished, LossReason, Outcome, Promotion};
pub use ids::{AttemptId, NodeName, TaskId, Time, UnitId, WorkerId};
pub use job::{Job, RecoverError};
pub use plan::{Dependency, Plan, PlanError, Preferences, TaskPlan};
pub use record::{Cause, Outputs, Record};
pub use report::TaskProgress;
pub use settings::Settings;
