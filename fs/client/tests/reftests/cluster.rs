//! A cluster in memory: the master's own core over a store in memory, and chunkservers that delay, reorder, lose answers,
//! deliver twice and late, and go away.
//!
//! What it checks by itself: a client never has two overlapping writes to a chunk in flight, every checksum fits its
//! bytes, at most 32 writes of one chunk are unanswered, and the master's own invariants.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chunkserver_api::checksum::piece_crcs;
use chunkserver_api::{ChunkError, Map, Punch, RaiseFence, Read, ReadData, Write, Written};
use coord_kv::{Durability, Kv as _, MemKv};
use coord_types::{BLOCK_SIZE, ChunkKey, Epoch, Fence, InodeId, SessionId, Stamp, Version};
use fs_client::chunks::{ErrorLog, Members, ReplicatedChunks, RetryPauses};
use fs_client::meta::{Meta, SessionCallback};
use fs_client::{ClientConfig, Errno, FileSystem};
use futures::future::BoxFuture;
use master_api::model::{Answer, Mutated, Mutation, Query, Table};
use master_api::{convert, proto};
use master_core::access;
use master_core::command::{self, Command, CommandReply, Context, Initialize};
use master_core::session::Ended;
use master_core::within;
use parking_lot::Mutex;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Notify;

use crate::chunk::{Change, Chunk};

const CHUNK: usize = 8 << 20;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Of a thousand calls, so many fail in one of the ways of a network.
    pub(crate) per_mille: u32,
    /// How often a call lets others run before it does anything, at most.
    pub(crate) delay_max: u32,
    /// All chunkservers refuse connections.
    pub(crate) away: bool,
    /// Writes are refused for lack of space.
    pub(crate) full: bool,
    /// Punches are refused for good.
    pub(crate) no_punch: bool,
    /// Every copy has a wrong checksum.
    pub(crate) damaged: bool,
    /// Writes are taken and neither done nor answered.
    pub(crate) stuck: bool,
    /// Whatever changes something is refused, by masters and chunkservers: the right was taken back.
    pub(crate) denied: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) mutations: usize,
    pub(crate) queries: usize,
    pub(crate) writes: usize,
    pub(crate) bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_max: usize,
    /// Changes that nobody may make.
    pub(crate) refused: usize,
}

struct Active {
    key: ChunkKey,
    start: u32,
    end: u32,
    stamp: Stamp,
}

struct Inner {
    kv: MemKv,
    time_nanos: u64,
    chunks: HashMap<ChunkKey, Chunk>,
    /// By fence record.
    fences: HashMap<ChunkKey, Fence>,
    /// Copies of messages still somewhere in the network.
    late: Vec<Change>,
    active: Vec<Active>,
    rng: StdRng,
    faults: Faults,
    counts: Counts,
    table: Arc<Table>,
}

/// See the module.
pub(crate) struct Cluster {
    inner: Mutex<Inner>,
    changed: Notify,
}

