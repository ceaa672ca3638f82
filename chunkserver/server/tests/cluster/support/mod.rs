//! Three chunkservers and a master that only registers servers and hands out one table, over Unix sockets.
//!
//! Each chunkserver runs on a thread and an event loop of its own: killing it drops the loop with everything in it,
//! wherever it stands, and leaves the disk as it is.

mod master;
pub(crate) mod tokens;

use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chunkserver_api::{ChunkClient, ChunkError, Punch, RaiseFence, Read, ReadData, Write, Written};
use chunkserver_server::{ChunkServer, Config};
use coord_types::{BLOCK_SIZE, ChunkKey, DataId, Epoch, Fence, GroupId, SessionId, Stamp};
use kuafu::{Address, CallOptions, Client};
use tempfile::TempDir;
use tokio::sync::oneshot;
use zhongkui_access::Access;

pub(crate) use master::FakeMaster;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CHUNK: u32 = 1 << 20;
pub(crate) const EPOCH: Epoch = Epoch(1);

/// How a chunkserver ends.
enum End {
    Stop,
    Kill,
}

struct Running {
    thread: JoinHandle<()>,
    end: oneshot::Sender<End>,
    pub(crate) metrics: Option<std::net::SocketAddr>,
    pub(crate) grpc: Option<std::net::SocketAddr>,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) master: FakeMaster,
    servers: Vec<Option<Running>>,
    clients: Vec<ChunkClient>,
    raw: Vec<Client>,
    seq: AtomicU64,
    pub(crate) dir: TempDir,
}

impl Cluster {
    /// Three servers, all groups active at all members.
    pub(crate) async fn start() -> Self {
        let cluster = Self::start_inactive().await;
        cluster.wait_active(0..3).await;
        cluster
    }

