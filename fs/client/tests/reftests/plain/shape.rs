//! No stale byte reappears (I8), and what is freed is free.

use fs_client::{Errno, Op, SetAttr};
use futures::FutureExt as _;

use super::{File, MIB, Mount, mounted, quiet, settle};
use crate::cluster::Faults;

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

/// What is dirty when a truncate begins stays so until the master agreed: it could land after the punch.
#[tokio::test]
async fn nothing_takes_off_while_a_truncate_waits() {
    let (cluster, _, mount) = mounted(34);
    let file = mount.create("f").await;
    cluster.set(Faults { stuck: true, ..Faults::default() });
    mount.write(file, 0, &vec![0xaa; MIB]).await.unwrap();
    mount.write(file, 1 << 20, &[0xbb; 5000]).await.unwrap();
    let changes = SetAttr { size_bytes: Some(1000), ..SetAttr::default() };
    let cut = mount.ask(Op::SetAttr { ino: file.ino, changes });
    tokio::pin!(cut);
    assert!(cut.as_mut().now_or_never().is_none());
    settle().await;
    let flushed = mount.fsync(file);
    tokio::pin!(flushed);
    assert!(flushed.as_mut().now_or_never().is_none());
    settle().await;
    assert_eq!(cluster.counts().in_flight, 1, "only what was on its way before");
    cluster.set(Faults::default());
    cut.await.unwrap();
    flushed.await.unwrap();
    mount.truncate(file, 2 << 20).await;
    let found = mount.read(file, 0, 2 << 20).await.unwrap();
    assert!(found == [vec![0xaa; 1000], vec![0; 2 * MIB - 1000]].concat());
}

/// I8: of an unlinked file the master does not know the length, so its `garbage_end` says nothing.
#[tokio::test]
async fn no_stale_byte_reappears_in_an_unlinked_file() {
    let (_, _, mount) = mounted(28);
    let file = mount.create("f").await;
    mount.ask(Op::Unlink { parent: coord_types::InodeId::ROOT, name: b"f" }).await.unwrap();
    mount.write(file, 0, &[0xaa; 10_000]).await.unwrap();
    mount.fsync(file).await.unwrap();
    mount.truncate(file, 1).await;
    mount.truncate(file, 10_000).await;
    assert!(mount.read(file, 0, 20_000).await.unwrap() == [vec![0xaa; 1], vec![0; 9_999]].concat());
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
    mount.ftruncate(file, 20_000).await.unwrap();
    assert_eq!(cluster.counts().mutations, 1, "the create");
    mount.ftruncate(file, 30_000).await.unwrap();
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

/// A chunk's number has 32 bits: beyond there is no chunk to write to.
#[tokio::test]
async fn no_file_is_longer_than_its_layout_allows() {
    let (_, _, mount) = mounted(31);
    let file = mount.create("f").await;
    let File { ino, handle } = file;
    let far = i64::MAX as u64;
    assert_eq!(mount.write(file, far - 1, b"x").await.unwrap_err(), Errno::EFBIG);
    assert_eq!(mount.write(file, u64::MAX, b"x").await.unwrap_err(), Errno::EFBIG);
    let changes = SetAttr { size_bytes: Some(far), ..SetAttr::default() };
    assert_eq!(mount.ask(Op::SetAttr { ino, changes }).await.unwrap_err(), Errno::EFBIG);
    for offset_bytes in [far - 1, u64::MAX] {
        let longer = Op::Fallocate { ino, handle, offset_bytes, len_bytes: 1, mode: 0 };
        assert_eq!(mount.ask(longer).await.unwrap_err(), Errno::EFBIG);
    }
    assert_eq!(mount.attr(ino).await.size_bytes, 0);
    mount.write(file, 0, b"kept").await.unwrap();
    assert!(mount.close(file).await.is_ok());
}