/// One client's way to the cluster. Once dead, nothing it sends arrives.
#[derive(Clone)]
pub(crate) struct Link {
    cluster: Arc<Cluster>,
    session: SessionId,
    sequence: Arc<AtomicU64>,
    dead: Arc<AtomicBool>,
    callbacks: Arc<Mutex<Vec<SessionCallback>>>,
    /// The directory its capability is for.
    covers: InodeId,
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let mut inner = Inner {
            kv: MemKv::new(),
            time_nanos: 0,
            chunks: HashMap::new(),
            fences: HashMap::new(),
            late: Vec::new(),
            active: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            counts: Counts::default(),
            table: Arc::default(),
        };
        inner.command(&Command::Initialize(Initialize {
            cluster_id: "memory".to_owned(),
            replicas: 3,
            min_replicas: 2,
            groups_per_disk: 4,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        }));
        for number in 1..=3u8 {
            inner.command(&Command::RegisterServer(proto::RegisterServerRequest {
                uuid: vec![number; 16].into(),
                address: format!("tcp://10.0.0.{number}:1"),
                location: format!("/r/rack{number}/h"),
                disks: vec![proto::Disk {
                    uuid: vec![number; 16].into(),
                    capacity_bytes: 1 << 40,
                    ..proto::Disk::default()
                }],
                incarnation: 1,
                cluster_id: String::new(),
            }));
        }
        inner.command(&Command::FormGroups);
        inner.table = Arc::new(master_core::table::table(&inner.kv).unwrap());
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new() })
    }

    /// A new client's session.
    pub(crate) fn link(self: &Arc<Self>) -> Link {
        let open = Command::OpenSession { description: "test".to_owned(), owner: String::new() };
        let CommandReply::SessionOpened(session) = self.inner.lock().command(&open) else {
            panic!("no session")
        };
        Link {
            cluster: Arc::clone(self),
            session,
            sequence: Arc::default(),
            dead: Arc::default(),
            callbacks: Arc::default(),
            covers: InodeId::ROOT,
        }
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.inner.lock().faults = faults;
        self.changed.notify_waiters();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// The master's invariants.
    pub(crate) fn check(&self) {
        let found = master_core::check::check(&self.inner.lock().kv).unwrap();
        assert_eq!(found, Vec::<String>::new());
    }

    /// Blocks of all chunks.
    pub(crate) fn blocks(&self) -> usize {
        self.inner.lock().chunks.values().map(|chunk| chunk.blocks.len()).sum()
    }

    /// The network may let everybody else run first.
    async fn delay(&self) {
        let times = {
            let mut inner = self.inner.lock();
            let max = inner.faults.delay_max;
            inner.rng.random_range(0..=max)
        };
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }
}

impl Inner {
    fn now(&mut self) -> Context {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        self.time_nanos = (self.time_nanos + 1).max(u64::try_from(clock).unwrap());
        Context { time_nanos: self.time_nanos }
    }

    fn apply(&mut self, command: &[u8]) -> Bytes {
        let context = self.now();
        let applied = command::apply(&self.kv, context, command).unwrap();
        self.kv.write(applied.batch, Durability::Logged).unwrap();
        applied.reply
    }

    fn command(&mut self, command: &Command) -> CommandReply {
        CommandReply::decode(&self.apply(&command.encode())).unwrap()
    }

    /// Frees deleted data at once: whoever still uses it sees holes.
    fn collect(&mut self) {
        let deleted = master_core::deletion::deletions(&self.kv, None, usize::MAX).unwrap();
        let data: Vec<_> = deleted.iter().map(|deletion| deletion.data).collect();
        if !data.is_empty() {
            self.chunks.retain(|key, _| !data.contains(&key.chunk.data));
            self.fences.retain(|key, _| !data.contains(&key.chunk.data));
            self.command(&Command::DeletionsDone { data });
        }
    }

    fn arrive(&mut self, change: &Change) {
        let (key, stamp, (start, end)) = (change.key(), change.stamp(), change.range());
        for other in self.active.iter().filter(|other| other.key == key && other.stamp != stamp) {
            let same_client = other.stamp.session == stamp.session;
            let apart = other.end <= start || end <= other.start;
            assert!(!same_client || apart, "overlapping writes in flight");
        }
        let unanswered = self
            .active
            .iter()
            .filter(|other| other.key == key && other.stamp.session == stamp.session && other.stamp != stamp);
        assert!(unanswered.count() < 32, "more writes of a chunk in flight than it tells apart");
        self.active.push(Active { key, start, end, stamp });
        self.counts.in_flight = self.active.len();
        self.counts.in_flight_max = self.counts.in_flight_max.max(self.active.len());
    }

    fn leave(&mut self, change: &Change) {
        let at =
            self.active.iter().position(|other| other.key == change.key() && other.stamp == change.stamp());
        self.active.swap_remove(at.expect("it arrived"));
        self.counts.in_flight = self.active.len();
    }

