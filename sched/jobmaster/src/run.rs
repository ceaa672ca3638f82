//! A job master's life: read the job and its journal, serve workers, lead, tell the master how it ended.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use kuafu::{Address, BindError, CancellationToken, Channel};
use sched_api::proto;
use sched_job::{Job, JobOutcome, PlanError, RecoverError, Settings};
use tokio::runtime::Handle;
use tokio::sync::watch;
use zhongkui_access::Access;

use crate::desired::Desired;
use crate::driver::{Driver, Parts, now};
use crate::input::{INPUTS_MAX, Input};
use crate::journal_file::{JournalFile, JournalFileError};
use crate::link::{Link, Over};
use crate::mailbox::Mailboxes;
use crate::outputs::Places;
use crate::planner::{self, PlanFileError, Planned};
use crate::work::Work;

/// What a job master is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    pub job: String,
    /// The grant it runs in.
    pub grant: u64,
    /// Where Pangu is mounted.
    pub mount: PathBuf,
    /// The job's directory, relative to the mount.
    pub directory: PathBuf,
    /// Where to serve workers: tcp://HOST:0, or unix:///PATH.
    pub listen: Address,
    /// Fuxi's master.
    pub master: Channel,
    pub access: Access,
}

/// Why a job is not led.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("make {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    PlanFile(#[from] PlanFileError),
    #[error(transparent)]
    Journal(#[from] JournalFileError),
    #[error("begin the job")]
    Plan(#[from] PlanError),
    #[error("go on with the job")]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("start the thread that leads the job")]
    Thread(#[source] io::Error),
    #[error("the thread that leads the job panicked")]
    Panicked,
}

/// Leads the job until it has ended, or until `stop`: then another process goes on.
///
/// # Errors
/// See [`RunError`]. The job has not ended: another process may lead it.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let directory = config.mount.join(&config.directory);
    for part in ["out", "log"] {
        let path = directory.join(part);
        fs::create_dir_all(&path).map_err(|source| RunError::Directory { path, source })?;
    }
    let planned = match planner::plan(&config.mount, &directory) {
        Ok(planned) => planned,
        Err(error) if error.retryable() => return Err(error.into()),
        Err(error) => return refuse(config, &error, &stop).await,
    };
    let Planned { plan, units, tasks, outputs } = planned;
    let (journal, records) = JournalFile::open(&directory.join("journal"), plan.fingerprint())?;
    let job = if records.is_empty() {
        Job::new(plan, Settings::default(), now())?
    } else {
        Job::recover(plan, Settings::default(), &records, now())?
    };
    let (inputs, queue) = sync_channel(INPUTS_MAX);
    let mail = Arc::new(Mailboxes::default());
    let work = Work {
        job: config.job.clone(),
        inputs: inputs.clone(),
        mail: Arc::clone(&mail),
        tasks: Arc::new(tasks),
    };
    let guard = config.access.guard().shows(&proto::WORK_METHODS, "Pull").build();
    let server =
        kuafu::Server::builder().authorizer(guard).service(proto::WorkServer::new(Arc::new(work))).build();
    let bound = server.bind(&config.listen).await?;
    let address = bound.local_address().to_string();
    let serving = tokio::spawn(bound.serve(stop.clone()));
    let (desired, desired_now) = watch::channel(Desired::default());
    let link = Link {
        master: config.master.clone(),
        job: config.job.clone(),
        grant: config.grant,
        address: address.clone(),
        desired: desired_now,
        inputs: inputs.clone(),
    };
    let mut link = tokio::spawn(link.run());
    let ending = desired.clone();
    let parts = Parts {
        job,
        journal,
        units,
        mail,
        desired,
        inputs: inputs.clone(),
        places: Arc::new(Places::new(directory.clone(), outputs)),
        directory,
        runtime: Handle::current(),
    };
    let thread = thread::Builder::new().name("job".to_owned());
    let leading = thread.spawn(move || Driver::new(parts).run(&queue)).map_err(RunError::Thread)?;
    let mut leading = tokio::task::spawn_blocking(move || leading.join());
    let over = tokio::select! {
        led = &mut leading => {
            let outcome = match led {
                Ok(Ok(outcome)) => outcome?,
                Ok(Err(_)) | Err(_) => return Err(RunError::Panicked),
            };
            let Some(outcome) = outcome else { return Ok(()) };
            tracing::info!(%outcome, "the job has ended");
            ending.send_modify(|desired| say_end(desired, &outcome));
            // Until the master has moved the directory; it keeps trying, and so does this.
            tokio::select! {
                over = &mut link => over.unwrap_or(Over::Replaced),
                () = stop.cancelled() => Over::Replaced,
            }
        }
        over = &mut link => {
            tracing::info!(?over, "the job is led by this process no more");
            let _gone = inputs.send(Input::Stop);
            over.unwrap_or(Over::Replaced)
        }
        () = stop.cancelled() => {
            let _gone = inputs.send(Input::Stop);
            Over::Replaced
        }
    };
    stop.cancel();
    // What it was serving has been answered, or will be asked again elsewhere.
    let _ended = serving.await;
    tracing::info!(?over, "this process ends");
    Ok(())
}

fn say_end(desired: &mut Desired, outcome: &JobOutcome) {
    let (end, why) = match outcome {
        JobOutcome::Done => (proto::JobEnd::Done, "done".to_owned()),
        JobOutcome::Failed { reason } => (proto::JobEnd::Failed, reason.clone()),
        JobOutcome::Killed { by } => (proto::JobEnd::Killed, format!("killed by {by}")),
    };
    desired.end = Some(end);
    desired.why = why;
    desired.wants.clear();
}

/// The job can not be begun: it has failed, and says why.
async fn refuse(config: Config, error: &PlanFileError, stop: &CancellationToken) -> Result<(), RunError> {
    let reason = sched_api::chain(error);
    tracing::warn!(reason, "the job can not be begun");
    let mut desired = Desired::default();
    say_end(&mut desired, &JobOutcome::Failed { reason });
    // The sender lives until the master has noted it.
    let (_sender, desired) = watch::channel(desired);
    let (inputs, _queue) = sync_channel(1);
    let (master, job, grant) = (config.master, config.job, config.grant);
    let link = Link { master, job, grant, address: "unix:///".to_owned(), desired, inputs };
    tokio::select! {
        _over = link.run() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}
