//! A master that plays by the protocol and loses replies, and a real agent beside it whose "workers" are shell scripts.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu::{Address, CancellationToken, Request, Response, Server, Status};
use sched_api::proto::*;
use std::sync::Mutex;
use tokio::sync::Notify;

/// Long enough for a loaded machine, short enough for a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) orders: BTreeMap<u64, Order>,
    pub(crate) recovering: bool,
    pub(crate) ended: BTreeMap<u64, Ended>,
    /// Times a grant's end was told.
    pub(crate) told: BTreeMap<u64, u32>,
    pub(crate) last: AgentRequest,
    pub(crate) requests: u64,
    pub(crate) lose_every: u64,
    /// Ends are heard and not acknowledged.
    pub(crate) deaf: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Master {
    pub(crate) state: Mutex<State>,
    news: Notify,
}

impl Master {
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        state.version += 1;
        self.news.notify_waiters();
    }

    pub(crate) fn order(&self, grant: u64, memory_mib: u64) {
        let amounts = [("cpu".to_owned(), 500), ("memory".to_owned(), memory_mib)].into();
        let order = Order {
            grant,
            job: format!("job-{grant}"),
            limits: Some(Resources { amounts }),
            program: Program::Worker.into(),
            directory: "spool/q/run/job".into(),
            unit: 1,
            ..Order::default()
        };
        self.change(|state| {
            state.orders.insert(grant, order);
        });
    }

    pub(crate) fn withdraw(&self, grant: u64) {
        self.change(|state| {
            state.orders.remove(&grant);
        });
    }

    pub(crate) async fn until<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.state.lock().unwrap()) {
                return found;
            }
            assert!(Instant::now() < deadline, "never came true: {what}: {:?}", self.state.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn ended(&self, grant: u64) -> Ended {
        self.until("the end is told", |state| state.ended.get(&grant).cloned()).await
    }

    pub(crate) async fn runs(&self, grant: u64) -> u32 {
        let pid = |state: &State| {
            let container = state.last.running.iter().find(|container| container.grant == grant)?;
            (container.pid != 0).then_some(container.pid)
        };
        self.until("it runs", pid).await
    }
}

struct Service(Arc<Master>);

impl Fuxi for Service {
    async fn agent(&self, request: Request<AgentRequest>) -> Result<Response<AgentReply>, Status> {
        let request = request.message;
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms.into());
        let mut acknowledged = Vec::new();
        let loses = {
            let mut state = self.0.state.lock().unwrap();
            state.requests += 1;
            for ended in &request.ended {
                *state.told.entry(ended.grant).or_default() += 1;
                state.ended.entry(ended.grant).or_insert_with(|| ended.clone());
                if !state.deaf {
                    state.orders.remove(&ended.grant);
                    acknowledged.push(ended.grant);
                }
            }
            state.last = request.clone();
            state.lose_every > 0 && state.requests.is_multiple_of(state.lose_every)
        };
        loop {
            let news = self.0.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let state = self.0.state.lock().unwrap();
                let changed = state.version != request.seen_version || !acknowledged.is_empty();
                if changed || Instant::now() >= deadline {
                    if loses {
                        return Err(Status::unavailable("the reply is lost on its way"));
                    }
                    return Ok(Response::new(AgentReply {
                        version: state.version,
                        orders: state.orders.values().cloned().collect(),
                        acknowledged,
                        recovering: state.recovering,
                    }));
                }
            }
            let _ = tokio::time::timeout_at(deadline.into(), news).await;
        }
    }
    async fn job(&self, _: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Err(Status::permission_denied("an agent has nothing to ask here"))
    }
    async fn find_job(&self, _: Request<FindJobRequest>) -> Result<Response<FindJobReply>, Status> {
        Err(Status::permission_denied("an agent has nothing to ask here"))
    }
    async fn overview(&self, _: Request<OverviewRequest>) -> Result<Response<OverviewReply>, Status> {
        Err(Status::permission_denied("an agent has nothing to ask here"))
    }
}