    pub(crate) async fn start_inactive() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let master = FakeMaster::start(&dir.path().join("master.sock")).await;
        let raw: Vec<_> = (0..3)
            .map(|at| Client::new(Address::Unix(socket(dir.path(), at)), Access::process().transport()))
            .collect();
        let tokens = tokens::Everything::new();
        let client = |raw: &Client| ChunkClient::with_tokens(raw.clone(), tokens.clone());
        let clients = raw.iter().map(client).collect();
        let mut cluster =
            Self { master, servers: vec![None, None, None], clients, raw, seq: AtomicU64::new(1), dir };
        for at in 0..3 {
            cluster.start_server(at);
        }
        cluster
    }

    pub(crate) fn config(&self, at: usize) -> Config {
        let mut config = Config::new(
            Address::Unix(socket(self.dir.path(), at)),
            vec![self.disk(at)],
            format!("/test/rack{at}/host{at}").parse().expect("a location"),
            vec![self.master.address.clone()],
        );
        config.capacity_bytes = Some(128 << 20);
        config.buffer_bytes = 8 << 20;
        config.metrics = Some(([127, 0, 0, 1], 0).into());
        config.grpc = Some(([127, 0, 0, 1], 0).into());
        config
    }

    pub(crate) fn disk(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("disk{at}"))
    }

    pub(crate) fn metrics(&self, at: usize) -> std::net::SocketAddr {
        self.servers[at].as_ref().and_then(|running| running.metrics).expect("it runs, with metrics")
    }

    pub(crate) fn grpc(&self, at: usize) -> std::net::SocketAddr {
        self.servers[at].as_ref().and_then(|running| running.grpc).expect("it runs, with gRPC")
    }

    pub(crate) fn start_server(&mut self, at: usize) {
        let config = self.config(at);
        let (end, ended) = oneshot::channel();
        let (started, starting) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
            runtime.block_on(async move {
                let server = ChunkServer::start(config).await.expect("the chunkserver starts");
                started.send((server.metrics_address(), server.grpc_address())).expect("the test waits");
                if let Ok(End::Stop) = ended.await {
                    server.shutdown().await;
                }
            });
        });
        let (metrics, grpc) = starting.recv().expect("the chunkserver starts");
        self.servers[at] = Some(Running { thread, end, metrics, grpc });
    }

    fn end(&mut self, at: usize, how: End) {
        let running = self.servers[at].take().expect("it runs");
        let _ = running.end.send(how);
        running.thread.join().expect("the chunkserver ends without a panic");
    }

    /// Everything it does ends here and now.
    pub(crate) fn kill(&mut self, at: usize) {
        self.end(at, End::Kill);
    }

    /// In good order. The master, which runs on the caller's thread, is told.
    pub(crate) async fn stop(&mut self, at: usize) {
        let running = self.servers[at].take().expect("it runs");
        let _ = running.end.send(End::Stop);
        let ended = tokio::task::spawn_blocking(|| running.thread.join());
        ended.await.expect("a thread to wait on").expect("the chunkserver ends without a panic");
    }

    pub(crate) fn raw(&self, at: usize) -> Client {
        self.raw[at].clone()
    }

    pub(crate) fn client(&self, at: usize) -> &ChunkClient {
        &self.clients[at]
    }

    /// The server that is primary of the group: its number in the table's order.
    pub(crate) fn primary(&self, group: GroupId) -> usize {
        let disk = self.master.primary(group);
        (0..3).find(|at| self.master.disk_of(&self.disk_address(*at)) == Some(disk)).expect("a member")
    }

    pub(crate) fn disk_id(&self, at: usize) -> coord_types::DiskId {
        self.master.disk_of(&self.disk_address(at)).expect("it registered")
    }

    /// Writes one place of one chunk, whoever else uses the cluster.
    pub(crate) fn writer(&self, key: ChunkKey) -> Writer {
        let session = SessionId(1000 + self.seq.fetch_add(1, Ordering::Relaxed));
        Writer { client: self.clients[self.primary(key.group)].clone(), key, session }
    }

    fn disk_address(&self, at: usize) -> String {
        Address::Unix(socket(self.dir.path(), at)).to_string()
    }

    /// Waits until these servers serve every group.
    pub(crate) async fn wait_active(&self, servers: Range<usize>) {
        for at in servers {
            let admin = chunkserver_api::pb::ChunkAdminClient::new(self.raw(at));
            eventually("all groups are active", || async {
                let options = CallOptions::within(Duration::from_secs(2));
                let status =
                    admin.status(chunkserver_api::pb::StatusRequest {}, &options).await.ok()?.message;
                let active = status.groups.iter().filter(|group| group.active).count();
                (active == master::GROUPS as usize).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { session: SessionId(7), seq: self.seq.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn write_of(&self, key: ChunkKey, offset_bytes: u32, data: &[u8]) -> Write {
        Write {
            key,
            epoch: EPOCH,
            offset_bytes,
            block_crcs: Vec::new(),
            stamp: Some(self.stamp()),
            chunk_size_bytes: CHUNK,
            fence: Fence::NONE,
        }
        .checksummed(data)
    }

    /// One attempt at the primary.
    pub(crate) async fn try_write(&self, write: &Write, data: &[u8]) -> Result<Written, ChunkError> {
        let at = self.primary(write.key.group);
        let options = CallOptions::within(Duration::from_secs(5));
        self.clients[at].write(write, Bytes::copy_from_slice(data), &options).await
    }

    /// Until it is done, as a client does.
    pub(crate) async fn send(&self, write: &Write, data: &[u8]) -> Written {
        eventually("the write is done", || async {
            match self.try_write(write, data).await {
                Ok(written) => Some(written),
                Err(error) if error.retryable() => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }

    pub(crate) async fn write(&self, key: ChunkKey, offset_bytes: u32, data: &[u8]) -> Written {
        self.send(&self.write_of(key, offset_bytes, data), data).await
    }

    pub(crate) async fn punch(&self, key: ChunkKey, range: Range<u32>) -> Written {
        let punch = Punch {
            key,
            epoch: EPOCH,
            offset_bytes: range.start,
            len_bytes: range.end - range.start,
            stamp: Some(self.stamp()),
            chunk_size_bytes: CHUNK,
            fence: Fence::NONE,
        };
        let options = CallOptions::within(Duration::from_secs(5));
        let at = self.primary(key.group);
        self.clients[at].punch(&punch, &options).await.expect("the punch is done")
    }

    /// Until it is done, as a client does.
    pub(crate) async fn raise(&self, data: ChunkKey, fence: Fence) -> Result<(), ChunkError> {
        let raise = RaiseFence { record: data.fence_record(), epoch: EPOCH, fence };
        eventually("the raise is done", || async {
            let options = CallOptions::within(Duration::from_secs(5));
            match self.clients[self.primary(data.group)].raise_fence(&raise, &options).await {
                Err(error) if error.retryable() => None,
                done => Some(done),
            }
        })
        .await
    }

    /// One attempt at one member.
    pub(crate) async fn try_read(
        &self,
        at: usize,
        key: ChunkKey,
        range: Range<u32>,
    ) -> Result<ReadData, ChunkError> {
        let read = Read { key, epoch: EPOCH, offset_bytes: range.start, len_bytes: range.end - range.start };
        self.clients[at].read(&read, &CallOptions::within(Duration::from_secs(5))).await
    }

    /// What a member shows, once it does: the whole chunk, holes as zeros.
    pub(crate) async fn chunk_at(&self, at: usize, key: ChunkKey) -> (coord_types::Version, Vec<u8>) {
        eventually("the member shows the chunk", || async {
            match self.try_read(at, key, 0..CHUNK).await {
                Ok(read) => {
                    assert_eq!(read.verify(), None, "checksums are those of the bytes");
                    let bytes = if read.hole { vec![0; CHUNK as usize] } else { read.data.to_vec() };
                    Some((read.version, bytes))
                }
                Err(error) if error.try_other_member() => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }

    /// All three members show the same; gives it.
    pub(crate) async fn same_everywhere(&self, key: ChunkKey) -> Vec<u8> {
        let (version, bytes) = self.chunk_at(0, key).await;
        for at in 1..3 {
            let (other_version, other) = self.chunk_at(at, key).await;
            assert_eq!(version, other_version, "member {at} has another version of {key:?}");
            assert!(bytes == other, "member {at} has other bytes of {key:?}");
        }
        bytes
    }
}

/// What a [`Writer`] writes each time.
pub(crate) const WRITER_BYTES: usize = 20_000;

pub(crate) struct Writer {
    client: ChunkClient,
    key: ChunkKey,
    session: SessionId,
}

impl Writer {
    /// Writes `pattern(seq)`; tries until it is done.
    pub(crate) async fn write(&self, seq: u64) {
        let data = Bytes::from(pattern(seq, WRITER_BYTES));
        let write = Write {
            key: self.key,
            epoch: EPOCH,
            offset_bytes: 0,
            block_crcs: Vec::new(),
            stamp: Some(Stamp { session: self.session, seq }),
            chunk_size_bytes: CHUNK,
            fence: Fence::NONE,
        }
        .checksummed(&data);
        eventually("the writer's write is done", || async {
            let options = CallOptions::within(Duration::from_secs(2));
            match self.client.write(&write, data.clone(), &options).await {
                Ok(_) => Some(()),
                Err(error) if error.retryable() => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
    }
}

/// Flips a byte wherever these bytes are in a file of the disk; gives how often they are.
pub(crate) fn damage(disk: &Path, bytes: &[u8]) -> usize {
    let mut found = 0;
    for entry in walk(disk) {
        let contents = std::fs::read(&entry).expect("a file of the disk");
        let file = std::fs::OpenOptions::new().write(true).open(&entry).expect("a file of the disk");
        for at in (0..contents.len().saturating_sub(bytes.len() - 1)).step_by(BLOCK_SIZE) {
            if &contents[at..at + bytes.len()] == bytes {
                // In place: the server may run.
                file.write_all_at(&[contents[at] ^ 1], at as u64).expect("a byte of the disk");
                found += 1;
            }
        }
        file.sync_all().expect("on the disk");
    }
    found
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of the disk") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..3 {
            if self.servers[at].is_some() {
                self.kill(at);
            }
        }
    }
}

fn socket(dir: &Path, at: usize) -> PathBuf {
    dir.join(format!("cs{at}.sock"))
}

pub(crate) fn key(group: u32, index: u32) -> ChunkKey {
    ChunkKey::new(GroupId(group), DataId(100), index)
}

/// Bytes that differ from block to block and from fill to fill.
pub(crate) fn pattern(fill: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at / BLOCK_SIZE as u64 * 31 + at + fill * 97) as u8).collect()
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
