//! An agent in this process: a thread of its own, since it starts processes, syncs files and looks through `/proc`, which all block.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::store::StoreError;
use crate::work::Work;

/// What becomes of what runs when the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// The next agent takes it over.
    Keep,
    Stop,
}

/// Why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("read the machine's boot id")]
    Boot(#[source] io::Error),
    #[error("{0:?} is no location: write /region/rack/host")]
    Location(String),
    #[error("the node has no name")]
    NoName,
    #[error("start the agent's thread")]
    Thread(#[source] io::Error),
    #[error("the agent's thread ended before it had begun")]
    Ended,
}

/// An agent at work. If it is dropped, it ends and keeps what runs.
#[derive(Debug)]
pub struct Agent {
    stop: mpsc::Sender<Containers>,
    over: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
    warning: String,
}

impl Agent {
    /// Takes over what an earlier agent left, and begins to ask for orders.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        let parts = config.location.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>());
        if !parts.is_some_and(|parts| parts.len() == 3 && parts.iter().all(|part| !part.is_empty())) {
            return Err(AgentError::Location(config.location));
        }
        if config.node.is_empty() {
            return Err(AgentError::NoName);
        }
        // One order to stop is all that is ever sent.
        let (stop, stopped) = mpsc::channel(1);
        let (ready, begun) = oneshot::channel();
        let (ended, over) = oneshot::channel();
        let thread = std::thread::Builder::new().name("fuxi-agent".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(AgentError::Thread(error)));
                    return;
                }
            };
            runtime.block_on(async {
                match Work::begin(config).await {
                    Ok(work) => {
                        // If nobody waits any more, the stopping channel is closed too.
                        let _ = ready.send(Ok(work.warning().to_owned()));
                        work.run(stopped).await;
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            });
            let _ = ended.send(());
        });
        let thread = thread.map_err(AgentError::Thread)?;
        let warning = begun.await.map_err(|_| AgentError::Ended)??;
        Ok(Self { stop, over, thread: Some(thread), warning })
    }

    /// Which limits are not kept here as they should be, and why; empty if all are.
    #[must_use]
    pub fn warning(&self) -> &str {
        &self.warning
    }

    /// Ends the agent; if it is to stop what runs, after that has ended (told to, and killed after the grace).
    pub async fn shutdown(mut self, containers: Containers) {
        // It may have ended by itself.
        let _ = self.stop.send(containers).await;
        let _ = (&mut self.over).await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
