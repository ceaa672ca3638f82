//! Clients: the real chunk client of `fs-client` (`ReplicatedChunks`), over this simulation's network and time, and what they do
//! with it. Their futures are polled by hand, in the order they were woken.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_api::{ChunkError, Map, Punch, RaiseFence, Read, ReadData, Write, Written, checksum};
use coord_types::{BLOCK_SIZE, Fence, SessionId};
use fs_client::chunks::{
    ChunkRead, ChunkWrite, Chunks as _, ErrorLog, Members, ReplicatedChunks, RetryPauses,
};
use futures::future::BoxFuture;
use master_model::{Table, proto};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock::{MS, Micros, Sleepers};
use crate::dice::Dice;
use crate::disk::block_id;
use crate::message::{About, Answer, End, Failure, Reply, Request, chunk_error};
use crate::oracle::{Cover, RegisterId, Shared};
use crate::server::at_address;
use crate::world::{Event, World};

const CHUNK_SIZE: u32 = 128 << 10;
const BLOCK: u32 = BLOCK_SIZE as u32;
/// Tasks of one client; each writes two blocks of every chunk.
const TASKS: u32 = 4;
const TABLE_WAIT_MS: u64 = 2000;
const CALL_TIMEOUT: Micros = 1000 * MS;
const PAUSES: RetryPauses = RetryPauses { min: Duration::from_millis(5), max: Duration::from_millis(250) };

/// Futures that are polled by hand.
#[derive(Default)]
pub(crate) struct Tasks {
    tasks: Vec<Option<BoxFuture<'static, ()>>>,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

struct Alarm {
    task: usize,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.lock();
        if !woken.contains(&self.task) {
            woken.push_back(self.task);
        }
    }
}

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.woken.lock().push_back(self.tasks.len());
        self.tasks.push(Some(Box::pin(task)));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.iter().all(Option::is_none)
    }

    pub(crate) fn running(&self) -> usize {
        self.tasks.iter().flatten().count()
    }

    /// Polls the next that was woken. Whether there was one.
    pub(crate) fn poll_ready(&mut self) -> bool {
        let Some(task) = self.woken.lock().pop_front() else { return false };
        let Some(future) = &mut self.tasks[task] else { return true };
        let waker = Waker::from(Arc::new(Alarm { task, woken: self.woken.clone() }));
        if Pin::new(future).poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks[task] = None;
        }
        true
    }
}

/// What a client's future wants sent.
struct Outgoing {
    address: Option<String>,
    request: Request,
    timeout: Micros,
    reply: oneshot::Sender<Result<Reply, ChunkError>>,
}

struct Inside {
    outgoing: Mutex<Vec<Outgoing>>,
    dice: Mutex<Dice>,
    session: Mutex<Option<SessionId>>,
    table: Mutex<Arc<Table>>,
    /// There is a newer table. (A `watch` wakes in an order of its own chance.)
    newer: Notify,
}

/// One client.
pub(crate) struct Client {
    at: usize,
    inside: Arc<Inside>,
    chunks: Arc<ReplicatedChunks<SimMembers>>,
    master: usize,
    failures: u32,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(at: usize, origin: Instant, sleepers: Arc<Sleepers>, seed: u64) -> Self {
        let inside = Arc::new(Inside {
            outgoing: Mutex::default(),
            dice: Mutex::new(Dice::new(seed)),
            session: Mutex::default(),
            table: Mutex::default(),
            newer: Notify::new(),
        });
        let members = SimMembers { inside: inside.clone(), sleepers, origin };
        let chunks = Arc::new(ReplicatedChunks::new(members, PAUSES, Arc::new(ErrorLog::default())));
        Self { at, inside, chunks, master: 0, failures: 0 }
    }

    pub(crate) fn session(&self, session: SessionId) {
        *self.inside.session.lock() = Some(session);
    }

    pub(crate) fn table_version(&self) -> u64 {
        self.inside.table.lock().version
    }
}

/// The chunkservers, as this client reaches them.
struct SimMembers {
    inside: Arc<Inside>,
    sleepers: Arc<Sleepers>,
    origin: Instant,
}

