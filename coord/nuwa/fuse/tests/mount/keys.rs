//! A mount with narrower keys than the administrator's.

use std::fs;
use std::io::ErrorKind;

use nuwa_api::ops;
use zhongkui::Rights;

use crate::fixture::{World, soon};

/// What leads to what is granted can be walked through; everything else is refused as a kernel refuses.
#[test]
fn a_mount_shows_what_its_capability_opens() {
    let Some(world) = World::start() else { return };
    for directory in ["/a/", "/a/b/", "/a/c/"] {
        world.ask(world.session.change_one(ops::make_directory(directory), soon())).unwrap();
    }
    world.put("/a/b/x", "1");
    world.put("/a/c/x", "2");
    world.put("/y", "3");
    let (key, cap) = world.user("alice", Rights::READ | Rights::WRITE, "nuwa:/a/b/");
    let mount = world.mount_with("narrow", &["--key".as_ref(), key.as_ref(), "--cap".as_ref(), cap.as_ref()]);
    let at = |path: &str| mount.path.join(path);
    assert_eq!(fs::read_to_string(at("a/b/x")).unwrap(), "1");
    fs::write(at("a/b/new"), "4").unwrap();
    assert_eq!(world.value("/a/b/new").as_deref(), Some(&b"4"[..]));
    assert_eq!(fs::read_dir(at("a/b")).unwrap().count(), 2);
    fs::remove_file(at("a/b/new")).unwrap();
    let denied =
        |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
    denied(fs::read(at("y")).map(drop));
    denied(fs::read(at("a/c/x")).map(drop));
    denied(fs::read_dir(at("")).map(drop));
    denied(fs::read_dir(at("a")).map(drop));
    denied(fs::create_dir(at("a/d")));
    denied(fs::write(at("z"), "5"));
    denied(fs::rename(at("a/b/x"), at("a/x")));
    denied(fs::File::open(at(".events")).map(drop));
    assert_eq!(world.value("/a/b/x").as_deref(), Some(&b"1"[..]));
}