    fn perform(&mut self, change: Change) -> Result<Written, ChunkError> {
        self.leave(&change);
        // Something that was on its way for long arrives now.
        if !self.late.is_empty() && self.rng.random_bool(0.3) {
            let index = self.rng.random_range(0..self.late.len());
            let late = self.late.swap_remove(index);
            // Nobody hears what becomes of it.
            let _ = self.take(&late);
        }
        let away = ChunkError::Unavailable { message: "away".to_owned() };
        if self.faults.away {
            return Err(away);
        }
        if self.faults.full && matches!(change, Change::Write(..)) {
            return Err(ChunkError::NoSpace { message: "full".to_owned() });
        }
        if self.faults.denied {
            self.counts.refused += 1;
            let code = kuafu::Code::PermissionDenied;
            return Err(ChunkError::Refused { code, message: "no".to_owned() });
        }
        if self.faults.no_punch && matches!(change, Change::Punch(..)) {
            let code = kuafu::Code::InvalidArgument;
            return Err(ChunkError::Refused { code, message: "no".to_owned() });
        }
        if self.rng.random_range(0..1000) < self.faults.per_mille {
            match self.rng.random_range(0..6) {
                0 => return Err(away),
                1 => return Err(ChunkError::Stale { epoch: Epoch(2) }),
                2 => return Err(ChunkError::Busy { retry_after: Duration::ZERO }),
                3 => {
                    // The message is late, the client hears nothing.
                    self.late.push(change);
                    return Err(ChunkError::Deadline);
                }
                4 => {
                    // The answer is lost.
                    let _ = self.take(&change);
                    return Err(away);
                }
                _ => self.late.push(change.clone()),
            }
        }
        if let Change::Write(_, data) = &change {
            self.counts.writes += 1;
            self.counts.bytes += data.len();
        }
        self.take(&change)
    }

    /// What a primary does with a write.
    fn take(&mut self, change: &Change) -> Result<Written, ChunkError> {
        let fence = self.fences.get(&change.key().fence_record()).copied().unwrap_or_default();
        if change.fence() < fence {
            return Err(ChunkError::Fenced { fence });
        }
        let chunk = self.chunks.entry(change.key()).or_default();
        let allocated_delta_bytes = chunk.apply(change);
        let version = Version { epoch: Epoch(1), counter: chunk.version };
        Ok(Written { version, allocated_delta_bytes })
    }

    fn raise(&mut self, raise: &RaiseFence) -> Result<(), ChunkError> {
        let away = ChunkError::Unavailable { message: "away".to_owned() };
        if self.faults.away || self.rng.random_range(0..1000) < self.faults.per_mille {
            return Err(away);
        }
        let fence = self.fences.entry(raise.record).or_default();
        if raise.fence < *fence {
            return Err(ChunkError::Fenced { fence: *fence });
        }
        *fence = raise.fence;
        // The answer is lost.
        if self.rng.random_range(0..1000) < self.faults.per_mille { Err(away) } else { Ok(()) }
    }

