//! Single promises, each by its plainest story: writes here, [`shape`] (truncate, holes), [`sharing`] (names, sessions, a
//! second mount), [`fences`] (who may still write), [`rooted`] (a mount of one directory), [`rights`] (what is refused).

mod fences;
mod rights;
mod rooted;
mod shape;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use coord_types::InodeId;
use fs_client::{
    Caller, ClientConfig, Errno, FileAttr, FileSystem, HandleId, Op, OpReply, OpResult, SetAttr,
};
use futures::FutureExt as _;

use crate::cluster::{Cluster, Faults};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const MIB: usize = 1 << 20;

/// Nothing happens by itself: no age, no time to live that ends.
fn quiet() -> ClientConfig {
    let never = Duration::from_secs(3600);
    ClientConfig { memory_bytes: 8 << 20, flush_age: never, ttl: never, ..ClientConfig::default() }
}

struct Mount(FileSystem);

#[derive(Clone, Copy, Debug)]
struct File {
    ino: InodeId,
    handle: HandleId,
}

impl Mount {
    async fn ask(&self, op: Op<'_>) -> OpResult {
        self.0.handle(&CALLER, op).await
    }

    async fn create(&self, name: &str) -> File {
        let op =
            Op::Create { parent: InodeId::ROOT, name: name.as_bytes(), mode: 0o644, flags: libc::O_RDWR };
        match self.ask(op).await.unwrap() {
            OpReply::Created { entry, handle, .. } => File { ino: entry.attr.ino, handle },
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self, ino: InodeId, flags: i32) -> Result<(File, bool), Errno> {
        match self.ask(Op::Open { ino, flags }).await? {
            OpReply::Opened { handle, mode } => Ok((File { ino, handle }, mode.keep_cache)),
            other => panic!("{other:?}"),
        }
    }

    async fn write(&self, file: File, offset_bytes: u64, data: &[u8]) -> OpResult {
        let File { ino, handle } = file;
        self.ask(Op::Write { ino, handle, offset_bytes, data, kill_privileges: false, mapped: false }).await
    }

    async fn read(&self, file: File, offset_bytes: u64, len_bytes: u32) -> Result<Vec<u8>, Errno> {
        let File { ino, handle } = file;
        match self.ask(Op::Read { ino, handle, offset_bytes, len_bytes }).await? {
            OpReply::Data(parts) => Ok(parts.concat()),
            other => panic!("{other:?}"),
        }
    }

    async fn fsync(&self, file: File) -> OpResult {
        self.ask(Op::Fsync { ino: file.ino, handle: file.handle, data_only: false }).await
    }

    async fn flush(&self, file: File) -> OpResult {
        self.ask(Op::Flush { ino: file.ino, handle: file.handle }).await
    }

    async fn close(&self, file: File) -> OpResult {
        let result = self.flush(file).await;
        self.ask(Op::Release { ino: file.ino, handle: file.handle }).await.unwrap();
        result
    }

    /// By name.
    async fn truncate(&self, file: File, size: u64) {
        let changes = SetAttr { size_bytes: Some(size), ..SetAttr::default() };
        self.ask(Op::SetAttr { ino: file.ino, changes }).await.unwrap();
    }

    /// By the handle.
    async fn ftruncate(&self, file: File, size: u64) -> OpResult {
        let changes = SetAttr { size_bytes: Some(size), handle: Some(file.handle), ..SetAttr::default() };
        self.ask(Op::SetAttr { ino: file.ino, changes }).await
    }

    async fn attr(&self, ino: InodeId) -> FileAttr {
        match self.ask(Op::GetAttr { ino, handle: None }).await.unwrap() {
            OpReply::Attr { attr, .. } => attr,
            other => panic!("{other:?}"),
        }
    }
}

/// Gives every task that can run its turn, many times.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn mounted(seed: u64) -> (Arc<Cluster>, crate::cluster::Link, Mount) {
    let cluster = Cluster::new(seed);
    let link = cluster.link();
    let mount = Mount(link.mount(quiet()));
    (cluster, link, mount)
}

#[tokio::test]
async fn an_error_of_a_buffered_write_reaches_each_handle_once() {
    let (cluster, _, mount) = mounted(1);
    let one = mount.create("f").await;
    let (two, _) = mount.open(one.ino, libc::O_RDWR).await.unwrap();
    cluster.set(Faults { full: true, ..Faults::default() });
    mount.write(one, 0, b"lost").await.unwrap();
    assert_eq!(mount.fsync(one).await.unwrap_err(), Errno::ENOSPC);
    assert!(mount.fsync(one).await.is_ok(), "told once");
    assert_eq!(mount.flush(two).await.unwrap_err(), Errno::ENOSPC, "close tells the other handle");
    let (late, _) = mount.open(one.ino, libc::O_RDWR).await.unwrap();
    assert!(mount.fsync(late).await.is_ok(), "who came later is not told");
    cluster.set(Faults::default());
    mount.write(one, 0, b"kept").await.unwrap();
    assert!(mount.close(one).await.is_ok());
    assert_eq!(mount.read(two, 0, 9).await.unwrap(), b"kept");
}

