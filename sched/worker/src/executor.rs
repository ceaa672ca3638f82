//! What runs an attempt, by the kind of its task.
//!
//! An executor runs on the worker's one thread for it, may block, and ends soon after [`Current::stopped`] says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::current::Current;
use crate::desk::Assignment;
use crate::report::{Outcome, Report};
use crate::task::Kind;

/// What executors know of the worker they are in.
#[derive(Clone, Debug)]
pub struct Environment {
    pub config: Arc<Config>,
    pub current: Arc<Current>,
}

/// Runs attempts of one kind, one after another.
pub trait Executor: Send {
    /// Runs one to its end. Every failure is a report.
    fn run(&mut self, assignment: &Assignment) -> Report;
}

/// Executors by kind.
#[derive(Default)]
pub struct Kinds(BTreeMap<Kind, Box<dyn Executor>>);

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Kinds {
    /// Attempts of this kind are run by that one.
    #[must_use]
    pub fn with(mut self, kind: Kind, executor: impl Executor + 'static) -> Self {
        self.0.insert(kind, Box::new(executor));
        self
    }
}

impl Executor for Kinds {
    fn run(&mut self, assignment: &Assignment) -> Report {
        match self.0.get_mut(&assignment.task.kind) {
            Some(executor) => executor.run(assignment),
            None => {
                let kind = assignment.task.kind;
                Report::never_ran(
                    Outcome::Machine,
                    format!("this worker runs no task of kind {kind:?}: is it older than the job's master?"),
                )
            }
        }
    }
}