    fn read(&mut self, read: &Read) -> Result<ReadData, ChunkError> {
        if self.faults.away {
            return Err(ChunkError::Unavailable { message: "away".to_owned() });
        }
        if self.rng.random_range(0..1000) < self.faults.per_mille {
            return Err(match self.rng.random_range(0..4) {
                0 => ChunkError::Unavailable { message: "away".to_owned() },
                1 => ChunkError::NotCommitted,
                2 => ChunkError::Damaged { message: "rot".to_owned() },
                _ => ChunkError::Deadline,
            });
        }
        let first = read.offset_bytes / 4096;
        let last = (read.offset_bytes + read.len_bytes).div_ceil(4096);
        let none = BTreeMap::new();
        let (blocks, counter) =
            self.chunks.get(&read.key).map_or((&none, 0), |chunk| (&chunk.blocks, chunk.version));
        let version = Version { epoch: Epoch(1), counter };
        let data_offset_bytes = first * 4096;
        if blocks.range(first..last).next().is_none() {
            return Ok(ReadData {
                version,
                data_offset_bytes,
                data: Bytes::new(),
                block_crcs: Vec::new(),
                hole: true,
            });
        }
        let mut data = vec![0; (last - first) as usize * BLOCK_SIZE];
        for (block, bytes) in blocks.range(first..last) {
            let at = (block - first) as usize * BLOCK_SIZE;
            data[at..at + BLOCK_SIZE].copy_from_slice(bytes);
        }
        let mut block_crcs = piece_crcs(data_offset_bytes, &data);
        if self.faults.damaged {
            block_crcs[0] ^= 1;
        }
        Ok(ReadData { version, data_offset_bytes, data: data.into(), block_crcs, hole: false })
    }

    fn map(&self, key: ChunkKey) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for block in self.chunks.get(&key).into_iter().flat_map(|chunk| chunk.blocks.keys()) {
            match ranges.last_mut() {
                Some((start, len)) if *start + *len == block * 4096 => *len += 4096,
                _ => ranges.push((block * 4096, 4096)),
            }
        }
        ranges
    }
}

impl Link {
    /// The same with a capability for this directory and what is below it.
    pub(crate) fn below(self, directory: InodeId) -> Self {
        Self { covers: directory, ..self }
    }

