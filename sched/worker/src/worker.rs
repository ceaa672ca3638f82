//! All of it together: a thread that runs, a task that talks, a task that watches the time.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle as Task;

use crate::command::{Command, CommandError};
use crate::config::Config;
use crate::current::Current;
use crate::desk::Desk;
use crate::executor::{Environment, Kinds};
use crate::files::Files;
use crate::output::Output;
use crate::pull::{Over, Talk};
use crate::runner;
use crate::shared::Shared;
use crate::shuffle::Shuffle;
use crate::strays;
use crate::task::Kind;

/// How exactly timeouts are kept, and how much more than it may an instance can say before it is cut.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Why a worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("make {}", .path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("adopt what instances leave behind")]
    Adopt(#[source] io::Error),
    #[error("start the thread that runs instances")]
    Thread(#[source] io::Error),
    #[error("neither the job's master nor Fuxi's is known: give one of them")]
    NobodyToAsk,
}

/// A worker at work. Dropping it leaves the thread to end with what runs; [`Worker::shutdown`] waits.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    runner: Option<JoinHandle<()>>,
    talk: Task<Over>,
    watch: Task<()>,
}

impl Worker {
    /// Begins. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn start(config: Config) -> Result<Self, WorkerError> {
        if config.master.is_none() && config.job_master.is_none() {
            return Err(WorkerError::NobodyToAsk);
        }
        let config = Arc::new(config);
        let failed = |source| WorkerError::Scratch { path: config.scratch.clone(), source };
        fs::create_dir_all(&config.scratch).map_err(failed)?;
        let output = Output::open(&config.scratch.join("output"), config.log_bytes_max).map_err(failed)?;
        let output = Arc::new(output);
        if config.owns_process {
            strays::adopt().map_err(WorkerError::Adopt)?;
        }
        let current = Arc::new(Current::default());
        let environment = Environment { config: Arc::clone(&config), current: Arc::clone(&current) };
        let files = Files::new(Arc::clone(&config), Arc::clone(&output));
        let shuffle = || Shuffle::new(environment.clone(), files.clone());
        let kinds = Kinds::default()
            .with(Kind::Sample, shuffle())
            .with(Kind::Map, shuffle())
            .with(Kind::Reduce, shuffle())
            .with(Kind::Command, Command::new(environment.clone(), Arc::clone(&output))?);
        let shared = Arc::new(Shared::new(Desk::new(config.prefetch), Arc::clone(&current)));
        let runner =
            runner::start(Arc::clone(&shared), kinds, config.owns_process).map_err(WorkerError::Thread)?;
        let talk = tokio::spawn(Talk::new(config, Arc::clone(&shared)).run());
        let watch = tokio::spawn(watch(current, output));
        Ok(Self { shared, runner: Some(runner), talk, watch })
    }

    /// Until there is nothing more to do here. To be asked once.
    pub async fn over(&mut self) -> Over {
        // It is not aborted before shutdown, and does not panic.
        (&mut self.talk).await.unwrap_or(Over::Dismissed)
    }

    /// Ends what runs, and then the worker.
    pub async fn shutdown(mut self) {
        self.talk.abort();
        self.shared.close();
        if let Some(runner) = self.runner.take() {
            // It ends as soon as what ran was killed and waited for.
            let _ = tokio::task::spawn_blocking(move || runner.join()).await;
        }
        self.watch.abort();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.talk.abort();
        self.watch.abort();
        self.shared.close();
    }
}

/// Keeps timeouts, and the bound of what is said.
async fn watch(current: Arc<Current>, output: Arc<Output>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let Some(running) = current.check(Instant::now()) else { continue };
        if running >= WATCH_EVERY
            && let Err(error) = output.trim()
        {
            tracing::debug!(%error, "what an instance says cannot be cut");
        }
    }
}
