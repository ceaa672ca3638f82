//! The programs as people use them: `pangu-fuse` on a real mount of an embedded platform, `pangu` beside it, and what
//! both say when something is wrong. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod life;
mod looking;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory for a mount and one for its data; whatever is mounted there is taken away at the end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("mnt")).expect("a directory");
        Self { dir }
    }

    pub(crate) fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mnt().join(name)
    }

    /// `pangu-fuse` on this place, with an embedded platform.
    pub(crate) fn fuse(&self, more: &[&str]) -> Command {
        let mut command = pangu_fuse();
        command.arg(self.mnt()).arg("--data").arg(self.data()).args(more);
        if !more.contains(&"--capacity") {
            command.args(["--capacity", "1G"]);
        }
        command
    }

    /// The same, running in the foreground, once it is mounted.
    pub(crate) fn mounted(&self, more: &[&str]) -> Mount<'_> {
        let child = self.fuse(more).stderr(Stdio::piped()).spawn().expect("it starts");
        let mount = Mount { place: self, child };
        eventually("it is mounted", || is_mounted(&self.mnt()));
        mount
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while is_mounted(&self.mnt()) {
            let status = Command::new("umount").arg("-l").arg(self.mnt()).status();
            if !status.is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

/// A running `pangu-fuse`.
pub(crate) struct Mount<'a> {
    place: &'a Place,
    pub(crate) child: Child,
}

impl Mount<'_> {
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Waits for its end and gives what it said.
    pub(crate) fn end(mut self) -> Output {
        eventually("pangu-fuse ends", || self.child.try_wait().expect("it can be waited for").is_some());
        let mut stderr = Vec::new();
        std::io::Read::read_to_end(self.child.stderr.as_mut().expect("piped"), &mut stderr)
            .expect("it is read");
        let status = self.child.wait().expect("it ended");
        Output { status, stdout: Vec::new(), stderr }
    }

    /// Unmounts as a user does, and waits for the end.
    pub(crate) fn unmount(self) -> Output {
        assert!(Command::new("umount").arg(self.place.mnt()).status().expect("umount runs").success());
        self.end()
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}

pub(crate) fn pangu_fuse() -> Command {
    clean(env!("CARGO_BIN_EXE_pangu-fuse"))
}

pub(crate) fn pangu() -> Command {
    clean(env!("CARGO_BIN_EXE_pangu"))
}

/// A program that knows of no cluster on this machine.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("FEITIAN_CLUSTER").env("HOME", "/nonexistent").env("FEITIAN_LOG", "warn");
    command
}

/// What a program said, whether it went well or not.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    fs_mount::mountpoint::mount_at(path).expect("/proc is there").is_some()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
