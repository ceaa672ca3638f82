//! The process that leads one job: knows its tasks and instances, asks Fuxi's master for workers, gives them work.
//!
//! Reading order: [`run`] (a process's life), `planner` (job file to plan), `driver` (the thread that leads, around [`sched_job::Job`]),
//! `work` (what workers ask), `link` (the conversation with the master), `mailbox` and `desired` (what they are to be told),
//! `journal_file`, `outputs` (how what was made gets to its place).

mod desired;
mod driver;
mod input;
pub mod journal_file;
mod link;
mod mailbox;
mod outputs;
mod planner;
mod run;
mod units;
mod work;

pub use planner::PlanFileError;
pub use run::{Config, RunError, run};