impl SimMembers {
    async fn ask(&self, address: &str, request: Request, timeout: Duration) -> Result<Reply, ChunkError> {
        let (reply, answer) = oneshot::channel();
        let timeout = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let address = Some(address.to_owned());
        self.inside.outgoing.lock().push(Outgoing { address, request, timeout, reply });
        let gone = || ChunkError::Unavailable { message: "the connection broke".to_owned() };
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Members for SimMembers {
    fn table(&self) -> Arc<Table> {
        self.inside.table.lock().clone()
    }

    fn newer_table(&self, known_version: u64) -> BoxFuture<'_, Arc<Table>> {
        Box::pin(async move {
            loop {
                let newer = self.inside.newer.notified();
                tokio::pin!(newer);
                newer.as_mut().enable();
                let table = self.table();
                if table.version > known_version {
                    return table;
                }
                newer.await;
            }
        })
    }

    fn report(&self, address: &str) {
        let table = self.table();
        let Some(server) = table.servers().find(|server| server.address == address) else { return };
        let (reply, _) = oneshot::channel();
        let request = Request::Report(server.id);
        self.inside.outgoing.lock().push(Outgoing { address: None, request, timeout: CALL_TIMEOUT, reply });
    }

    fn refresh(&self, known_version: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let request = Request::GetTable(proto::GetTableRequest { known_version, ..Default::default() });
            self.inside.outgoing.lock().push(Outgoing {
                address: None,
                request,
                timeout: CALL_TIMEOUT,
                reply,
            });
            // Failing is as good: who asked tries again.
            if let Ok(Ok(Reply::Table(Some(table)))) = answer.await {
                adopt(&self.inside, &table);
            }
        })
    }

    fn session(&self) -> BoxFuture<'_, Option<SessionId>> {
        let session = *self.inside.session.lock();
        Box::pin(std::future::ready(session))
    }

    fn write<'a>(
        &'a self,
        address: &'a str,
        write: &'a Write,
        data: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        Box::pin(async move {
            match self.ask(address, Request::Write { write: write.clone(), data }, timeout).await? {
                Reply::Written(written) => Ok(written),
                other => panic!("{other:?}"),
            }
        })
    }

    fn punch<'a>(
        &'a self,
        _: &'a str,
        _: &'a Punch,
        _: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        panic!("the workload does not punch")
    }

    fn raise_fence<'a>(
        &'a self,
        _: &'a str,
        _: &'a RaiseFence,
        _: Duration,
    ) -> BoxFuture<'a, Result<(), ChunkError>> {
        panic!("the workload does not fence")
    }

    fn read<'a>(
        &'a self,
        address: &'a str,
        read: &'a Read,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ReadData, ChunkError>> {
        Box::pin(async move {
            match self.ask(address, Request::Read { read: *read }, timeout).await? {
                Reply::Data(data) => Ok(data),
                other => panic!("{other:?}"),
            }
        })
    }

    fn map<'a>(
        &'a self,
        _: &'a str,
        _: &'a Map,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<(u32, u32)>, ChunkError>> {
        panic!("the workload does not map")
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.sleepers.now())
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.sleepers.sleep(time))
    }

    fn jitter(&self) -> f64 {
        self.inside.dice.lock().below(1000) as f64 / 1000.0
    }
}

fn adopt(inside: &Inside, table: &Arc<Table>) {
    let mut known = inside.table.lock();
    if table.version > known.version {
        *known = table.clone();
        drop(known);
        inside.newer.notify_waiters();
    }
}

/// One task's work: writes its own registers, reads everybody's.
struct Worker {
    chunks: Arc<ReplicatedChunks<SimMembers>>,
    sleepers: Arc<Sleepers>,
    oracle: Shared,
    dice: Dice,
    /// Its number among all tasks of all clients, and how many there are.
    task: u32,
    tasks: u32,
}

impl Worker {
    async fn work(mut self) {
        while !self.oracle.lock().stopped {
            let pause = if self.dice.chance(100) { 300 * MS } else { 15 * MS };
            let pause = self.dice.between(MS, pause);
            self.sleepers.sleep(Duration::from_micros(pause)).await;
            let keys = self.oracle.lock().keys.clone();
            let Some(key) = self.dice.pick(&keys) else { return };
            if self.dice.chance(550) {
                self.write((key, self.task)).await;
            } else {
                let of = u32::try_from(self.dice.below(u64::from(self.tasks))).expect("few tasks");
                self.read((key, of)).await;
            }
        }
    }

