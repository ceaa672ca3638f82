//! Who has a file's lock, whatever was interrupted, and under which fence.

use std::time::Duration;

use fs_client::{Errno, Flock};
use nuwa_api::proto::{EndSession, LockState, command};
use nuwa_api::{LockRequest, Locked};

use crate::fixture::{World, soon};
use crate::program::Program;

const OTHER: u64 = 1;

async fn state(world: &World, path: &str) -> LockState {
    world.client().lock_state(path, soon()).await.unwrap()
}

/// Asks until the file's lock has so many holders and claims that wait.
async fn until_it_has(world: &World, path: &str, holders: usize, waiters: u64) {
    loop {
        let state = state(world, path).await;
        if (state.holders.len(), state.waiters) == (holders, waiters) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn request(path: &str) -> LockRequest {
    LockRequest { path: path.to_owned(), owner: OTHER, ..LockRequest::default() }
}

async fn other_takes(world: &World, path: &str) -> Locked {
    world.session.lock(&request(path), soon()).await.unwrap()
}

async fn other_gives_back(world: &World, path: &str) {
    world.session.unlock(path, OTHER, soon()).await.unwrap();
}

/// Whoever was paused for longer than its lease, after it had got the lock and before it asked for its fence, was told its successor's,
/// raised the fence of what it wrote to that, and wrote.
#[test]
fn a_holder_is_never_told_the_fence_of_its_successor() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.put("/x", "");
    world.ask(async {
        let held = mount.open("x", 0).await;
        let ino = held.ino;
        mount.flock(held, Flock::Exclusive, true).await.unwrap();
        let fence = mount.fence(ino).await.unwrap();
        assert_eq!(fence, state(&world, "/x").await.holders[0].fence);
        let again = mount.open_again("x").await;
        let session = state(&world, "/x").await.holders[0].session;
        let end = command::What::EndSession(EndSession { session });
        world.session.change(end, soon()).await.unwrap();
        let successor = other_takes(&world, "/x").await.fence;
        assert!(successor > fence);

        // Before the mount knows its own is right, and Pangu refuses it; afterwards there is none.
        loop {
            match mount.fence(ino).await {
                Ok(found) => assert_eq!(found, fence),
                Err(error) => break assert_eq!(error, Errno::EIO),
            }
        }
        mount.release(again).await;
        assert_eq!(mount.fence(ino).await, Err(Errno::EIO));
        mount.release(held).await;
        // Who holds no lock asks for whoever has it.
        let looking = mount.open("x", 0).await;
        assert_eq!(mount.fence(looking.ino).await, Ok(successor));
    });
}

/// The kernel's number of a lock's owner is made of the address of an open file. The next one was at the same often enough, and was
/// granted what the first one still held: then the first one's unlock, which nobody waits for, took it away.
#[test]
fn files_are_two_holders_whatever_number_the_kernel_gives_them() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        let (one, two) = (mount.open("x", 0).await, mount.open("x", 0).await);
        mount.flock(one, Flock::Exclusive, false).await.unwrap();
        assert_eq!(mount.flock(two, Flock::Exclusive, false).await, Err(Errno::EAGAIN));
        // Once more, it is the same.
        let fence = mount.fence(one.ino).await.unwrap();
        mount.flock(one, Flock::Exclusive, true).await.unwrap();
        assert_eq!(mount.fence(one.ino).await.unwrap(), fence);
        mount.release(one).await;
        mount.flock(two, Flock::Exclusive, false).await.unwrap();
        // The other kind.
        mount.flock(two, Flock::Shared, false).await.unwrap();
        let found = state(&world, "/x").await;
        assert!(found.holders.len() == 1 && found.holders[0].shared && found.waiters == 0, "{found:?}");
        mount.flock(two, Flock::Unlock, false).await.unwrap();
        assert_eq!(state(&world, "/x").await, LockState::default());
    });
}

/// The claim of the interrupted call and that of the next one were the same, so whatever took the first one back took the second.
#[test]
fn a_wait_that_was_interrupted_does_not_cost_the_next_one_its_turn() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        let file = mount.open("x", 0).await;
        mount.flock(file, Flock::Unlock, true).await.unwrap();
        mount.flock(file, Flock::Shared, true).await.unwrap();
        mount.flock(file, Flock::Unlock, true).await.unwrap();
        for _ in 0..20 {
            other_takes(&world, "/x").await;
            let waits = until_it_has(&world, "/x", 1, 1);
            mount.interrupt_flock(file, Flock::Exclusive, true, waits).await;
            let gets_it = mount.flock(file, Flock::Exclusive, true);
            let frees_it = async {
                until_it_has(&world, "/x", 1, 1).await;
                other_gives_back(&world, "/x").await;
            };
            let (locked, ()) = tokio::join!(gets_it, frees_it);
            locked.unwrap();
            assert!(world.session.try_lock(&request("/x"), soon()).await.unwrap().is_none());
            mount.flock(file, Flock::Unlock, true).await.unwrap();
        }
        assert_eq!(state(&world, "/x").await, LockState::default());
    });
}

/// `flock -n` that was granted the lock, and whose program was gone before it heard of it.
#[test]
fn a_lock_that_nobody_heard_of_is_given_back() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        let file = mount.open("x", libc::O_EXCL).await;
        let granted = until_it_has(&world, "/x", 1, 0);
        mount.interrupt_flock(file, Flock::Exclusive, false, granted).await;
        // At once, not only when the file is closed.
        let free = until_it_has(&world, "/x", 0, 0);
        tokio::time::timeout(crate::fixture::PATIENCE, free).await.expect("it is still locked");
        mount.flock(file, Flock::Exclusive, false).await.unwrap();
        mount.release(file).await;
        assert_eq!(state(&world, "/x").await, LockState::default());
    });
}

/// An interrupted `flock -u` forgot that there was a lock: it was held as long as the mount lived.
#[test]
fn an_unlock_that_was_interrupted_is_made_up_for_by_close() {
    let Some(mut world) = World::start() else { return };
    let mount = Program::start(&world);
    let file = world.ask(mount.open("x", libc::O_EXCL));
    world.ask(mount.flock(file, Flock::Exclusive, true)).unwrap();
    assert!(world.holder("/x").is_some());
    world.stop();
    world.ask(mount.interrupt_flock(file, Flock::Unlock, true, async {}));
    world.start_again();
    world.ask(mount.release(file));
    assert_eq!(world.holder("/x"), None);
}
