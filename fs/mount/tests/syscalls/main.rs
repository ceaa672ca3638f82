//! Every operation of the transport, by the system call that causes it, on a real mount. Behind the mount stands a file
//! system in memory, so that a failure here is one of the translation. Needs /dev/fuse and root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod attributes;
mod directories;
mod files;
mod memory;
mod names;
mod stale;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_mount::{MountOptions, Mounted, mountpoint};
use memory::MemoryFs;

/// A mount over a fresh file system in memory, taken down when dropped.
pub(crate) struct TestMount {
    pub(crate) fs: Arc<MemoryFs>,
    pub(crate) mounted: Mounted,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl TestMount {
    pub(crate) fn new() -> Self {
        Self::over(MemoryFs::new(false))
    }

    /// As many operations as possible are answered without waiting.
    pub(crate) fn eager() -> Self {
        Self::over(MemoryFs::new(true))
    }

    fn over(fs: Arc<MemoryFs>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = MountOptions::new(dir.path());
        let mounted = fs_mount::mount(Arc::clone(&fs), &options, runtime.handle())
            .expect("these tests need root and /dev/fuse");
        Self { fs, mounted, runtime, dir }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes the mount out of the tree; `false` if it is in use.
    pub(crate) fn detach(&self) -> bool {
        self.runtime.block_on(self.mounted.detach()).expect("it can be taken out of the tree")
    }

    pub(crate) fn saw(&self, what: &str) -> bool {
        self.fs.seen().iter().any(|seen| seen == what)
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        self.fs.open_gate(true);
        self.runtime.block_on(async {
            let _ = self.mounted.detach().await;
            self.mounted.finish(Duration::from_secs(5)).await;
        });
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn mounts_show_in_the_table_and_read_ahead_is_raised() {
    let mount = TestMount::new();
    let entry = mountpoint::mount_at(mount.root()).unwrap().expect("it is mounted");
    assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("fuse.pangu", "pangu"));
    let read_ahead = format!("/sys/class/bdi/{}:{}/read_ahead_kb", entry.major, entry.minor);
    assert_eq!(std::fs::read_to_string(read_ahead).unwrap().trim(), "4096");
    assert_eq!(mount.mounted.entry(), Some(&entry));
}

#[test]
fn a_second_mount_on_it_is_refused() {
    let mount = TestMount::new();
    let refused = mountpoint::make_ready(mount.root()).unwrap_err().to_string();
    assert!(refused.contains("mount point already (fuse.pangu, pangu)"), "{refused}");
}

#[test]
fn it_ends_when_somebody_else_unmounts_it() {
    let mount = TestMount::new();
    let status = std::process::Command::new("umount").arg(mount.root()).status().unwrap();
    assert!(status.success());
    mount.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), mount.mounted.ended()).await.expect("it ends").unwrap();
    });
    assert!(mountpoint::mount_at(mount.root()).unwrap().is_none());
}
