//! A platform in this process: starts, serves, stops, is found again, grows.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;
use std::time::Duration;

use deploy_embedded::{Embedded, EmbeddedConfig};
use fs_client::{Caller, ClientConfig, FileSystem, HandleId, Op, OpReply};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0 };
const ROOT: coord_types::InodeId = coord_types::InodeId::ROOT;

fn start(dir: &std::path::Path, replicas: Option<u32>) -> Embedded {
    let config = EmbeddedConfig { replicas, capacity_bytes: Some(256 << 20), ..EmbeddedConfig::new(dir) };
    Embedded::start(&config).unwrap()
}

/// Runs `work` with a client of the platform, within a bound on its time.
fn with_client<T>(platform: &Embedded, work: impl AsyncFnOnce(FileSystem) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = ClientConfig {
            masters: vec![platform.master().clone()],
            access: platform.access().unwrap(),
            ..ClientConfig::default()
        };
        let work = async {
            let fs = FileSystem::connect(config).await.unwrap();
            let done = work(fs.clone()).await;
            fs.shutdown().await.unwrap();
            done
        };
        tokio::time::timeout(Duration::from_secs(60), work).await.expect("the platform answers")
    })
}

async fn write(fs: &FileSystem, name: &[u8], data: &[u8]) {
    let op = Op::Create { parent: ROOT, name, mode: 0o644, flags: libc::O_WRONLY | libc::O_CREAT };
    let OpReply::Created { entry, handle, .. } = fs.handle(&CALLER, op).await.unwrap() else {
        panic!("not created")
    };
    let ino = entry.attr.ino;
    let op = Op::Write { ino, handle, offset_bytes: 0, data, kill_privileges: false, mapped: false };
    assert!(matches!(fs.handle(&CALLER, op).await, Ok(OpReply::Written(len)) if len as usize == data.len()));
    close(fs, ino, handle).await;
}

async fn close(fs: &FileSystem, ino: coord_types::InodeId, handle: HandleId) {
    fs.handle(&CALLER, Op::Flush { ino, handle }).await.unwrap();
    fs.handle(&CALLER, Op::Release { ino, handle }).await.unwrap();
}

async fn read(fs: &FileSystem, name: &[u8]) -> Vec<u8> {
    let OpReply::Entry(entry) = fs.handle(&CALLER, Op::Lookup { parent: ROOT, name }).await.unwrap() else {
        panic!("no entry")
    };
    let ino = entry.attr.ino;
    let opened = fs.handle(&CALLER, Op::Open { ino, flags: libc::O_RDONLY }).await.unwrap();
    let OpReply::Opened { handle, .. } = opened else { panic!("not opened") };
    let op = Op::Read { ino, handle, offset_bytes: 0, len_bytes: 1 << 20 };
    let OpReply::Data(pieces) = fs.handle(&CALLER, op).await.unwrap() else { panic!("no data") };
    close(fs, ino, handle).await;
    pieces.concat()
}

#[test]
fn finds_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let data: Arc<[u8]> = (0..300_000u32).map(|n| (n % 253) as u8).collect();
    let platform = start(dir.path(), Some(2));
    assert_eq!((platform.replicas(), platform.chunkservers()), (2, 2));
    with_client(&platform, async |fs| write(&fs, b"kept", &data).await);
    assert!(platform.stop(Duration::from_secs(20)));

    let platform = start(dir.path(), None);
    assert_eq!((platform.replicas(), platform.chunkservers()), (2, 2));
    assert_eq!(with_client(&platform, async |fs| read(&fs, b"kept").await), &data[..]);
}

#[test]
fn a_second_one_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = start(dir.path(), None);
    let refused = Embedded::start(&EmbeddedConfig::new(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("in use by process"), "{refused}");
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the chunkserver wants its directory.
    std::fs::create_dir_all(dir.path()).unwrap();
    std::fs::write(dir.path().join("chunkserver-1"), "").unwrap();
    let refused = Embedded::start(&EmbeddedConfig::new(dir.path())).unwrap_err();
    assert!(refused.to_string().contains("start chunkserver 1"), "{refused}");
    std::fs::remove_file(dir.path().join("chunkserver-1")).unwrap();
    let platform = start(dir.path(), None);
    with_client(&platform, async |fs| write(&fs, b"now", b"it works").await);
}