#[tokio::test]
async fn a_synchronous_write_is_durable_or_fails_itself() {
    let (cluster, _, mount) = mounted(2);
    let ino = mount.create("f").await.ino;
    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT] {
        cluster.set(Faults::default());
        let (file, _) = mount.open(ino, libc::O_RDWR | flags).await.unwrap();
        let before = cluster.counts().writes;
        mount.write(file, 0, b"through").await.unwrap();
        assert_eq!(cluster.counts().writes, before + 1);
        cluster.set(Faults { full: true, ..Faults::default() });
        assert_eq!(mount.write(file, 0, b"full").await.unwrap_err(), Errno::ENOSPC);
        assert!(mount.close(file).await.is_ok(), "already told");
    }
}

#[tokio::test]
async fn overlapping_writes_keep_their_order_while_answers_get_lost() {
    for seed in 0..20 {
        let (cluster, _, mount) = mounted(seed);
        cluster.set(Faults { per_mille: 400, delay_max: 20, ..Faults::default() });
        let file = mount.create("f").await;
        for round in 0..30u8 {
            mount.write(file, u64::from(round % 3) * 1000, &[round; 3000]).await.unwrap();
            // Sent, but not waited for: the next one overlaps it in flight.
            let waiting = mount.fsync(file).now_or_never();
            if round % 7 == 0 && waiting.is_none() {
                settle().await;
            }
        }
        mount.fsync(file).await.unwrap();
        let found = mount.read(file, 0, 5000).await.unwrap();
        let expected = [vec![27; 1000], vec![28; 1000], vec![29; 3000]].concat();
        assert!(found == expected, "seed {seed}");
    }
}

#[tokio::test]
async fn a_read_sees_the_newest_of_all_layers() {
    let (cluster, _, mount) = mounted(27);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 30_000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    mount.write(file, 5000, &[2; 10_000]).await.unwrap();
    cluster.set(Faults { stuck: true, ..Faults::default() });
    assert!(mount.fsync(file).now_or_never().is_none());
    mount.write(file, 3000, &[3; 4000]).await.unwrap();
    mount.write(file, 12_000, &[4; 1000]).await.unwrap();
    mount.write(file, 14_500, &[5; 1000]).await.unwrap();
    let layers = [(3000, 1), (4000, 3), (5000, 2), (1000, 4), (1500, 2), (1000, 5), (14_500, 1)];
    let expected: Vec<u8> = layers.iter().flat_map(|(len, byte)| vec![*byte; *len]).collect();
    assert!(mount.read(file, 0, 40_000).await.unwrap() == expected);
    cluster.set(Faults::default());
    mount.fsync(file).await.unwrap();
    assert!(mount.read(file, 0, 40_000).await.unwrap() == expected);
}

/// A direct read that took a write in flight from this mount's buffer was newer than what another mount read after it.
#[tokio::test]
async fn a_direct_read_shows_nothing_that_other_mounts_cannot_see() {
    let (cluster, link, mount) = mounted(28);
    let other = Mount(link.mount(quiet()));
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 4096]).await.unwrap();
    mount.fsync(file).await.unwrap();
    let (direct, _) = mount.open(file.ino, libc::O_RDWR | libc::O_DIRECT).await.unwrap();
    let (there, _) = other.open(file.ino, libc::O_RDONLY | libc::O_DIRECT).await.unwrap();
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let mut writing = std::pin::pin!(mount.write(direct, 0, &[2; 4096]));
    assert!(writing.as_mut().now_or_never().is_none());
    let mut reading = std::pin::pin!(mount.read(direct, 0, 4096));
    assert!(reading.as_mut().now_or_never().is_none(), "it waits for the write");
    cluster.set(Faults::default());
    assert!(reading.await.unwrap() == [2; 4096]);
    assert!(other.read(there, 0, 4096).await.unwrap() == [2; 4096]);
    writing.await.unwrap();
    // What was buffered through another handle is seen too.
    mount.write(file, 100, &[3; 10]).await.unwrap();
    assert!(mount.read(direct, 100, 10).await.unwrap() == [3; 10]);
    assert!(other.read(there, 100, 10).await.unwrap() == [3; 10]);
}

