//! The thread that runs attempts, one after another, and keeps the times.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::executor::Executor;
use crate::shared::Shared;
use crate::strays;

/// Starts the thread. It ends after [`Shared::close`], when what ran has ended.
///
/// # Errors
/// There are too many threads.
pub fn start(
    shared: Arc<Shared>,
    mut executor: impl Executor + 'static,
    kills_strays: bool,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("runner".to_owned()).spawn(move || {
        while let Some(assignment) = shared.take() {
            let report = executor.run(&assignment);
            if kills_strays {
                strays::kill_all();
            }
            shared.current.clear();
            tracing::debug!(attempt = %assignment.attempt, outcome = ?report.outcome, "an attempt ended");
            shared.end(assignment.attempt, report);
        }
    })
}
