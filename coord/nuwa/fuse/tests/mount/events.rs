//! `.events`: waited for with `poll` and `select`, and told what history has lost.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::gettid;
use nuwa_api::proto::{SetHistory, command};

use crate::fixture::{PATIENCE, Told, World, until};

/// How to wait for a file.
type Wait = fn(&File, PollTimeout) -> bool;

/// Whether it can be read, by `poll(2)`.
fn polled(file: &File, timeout: PollTimeout) -> bool {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut files, timeout).unwrap();
    assert_eq!(files[0].any().unwrap(), ready == 1);
    ready == 1
}

/// Whether it can be read, by `select(2)`.
fn selected(file: &File, timeout: PollTimeout) -> bool {
    let mut files = FdSet::new();
    files.insert(file.as_fd());
    let mut timeout = TimeVal::milliseconds(timeout.as_millis().unwrap().into());
    select(file.as_raw_fd() + 1, &mut files, None, None, &mut timeout).unwrap() == 1
}

/// A thread that waits for the file: it sleeps in `poll` or `select` when this returns.
fn waits(file: &File, wait: Wait) -> JoinHandle<bool> {
    let file = file.try_clone().unwrap();
    let (sender, id) = std::sync::mpsc::sync_channel(1);
    let waiting = std::thread::spawn(move || {
        sender.send(gettid()).unwrap();
        wait(&file, PollTimeout::try_from(PATIENCE).unwrap())
    });
    let sleeps_at = format!("/proc/self/task/{}/wchan", id.recv_timeout(PATIENCE).unwrap());
    until("the thread waits", || {
        // Not `fuse_...`, where it waits for the mount to say that there is nothing yet.
        let at = std::fs::read_to_string(&sleeps_at);
        waiting.is_finished() || at.is_ok_and(|at| at.starts_with("poll_schedule"))
    });
    waiting
}

fn line(file: &mut File) -> serde_json::Value {
    let mut bytes = [0; 4096];
    let len = file.read(&mut bytes).unwrap();
    serde_json::from_slice(&bytes[..len]).unwrap()
}

#[test]
fn poll_and_select_say_when_there_is_something_to_read() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    std::fs::create_dir(one.path.join("d")).unwrap();
    let mut file = File::open(one.path.join("d/.events")).unwrap();
    for (n, wait) in [polled as Wait, selected, polled, selected].into_iter().enumerate() {
        assert!(!wait(&file, PollTimeout::ZERO), "nothing has happened");
        let waiting = waits(&file, wait);
        assert!(!waiting.is_finished(), "nothing has happened");
        // None of its business.
        world.put("/other", "x");
        world.put("/d/x", &n.to_string());
        assert!(waiting.join().unwrap(), "nobody was told of the change");
        assert!(wait(&file, PollTimeout::ZERO), "it is there until it is read");
        let line = line(&mut file);
        assert_eq!((&line["path"], &line["value"]), (&"/d/x".into(), &n.to_string().into()));
    }
    assert!(!polled(&file, PollTimeout::ZERO), "all was read");
    // Any other file is ready always.
    assert!(polled(&File::open(one.path.join("d/x")).unwrap(), PollTimeout::ZERO));
}

#[test]
fn a_reader_that_comes_too_late_is_told_so_and_goes_on() {
    let Some(mut world) = World::start() else { return };
    let one = world.mount("one");
    world.change(command::What::SetHistory(SetHistory { events_max: 10, bytes_max: 0 }));
    for n in 1..=50 {
        world.put("/n", &n.to_string());
    }
    // Its memory holds more than what is kept.
    world.restart();
    let told = Told::by(&one.path.join(".events@1"));
    let lost = told.next().unwrap();
    assert_eq!(lost["kind"], "history_lost", "{lost}");
    let first = lost["first"].as_u64().unwrap();
    assert!((2..=41).contains(&first), "{first}");
    for revision in first..=50 {
        let line = told.next().unwrap();
        assert_eq!((&line["revision"], &line["value"]), (&revision.into(), &revision.to_string().into()));
    }
    world.put("/n", "now");
    assert_eq!(told.next().unwrap()["value"], "now");
}