    async fn write(&mut self, register: RegisterId) {
        let cover = match self.dice.below(3) {
            0 => Cover { first: true, second: false },
            1 => Cover { first: false, second: true },
            _ => Cover { first: true, second: true },
        };
        let id = self.oracle.lock().begin_write(register, cover);
        let blocks = u32::from(cover.first) + u32::from(cover.second);
        let offset_bytes = 2 * register.1 * BLOCK + if cover.first { 0 } else { BLOCK };
        let mut data = vec![id as u8; (blocks * BLOCK) as usize];
        data.chunks_mut(BLOCK_SIZE).for_each(|block| block[..8].copy_from_slice(&id.to_le_bytes()));
        let write = ChunkWrite {
            key: register.0,
            offset_bytes,
            block_crcs: checksum::piece_crcs(offset_bytes, &data),
            data: data.into(),
            chunk_size_bytes: CHUNK_SIZE,
            fence: Fence::NONE,
        };
        match self.chunks.write(write).await {
            Ok(_) => self.oracle.lock().end_write(register),
            Err(error) => self.failed(format!("write {id} of {register:?} ended: {error}")),
        }
    }

    async fn read(&self, register: RegisterId) {
        let oldest = self.oracle.lock().begin_read(register);
        let read = ChunkRead { key: register.0, offset_bytes: 2 * register.1 * BLOCK, len_bytes: 2 * BLOCK };
        match self.chunks.read(read).await {
            Ok(data) => {
                let data = data.unwrap_or_default();
                let state = (block_id(&data), block_id(data.get(BLOCK_SIZE..).unwrap_or_default()));
                self.oracle.lock().end_read(register, oldest, state);
            }
            Err(error) => self.failed(format!("a read of {register:?} ended: {error}")),
        }
    }

    /// No fault that is injected here is one a program may see.
    fn failed(&self, what: String) {
        self.oracle.lock().error.get_or_insert(("no errors", what));
    }
}

impl World {
    fn worker(&mut self, client: usize, task: u32) -> Worker {
        Worker {
            chunks: self.clients[client].chunks.clone(),
            sleepers: self.sleepers.clone(),
            oracle: self.oracle.clone(),
            dice: Dice::new(self.dice.next()),
            task,
            tasks: self.clients.len() as u32 * TASKS,
        }
    }

    pub(crate) fn start_work(&mut self) {
        for client in 0..self.clients.len() {
            for task in 0..TASKS {
                let worker = self.worker(client, client as u32 * TASKS + task);
                self.tasks.spawn(worker.work());
            }
        }
    }

    /// Every register is read once more.
    pub(crate) fn read_everything(&mut self) {
        let registers = self.oracle.lock().registers();
        for register in registers {
            let client = self.dice.index(self.clients.len());
            let worker = self.worker(client, 0);
            self.tasks.spawn(async move { worker.read(register).await });
        }
    }

    /// What the clients' futures want sent.
    pub(crate) fn send_outgoing(&mut self) {
        for client in 0..self.clients.len() {
            let outgoing = std::mem::take(&mut *self.clients[client].inside.outgoing.lock());
            for Outgoing { address, request, timeout, reply } in outgoing {
                let to = match address {
                    Some(address) => at_address(&address).map(End::Server),
                    None => Some(End::Master(self.clients[client].master)),
                };
                if let Some(to) = to {
                    self.call(End::Client(client), to, request, About::ClientCall(reply), timeout);
                }
            }
        }
    }

    /// Holds a call for the next table at the leader, as `master-api`'s client does.
    pub(crate) fn client_follow(&mut self, client: usize) {
        let known_version = self.clients[client].table_version();
        let request = proto::GetTableRequest { known_version, wait_ms: TABLE_WAIT_MS, ..Default::default() };
        let to = End::Master(self.clients[client].master);
        let timeout = TABLE_WAIT_MS * MS + CALL_TIMEOUT;
        self.call(End::Client(client), to, Request::GetTable(request), About::ClientFollow, timeout);
    }

    pub(crate) fn client_answered(&mut self, client: usize, about: About, answer: Answer) {
        match about {
            About::ClientCall(reply) => {
                // Who asked may have gone on.
                let _ = reply.send(answer.map_err(chunk_error));
            }
            About::ClientFollow => {
                let masters = self.masters.len();
                let known = &mut self.clients[client];
                let pause = match answer {
                    Ok(Reply::Table(table)) => {
                        known.failures = 0;
                        if let Some(table) = table {
                            adopt(&known.inside, &table);
                        }
                        0
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(failure) => {
                        known.failures += 1;
                        known.master = match failure {
                            Failure::NotLeader(Some(hint)) => hint,
                            _ => (known.master + 1) % masters,
                        };
                        if (known.failures as usize).is_multiple_of(masters) { 50 * MS } else { MS }
                    }
                };
                self.at(self.now + pause, Event::ClientFollow { client });
            }
            _ => {}
        }
    }
}
