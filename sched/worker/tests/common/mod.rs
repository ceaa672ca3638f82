//! A job master that plays by the protocol and can be killed, and real workers beside it.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{Address, CancellationToken, Request, Response, Server, Status};
use parking_lot::Mutex;
use sched_api::proto::*;
use tokio::sync::Notify;

/// Long enough for a loaded machine, short enough for a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Name = (u32, u32, u32);

fn name(id: &AttemptId) -> Name {
    (id.task, id.instance, id.attempt)
}

/// What a job's masters have in common: what they would have written down.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) tasks: BTreeMap<u32, TaskDescription>,
    pub(crate) waiting: BTreeMap<Name, Vec<Piece>>,
    pub(crate) given: BTreeMap<Name, (u64, Vec<Piece>)>,
    pub(crate) results: BTreeMap<Name, Finished>,
    /// Results that came again after they had been acknowledged and said something else.
    pub(crate) contradictions: usize,
    pub(crate) cancel: BTreeSet<Name>,
    pub(crate) dismissed: bool,
    pub(crate) pulls: u64,
    /// Every so many replies is lost after all of it was done.
    pub(crate) lose_every: u64,
    /// Replies with news that nobody heard.
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Job {
    pub(crate) book: Mutex<Book>,
    pub(crate) news: Notify,
    /// What Fuxi's master answers.
    pub(crate) found: Mutex<FindJobReply>,
}

impl Job {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A task of a shell script.
    pub(crate) fn task(&self, task: u32, spec: &str) {
        let description = TaskDescription { task, spec: spec.to_owned().into(), sources: Vec::new() };
        self.book.lock().tasks.insert(task, description);
    }

    pub(crate) fn instances(&self, task: u32, instances: std::ops::Range<u32>) {
        self.book.lock().waiting.extend(instances.map(|instance| ((task, instance, 0), Vec::new())));
        self.news.notify_waiters();
    }

    pub(crate) fn cancel(&self, name: Name) {
        self.book.lock().cancel.insert(name);
        self.news.notify_waiters();
    }

    pub(crate) fn dismiss(&self) {
        self.book.lock().dismissed = true;
        self.news.notify_waiters();
    }