#[tokio::test]
async fn a_small_file_costs_two_commands_and_one_write() {
    let (cluster, _, mount) = mounted(3);
    let file = mount.create("f").await;
    mount.write(file, 0, b"small").await.unwrap();
    let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.ask(Op::SetAttr { ino: file.ino, changes }).await.unwrap();
    mount.close(file).await.unwrap();
    let counts = cluster.counts();
    assert_eq!((counts.mutations, counts.writes, counts.queries), (2, 1, 0));
    assert_eq!(mount.attr(file.ino).await.mode, 0o100_600);
    let (file, _) = mount.open(file.ino, libc::O_RDONLY).await.unwrap();
    mount.close(file).await.unwrap();
    assert_eq!(cluster.counts().mutations, 2, "reading changes nothing");
}

#[tokio::test]
async fn a_stream_keeps_many_writes_in_flight() {
    let (cluster, _, mount) = mounted(4);
    let file = mount.create("f").await;
    cluster.set(Faults { stuck: true, ..Faults::default() });
    // Half of the budget is one file's share.
    for piece in 0..4 {
        mount.write(file, piece * MIB as u64, &vec![1; MIB]).await.unwrap();
    }
    let config = ClientConfig { memory_bytes: 64 << 20, ..quiet() };
    let big = Mount(cluster.link().mount(config));
    let file = big.create("g").await;
    for piece in 0..20 {
        big.write(file, piece * MIB as u64, &vec![1; MIB]).await.unwrap();
    }
    settle().await;
    assert_eq!(cluster.counts().in_flight, 4 + 16, "at most 16 MiB a file");
    cluster.set(Faults::default());
    big.close(file).await.unwrap();
    let counts = cluster.counts();
    assert_eq!((counts.writes, counts.bytes), (24, 24 * MIB), "whole pieces");
}

#[tokio::test]
async fn sparse_writes_go_as_what_they_are_and_all_at_once() {
    let (cluster, _, mount) = mounted(5);
    let file = mount.create("f").await;
    for at in [0u64, 10_000, 50_000, 50_100, 900_000] {
        mount.write(file, at, &[7; 100]).await.unwrap();
    }
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let syncing = mount.fsync(file);
    tokio::pin!(syncing);
    assert!(syncing.as_mut().now_or_never().is_none());
    settle().await;
    assert_eq!(cluster.counts().in_flight, 4);
    cluster.set(Faults::default());
    syncing.await.unwrap();
    assert_eq!((cluster.counts().writes, cluster.counts().bytes), (4, 500));
}

#[tokio::test]
async fn small_writes_of_a_file_on_their_way_are_bounded_in_number() {
    let cluster = Cluster::new(33);
    let mount = Mount(cluster.link().mount(ClientConfig { memory_bytes: 64 << 20, ..quiet() }));
    let file = mount.create("f").await;
    // Over several chunks: one alone takes fewer.
    for at in 0..70 {
        mount.write(file, at * 1_000_000, &[7; 100]).await.unwrap();
    }
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let syncing = mount.fsync(file);
    tokio::pin!(syncing);
    assert!(syncing.as_mut().now_or_never().is_none());
    settle().await;
    assert_eq!(cluster.counts().in_flight, 64);
    cluster.set(Faults::default());
    syncing.await.unwrap();
    assert_eq!((cluster.counts().writes, cluster.counts().bytes), (70, 7000));
}

#[tokio::test]
async fn fdatasync_of_an_overwrite_asks_no_master() {
    let (cluster, _, mount) = mounted(6);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 8192]).await.unwrap();
    mount.fsync(file).await.unwrap();
    let before = cluster.counts().mutations;
    let sync = Op::Fsync { ino: file.ino, handle: file.handle, data_only: true };
    mount.write(file, 4096, &[2; 4096]).await.unwrap();
    mount.ask(sync.clone()).await.unwrap();
    assert_eq!(cluster.counts().mutations, before);
    mount.write(file, 8192, &[3; 1]).await.unwrap();
    mount.ask(sync).await.unwrap();
    assert_eq!(cluster.counts().mutations, before + 1, "but one for a longer file");
}

#[tokio::test]
async fn memory_is_given_back_before_more_is_taken() {
    let (cluster, _, mount) = mounted(7);
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let (one, two) = (mount.create("1").await, mount.create("2").await);
    for piece in 0..4 {
        mount.write(one, piece * MIB as u64, &vec![1; MIB]).await.unwrap();
        mount.write(two, piece * MIB as u64, &vec![2; MIB]).await.unwrap();
    }
    let three = mount.create("3").await;
    let data = vec![3; MIB];
    let waiting = mount.write(three, 0, &data);
    tokio::pin!(waiting);
    settle().await;
    assert!(waiting.as_mut().now_or_never().is_none(), "the budget is spent");
    let now = mount.0.try_now(
        &CALLER,
        &Op::Write {
            ino: three.ino,
            handle: three.handle,
            offset_bytes: 0,
            data: b"x",
            kill_privileges: false,
            mapped: false,
        },
    );
    assert!(now.is_none());
    cluster.set(Faults::default());
    waiting.await.unwrap();
    for file in [one, two, three] {
        mount.close(file).await.unwrap();
    }
    assert_eq!(cluster.counts().bytes, 9 * MIB);
}

