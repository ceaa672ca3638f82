//! The files of an attempt: what it says, and what it makes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::desk::Assignment;
use crate::output::Output;
use crate::place;
use crate::report::{Outcome, Report};

/// See the module.
#[derive(Clone, Debug)]
pub struct Files {
    config: Arc<Config>,
    output: Arc<Output>,
}

impl Files {
    #[must_use]
    pub fn new(config: Arc<Config>, output: Arc<Output>) -> Self {
        Self { config, output }
    }

    /// `TASK.INSTANCE.ATTEMPT`.
    #[must_use]
    pub fn name(&self, assignment: &Assignment) -> String {
        format!("{}.{}.{}", assignment.task.name, assignment.attempt.instance, assignment.attempt.number)
    }

    /// Where it puts what it makes.
    #[must_use]
    pub fn outputs(&self, name: &str) -> PathBuf {
        self.config.job_directory().join("out").join(format!(".tmp-{name}"))
    }

    /// Where it works, if it makes nothing.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.config.scratch.join("work")
    }

    /// The file of what is said: to be appended to.
    #[must_use]
    pub fn words(&self) -> PathBuf {
        self.config.scratch.join("output")
    }

    /// Moves what it said to the job's log, and its last words into the report.
    pub fn keep_words(&self, name: &str, report: &mut Report) {
        let log = self.config.job_directory().join("log").join(name);
        let words = match self.output.collect(&log) {
            Ok(words) => words,
            Err(error) => Some(format!("[what it said could not be kept in {}: {error}]", log.display())),
        };
        let Some(words) = words.filter(|_| report.outcome != Outcome::Ok) else { return };
        let text = if report.message.is_empty() { words } else { format!("{words}\n{}", report.message) };
        report.say(text);
    }

    /// Counts what a successful attempt made; removes what another one left.
    pub fn settle(&self, outputs: &Path, report: &mut Report) {
        if report.outcome == Outcome::Ok {
            match place::count_names(outputs) {
                Ok(count) => report.outputs = count,
                Err(error) => {
                    report.outcome = Outcome::Machine;
                    report.say(format!("look at what it made in {}: {error}", outputs.display()));
                }
            }
        } else if let Err(error) = fs::remove_dir_all(outputs)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, outputs = %outputs.display(), "what a failed attempt made cannot be removed");
        }
    }
}
