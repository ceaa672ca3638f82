//! Fuxi's worker: runs one instance of a task after another, for one grant.
//!
//! Reading order: [`attempt`] and [`task`] (what it is given), [`report`] (what it says), [`desk`] (what it holds: pure), [`shared`] (the desk
//! between the thread that runs and the task that talks), [`pull`] and [`find`] (talking to the job's master), [`runner`] (the thread),
//! [`executor`] (what runs an attempt), [`command`] with [`spawn`], [`current`] and [`output`] (a program), [`shuffle`] (MapReduce's tasks), [`worker`] (all of it together).
//!
//! What holds: an attempt that was given is held until its report was acknowledged, whoever dies meanwhile; it is begun once; and
//! nothing that it started outlives it.

pub mod attempt;
pub mod command;
pub mod config;
pub mod current;
pub mod desk;
pub mod executor;
pub mod files;
pub mod find;
pub mod oom;
pub mod output;
pub mod place;
pub mod program;
pub mod pull;
pub mod report;
pub mod runner;
pub mod shared;
pub mod shuffle;
pub mod spawn;
pub mod strays;
pub mod task;
pub mod worker;

pub use attempt::Attempt;
pub use config::Config;
pub use executor::{Environment, Executor, Kinds};
pub use pull::Over;
pub use report::{Outcome, Report};
pub use worker::{Worker, WorkerError};