/// Small dirty data of other files is sent when memory is short, though nobody asked and it is not old.
#[tokio::test]
async fn memory_pressure_sends_what_nobody_asked_for() {
    let (_, _, mount) = mounted(8);
    let mut files = Vec::new();
    for number in 0..20 {
        let file = mount.create(&number.to_string()).await;
        mount.write(file, 0, &vec![9; MIB - 5]).await.unwrap();
        files.push(file);
    }
    for file in files {
        assert!(mount.read(file, 0, 2 << 20).await.unwrap() == vec![9; MIB - 5]);
    }
}

#[tokio::test]
async fn servers_away_are_waited_for() {
    let (cluster, _, mount) = mounted(9);
    let file = mount.create("f").await;
    mount.write(file, 0, &[5; 10_000]).await.unwrap();
    cluster.set(Faults { away: true, ..Faults::default() });
    let syncing = mount.fsync(file);
    tokio::pin!(syncing);
    for _ in 0..50 {
        assert!(syncing.as_mut().now_or_never().is_none());
        settle().await;
    }
    assert_eq!(mount.read(file, 0, 10_000).await.unwrap(), [5; 10_000], "the buffer still answers");
    cluster.set(Faults::default());
    syncing.await.unwrap();
    cluster.set(Faults { away: true, ..Faults::default() });
    let reading = mount.read(file, 0, 10_000);
    tokio::pin!(reading);
    for _ in 0..50 {
        assert!(reading.as_mut().now_or_never().is_none());
        settle().await;
    }
    cluster.set(Faults::default());
    assert_eq!(reading.await.unwrap(), [5; 10_000]);
}

#[tokio::test]
async fn an_interrupted_flush_goes_on() {
    let (cluster, link, mount) = mounted(10);
    let file = mount.create("f").await;
    mount.write(file, 0, &[5; 10_000]).await.unwrap();
    cluster.set(Faults { stuck: true, ..Faults::default() });
    assert!(mount.fsync(file).now_or_never().is_none());
    cluster.set(Faults::default());
    settle().await;
    link.crash();
    let again = Mount(cluster.link().mount(quiet()));
    assert_eq!(again.attr(file.ino).await.size_bytes, 10_000);
}

#[tokio::test]
async fn damage_everywhere_is_an_error_with_a_record() {
    let (cluster, _, mount) = mounted(11);
    let file = mount.create("f").await;
    mount.write(file, 0, &[5; 10_000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    cluster.set(Faults { damaged: true, ..Faults::default() });
    assert_eq!(mount.read(file, 0, 10_000).await.unwrap_err(), Errno::EIO);
    let records = mount.0.errors().records();
    assert_eq!(records.len(), 1);
    for server in 1..=3 {
        assert!(records[0].what.contains(&format!("10.0.0.{server}")), "{}", records[0].what);
    }
}

#[tokio::test]
async fn what_is_old_is_sent_by_itself() {
    let cluster = Cluster::new(21);
    let config = ClientConfig { flush_age: Duration::from_millis(2), ..quiet() };
    let mount = Mount(cluster.link().mount(config));
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 5000]).await.unwrap();
    let other = Mount(cluster.link().mount(ClientConfig { ttl: Duration::ZERO, ..quiet() }));
    let seen = async {
        while other.attr(file.ino).await.size_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("it is sent by itself");
}

/// The first poll may be anywhere, as long as the runtime's handle is entered.
#[test]
fn the_first_poll_may_be_outside_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (cluster, mount) = runtime.block_on(async {
        let (cluster, _, mount) = mounted(23);
        (cluster, mount)
    });
    cluster.set(Faults { delay_max: 3, per_mille: 100, ..Faults::default() });
    let file = runtime.block_on(mount.create("f"));
    for round in 0..20u8 {
        let mut operation = Box::pin(async {
            mount.write(file, 0, &[round; 9000]).await?;
            mount.fsync(file).await?;
            mount.truncate(file, 100).await;
            mount.read(file, 0, 9000).await
        });
        let first = {
            let _entered = runtime.enter();
            operation.as_mut().now_or_never()
        };
        let found = first.unwrap_or_else(|| runtime.block_on(operation)).unwrap();
        assert_eq!(found, [round; 100]);
    }
}
