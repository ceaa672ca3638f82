//! What is refused, when, and that nothing of it is in the tree afterwards; and what the attributes of an entry say.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::Command;

use fs_client::{Caller, Errno, Op, OpReply};
use fs_mount::Handler as _;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::close;
use nuwa_api::client::Freshness;
use nuwa_api::model::VALUE_MAX_BYTES;
use nuwa_api::ops;
use nuwa_api::proto::{Put, SetQuota, command};
use nuwa_fuse::{Tree, tree::Owner};

use crate::fixture::{LEASE, World, soon, until};

fn set_quota(world: &World, path: &str, bytes_max: u64) {
    let path = path.to_owned();
    world.change(command::What::SetQuota(SetQuota { path, entries_max: 0, bytes_max }));
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn close_says_that_a_value_was_not_put() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let at = |name: &str| one.path.join(name);

    // A quota.
    std::fs::create_dir(at("q")).unwrap();
    set_quota(&world, "/q/", 1000);
    let mut file = File::create(at("q/x")).unwrap();
    file.write_all(&[b'x'; 2000]).unwrap();
    assert_eq!(close(file), Err(nix::Error::EDQUOT));
    assert_eq!(world.value("/q/x"), None);
    until("it is closed, and not there", || !at("q/x").exists());
    std::fs::write(at("q/x"), [b'x'; 900]).unwrap();

    // Changed by somebody else since it was opened.
    world.put("/x", "first");
    let mut file = OpenOptions::new().write(true).open(at("x")).unwrap();
    file.write_all(b"mine!").unwrap();
    world.put("/x", "theirs");
    assert_eq!(close(file), Err(nix::Error::ESTALE));
    assert_eq!(world.value("/x").unwrap(), b"theirs");
    // Whoever empties it first means to replace it, whatever it is.
    let mut file = File::create(at("x")).unwrap();
    file.write_all(b"mine!").unwrap();
    world.put("/x", "theirs again");
    close(file).unwrap();
    assert_eq!(world.value("/x").unwrap(), b"mine!");
}

/// The kernel hands a long write over in pieces. Those that fit were put by the `close` that followed the refusal: a value that nobody
/// had written.
#[test]
fn of_a_value_that_is_too_large_nothing_is_put() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let path = one.path.join("large");
    let largest = vec![b'x'; VALUE_MAX_BYTES];
    std::fs::write(&path, &largest).unwrap();
    assert_eq!(world.value("/large").unwrap(), largest);
    world.put("/large", "before");
    for append in [false, true] {
        let mut file = OpenOptions::new().write(true).append(append).truncate(!append).open(&path).unwrap();
        assert_eq!(errno(file.write_all(&vec![b'y'; VALUE_MAX_BYTES + 1])), libc::EFBIG);
        assert_eq!(close(file), Err(nix::Error::EFBIG));
        assert_eq!(world.value("/large").unwrap(), b"before");
    }
    let mut new = File::create(one.path.join("new")).unwrap();
    assert_eq!(errno(new.set_len(VALUE_MAX_BYTES as u64 + 1)), libc::EFBIG);
    assert_eq!(errno(new.write_all(&vec![b'y'; VALUE_MAX_BYTES + 1])), libc::EFBIG);
    // Begun anew, it is as if that had not been.
    new.set_len(0).unwrap();
    new.rewind().unwrap();
    new.write_all(b"small").unwrap();
    close(new).unwrap();
    assert_eq!(world.value("/new").unwrap(), b"small");
}

/// A program whose `close` failed does something else, or tries again itself. The kernel's last word on the file, which comes a moment
/// later and which nobody waits for, put the value after all if the reason was gone by then.
#[test]
fn nothing_is_put_behind_the_back_of_who_was_refused() {
    let Some(world) = World::start() else { return };
    world.ask(async {
        let owner = Owner { uid: 0, gid: 0 };
        let tree = Tree::new(world.client().clone(), LEASE, "test".to_owned(), owner);
        let ask = async |op: Op<'_>| tree.handle(&Caller::default(), op).await;
        let root = coord_types::InodeId::ROOT;
        let quota = async |bytes_max| {
            let quota = SetQuota { path: "/".to_owned(), entries_max: 0, bytes_max };
            world.session.change(command::What::SetQuota(quota), soon()).await.unwrap();
        };
        for (name, is_told) in [(&b"told"[..], true), (b"untold", false)] {
            quota(100).await;
            let flags = libc::O_CREAT | libc::O_WRONLY;
            let created = ask(Op::Create { parent: root, name, mode: 0o644, flags }).await;
            let Ok(OpReply::Created { entry, handle, .. }) = created else { panic!("{created:?}") };
            let (ino, data) = (entry.attr.ino, [b'x'; 200]);
            let (offset_bytes, kill_privileges, mapped) = (0, false, false);
            let write = Op::Write { ino, handle, offset_bytes, data: &data, kill_privileges, mapped };
            ask(write).await.unwrap();
            if is_told {
                assert_eq!(ask(Op::Flush { ino, handle }).await.unwrap_err(), Errno::EDQUOT);
            }
            quota(0).await;
            // Mapped pages come after the last close: those are put.
            ask(Op::Release { ino, handle }).await.unwrap();
            let path = format!("/{}", String::from_utf8_lossy(name));
            let entry = world.client().get(&path, Freshness::Linearizable, soon()).await.unwrap();
            assert_eq!(entry.is_some(), !is_told, "{path}");
        }
    });
}

