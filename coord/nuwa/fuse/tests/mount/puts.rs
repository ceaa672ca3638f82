//! When a value is put, over what, and who is told.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use fs_client::{Errno, Flock};
use nix::unistd::close;
use nuwa_api::client::Freshness;
use nuwa_api::proto::{Entry, SetQuota, command};

use crate::fixture::{World, soon, until};
use crate::program::Program;

async fn entry(world: &World, path: &str) -> Option<Entry> {
    world.client().get(path, Freshness::Linearizable, soon()).await.unwrap()
}

async fn until_it_is(world: &World, path: &str, value: &str) {
    while entry(world, path).await.is_none_or(|entry| entry.value != value) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever was interrupted in closing a file went on with something else. What it had written was put all the same when the kernel
/// closed the file for good, however much later: over what others had put since.
#[test]
fn a_close_that_was_interrupted_puts_nothing_later() {
    let Some(mut world) = World::start() else { return };
    let mount = Program::start(&world);
    world.put("/x", "before");
    let file = world.ask(mount.open("x", libc::O_TRUNC));
    world.ask(mount.write(file, "old")).unwrap();
    world.stop();
    world.ask(mount.interrupt_flush(file, async {}));
    world.start_again();
    world.put("/x", "new");
    world.ask(mount.release(file));
    assert_eq!(world.value("/x").unwrap(), b"new");
}

#[test]
fn a_line_whose_close_was_interrupted_is_not_appended_twice() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        for closes_again in [false, true] {
            let name = format!("log-{closes_again}");
            let path = format!("/{name}");
            let file = mount.open(&name, libc::O_APPEND).await;
            mount.write(file, "line\n").await.unwrap();
            mount.interrupt_flush(file, until_it_is(&world, &path, "line\n")).await;
            if closes_again {
                // Another descriptor of it. What became of the line is not known here.
                assert_eq!(mount.flush(file).await, Err(Errno::ESTALE));
            }
            mount.release(file).await;
            assert_eq!(entry(&world, &path).await.unwrap().value, "line\n");
        }
    });
}

/// Of two machines that open a file which is not there yet, one makes it, locks it and writes. The other one, which had only opened it,
/// put its empty file over that when its turn came.
#[test]
fn who_only_opened_a_file_that_another_made_goes_on_with_that() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        let put = async |path: &str, value: &'static str| {
            world.session.put(path, value, soon()).await.unwrap();
        };
        let file = mount.open("x", 0).await;
        put("/x", "theirs").await;
        mount.flock(file, Flock::Exclusive, true).await.unwrap();
        assert_eq!(entry(&world, "/x").await.unwrap().value, "theirs");
        assert_eq!(mount.read(file).await, "theirs");
        mount.write(file, "ours!!").await.unwrap();
        mount.flush(file).await.unwrap();
        assert_eq!(entry(&world, "/x").await.unwrap().value, "ours!!");

        // Closed, and nothing else.
        let file = mount.open("y", 0).await;
        put("/y", "theirs").await;
        mount.release(file).await;
        assert_eq!(entry(&world, "/y").await.unwrap().value, "theirs");

        // Who has written already has not seen what it would replace.
        let file = mount.open("z", 0).await;
        mount.write(file, "ours").await.unwrap();
        put("/z", "theirs").await;
        assert_eq!(mount.flush(file).await, Err(Errno::ESTALE));
        mount.release(file).await;
        assert_eq!(entry(&world, "/z").await.unwrap().value, "theirs");
    });
}

/// Two programs of one mount, of which one opened the file before it was there and the other one needs it.
#[test]
fn a_lock_makes_its_file_whoever_opened_it_first() {
    let Some(world) = World::start() else { return };
    let mount = Program::start(&world);
    world.ask(async {
        let first = mount.open("x", 0).await;
        let second = mount.open_again("x").await;
        assert_eq!(entry(&world, "/x").await, None);
        mount.release(mount.open_again("x").await).await;
        assert_eq!(entry(&world, "/x").await, None, "who reads it does not make it");
        mount.flock(second, Flock::Exclusive, false).await.unwrap();
        mount.write(first, "first").await.unwrap();
        mount.flush(first).await.unwrap();
        assert_eq!(entry(&world, "/x").await.unwrap().value, "first");
    });
}

/// `ftruncate` to nothing was taken for leave to replace whatever is there by the time of the close.
#[test]
fn emptying_an_open_file_replaces_only_what_was_seen() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    for append in [false, true] {
        world.put("/x", "seen");
        let mut file = OpenOptions::new().write(true).append(append).open(one.path.join("x")).unwrap();
        file.set_len(0).unwrap();
        world.put("/x", "not seen");
        file.write_all(b"ours").unwrap();
        assert_eq!(close(file), Err(nix::Error::ESTALE));
        assert_eq!(world.value("/x").unwrap(), b"not seen");
    }
    let mut file = OpenOptions::new().write(true).open(one.path.join("x")).unwrap();
    file.set_len(0).unwrap();
    file.write_all(b"ours").unwrap();
    close(file).unwrap();
    assert_eq!(world.value("/x").unwrap(), b"ours");
}

/// What was made or emptied, and not written, was put after the close had returned; that it could not be put was told nobody.
#[test]
fn close_puts_what_was_only_made_or_emptied_and_says_if_it_cannot() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let at = |name: &str| one.path.join(name);
    world.put("/full", "before");
    close(File::create(at("full")).unwrap()).unwrap();
    assert_eq!(world.value("/full").unwrap(), b"");
    close(File::create(at("new")).unwrap()).unwrap();
    assert_eq!(world.value("/new").unwrap(), b"");

    std::fs::create_dir(at("q")).unwrap();
    world.put("/q/one", "");
    let quota = SetQuota { path: "/q/".to_owned(), entries_max: 1, bytes_max: 0 };
    world.change(command::What::SetQuota(quota));
    let first = File::create(at("q/x")).unwrap();
    let second = first.try_clone().unwrap();
    close(first).unwrap();
    assert_eq!(close(second), Err(nix::Error::EDQUOT), "the last one ends it");
    until("it is closed, and not there", || !at("q/x").exists());
}

/// A shell closes descriptors before anything is written; what it redirects to is not put in between.
#[test]
fn a_redirection_is_one_put_and_an_empty_one_is_put_when_it_is_over() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let scripts = [
        ("echo x > f", "x\n", 1),
        ("/bin/echo x > f", "x\n", 1),
        ("{ /bin/true; echo x; } > f", "x\n", 1),
        ("exec 5> f; /bin/true; (exit); echo x >&5", "x\n", 1),
        ("exec 5<> f; /bin/true; (exit); echo x >&5", "x\n", 1),
        (": > f", "", 1),
        ("echo x > f; : > f", "", 2),
        ("/bin/true > f", "", 1),
        ("exec 5> f; /bin/true; exec 5>&-", "", 1),
    ];
    for (script, value, version) in scripts {
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("rm -f f; {script}")]).current_dir(&one.path);
        assert!(command.status().unwrap().success(), "{script}");
        let found = world.ask(entry(&world, "/f")).unwrap_or_default();
        assert_eq!((&found.value[..], found.version), (value.as_bytes(), version), "{script}");
    }
}
