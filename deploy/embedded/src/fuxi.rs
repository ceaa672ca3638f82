//! Fuxi beside an embedded platform: a master and an agent for this machine, on a thread of their own.
//!
//! They work through the mount like everybody else, so they begin when it stands, and end before it goes. Their thread may wait for the
//! mount; the one that serves it never waits for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use coord_cluster::ClusterConfig;
use kuafu::{Address, CancellationToken, Client};
use sched_agent::{Agent, Containers, KeyFolder};
use sched_server::FuxiMaster;
use zhongkui_access::{Audit, KeyDirectory, directory};

use crate::Embedded;

/// Where an embedded platform's only machine stands.
const LOCATION: &str = "/local/rack1/host";

/// Why Fuxi did not start.
#[derive(Debug, thiserror::Error)]
pub enum FuxiError {
    #[error("start Fuxi's thread")]
    Thread(#[source] std::io::Error),
    #[error("Fuxi's thread died while it started")]
    Died,
    #[error("read the cluster's description")]
    Cluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Keys(#[from] zhongkui_access::DirectoryError),
    #[error("start Fuxi's master")]
    Master(#[from] sched_server::StartError),
    #[error("start Fuxi's agent")]
    Agent(#[from] sched_agent::AgentError),
    #[error("the machine has no name")]
    Name(#[source] std::io::Error),
}

/// A master and an agent at work. [`stop`](Self::stop) ends them.
#[derive(Debug)]
pub struct Fuxi {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    warning: String,
}

struct Parts {
    of: FuxiOf,
    mount: PathBuf,
}

impl Fuxi {
    /// Starts them on a mount of the platform; they are at work when this returns. Blocks, so not to be called on the thread
    /// that serves the mount.
    ///
    /// # Errors
    /// See [`FuxiError`]; nothing is left running.
    pub fn start(embedded: &FuxiOf, mount: &Path) -> Result<Self, FuxiError> {
        let parts = Parts { of: embedded.clone(), mount: mount.to_owned() };
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let (started, starting) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("fuxi".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _gone = started.send(Err(FuxiError::Thread(error)));
                        return;
                    }
                };
                runtime.block_on(run(parts, &started, stopping));
            })
            .map_err(FuxiError::Thread)?;
        let warning = starting.recv().map_err(|_| FuxiError::Died)??;
        Ok(Self { stop, thread: Some(thread), warning })
    }

    /// Limits that cannot be kept on this machine ("" if all can).
    #[must_use]
    pub fn warning(&self) -> &str {
        &self.warning
    }

    /// Ends what runs; jobs go on when the platform is started again. Blocks, so not to be called on the thread that serves
    /// the mount.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("Fuxi's thread panicked");
        }
    }
}

/// What Fuxi needs of an embedded platform.
#[derive(Clone, Debug)]
pub struct FuxiOf {
    data: PathBuf,
    description: PathBuf,
    keys: KeyDirectory,
    listen: Address,
}

impl Embedded {
    /// For [`Fuxi::start`], on whatever thread.
    #[must_use]
    pub fn fuxi(&self) -> FuxiOf {
        FuxiOf {
            data: self.data_dir().join("fuxi"),
            description: self.cluster_file().to_owned(),
            keys: self.keys().clone(),
            listen: self.fuxi_address().clone(),
        }
    }
}

async fn run(parts: Parts, started: &mpsc::SyncSender<Result<String, FuxiError>>, stop: CancellationToken) {
    match begin(parts).await {
        Ok((master, agent)) => {
            let _gone = started.send(Ok(agent.warning().to_owned()));
            stop.cancelled().await;
            agent.shutdown(Containers::Stop).await;
            master.shutdown().await;
        }
        Err(error) => {
            let _gone = started.send(Err(error));
        }
    }
}

async fn begin(Parts { of: parts, mount }: Parts) -> Result<(FuxiMaster, Agent), FuxiError> {
    let cluster =
        ClusterConfig::load(&parts.description).map_err(|error| FuxiError::Cluster(Box::new(error)))?;
    let access = parts.keys.access(directory::FUXI, Audit::to(&parts.data.join("audit.log")))?;
    let config = sched_server::Config {
        cluster,
        mount: mount.clone(),
        listen: parts.listen.clone(),
        access: access.clone(),
    };
    let master = FuxiMaster::start(config).await?;
    let channel = Client::new(master.address().clone(), access.transport());
    let node = nix::unistd::gethostname().map_err(|errno| FuxiError::Name(errno.into()))?;
    let node = node.to_string_lossy().into_owned();
    let mut config =
        sched_agent::Config::new(node, LOCATION.to_owned(), parts.data.join("agent"), mount, channel.into());
    config.environment = BTreeMap::from([
        ("FUXI_MASTER".to_owned(), master.address().to_string()),
        ("FUXI_CLUSTER".to_owned(), parts.description.display().to_string()),
    ]);
    let job = directory::FUXI_JOB.to_owned();
    config.keys =
        Some(KeyFolder { folder: parts.keys.folder().to_owned(), worker: job.clone(), job_master: job });
    match Agent::start(config).await {
        Ok(agent) => Ok((master, agent)),
        Err(error) => {
            master.shutdown().await;
            Err(error.into())
        }
    }
}
