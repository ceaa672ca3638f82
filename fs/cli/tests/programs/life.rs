//! A mount's life: mounted, used, ended in each way there is, found again.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::{Place, eventually, is_mounted, said};

fn fill(place: &Place) {
    fs::create_dir(place.path("dir")).unwrap();
    fs::write(place.path("dir/file"), vec![b'x'; 3 << 20]).unwrap();
    let mut synced = fs::File::create(place.path("synced")).unwrap();
    synced.write_all(b"on disk").unwrap();
    synced.sync_all().unwrap();
}

fn check(place: &Place) {
    assert_eq!(fs::read(place.path("dir/file")).unwrap(), vec![b'x'; 3 << 20]);
    assert_eq!(fs::read(place.path("synced")).unwrap(), b"on disk");
}

#[test]
fn unmounting_ends_it_and_mounting_finds_everything() {
    let place = Place::new();
    let mount = place.mounted(&[]);
    fill(&place);
    let ended = mount.unmount();
    assert!(ended.status.success(), "{}", said(&ended));
    assert!(
        said(&ended)
            .contains(&format!("mounted {} (embedded, one copy of everything in ", place.mnt().display()))
    );
    let mount = place.mounted(&[]);
    check(&place);
    assert!(mount.unmount().status.success());
}

#[test]
fn a_signal_ends_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new();
        let mount = place.mounted(&[]);
        fill(&place);
        mount.signal(signal);
        let ended = mount.end();
        assert!(ended.status.success(), "{}", said(&ended));
        assert!(!is_mounted(&place.mnt()));
    }
}

#[test]
fn a_signal_ends_it_also_when_it_is_in_use() {
    let place = Place::new();
    let mount = place.mounted(&[]);
    fill(&place);
    let mut user = Command::new("sh")
        .args(["-c", "exec 3< synced; echo ready; exec sleep 1000"])
        .current_dir(place.mnt())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    mount.signal(Signal::SIGTERM);
    eventually("it leaves the tree", || !is_mounted(&place.mnt()));
    // The first signal gives whoever uses it some seconds; the second does not.
    mount.signal(Signal::SIGTERM);
    let ended = mount.end();
    assert!(ended.status.success(), "{}", said(&ended));
    // By the name of the shell or of what it became.
    let named =
        [format!("is in use by sleep (pid {})", user.id()), format!("is in use by sh (pid {})", user.id())];
    assert!(named.iter().any(|name| said(&ended).contains(name)), "{}", said(&ended));
    user.kill().unwrap();
    user.wait().unwrap();
    let mount = place.mounted(&[]);
    check(&place);
    assert!(mount.unmount().status.success());
}

/// A kill leaves a dead mount and whatever was on disk; the next start clears the one and finds the other.
#[test]
fn killed_it_leaves_what_was_confirmed() {
    let place = Place::new();
    let mount = place.mounted(&["--replicas", "2"]);
    fill(&place);
    mount.signal(Signal::SIGKILL);
    assert_eq!(mount.end().status.signal(), Some(libc::SIGKILL));
    assert_eq!(fs::read_dir(place.mnt()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    let again = place.fuse(&["--daemon"]).output().unwrap();
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("cleared 1 dead mount"), "{}", said(&again));
    check(&place);
    assert!(Command::new("umount").arg(place.mnt()).status().unwrap().success());
}

#[test]
fn in_the_background_it_answers_when_it_is_mounted() {
    let place = Place::new();
    let started = place.fuse(&["--daemon"]).output().unwrap();
    assert!(started.status.success() && is_mounted(&place.mnt()), "{}", said(&started));
    assert!(said(&started).contains("mounted"), "{}", said(&started));
    fill(&place);
    check(&place);
    assert!(Command::new("umount").arg(place.mnt()).status().unwrap().success());
    // It lets go of its data when it is through.
    eventually("the data is free again", || {
        let lock = fs::File::open(place.data().join("lock")).unwrap();
        nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
    });
}

#[test]
fn real_programs_work_on_it() {
    let place = Place::new();
    let mount = place.mounted(&[]);
    let script = "set -e
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        git init -q repo; cd repo
        for n in 1 2 3; do echo $n > file$n; git add .; git -c user.name=t -c user.email=t@t commit -qm $n; done
        git fsck --strict; git gc -q; test -z \"$(git status --short)\"; git clone -q . ../clone; cd ..
        diff -r --exclude=.git repo clone
        mkfifo pipe; (echo through > pipe &); test \"$(cat pipe)\" = through
        ln repo/file1 hard; ln -s repo/file1 soft; test \"$(cat hard soft)\" = \"1\n1\" || test \"$(cat hard soft | wc -l)\" = 2
        tar cf t.tar repo; mkdir out; tar xf t.tar -C out; diff -r repo out/repo
        flock lock true; truncate -s 1G sparse; test \"$(du -k sparse | cut -f1)\" = 0";
    let done = Command::new("sh").args(["-c", script]).current_dir(place.mnt()).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(mount.unmount().status.success());
}