    pub(crate) async fn results(&self, count: usize) -> BTreeMap<Name, Finished> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let results = self.book.lock().results.clone();
            if results.len() >= count {
                return results;
            }
            assert!(Instant::now() < deadline, "{} of {count} results came", results.len());
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn result(&self, name: Name) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = self.book.lock().results.get(&name) {
                return result.clone();
            }
            assert!(Instant::now() < deadline, "{name:?} never ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What there is to say to a worker now.
    fn reply(&self, request: &PullRequest) -> PullReply {
        let mut book = self.book.lock();
        let book = &mut *book;
        let mut reply = PullReply { exit: book.dismissed, ..PullReply::default() };
        let mut held: BTreeSet<Name> = request.holds.iter().map(name).collect();
        for finished in &request.finished {
            let id = finished.attempt.unwrap();
            held.insert(name(&id));
            book.given.remove(&name(&id));
            let first = book.results.entry(name(&id)).or_insert_with(|| finished.clone());
            if first != finished {
                book.contradictions += 1;
            }
            reply.acknowledged.push(id);
        }
        // Given by a reply that was lost: once more.
        let lost: Vec<_> = book
            .given
            .iter()
            .filter(|(name, (grant, _))| *grant == request.grant && !held.contains(*name))
            .map(|(name, (_, input))| (*name, input.clone()))
            .collect();
        let room = (request.room as usize).saturating_sub(lost.len());
        let fresh: Vec<_> = book.waiting.keys().take(room).copied().collect();
        let fresh = fresh.into_iter().map(|name| {
            let input = book.waiting.remove(&name).unwrap();
            book.given.insert(name, (request.grant, input.clone()));
            (name, input)
        });
        let all: Vec<_> = fresh.collect::<Vec<_>>().into_iter().chain(lost).collect();
        for ((task, instance, attempt), input) in all {
            reply.work.push(Assignment { attempt: Some(AttemptId { task, instance, attempt }), input });
        }
        let known: BTreeSet<u32> = request.tasks_known.iter().copied().collect();
        let wanted: BTreeSet<u32> = reply.work.iter().map(|work| work.attempt.unwrap().task).collect();
        reply.tasks.extend(wanted.difference(&known).map(|task| book.tasks[task].clone()));
        let cancel = held.intersection(&book.cancel).copied();
        reply.cancel.extend(cancel.map(|(task, instance, attempt)| AttemptId { task, instance, attempt }));
        reply
    }
}

fn says_something(reply: &PullReply) -> bool {
    reply.exit || !reply.work.is_empty() || !reply.cancel.is_empty() || !reply.acknowledged.is_empty()
}

struct Service(Arc<Job>);

impl Work for Service {
    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullReply>, Status> {
        let deadline = Instant::now() + Duration::from_millis(request.message.wait_ms.into());
        let (loses, job) = (
            {
                let mut book = self.0.book.lock();
                book.pulls += 1;
                book.lose_every > 0 && book.pulls.is_multiple_of(book.lose_every)
            },
            &self.0,
        );
        loop {
            let news = job.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let reply = job.reply(&request.message);
            if loses && says_something(&reply) {
                job.book.lock().lost += 1;
                return Err(Status::unavailable("the reply is lost on its way"));
            }
            if says_something(&reply) || Instant::now() >= deadline {
                return Ok(Response::new(reply));
            }
            let _ = tokio::time::timeout_at(deadline.into(), news).await;
        }
    }
}

impl Fuxi for Service {
    async fn agent(&self, _: Request<AgentRequest>) -> Result<Response<AgentReply>, Status> {
        Err(Status::permission_denied("a worker has nothing to ask here"))
    }
    async fn job(&self, _: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Err(Status::permission_denied("a worker has nothing to ask here"))
    }
    async fn find_job(&self, _: Request<FindJobRequest>) -> Result<Response<FindJobReply>, Status> {
        Ok(Response::new(self.0.found.lock().clone()))
    }
    async fn overview(&self, _: Request<OverviewRequest>) -> Result<Response<OverviewReply>, Status> {
        Err(Status::permission_denied("a worker has nothing to ask here"))
    }
}

/// A server of somebody's, until it is dropped.
pub(crate) struct Serving {
    pub(crate) address: Address,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    async fn start(server: Server, socket: PathBuf) -> Self {
        let address: Address = format!("unix://{}", socket.display()).parse().unwrap();
        let bound = server.bind(&address).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.serve(stop.clone()));
        Self { address, stop, task }
    }

    /// A master of the job.
    pub(crate) async fn job_master(job: &Arc<Job>, socket: PathBuf) -> Self {
        let server = Server::builder().service(WorkServer::new(Arc::new(Service(Arc::clone(job))))).build();
        Self::start(server, socket).await
    }

    /// Fuxi's master, which only knows where the job's is.
    pub(crate) async fn master(job: &Arc<Job>, socket: PathBuf) -> Self {
        let server = Server::builder().service(FuxiServer::new(Arc::new(Service(Arc::clone(job))))).build();
        Self::start(server, socket).await
    }

    /// All connections are cut, as when the process dies.
    pub(crate) fn kill(self) {
        self.task.abort();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A worker's process.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn start(dir: &Path, grant: u64, settings: &[(&str, String)]) -> Self {
        Self::start_in(&dir.join("mount"), dir, grant, settings)
    }

    pub(crate) fn start_in(mount: &Path, dir: &Path, grant: u64, settings: &[(&str, String)]) -> Self {
        let scratch = dir.join(format!("scratch-{grant}"));
        std::fs::create_dir_all(mount.join("spool/q/run/job")).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        let log = std::fs::File::create(dir.join(format!("worker-{grant}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_fuxi-worker"))
            .env("FUXI_JOB", "job")
            .env("FUXI_GRANT", grant.to_string())
            .env("FUXI_NODE", "node")
            .env("FUXI_MOUNT", mount)
            .env("FUXI_DIRECTORY", "spool/q/run/job")
            .env("FUXI_SCRATCH", &scratch)
            .envs(settings.iter().map(|(key, value)| (*key, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) async fn ends(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker never ended");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that have this text in their command line.
pub(crate) fn processes(marker: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}
