//! What a client does whose right to change things was taken back, or that never had one.

use super::*;

fn denied(result: OpResult) {
    assert_eq!(result.unwrap_err(), Errno::EACCES);
}

/// Not even the flusher has something to send.
async fn nothing_is_left(mount: &Mount) {
    let clean = async {
        while mount.0.usage().inodes_in_use > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), clean).await.expect("something is tried again and again");
    assert_eq!(mount.0.usage().memory_used_bytes, 0);
}

/// What is not asked for is sent by itself soon.
fn hasty() -> ClientConfig {
    ClientConfig { flush_age: Duration::from_millis(2), ..quiet() }
}

fn nothing_goes() -> Faults {
    Faults { denied: true, ..Faults::default() }
}

#[tokio::test]
async fn a_refused_write_is_told_once_and_not_tried_for_ever() {
    let cluster = Cluster::new(1);
    let mount = Mount(cluster.link().mount(hasty()));
    let file = mount.create("f").await;
    let (other, _) = mount.open(file.ino, libc::O_RDWR).await.unwrap();
    mount.write(file, 0, b"kept").await.unwrap();
    mount.fsync(file).await.unwrap();
    cluster.set(nothing_goes());
    mount.write(file, 0, b"refused and longer").await.unwrap();
    denied(mount.fsync(file).await);
    assert!(mount.fsync(file).await.is_ok(), "told once");
    denied(mount.close(other).await);
    assert!(mount.close(file).await.is_ok());
    let before = cluster.counts();
    nothing_is_left(&mount).await;
    let after = cluster.counts();
    let counted = |counts: crate::cluster::Counts| (counts.mutations, counts.writes, counts.refused);
    assert_eq!(counted(after), counted(before));
    cluster.set(Faults::default());
    let (file, _) = mount.open(file.ino, libc::O_RDONLY).await.unwrap();
    assert_eq!(mount.read(file, 0, 99).await.unwrap(), b"kept");
    assert!(mount.0.errors().records().iter().any(|record| record.what.contains("write")));
}

/// Attributes that were held back are refused with the commit, and what was set by name with them.
#[tokio::test]
async fn what_was_held_back_and_is_refused_is_told_by_close() {
    let (cluster, _, mount) = mounted(2);
    let file = mount.create("f").await;
    let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.ask(Op::SetAttr { ino: file.ino, changes }).await.unwrap();
    cluster.set(nothing_goes());
    denied(mount.close(file).await);
    assert_eq!(mount.attr(file.ino).await.mode & 0o7777, 0o644, "as it is");
    denied(mount.ask(Op::SetAttr { ino: file.ino, changes }).await);
}

#[tokio::test]
async fn a_synchronous_write_that_is_refused_fails_itself() {
    let (cluster, _, mount) = mounted(3);
    let ino = mount.create("f").await.ino;
    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT] {
        cluster.set(Faults::default());
        let (file, _) = mount.open(ino, libc::O_RDWR | flags).await.unwrap();
        cluster.set(nothing_goes());
        denied(mount.write(file, 0, b"refused").await);
        match mount.close(file).await {
            Ok(_) => {}
            // With O_DIRECT the masters were not asked yet, and they refuse, too.
            other => assert_eq!((other.unwrap_err(), flags), (Errno::EACCES, libc::O_DIRECT)),
        }
    }
}

/// Waiting for room must end when what takes the room is refused.
#[tokio::test]
async fn a_long_refused_stream_ends() {
    let (cluster, _, mount) = mounted(4);
    let file = mount.create("f").await;
    cluster.set(nothing_goes());
    let writing = async {
        // More than the whole budget.
        for piece in 0..16 {
            mount.write(file, piece * MIB as u64, &vec![1; MIB]).await.unwrap();
        }
        mount.close(file).await
    };
    denied(tokio::time::timeout(Duration::from_secs(20), writing).await.expect("it hangs"));
}

#[tokio::test]
async fn truncating_without_a_right_is_refused_and_leaves_no_work_behind() {
    let cluster = Cluster::new(5);
    let mount = Mount(cluster.link().mount(hasty()));
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 10_000]).await.unwrap();
    mount.close(file).await.unwrap();
    let (file, _) = mount.open(file.ino, libc::O_RDWR).await.unwrap();
    cluster.set(nothing_goes());
    denied(mount.ftruncate(file, 100).await);
    denied(mount.ftruncate(file, 0).await);
    assert_eq!(mount.attr(file.ino).await.size_bytes, 10_000);
    let opened = Op::Open { ino: file.ino, flags: libc::O_RDWR | libc::O_TRUNC };
    denied(mount.ask(opened).await);
    mount.close(file).await.unwrap();
    nothing_is_left(&mount).await;
    denied(mount.ask(Op::Unlink { parent: InodeId::ROOT, name: b"f" }).await);
    denied(mount.ask(Op::Mkdir { parent: InodeId::ROOT, name: b"d", mode: 0o755 }).await);
}

/// A capability that only lets one read is enough for whoever only reads: nothing is written by the way, neither times nor anything at
/// the end.
#[tokio::test]
async fn who_only_reads_changes_nothing() {
    let (cluster, _, mount) = mounted(6);
    let file = mount.create("f").await;
    mount.write(file, 0, &[1; 10_000]).await.unwrap();
    mount.close(file).await.unwrap();
    cluster.set(nothing_goes());
    let before = cluster.counts();
    let config = ClientConfig { flush_age: Duration::from_millis(1), ttl: Duration::ZERO, ..quiet() };
    let reader = Mount(cluster.link().mount(config));
    let root = InodeId::ROOT;
    reader.ask(Op::Lookup { parent: root, name: b"f" }).await.unwrap();
    let (open, _) = reader.open(file.ino, libc::O_RDONLY).await.unwrap();
    assert_eq!(reader.read(open, 0, 10).await.unwrap(), [1; 10]);
    let File { ino, handle } = open;
    reader.ask(Op::Seek { ino, handle, offset_bytes: 0, whence: libc::SEEK_HOLE }).await.unwrap();
    reader.fsync(open).await.unwrap();
    reader.ask(Op::ListXattr { ino }).await.unwrap();
    assert_eq!(reader.ask(Op::GetXattr { ino, name: b"user.a" }).await.unwrap_err(), Errno::ENODATA);
    let OpReply::Opened { handle, .. } = reader.ask(Op::OpenDir { ino: root }).await.unwrap() else {
        panic!()
    };
    reader.ask(Op::ReadDir { ino: root, handle, offset: 0, limit: 9, attributes: true }).await.unwrap();
    reader.ask(Op::ReleaseDir { ino: root, handle }).await.unwrap();
    reader.ask(Op::StatFs).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    reader.close(open).await.unwrap();
    reader.ask(Op::Forget { ino, lookups: 2 }).await.unwrap();
    reader.0.shutdown().await.unwrap();
    let after = cluster.counts();
    assert_eq!((after.mutations, after.writes, after.refused), (before.mutations, before.writes, 0));
}
