//! What the programs say when they are asked for something that cannot be: what is wrong, with what, and what to do.

use std::fs;
use std::process::Command;

use crate::{Place, pangu, pangu_fuse, said};

/// Runs to a failure and gives the exit status and all that was said.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), said(&output))
}

#[test]
fn help_and_version_are_there() {
    for mut program in [pangu_fuse(), pangu()] {
        let help = program.arg("--help").output().unwrap();
        assert!(help.status.success() && said(&help).contains("Examples:"), "{}", said(&help));
    }
    assert!(said(&pangu_fuse().arg("--version").output().unwrap()).starts_with("pangu-fuse "));
}

#[test]
fn wrong_flags_are_named() {
    let place = Place::new();
    for (flags, expected) in [
        (&["--memory", "lots"][..], "is no size"),
        (&["--memory", "1M"], "memory budget of 1048576 bytes is too small"),
        (&["--replicas", "0"], "--replicas is 0, it must be from 1 to 7"),
        (&["--replicas", "3", "--chunkservers", "2"], "needs as many chunkservers"),
        (&["--chunkservers", "99"], "--chunkservers is 99"),
        (&["--cluster", "x.toml"], "cannot be used with"),
        (&["--capacity", "1M"], "64 MiB"),
        (&["--log", "kuafu=loud"], "is no filter"),
        (&["--no-such-flag"], "unexpected argument"),
    ] {
        let (code, text) = refused(&mut place.fuse(flags));
        assert!(text.contains(expected), "{flags:?}: {text}");
        assert!(code == 1 || code == 2, "{flags:?}: {code}");
        let (code, text) = refused(place.fuse(flags).arg("--daemon"));
        assert!(text.contains(expected), "in the background, {flags:?}: {text}");
        assert!(code == 1 || code == 2, "in the background, {flags:?}: {code}");
    }
}

#[test]
fn wrong_places_are_named() {
    let place = Place::new();
    let on = |path: &str| {
        let mut command = pangu_fuse();
        command.arg(path).arg("--data").arg(place.data());
        refused(&mut command)
    };
    let (code, text) = on("/nonexistent/mnt");
    assert!(code == 1 && text.contains("mkdir -p /nonexistent/mnt"), "{text}");
    let (_, text) = on("/etc/passwd");
    assert!(text.contains("/etc/passwd is not a directory"), "{text}");
    let (_, text) = on("/proc");
    assert!(text.contains("/proc is a mount point already (proc, proc)"), "{text}");
    assert!(!place.data().exists(), "nothing was started");
    let mut command = pangu_fuse();
    let (_, text) = refused(command.arg(place.mnt()).args(["--data", "/proc/nothing/here"]));
    assert!(text.contains("make the directory /proc/nothing/here"), "{text}");
}

#[test]
fn wrong_descriptions_are_quoted() {
    let place = Place::new();
    let path = place.data().with_extension("toml");
    let with = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut command = pangu_fuse();
        refused(command.arg(place.mnt()).arg("--cluster").arg(&path))
    };
    let (_, text) = with("name = \"x\"\nmasters = [\"http://b\"]\n");
    assert!(text.contains(":2:") && text.contains("http://b"), "{text}");
    let (_, text) = refused(pangu().args(["status", "--cluster", "/nonexistent.toml"]));
    assert!(text.contains("read the cluster description /nonexistent.toml"), "{text}");
}

#[test]
fn a_place_that_is_taken_names_who_has_it() {
    let place = Place::new();
    let mount = place.mounted(&[]);
    let (_, text) = refused(&mut place.fuse(&[]));
    assert!(text.contains("is a mount point already (fuse.pangu"), "{text}");
    let other = Place::new();
    let mut command = pangu_fuse();
    let (_, text) = refused(command.arg(other.mnt()).arg("--data").arg(place.data()));
    assert!(text.contains(&format!("in use by process {} (", mount.child.id())), "{text}");
    assert!(mount.unmount().status.success());
    let (_, text) = refused(&mut place.fuse(&["--replicas", "2"]));
    assert!(text.contains("keeps 1 copies of everything"), "{text}");
}