/// A server, until it is dropped.
pub(crate) struct Serving {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    pub(crate) async fn start(master: &Arc<Master>, dir: &Path) -> Self {
        let keys = zhongkui_access::KeyDirectory::at(dir.join("keys"));
        let access = keys.access(zhongkui_access::directory::MASTER, zhongkui_access::Audit::none()).unwrap();
        let guard = access.guard().asks_itself(&FUXI_METHODS).build();
        let service = FuxiServer::new(Arc::new(Service(Arc::clone(master))));
        let server = Server::builder().authorizer(guard).service(service).build();
        let bound = server.bind(&address(dir)).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.serve(stop.clone()));
        Self { stop, task }
    }

    /// All connections are cut, as when the process dies.
    pub(crate) async fn kill(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn address(dir: &Path) -> Address {
    format!("unix://{}", dir.join("master.sock").display()).parse().unwrap()
}

/// A cluster with one agent.
pub(crate) struct Setup {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) master: Arc<Master>,
    pub(crate) serving: Option<Serving>,
    agent: Option<Child>,
    more: Vec<String>,
}

impl Setup {
    /// Every grant runs this script.
    pub(crate) async fn new(worker: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("mount/spool/q/run/job")).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let program = dir.path().join("bin/fuxi-worker");
        std::fs::write(&program, format!("#!/bin/sh\n{worker}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        zhongkui_access::KeyDirectory::at(dir.path().join("keys")).init().unwrap();
        let description = "name = \"test\"\nmasters = [\"tcp://127.0.0.1:1\"]\n";
        std::fs::write(dir.path().join("cluster.toml"), description).unwrap();
        let master = Arc::new(Master::default());
        master.state.lock().unwrap().version = 1;
        let serving = Some(Serving::start(&master, dir.path()).await);
        let more = more.iter().map(|&flag| flag.to_owned()).collect();
        let mut setup = Self { dir, master, serving, agent: None, more };
        setup.start_agent();
        setup
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start_agent(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log")).unwrap();
        let flag = |name: &str, path: &str| [name.to_owned(), self.path(path).display().to_string()];
        let agent = Command::new(env!("CARGO_BIN_EXE_fuxi-agent"))
            .args(flag("--data", "data"))
            .args(flag("--mount", "mount"))
            .args(flag("--cluster", "cluster.toml"))
            .args(flag("--programs", "bin"))
            .args(["--location", "/r/k/h", "--node", "node-1", "--resource", "gpu=2", "--grace", "1"])
            .args(["--key-name", "admin", "--worker-key", "admin", "--job-master-key", "admin"])
            .arg("--master")
            .arg(address(self.dir.path()).to_string())
            .args(&self.more)
            .env("DIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // To the agent's end with all it runs, whatever became of the test.
        if self.agent.is_some() {
            self.kill_agent();
        }
        for grant in std::fs::read_dir(self.path("data/grants")).into_iter().flatten().flatten() {
            for pid in
                processes(&format!("FUXI_GRANT={}", grant.file_name().to_str().unwrap()), &self.path("data"))
            {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
        // What a killed agent leaves in the kernel, the next one of its directory would have used.
        let data = self.path("data").canonicalize().unwrap();
        let name = format!("fuxi-node-1-{:08x}", crc32c::crc32c(data.as_os_str().as_encoded_bytes()));
        for controller in ["cpu", "pids"] {
            let group = PathBuf::from("/sys/fs/cgroup").join(controller).join(&name);
            for grant in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(grant.path());
            }
            let _ = std::fs::remove_dir(&group);
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{log}");
        } else {
            assert!(!log.contains(" ERROR "), "{log}");
        }
    }
}

/// Processes with this in their environment, whose scratch is below `data`.
pub(crate) fn processes(pair: &str, data: &Path) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let scratch = format!("FUXI_SCRATCH={}", data.display());
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let entries: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            entries.iter().any(|entry| entry == pair)
                && entries.iter().any(|entry| entry.starts_with(&scratch))
        })
        .collect()
}
