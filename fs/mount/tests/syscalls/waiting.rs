//! Operations that wait: signals let their callers go, and what must not hang is answered from memory.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_mount::{UnmountReport, mountpoint};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{TestMount, eventually};

fn start(script: &str, mount: &TestMount) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .current_dir(mount.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until an operation of somebody waits for the gate.
fn waits(mount: &TestMount) {
    eventually("an operation waits", || mount.fs.waiting() > 0);
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// The child's end, which must come soon.
fn end(mut child: Child) -> std::process::ExitStatus {
    let begin = Instant::now();
    let mut status = None;
    while status.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it hangs");
        status = child.try_wait().unwrap();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    status.unwrap()
}

#[test]
fn interrupting_a_waiting_lookup_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    for name in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mount = TestMount::new();
        mount.fs.open_gate(false);
        let child = start("exec cat heldname", &mount);
        waits(&mount);
        signal(&child, name);
        assert_eq!(end(child).signal(), Some(name as i32));
    }
}

#[test]
fn interrupting_a_waiting_read_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    let mount = TestMount::new();
    fs::write(mount.path("held"), "data").unwrap();
    mount.fs.open_gate(false);
    let child = start("exec cat held", &mount);
    waits(&mount);
    signal(&child, Signal::SIGKILL);
    assert_eq!(end(child).signal(), Some(libc::SIGKILL));
}

/// A killed process closes its files on its way out, and the close waits for the server too.
#[test]
fn a_killed_process_does_not_wait_to_close_its_files() {
    use std::os::unix::process::ExitStatusExt;
    let mount = TestMount::new();
    let mut child = start("exec 3> held; echo open; exec sleep 1000", &mount);
    let mut line = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    mount.fs.open_gate(false);
    signal(&child, Signal::SIGKILL);
    assert_eq!(end(child).signal(), Some(libc::SIGKILL));
}

/// Files that are to be closed by execve are closed within it, and it waits for that like any close. Who looks at such a process
/// in the wrong way waits with it, and nobody is let go any more.
#[test]
fn a_process_that_waits_within_execve_holds_up_nobody_else() {
    use std::os::unix::process::ExitStatusExt;
    let mount = TestMount::new();
    let script = "import os, sys; f = open('held', 'w'); print('open', flush=True); sys.stdin.readline(); \
                  os.execv('/bin/true', ['true'])";
    let mut execs = Command::new("python3")
        .args(["-c", script])
        .current_dir(mount.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    std::io::Read::read_exact(execs.stdout.as_mut().unwrap(), &mut line).unwrap();
    mount.fs.open_gate(false);
    std::io::Write::write_all(execs.stdin.as_mut().unwrap(), b"go\n").unwrap();
    waits(&mount);
    let begin = Instant::now();
    eventually("three looks of the watchdog", || begin.elapsed() > Duration::from_millis(1200));
    let other = start("exec cat heldname", &mount);
    eventually("both wait", || mount.fs.waiting() > 1);
    signal(&other, Signal::SIGKILL);
    assert_eq!(end(other).signal(), Some(libc::SIGKILL));
    assert!(execs.try_wait().unwrap().is_none(), "its close waits for the server");
    mount.fs.open_gate(true);
    assert!(end(execs).success());
}

/// A handled SIGCHLD or SIGALRM is no reason to fail a system call on a file.
#[test]
fn ticking_signals_do_not_interrupt() {
    let mount = TestMount::new();
    mount.fs.open_gate(false);
    let script = "trap : ALRM CHLD; kill -ALRM $$; cat < heldname; echo done";
    let child = start(script, &mount);
    waits(&mount);
    signal(&child, Signal::SIGALRM);
    signal(&child, Signal::SIGCHLD);
    let begin = Instant::now();
    eventually("three looks of the watchdog", || begin.elapsed() > Duration::from_millis(1200));
    waits(&mount);
    mount.fs.open_gate(true);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("No such file"), "{output:?}");
}

#[test]
fn what_must_not_hang_is_answered_from_memory() {
    let mount = TestMount::new();
    let before = nix::sys::statvfs::statvfs(mount.root()).unwrap();
    mount.fs.open_gate(false);
    let begin = Instant::now();
    let during = nix::sys::statvfs::statvfs(mount.root()).unwrap();
    assert_eq!(before.blocks(), during.blocks());
    // Whatever the kernel knows of the root is too old by now, so it asks.
    eventually("attributes run out", || begin.elapsed() > Duration::from_millis(1100));
    assert!(fs::metadata(mount.root()).unwrap().is_dir());
    assert!(begin.elapsed() < Duration::from_secs(8));
    // Nobody answered, so the next questions do not wait as long again.
    let again = Instant::now();
    for _ in 0..3 {
        nix::sys::statvfs::statvfs(mount.root()).unwrap();
    }
    assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());
}

#[test]
fn a_waiting_operation_goes_on_when_the_answer_comes() {
    let mount = TestMount::new();
    fs::write(mount.path("held"), "patience").unwrap();
    mount.fs.open_gate(false);
    let child = start("cat held", &mount);
    waits(&mount);
    mount.fs.open_gate(true);
    assert_eq!(child.wait_with_output().unwrap().stdout, b"patience");
}

#[test]
fn a_mount_in_use_is_taken_down_all_the_same() {
    let mount = TestMount::new();
    fs::write(mount.path("held"), "x").unwrap();
    mount.fs.open_gate(false);
    let reader = start("cat held", &mount);
    waits(&mount);
    let begin = Instant::now();
    assert!(!mount.detach(), "it is in use");
    assert!(mountpoint::mount_at(mount.root()).unwrap().is_none(), "out of the tree at once");
    let report = mount.runtime.block_on(mount.mounted.finish(Duration::from_millis(300)));
    assert_eq!(report, UnmountReport::Aborted);
    assert!(!reader.wait_with_output().unwrap().status.success(), "its user gets an error");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_unused_mount_is_taken_down_cleanly() {
    let mount = TestMount::new();
    fs::write(mount.path("f"), "x").unwrap();
    assert!(mount.detach());
    let report = mount.runtime.block_on(mount.mounted.finish(Duration::from_secs(10)));
    assert_eq!(report, UnmountReport::Clean);
}
