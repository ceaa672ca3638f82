//! The agent's loop: one owner of all state, which takes answers, ends of programs, the time, and the order to stop.

mod start;
mod takeover;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kuafu::{Backoff, CallOptions, RetryPolicy, Status as CallStatus};
use sched_api::proto::{self, AgentReply, AgentRequest, FuxiClient};
use tokio::sync::mpsc;

use crate::agent::{AgentError, Containers};
use crate::cgroup::{self, Controller, Detected};
use crate::config::Config;
use crate::container::{self, Container, Status};
use crate::memory;
use crate::order::{Grant, Order};
use crate::process;
use crate::record::Record;
use crate::store::Store;
use crate::table::{Action, End, Orders, Phase, Table};

/// How long a request waits at the master, and how much longer for its answer.
const WAIT: Duration = Duration::from_secs(20);
const MARGIN: Duration = Duration::from_secs(10);
/// Pauses while the master does not answer.
const PAUSES: RetryPolicy = RetryPolicy { first: Duration::from_millis(20), max: Duration::from_secs(2) };
/// While something runs: how exactly the grace is kept.
const TICK: Duration = Duration::from_millis(100);
/// Memory and logs are looked at every so many ticks.
const WATCH_TICKS: u32 = 10;
/// Ends of programs that are not taken in yet: more wait where they are.
const EVENTS_MAX: usize = 64;

type Call = Pin<Box<dyn Future<Output = Result<AgentReply, CallStatus>> + Send>>;

/// A program has ended, and nothing of it is left.
#[derive(Debug)]
struct Ended {
    grant: Grant,
    status: Status,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Work {
    config: Config,
    store: Store,
    table: Table,
    containers: BTreeMap<Grant, Container>,
    limits: Detected,
    warning: String,
    /// Names this agent in its programs' environments.
    mark: String,
    boot: String,
    begun: Instant,
    client: FuxiClient,
    ended: mpsc::Sender<Ended>,
    events: mpsc::Receiver<Ended>,
}

impl Work {
    /// Opens the data directory, finds out what can be limited, and takes over what runs.
    pub(crate) async fn begin(config: Config) -> Result<Self, AgentError> {
        let store = Store::open(&config.data)?;
        let boot = process::boot_id().map_err(AgentError::Boot)?;
        let mark =
            format!("{}-{:08x}", config.node, crc32c::crc32c(store.root().as_os_str().as_encoded_bytes()));
        let limits = cgroup::detect(config.cgroups, &format!("fuxi-{mark}"));
        let warning = warning(&limits);
        if !warning.is_empty() {
            tracing::warn!(warning, "not all limits are kept as they should be");
        }
        let (ended, events) = mpsc::channel(EVENTS_MAX);
        let mut work = Self {
            table: Table::new(u64::try_from(config.grace.as_millis()).unwrap_or(u64::MAX)),
            client: FuxiClient::new(config.master.clone()),
            containers: BTreeMap::new(),
            config,
            store,
            limits,
            warning,
            mark,
            boot,
            begun: Instant::now(),
            ended,
            events,
        };
        work.take_over()?;
        Ok(work)
    }

    pub(crate) fn warning(&self) -> &str {
        &self.warning
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, mut stop: mpsc::Receiver<Containers>) {
        let mut pauses = PAUSES.pauses();
        let mut failing = false;
        let mut ticks = 0u32;
        let mut call = self.ask();
        loop {
            let busy = self.table.is_busy();
            tokio::select! {
                result = &mut call => match result {
                    Ok(reply) => {
                        if failing {
                            tracing::info!("the master answers again");
                        }
                        failing = false;
                        pauses.reset();
                        self.obey(reply);
                        call = self.ask();
                    }
                    Err(status) => {
                        if !failing {
                            tracing::warn!(%status, "the master does not answer; what runs goes on");
                        }
                        failing = true;
                        call = self.ask_later(&mut pauses, &status);
                    }
                },
                Some(ended) = self.events.recv() => {
                    self.note_end(ended);
                    // What the request in flight says is old. Not while the master is away: it is asked in its time.
                    if !failing {
                        call = self.ask();
                    }
                }
                () = tokio::time::sleep(TICK), if busy => {
                    ticks = ticks.wrapping_add(1);
                    self.tick(ticks).await;
                }
                how = stop.recv() => {
                    drop(call);
                    if how == Some(Containers::Stop) {
                        self.stop_all().await;
                    }
                    self.limits.remove();
                    return;
                }
            }
        }
    }

    fn request(&self) -> AgentRequest {
        let mut request = AgentRequest {
            node: self.config.node.clone(),
            incarnation: self.store.incarnation(),
            location: self.config.location.clone(),
            capacity: Some(proto::Resources { amounts: self.config.capacity.clone().into_iter().collect() }),
            seen_version: self.table.seen_version(),
            wait_ms: u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX),
            warning: self.warning.clone(),
            ..AgentRequest::default()
        };
        for (grant, entry) in self.table.entries() {
            let job = entry.order.job.clone();
            match &entry.phase {
                Phase::Running(process) | Phase::Stopping { process, .. } => {
                    request.running.push(proto::Container {
                        grant: grant.0,
                        job,
                        pid: process.map_or(0, |process| u32::try_from(process.pid).unwrap_or(0)),
                        started_unix_ms: entry.started_unix_ms,
                        unit: entry.order.unit,
                        limits: Some(proto::Resources {
                            amounts: entry.order.limits.clone().into_iter().collect(),
                        }),
                    })
                }
                Phase::Ended { end, acknowledged: false } => request.ended.push(proto::Ended {
                    grant: grant.0,
                    job,
                    code: end.code,
                    how: end.how.clone(),
                    out_of_memory: end.out_of_memory,
                }),
                Phase::Ended { .. } => {}
            }
        }
        request
    }