#[test]
fn names_that_are_too_long_taken_or_reserved() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let at = |name: &str| one.path.join(name);
    let (longest, too_long) = ("n".repeat(255), "n".repeat(256));
    std::fs::write(at(&longest), "x").unwrap();
    std::fs::write(at("x"), "x").unwrap();
    for long in [too_long, "n".repeat(1000), "n".repeat(2000)] {
        let path = at(&long);
        assert_eq!(errno(File::create(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(File::open(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(std::fs::create_dir(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(std::fs::remove_file(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(std::fs::rename(at("x"), &path)), libc::ENAMETOOLONG);
    }

    let rename = |from: &str, to: &str, flags| renameat2(AT_FDCWD, &at(from), AT_FDCWD, &at(to), flags);
    std::fs::create_dir(at("d")).unwrap();
    world.put("/y", "y");
    for taken in ["y", "d"] {
        assert_eq!(rename("x", taken, RenameFlags::RENAME_NOREPLACE), Err(nix::Error::EEXIST), "{taken}");
        assert_eq!(rename("d", taken, RenameFlags::RENAME_NOREPLACE), Err(nix::Error::EEXIST), "{taken}");
    }
    assert_eq!(world.value("/y").unwrap(), b"y");
    assert_eq!(rename("x", "y", RenameFlags::RENAME_EXCHANGE), Err(nix::Error::EINVAL));
    rename("x", "z", RenameFlags::RENAME_NOREPLACE).unwrap();
    rename("z", "y", RenameFlags::empty()).unwrap();
    assert_eq!(world.value("/y").unwrap(), b"x");

    // What would hide behind `.events` for ever is refused; what only begins like it is a name like any other.
    for reserved in [".events", ".events@1"] {
        assert_eq!(rename("y", reserved, RenameFlags::empty()), Err(nix::Error::EPERM));
        assert_eq!(rename(reserved, "other", RenameFlags::empty()), Err(nix::Error::EPERM));
        assert_eq!(errno(std::fs::remove_file(at(reserved))), libc::EPERM);
        assert_eq!(errno(std::fs::create_dir(at(reserved))), libc::EEXIST);
        assert_eq!(errno(File::create(at(reserved))), libc::EACCES);
    }
    assert_eq!(errno(File::open(at(".events@x"))), libc::EINVAL);
    std::fs::write(at(".events.old"), "x").unwrap();
    assert_eq!(world.value("/.events.old").unwrap(), b"x");
    let listed: Vec<_> =
        std::fs::read_dir(&one.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
}

/// What `getfattr` says; `None` if there is no such attribute.
fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut command = Command::new("getfattr");
    command.args(["--absolute-names", "--only-values", "-n", &format!("user.nuwa.{name}")]).arg(path);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || error.contains("No such attribute"), "{error}");
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn attributes_say_what_nuwa_knows() {
    let Some(world) = World::start() else { return };
    let one = world.mount("one");
    let file = one.path.join("f");
    let put = Put { owned: true, ..ops::put("/owned", "x") };
    world.ask(world.session.change_one(put, soon())).unwrap();
    world.put("/f", "1");
    let number = |name: &str| attribute(&file, name).map(|text| text.parse::<u64>().unwrap());
    let revision = number("revision").unwrap();
    assert_eq!(number("version"), Some(1));
    // A change elsewhere, then one of the file: each takes a revision.
    world.put("/other", "x");
    assert_eq!(number("revision"), Some(revision));
    std::fs::write(&file, "2").unwrap();
    let entry = world.ask(world.client().get("/f", Freshness::Linearizable, soon())).unwrap().unwrap();
    assert_eq!((number("revision"), number("version")), (Some(entry.modified), Some(2)));
    assert_eq!(entry.modified, revision + 2);

    assert_eq!(number("owner"), None, "nobody's");
    assert_eq!(attribute(&one.path.join("owned"), "owner"), Some(world.session.id().to_string()));
    assert_eq!(number("fence"), None, "nobody holds it");
    let held = File::open(&file).unwrap();
    held.lock().unwrap();
    assert_eq!(number("fence"), Some(revision + 3), "the revision of the grant");
    held.unlock().unwrap();
    held.lock_shared().unwrap();
    assert_eq!(number("fence"), None, "of an exclusive lock");
    assert_eq!(attribute(&file, "other"), None);
}
