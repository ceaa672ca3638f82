//! A capability to read changes nothing: by a mount, at the master, and at chunkservers.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use deploy_e2e::Content;
use zhongkui::Rights;

use crate::chunks::{Ask, show, wanted};
use crate::directory::{changes, queries};
use crate::mounts::Mount;
use crate::people::{Person, Wanted, on};
use crate::scene::{LEN, MASTER, OWNER, Scene};

#[test]
fn a_capability_to_read_changes_nothing() {
    let scene = Scene::new();
    let keys = scene.cluster.keys();
    let many = Person::granted(&keys, &Wanted::new("many", 1000, on(Rights::READ | Rights::ACT_AS, scene.a)));
    let one = Person::granted(&keys, &Wanted::new("one", OWNER, on(Rights::READ, scene.a)));
    for (name, person) in [("many", &many), ("one", &one)] {
        let mount = Mount::new(&scene, name, person);
        by_mount(&scene, name, &mount);
        by_frames(&scene, name, person);
    }
    let found = fs::read(scene.root.join("a/in-a")).unwrap();
    scene.holds("a/in-a has the content it had", found == Content::new(1).bytes(LEN));
    let attr = scene.known("a/in-a").attr;
    let as_it_was = (attr.mode & 0o7777, attr.uid, attr.size_bytes) == (0o666, OWNER, LEN as u64);
    scene.holds("a/in-a has the attributes it had", as_it_was && !attr.has_xattrs);
    scene.b_is_untouched();
    scene.finish();
}

fn by_mount(scene: &Scene, who: &str, mount: &Mount) {
    let at = |path: &str| mount.point.join(path);
    let read = fs::read(at("in-a")).unwrap();
    scene.holds(&format!("{who} reads"), read == Content::new(1).bytes(LEN));
    let file = at("in-a");
    let cases: Vec<(&str, io::Result<()>)> = vec![
        ("write", OpenOptions::new().write(true).open(&file).map(drop)),
        ("append", OpenOptions::new().append(true).open(&file).map(drop)),
        ("create", fs::write(at("new"), "x")),
        ("unlink", fs::remove_file(&file)),
        ("mkdir", fs::create_dir(at("new"))),
        ("rmdir", fs::remove_dir(at("sub"))),
        ("rename", fs::rename(&file, at("new"))),
        ("link", fs::hard_link(&file, at("new"))),
        ("symlink", symlink("x", at("new"))),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o600))),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
    ];
    for (what, result) in cases {
        let errno = result.err().and_then(|error| error.raw_os_error());
        scene.holds(&format!("{who}: {what} is EROFS, not {errno:?}"), errno == Some(libc::EROFS));
    }
}

fn by_frames(scene: &Scene, who: &str, person: &Person) {
    let own = scene.namespace(person);
    let in_a = scene.known("a/in-a");
    for (what, query) in queries(scene.a, in_a.ino, "in-a") {
        let answer = scene.run(own.query(query));
        scene.holds(&format!("{who}: {what}: {answer:?}"), answer.is_ok());
    }
    for (what, mutation) in changes(scene.a, &in_a, "in-a") {
        scene.refused(MASTER, &person.by(), &format!("{who}: {what}"), own.mutate(mutation));
    }
    let given = scene.run(own.token(wanted(&in_a, false))).unwrap();
    scene.holds(&format!("{who} has a token to read"), given.errno == 0);
    scene.refused(MASTER, &person.by(), &format!("{who}: a token to write"), own.token(wanted(&in_a, true)));
    let renewed = master_api::proto::TokenWanted { renewed: given.token.clone(), ..wanted(&in_a, true) };
    scene.refused(MASTER, &person.by(), &format!("{who}: to write for one to read"), own.token(renewed));
    let mut read = 0;
    for role in scene.chunkservers() {
        let wire = scene.wire(&person.access, role);
        scene.run(show(&wire, std::slice::from_ref(&given.token), &given.signer)).unwrap();
        read += usize::from(scene.run(Ask::Read.of(&wire, in_a.chunk, in_a.epoch)).is_ok());
        for ask in Ask::CHANGES {
            let call = ask.of(&wire, in_a.chunk, in_a.epoch);
            scene.refused(role, &person.by(), &format!("{who}: {ask:?} with a token to read"), call);
        }
    }
    scene.holds(&format!("{who} reads with it"), read > 0);
}
