//! `pangu` beside a mount.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Output;

use crate::{Place, eventually, pangu, said};

fn ask(arguments: &[&str]) -> Output {
    pangu().args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn shows_what_there_is() {
    let place = Place::new();
    let mount = place.mounted(&["--replicas", "3"]);
    fs::write(place.path("file"), vec![7; 20 << 20]).unwrap();
    let mnt = place.mnt().display().to_string();
    let file = place.path("file").display().to_string();

    let status = ask(&["status", "--mount", &mnt]);
    assert!(status.status.success(), "{}", said(&status));
    for part in ["leader", "/local/rack3/host", "copies each"] {
        assert!(said(&status).contains(part), "{part}: {}", said(&status));
    }
    let status = json(&ask(&["status", "--mount", &mnt, "--json"]));
    assert_eq!(status["chunkservers"].as_array().unwrap().len(), 3);
    assert_eq!(status["leader"], 1);

    // Chunkservers tell with their next heartbeat.
    eventually("the space is counted", || {
        let space = json(&ask(&["df", "--mount", &mnt, "--json"]));
        space["used_bytes"].as_u64().unwrap() >= 20 << 20
    });
    assert!(ask(&["df", "--mount", &mnt]).status.success());

    let place_of = json(&ask(&["where", &file, "--json"]));
    assert_eq!((&place_of["chunks"], &place_of["size_bytes"]), (&3.into(), &(20 << 20).into()));
    for group in place_of["groups"].as_array().unwrap() {
        let replicas = group["replicas"].as_array().unwrap();
        let racks: std::collections::BTreeSet<_> =
            replicas.iter().map(|r| r["location"].to_string()).collect();
        assert_eq!(racks.len(), 3, "{group}");
    }
    // The same file by its path in the file system.
    let description = place.data().join("cluster.toml").display().to_string();
    assert_eq!(json(&ask(&["where", "/file", "--cluster", &description, "--json"])), place_of);

    let verified = ask(&["verify", &file]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(said(&verified).contains("9 copies"), "{}", said(&verified));
    assert!(mount.unmount().status.success());
}

/// One copy is changed on its disk behind everybody's back: the file still reads right, and verify says which copy.
#[test]
fn verify_finds_a_damaged_copy() {
    let place = Place::new();
    let mount = place.mounted(&["--replicas", "2"]);
    let mark = b"a line that stands nowhere else on this disk";
    let data: Vec<u8> = mark.iter().copied().cycle().take(256 << 10).collect();
    fs::write(place.path("file"), &data).unwrap();
    assert!(mount.unmount().status.success());
    damage(&place.data().join("chunkserver-2"), mark);
    let mount = place.mounted(&[]);
    let file = place.path("file").display().to_string();
    let found = ask(&["verify", &file]);
    assert_eq!(found.status.code(), Some(3), "{}", said(&found));
    assert!(said(&found).contains("1 problem(s)"), "{}", said(&found));
    assert!(said(&found).contains("chunkserver-2.sock"), "{}", said(&found));
    assert!(fs::read(&file).unwrap() == data, "the other copy is read");
    assert!(mount.unmount().status.success());
}

/// Flips one byte of the first block that holds `mark`.
fn damage(disk: &std::path::Path, mark: &[u8]) {
    for entry in fs::read_dir(disk).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let content = fs::read(&path).unwrap();
        if let Some(at) = content.windows(mark.len()).position(|window| window == mark) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            return file.write_all_at(&[!content[at]], at as u64).unwrap();
        }
    }
    panic!("{} holds no such data", disk.display());
}

#[test]
fn says_what_it_cannot_find() {
    let place = Place::new();
    let mount = place.mounted(&[]);
    let nothing = ask(&["where", &place.path("nothing").display().to_string()]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("no such file or directory"), "{}", said(&nothing));
    let outside = ask(&["status", "--mount", "/proc"]);
    assert!(said(&outside).contains("/proc is in no Pangu mount"), "{}", said(&outside));
    let folder = ask(&["where", &place.mnt().display().to_string()]);
    assert!(said(&folder).contains("no regular file"), "{}", said(&folder));
    let description = place.data().join("cluster.toml").display().to_string();
    assert!(mount.unmount().status.success());
    let away = ask(&["status", "--cluster", &description, "--timeout", "1"]);
    assert_eq!(away.status.code(), Some(1));
    assert!(said(&away).contains("are they running?"), "{}", said(&away));
}