    /// As a master asks before it does anything.
    fn admit<'a>(&self, kv: &MemKv, op: impl Into<access::Op<'a>>) -> Result<(), Errno> {
        for (ino, _) in access::touches(op) {
            match within(kv, ino, self.covers, Some(self.session)) {
                Ok(true) => {}
                Ok(false) => return Err(Errno::EACCES),
                Err(master_core::OpError::Errno(errno)) => return Err(errno.into()),
                Err(master_core::OpError::Store(error)) => panic!("{error}"),
            }
        }
        Ok(())
    }

    /// A file system over this link.
    pub(crate) fn mount(&self, config: ClientConfig) -> FileSystem {
        let errors = Arc::<ErrorLog>::default();
        let pauses = RetryPauses { min: Duration::ZERO, max: Duration::ZERO };
        let chunks = ReplicatedChunks::new(self.clone(), pauses, Arc::clone(&errors));
        FileSystem::new(Arc::new(self.clone()), Arc::new(chunks), errors, config).unwrap()
    }

    /// The client dies, and its session some time later.
    pub(crate) fn crash(&self) {
        self.dead.store(true, Ordering::Relaxed);
        let mut inner = self.cluster.inner.lock();
        inner.active.retain(|active| active.stamp.session != self.session);
        // What is still in its sockets is read to the end or lost with them.
        for late in std::mem::take(&mut inner.late) {
            if late.stamp().session != self.session {
                inner.late.push(late);
            } else if inner.rng.random() {
                let _ = inner.take(&late);
            }
        }
        while inner.command(&Command::EndSession { session: self.session })
            == CommandReply::SessionEnded(Ended::More)
        {}
        inner.collect();
    }

    /// The master forgets the session of a living client, which opens another.
    pub(crate) fn lose_session(&self) {
        let mut inner = self.cluster.inner.lock();
        inner.command(&Command::EndSession { session: self.session });
        inner.collect();
        drop(inner);
        for callback in self.callbacks.lock().iter() {
            callback(Some(self.session), SessionId(self.session.0 + 1));
        }
    }

    async fn change(&self, change: Change) -> Result<Written, ChunkError> {
        assert_eq!(change.stamp().session, self.session);
        if let Change::Write(write, data) = &change {
            assert_eq!(write.block_crcs, piece_crcs(write.offset_bytes, data), "checksums of what is sent");
            assert!(write.offset_bytes as usize + data.len() <= CHUNK && data.len() <= 1 << 20);
        }
        self.alive().await;
        let cluster = &self.cluster;
        cluster.inner.lock().arrive(&change);
        cluster.delay().await;
        loop {
            let changed = cluster.changed.notified();
            if !cluster.inner.lock().faults.stuck {
                break;
            }
            changed.await;
        }
        self.alive().await;
        cluster.inner.lock().perform(change)
    }

    async fn alive(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl Meta for Link {
    fn mutate(&self, mutation: Mutation) -> BoxFuture<'_, Result<Mutated, Errno>> {
        Box::pin(async move {
            self.cluster.delay().await;
            self.alive().await;
            {
                let mut inner = self.cluster.inner.lock();
                self.admit(&inner.kv, &mutation)?;
                if inner.faults.denied {
                    inner.counts.refused += 1;
                    return Err(Errno::EACCES);
                }
            }
            let request = proto::MutateRequest {
                session: self.session.0,
                sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
                acknowledged_below: 0,
                op: Some(mutation.into()),
            };
            let reply = {
                let mut inner = self.cluster.inner.lock();
                inner.counts.mutations += 1;
                let reply = inner.apply(&request.encode_to_vec());
                inner.collect();
                reply
            };
            self.cluster.delay().await;
            self.alive().await;
            convert::mutated(proto::MutateReply::decode(reply).unwrap()).unwrap().map_err(Errno::from)
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, Errno>> {
        Box::pin(async move {
            self.cluster.delay().await;
            self.alive().await;
            let mut inner = self.cluster.inner.lock();
            inner.counts.queries += 1;
            self.admit(&inner.kv, &query)?;
            match master_core::query(&inner.kv, &query) {
                Ok(answer) => Ok(answer),
                Err(master_core::OpError::Errno(errno)) => Err(errno.into()),
                Err(master_core::OpError::Store(error)) => panic!("{error}"),
            }
        })
    }

    fn on_session(&self, callback: SessionCallback) {
        self.callbacks.lock().push(callback);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.crash() })
    }
}

impl Members for Link {
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.cluster.inner.lock().table)
    }

    fn refresh(&self, _known_version: u64) -> BoxFuture<'_, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn newer_table(&self, _known_version: u64) -> BoxFuture<'_, Arc<Table>> {
        Box::pin(std::future::pending())
    }

    fn report(&self, _address: &str) {}

    fn session(&self) -> BoxFuture<'_, Option<SessionId>> {
        Box::pin(async move { Some(self.session) })
    }

    fn write<'a>(
        &'a self,
        address: &'a str,
        write: &'a Write,
        data: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        Box::pin(async move {
            assert!(address.starts_with("tcp://10.0.0."));
            self.change(Change::Write(write.clone(), data)).await
        })
    }

    fn punch<'a>(
        &'a self,
        _address: &'a str,
        punch: &'a Punch,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Written, ChunkError>> {
        Box::pin(async move { self.change(Change::Punch(*punch)).await })
    }

    fn raise_fence<'a>(
        &'a self,
        _address: &'a str,
        raise: &'a RaiseFence,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<(), ChunkError>> {
        Box::pin(async move {
            assert!(raise.record.is_fence_record());
            self.cluster.delay().await;
            self.alive().await;
            self.cluster.inner.lock().raise(raise)
        })
    }

    fn read<'a>(
        &'a self,
        _address: &'a str,
        read: &'a Read,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<ReadData, ChunkError>> {
        Box::pin(async move {
            self.cluster.delay().await;
            self.alive().await;
            self.cluster.inner.lock().read(read)
        })
    }

    fn map<'a>(
        &'a self,
        _address: &'a str,
        map: &'a Map,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<(u32, u32)>, ChunkError>> {
        Box::pin(async move {
            self.cluster.delay().await;
            self.alive().await;
            Ok(self.cluster.inner.lock().map(map.key))
        })
    }
}