    fn ask(&self) -> Call {
        let (client, request) = (self.client.clone(), self.request());
        Box::pin(async move {
            client.agent(&request, &CallOptions::within(WAIT + MARGIN)).await.map(|response| response.message)
        })
    }

    fn ask_later(&self, pauses: &mut Backoff, status: &CallStatus) -> Call {
        let pause = pauses.next_pause(status);
        let mut next = Some((self.client.clone(), self.request()));
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let Some((client, request)) = next.take() else {
                return Err(CallStatus::cancelled("asked twice"));
            };
            client.agent(&request, &CallOptions::within(WAIT + MARGIN)).await.map(|response| response.message)
        })
    }

    fn obey(&mut self, reply: AgentReply) {
        let mut orders = Orders {
            version: reply.version,
            acknowledged: reply.acknowledged.into_iter().map(Grant).collect(),
            recovering: reply.recovering,
            ..Orders::default()
        };
        for order in reply.orders {
            let grant = Grant(order.grant);
            match Order::try_from(order) {
                Ok(order) => orders.orders.push(order),
                Err(error) => {
                    tracing::warn!(%error, "an order is not carried out");
                    orders.not_understood.insert(grant);
                }
            }
        }
        let actions = self.table.apply(orders, self.now_ms(), unix_ms());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(order) => self.start(&order),
                Action::Terminate(grant) => {
                    tracing::info!(%grant, "stopping");
                    if let Some(container) = self.containers.get(&grant) {
                        container.terminate();
                    }
                }
                Action::Kill(grant) => {
                    tracing::info!(%grant, "killing: it did not stop");
                    if let Some(container) = self.containers.get(&grant) {
                        let target = container.target.clone();
                        drop(tokio::task::spawn_blocking(move || target.sweep()));
                    }
                }
                Action::Note(grant) => self.write(grant),
                Action::Forget(grant) => {
                    if let Err(error) = self.store.forget(grant) {
                        tracing::warn!(%error, "what is left of a grant cannot be removed");
                    }
                }
            }
        }
    }

    /// Writes down where a grant stands. What cannot be written is told all the same: only the next agent would not know it.
    fn write(&self, grant: Grant) {
        let Some(entry) = self.table.get(grant) else { return };
        if let Err(error) = self.store.write(&Record::of(entry, &self.boot)) {
            tracing::error!(%error, %grant, "a grant's state cannot be written");
        }
    }

    fn note_end(&mut self, Ended { grant, status }: Ended) {
        let Some(container) = self.containers.remove(&grant) else { return };
        let kills = container::oom_kills(&self.oom_file(&container));
        let end = container::end(status, &container.folder, container.memory_bytes, kills);
        container.target.group.remove();
        self.finish(grant, end);
    }

    fn finish(&mut self, grant: Grant, end: End) {
        tracing::info!(%grant, code = end.code, how = end.how, "ended");
        self.table.ended(grant, end);
        self.write(grant);
    }

    fn oom_file(&self, container: &Container) -> std::path::PathBuf {
        container.target.group.oom_file().unwrap_or_else(|| container.folder.join("oom"))
    }

    async fn tick(&mut self, ticks: u32) {
        let actions = self.table.tick(self.now_ms());
        self.act(actions);
        if !ticks.is_multiple_of(WATCH_TICKS) {
            return;
        }
        for container in self.containers.values() {
            if let Err(error) = container::bound_log(&container.folder, self.config.log_bytes_max) {
                tracing::debug!(%error, grant = %container.target.grant, "a log cannot be cut");
            }
        }
        if !self.limits.has(Controller::Memory) {
            self.watch_memory().await;
        }
    }

    /// Kills what uses more memory than it was granted. Counted before it is killed: whoever sees the kill then sees why.
    async fn watch_memory(&self) {
        let limited =
            self.containers.values().filter_map(|container| Some((container, container.memory_bytes?)));
        let limited: Vec<_> = limited.collect();
        if limited.is_empty() {
            return;
        }
        let Ok(all) = tokio::task::spawn_blocking(process::all).await else { return };
        for (container, limit_bytes) in limited {
            let victims = memory::judge(&all, container.process, limit_bytes, process::proportional_bytes);
            let Some(victims) = victims else { continue };
            let file = container.folder.join("oom");
            let text = format!("oom_kill {}\n", container::oom_kills(&file) + 1);
            if let Err(error) = std::fs::write(&file, text) {
                tracing::warn!(%error, file = %file.display(), "a kill for want of memory cannot be counted");
            }
            tracing::info!(
                grant = %container.target.grant,
                used_mib = victims.used_bytes >> 20,
                limit_mib = limit_bytes >> 20,
                processes = ?victims.pids,
                "out of memory"
            );
            for pid in victims.pids {
                // SAFETY: kill takes no pointers. The number was seen among the grant's a moment ago.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }

    async fn stop_all(&mut self) {
        let actions = self.table.stop_all(self.now_ms());
        self.act(actions);
        while self.table.is_busy() {
            tokio::select! {
                Some(ended) = self.events.recv() => self.note_end(ended),
                () = tokio::time::sleep(TICK) => {
                    let actions = self.table.tick(self.now_ms());
                    self.act(actions);
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// For people: what is not limited as it should be, and what is done instead.
fn warning(limits: &Detected) -> String {
    let instead = |controller| match controller {
        Controller::Cpu => "cpu is not limited",
        Controller::Memory => "memory is watched each second, which a program can outrun",
        Controller::Pids => "processes are limited by user, and not at all for root",
    };
    let texts = limits.missing.iter().map(|(controller, why)| format!("{} ({why})", instead(*controller)));
    texts.collect::<Vec<_>>().join("; ")
}
