//! A mount whose session is over: what was its is not, and everybody is told.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::close;
use nuwa_api::LockRequest;
use nuwa_api::proto::{EndSession, command};

use crate::fixture::{LEASE, Mount, Told, World, soon, until};

/// The leader looks at leases every 100 ms; the rest is for the end of the session to be committed and told, on a busy machine.
const LATE: Duration = Duration::from_secs(1);

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn is_eio<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}

#[test]
fn a_session_that_is_over_takes_its_locks_along_and_another_serves() {
    use std::os::fd::AsFd as _;
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    std::fs::create_dir(one.path.join("d")).unwrap();
    world.put("/d/held", "before");
    let events = one.path.join("d/.events");
    let (mut held, mut written) = (open(&one.path.join("d/held")), open(&one.path.join("d/written")));
    let mut free = open(&one.path.join("d/free"));
    held.lock().unwrap();
    written.lock().unwrap();
    let over = world.holder("/d/held").unwrap();
    let told = Told::by(&events);
    let mut polled = File::open(&events).unwrap();
    written.write_all(b"under a lock that is about to go").unwrap();
    free.write_all(b"without a lock").unwrap();

    world.change(command::What::EndSession(EndSession { session: over }));
    let mut lines: Vec<_> = std::iter::from_fn(|| told.next()).collect();
    assert_eq!(lines.pop().unwrap(), serde_json::json!({"kind": "session_lost"}), "after {lines:?}");
    assert!(lines.iter().all(|line| line["kind"] == "unlocked"), "{lines:?}");
    // At the end of the file nobody waits.
    while polled.read(&mut [0; 1000]).unwrap() > 0 {}
    let mut files = [PollFd::new(polled.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut files, PollTimeout::ZERO).unwrap(), 1);

    // Somebody else may have the lock by now: nothing goes on as if it were held.
    assert!(is_eio(held.read(&mut [0; 10])));
    assert!(is_eio(held.write(b"x")));
    assert!(is_eio(held.sync_all()));
    assert!(is_eio(held.set_len(1)));
    assert!(is_eio(held.unlock()));
    assert!(is_eio(held.lock()), "it is not the same lock");
    assert!(is_eio(held.read(&mut [0; 10])), "until it is closed");
    assert_eq!(close(written), Err(nix::Error::EIO));
    assert_eq!(world.value("/d/written").unwrap(), b"", "only its lock made it");
    assert_eq!(world.value("/d/held").unwrap(), b"before");
    close(free).unwrap();
    assert_eq!(world.value("/d/free").unwrap(), b"without a lock");

    // Another session serves what is opened from now on.
    let mut again = open(&one.path.join("d/held"));
    again.lock().unwrap();
    assert_ne!(world.holder("/d/held"), Some(over));
    let told = Told::by(&events);
    again.write_all(b"after!").unwrap();
    close(again).unwrap();
    assert_eq!(told.next().unwrap()["value"], "after!");
    assert_eq!(told.next().unwrap()["kind"], "unlocked");
    drop(held);
    assert_eq!(world.value("/d/held").unwrap(), b"after!");
}

/// Takes a lock through a mount, lets something happen to the mount, and says how long the lock was kept from another client after that.
fn kept_for(world: &World, mount: &mut Mount, event: impl FnOnce(&mut Mount)) -> (File, Duration) {
    let file = open(&mount.path.join("turn"));
    file.lock().unwrap();
    let request = LockRequest { path: "/turn".to_owned(), owner: 1, ..LockRequest::default() };
    assert_eq!(world.ask(world.session.try_lock(&request, soon())).unwrap(), None);
    let happened = Instant::now();
    event(mount);
    world.ask(world.session.lock(&request, soon())).unwrap();
    let kept = happened.elapsed();
    world.ask(world.session.unlock("/turn", 1, soon())).unwrap();
    (file, kept)
}

#[test]
fn the_lock_of_a_mount_that_is_killed_or_stopped_is_free_within_its_lease() {
    let Some(world) = World::start() else { return };
    let (mut one, mut two) = (world.mount("one"), world.mount("two"));
    let (dead, kept) = kept_for(&world, &mut one, Mount::kill);
    println!("kept for {kept:?} after the mount was killed");
    assert!(kept < LEASE + LATE, "{kept:?}");
    assert_eq!((&dead).read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::NotConnected);

    let (mut stopped, kept) = kept_for(&world, &mut two, |mount| mount.signal(Signal::SIGSTOP));
    println!("kept for {kept:?} after the mount was stopped");
    assert!(kept < LEASE + LATE, "{kept:?}");
    // Whatever it does when it goes on is refused, before it knows why and after.
    world.put("/turn", "somebody else's");
    two.signal(Signal::SIGCONT);
    assert!(is_eio(stopped.write(b"mine!").and_then(|_| stopped.sync_all())));
    until("it knows", || is_eio(stopped.read(&mut [0; 10])));
    drop(stopped);
    assert_eq!(world.value("/turn").unwrap(), b"somebody else's");
}
