//! Single promises, each by its plainest story.

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
        self.ask(Op::Write { ino, handle, offset_bytes, data, kill_privileges: false }).await
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

    async fn truncate(&self, file: File, size: u64) {
        let changes = SetAttr { size_bytes: Some(size), ..SetAttr::default() };
        self.ask(Op::SetAttr { ino: file.ino, changes }).await.unwrap();
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

/// I8: a client dies between the master's truncate and its punch.
#[tokio::test]
async fn no_stale_byte_reappears_though_the_client_died_between() {
    let (cluster, link, mount) = mounted(12);
    let file = mount.create("f").await;
    mount.write(file, 0, &[0xaa; 100_000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let changes = SetAttr { size_bytes: Some(1000), ..SetAttr::default() };
    let cut = mount.ask(Op::SetAttr { ino: file.ino, changes });
    tokio::pin!(cut);
    assert!(cut.as_mut().now_or_never().is_none());
    settle().await;
    assert_eq!(cluster.counts().in_flight, 1, "the punch is on its way");
    link.crash();
    cluster.set(Faults::default());

    let again = Mount(cluster.link().mount(quiet()));
    assert_eq!(again.attr(file.ino).await.size_bytes, 1000);
    let (file, _) = again.open(file.ino, libc::O_RDWR).await.unwrap();
    again.write(file, 50_000, b"end").await.unwrap();
    let expected = [vec![0xaa; 1000], vec![0; 49_000], b"end".to_vec()].concat();
    assert!(again.read(file, 0, 1 << 20).await.unwrap() == expected);
    again.truncate(file, 100_000).await;
    assert!(again.read(file, 50_003, 1 << 20).await.unwrap() == vec![0; 49_997]);
}

/// I8: the punch fails, and the client that made the file makes it longer again.
#[tokio::test]
async fn what_could_not_be_punched_is_punched_before_it_could_show() {
    let (cluster, _, mount) = mounted(24);
    let file = mount.create("f").await;
    mount.write(file, 0, &[0xaa; 100_000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    cluster.set(Faults { no_punch: true, ..Faults::default() });
    for size in [1000, 50_000] {
        let changes = SetAttr { size_bytes: Some(size), ..SetAttr::default() };
        assert_eq!(mount.ask(Op::SetAttr { ino: file.ino, changes }).await.unwrap_err(), Errno::EIO);
        assert_eq!(mount.attr(file.ino).await.size_bytes, 1000);
    }
    cluster.set(Faults::default());
    mount.truncate(file, 100_000).await;
    let found = mount.read(file, 0, 1 << 20).await.unwrap();
    assert!(found == [vec![0xaa; 1000], vec![0; 99_000]].concat());
}

/// I8: what is in flight when the file gets shorter must not land after the punch.
#[tokio::test]
async fn a_truncate_waits_for_what_is_in_flight() {
    let (cluster, _, mount) = mounted(25);
    let file = mount.create("f").await;
    cluster.set(Faults { stuck: true, ..Faults::default() });
    mount.write(file, 0, &vec![0xaa; 2 * MIB]).await.unwrap();
    let changes = SetAttr { size_bytes: Some(1000), ..SetAttr::default() };
    let cut = mount.ask(Op::SetAttr { ino: file.ino, changes });
    tokio::pin!(cut);
    assert!(cut.as_mut().now_or_never().is_none());
    settle().await;
    let counts = cluster.counts();
    assert_eq!((counts.in_flight, counts.mutations), (2, 1), "the master is told after they landed");
    cluster.set(Faults::default());
    cut.await.unwrap();
    mount.truncate(file, 1 << 21).await;
    let found = mount.read(file, 0, 1 << 21).await.unwrap();
    assert!(found == [vec![0xaa; 1000], vec![0; (1 << 21) - 1000]].concat());
}

/// I8: a client dies after it sent data the master never heard of.
#[tokio::test]
async fn what_a_dead_writer_sent_beyond_the_end_never_shows() {
    let (cluster, link, mount) = mounted(13);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 10]).await.unwrap();
    mount.fsync(file).await.unwrap();
    mount.write(file, 10, &vec![0xbb; 2 * MIB]).await.unwrap();
    settle().await;
    assert!(cluster.blocks() > 1, "a full piece was sent by itself");
    link.crash();
    let again = Mount(cluster.link().mount(quiet()));
    let (file, _) = again.open(file.ino, libc::O_RDWR).await.unwrap();
    again.truncate(file, 3 << 20).await;
    let found = again.read(file, 0, 3 << 20).await.unwrap();
    assert!(found == [vec![1; 10], vec![0; (3 << 20) - 10]].concat());
}

#[tokio::test]
async fn a_shrink_of_unsent_data_is_nobodys_business() {
    let (cluster, _, mount) = mounted(14);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 50_000]).await.unwrap();
    mount.truncate(file, 20_000).await;
    assert_eq!(cluster.counts().mutations, 1, "the create");
    mount.truncate(file, 30_000).await;
    mount.close(file).await.unwrap();
    let (file, _) = mount.open(file.ino, libc::O_RDONLY).await.unwrap();
    assert!(mount.read(file, 0, 50_000).await.unwrap() == [vec![1; 20_000], vec![0; 10_000]].concat());
}

#[tokio::test]
async fn a_freed_range_is_free() {
    let (cluster, _, mount) = mounted(15);
    let file = mount.create("f").await;
    mount.write(file, 0, &vec![1; MIB]).await.unwrap();
    mount.fsync(file).await.unwrap();
    assert_eq!((cluster.blocks(), mount.attr(file.ino).await.allocated_bytes), (256, 1 << 20));
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let File { ino, handle } = file;
    mount.ask(Op::Fallocate { ino, handle, offset_bytes: 4096, len_bytes: 2 << 20, mode }).await.unwrap();
    assert_eq!((cluster.blocks(), mount.attr(ino).await.allocated_bytes), (1, 4096));
    assert_eq!(mount.attr(ino).await.size_bytes, 1 << 20);
    let collapse = Op::Fallocate { ino, handle, offset_bytes: 0, len_bytes: 4096, mode: 8 };
    assert_eq!(mount.ask(collapse).await.unwrap_err(), Errno::EOPNOTSUPP);
}

#[tokio::test]
async fn an_unlinked_open_file_lives_until_its_last_close() {
    let (cluster, _, mount) = mounted(16);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 5000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    mount.ask(Op::Unlink { parent: InodeId::ROOT, name: b"f" }).await.unwrap();
    assert_eq!(mount.attr(file.ino).await.nlink, 0);
    mount.write(file, 5000, &[2; 5000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    assert_eq!(mount.read(file, 4999, 2).await.unwrap(), [1, 2]);
    assert!(cluster.blocks() > 0);
    mount.close(file).await.unwrap();
    settle().await;
    assert_eq!(cluster.blocks(), 0, "nothing is left of it");
    cluster.check();
}

#[tokio::test]
async fn a_file_that_is_replaced_while_open_lives_too() {
    let (cluster, _, mount) = mounted(17);
    let old = mount.create("old").await;
    mount.write(old, 0, b"old").await.unwrap();
    mount.fsync(old).await.unwrap();
    let new = mount.create("new").await;
    let rename = Op::Rename {
        parent: InodeId::ROOT,
        name: b"new",
        new_parent: InodeId::ROOT,
        new_name: b"old",
        flags: 0,
    };
    mount.ask(rename).await.unwrap();
    assert_eq!(mount.read(old, 0, 9).await.unwrap(), b"old");
    mount.close(old).await.unwrap();
    mount.close(new).await.unwrap();
    settle().await;
    assert_eq!(cluster.blocks(), 0);
    cluster.check();
}

/// An open and an unlink at the same moment: the open fails, or the file is all there.
#[tokio::test]
async fn an_open_that_races_an_unlink_gets_the_file_or_an_error() {
    let (mut opened, mut failed) = (0, 0);
    for seed in 0..200 {
        let (cluster, _, mount) = mounted(seed);
        let file = mount.create("f").await;
        mount.write(file, 0, &[1; 5000]).await.unwrap();
        mount.close(file).await.unwrap();
        cluster.set(Faults { delay_max: 6, ..Faults::default() });
        let unlink = mount.ask(Op::Unlink { parent: InodeId::ROOT, name: b"f" });
        let (found, gone) = futures::join!(mount.open(file.ino, libc::O_RDONLY), unlink);
        gone.unwrap();
        match found {
            Ok((file, _)) => {
                opened += 1;
                assert_eq!(mount.read(file, 0, 9000).await.unwrap(), [1; 5000], "seed {seed}");
                mount.close(file).await.unwrap();
                settle().await;
            }
            Err(errno) => {
                failed += 1;
                assert!(errno == Errno::ENOENT || errno == Errno::ESTALE);
            }
        }
        assert_eq!(cluster.blocks(), 0, "seed {seed}");
    }
    assert!(opened > 0 && failed > 0, "both happen: {opened} {failed}");
}

#[tokio::test]
async fn an_unlinked_file_is_lost_with_its_session_and_says_so() {
    let (_, link, mount) = mounted(18);
    let (orphan, other) = (mount.create("f").await, mount.create("g").await);
    for file in [orphan, other] {
        mount.write(file, 0, &[1; 5000]).await.unwrap();
        mount.fsync(file).await.unwrap();
    }
    mount.ask(Op::Unlink { parent: InodeId::ROOT, name: b"f" }).await.unwrap();
    link.lose_session();
    assert_eq!(mount.read(orphan, 0, 10).await.unwrap_err(), Errno::EIO);
    assert_eq!(mount.write(orphan, 0, b"x").await.unwrap_err(), Errno::EIO);
    mount.close(orphan).await.unwrap();
    assert_eq!(mount.read(other, 0, 10).await.unwrap(), [1; 10]);
}

#[tokio::test]
async fn a_second_mount_sees_a_file_once_it_is_closed() {
    let cluster = Cluster::new(19);
    let ttl = Duration::from_millis(1);
    let config = ClientConfig { ttl, ..quiet() };
    let (one, two) = (Mount(cluster.link().mount(config.clone())), Mount(cluster.link().mount(config)));
    let writer = one.create("f").await;
    one.write(writer, 0, &[1; 5000]).await.unwrap();
    assert_eq!(two.attr(writer.ino).await.size_bytes, 0, "not yet");
    one.flush(writer).await.unwrap();
    let (reader, keep) = two.open(writer.ino, libc::O_RDONLY).await.unwrap();
    assert!(!keep);
    assert_eq!(two.read(reader, 0, 9000).await.unwrap(), [1; 5000]);
    two.close(reader).await.unwrap();
    let (reader, keep) = two.open(writer.ino, libc::O_RDONLY).await.unwrap();
    assert!(keep, "nothing changed");

    // Truncated and written anew: no zeros in place of what was acknowledged, though `reader` is still open.
    one.truncate(writer, 0).await;
    one.write(writer, 0, &[2; 5000]).await.unwrap();
    one.fsync(writer).await.unwrap();
    assert_eq!(two.read(reader, 0, 9000).await.unwrap(), [2; 5000]);
    two.close(reader).await.unwrap();
    let (_, keep) = two.open(writer.ino, libc::O_RDONLY).await.unwrap();
    assert!(!keep, "it changed");
}

/// A write that came after an fsync began is not part of it, nor is the length it gave the file.
#[tokio::test]
async fn a_size_is_told_only_when_its_bytes_are_there() {
    let cluster = Cluster::new(26);
    let (one, two) = (Mount(cluster.link().mount(quiet())), Mount(cluster.link().mount(quiet())));
    let file = one.create("f").await;
    one.write(file, 0, &[1; 5000]).await.unwrap();
    cluster.set(Faults { stuck: true, ..Faults::default() });
    let syncing = one.fsync(file);
    tokio::pin!(syncing);
    assert!(syncing.as_mut().now_or_never().is_none());
    one.write(file, 5000, &[2; 5000]).await.unwrap();
    cluster.set(Faults::default());
    syncing.await.unwrap();
    assert_eq!(two.attr(file.ino).await.size_bytes, 5000);
    assert_eq!(one.attr(file.ino).await.size_bytes, 10_000);
    one.fsync(file).await.unwrap();
    assert_eq!(two.attr(file.ino).await.size_bytes, 10_000);
}

/// Even within the time to live.
#[tokio::test]
async fn a_hole_is_asked_about_before_it_is_zeros() {
    let cluster = Cluster::new(20);
    let (one, two) = (Mount(cluster.link().mount(quiet())), Mount(cluster.link().mount(quiet())));
    let writer = one.create("f").await;
    one.write(writer, 0, &[1; 5000]).await.unwrap();
    one.fsync(writer).await.unwrap();
    let (reader, _) = two.open(writer.ino, libc::O_RDONLY).await.unwrap();
    one.truncate(writer, 0).await;
    one.write(writer, 0, &[2; 5000]).await.unwrap();
    one.fsync(writer).await.unwrap();
    assert_eq!(two.read(reader, 0, 9000).await.unwrap(), [2; 5000]);
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

#[tokio::test]
async fn a_directory_of_many_pages_lists_every_name_once() {
    let (cluster, _, mount) = mounted(22);
    for number in 0..2500 {
        let file = mount.create(&format!("file{number}")).await;
        mount.close(file).await.unwrap();
    }
    let ino = InodeId::ROOT;
    let OpReply::Opened { handle, .. } = mount.ask(Op::OpenDir { ino }).await.unwrap() else { panic!() };
    for limit in [7, 5000] {
        let before = cluster.counts().queries;
        let (mut offset, mut names) = (0, std::collections::BTreeSet::new());
        loop {
            let op = Op::ReadDir { ino, handle, offset, limit, attributes: true };
            let OpReply::Entries(entries) = mount.ask(op).await.unwrap() else { panic!() };
            let Some(last) = entries.last() else { break };
            offset = last.next_offset;
            for entry in &*entries {
                assert!(names.insert(entry.name.clone()), "{:?} twice", entry.name);
            }
        }
        assert_eq!(names.len(), 2502);
        assert_eq!(cluster.counts().queries - before, 3, "pages of a thousand, each asked for once");
    }
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
