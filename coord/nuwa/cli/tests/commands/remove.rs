//! `nuwa rm` and `nuwa mv`: names with and without the final `/`, and more than one command may touch.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{Cluster, until};

/// `rm -rf /config` used to print nothing, end with 0 and leave the directory: the name was that of a file, which may be absent.
#[test]
fn a_directory_may_be_named_without_its_slash() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/config/a", "1", "--parents"]);
    cluster.out(&["mkdir", "/empty"]);
    let is_directory =
        |name: &str| format!("/{name}/ is a directory: use -r to remove it with everything below it");
    for flags in [&["rm"][..], &["rm", "-f"]] {
        assert_eq!(cluster.refused(&[flags, &["/config"]].concat(), b""), is_directory("config"));
        assert_eq!(cluster.refused(&[flags, &["/empty"]].concat(), b""), is_directory("empty"));
    }
    assert_eq!(cluster.out(&["get", "/config/a"]), "1");
    assert_eq!(cluster.out(&["rm", "-rf", "/config"]), "");
    assert_eq!(cluster.out(&["ls"]), "empty/\n");
    assert_eq!(cluster.refused(&["rm", "-r", "/config"], b""), "/config does not exist");
    assert_eq!(cluster.refused(&["rm", "/config"], b""), "/config does not exist");
    assert_eq!(cluster.out(&["rm", "-rf", "/config"]), "");
    assert_eq!(cluster.out(&["rm", "-f", "/config/"]), "");
    assert_eq!(cluster.out(&["rm", "/empty/"]), "", "an empty one needs no -r if it is named as one");

    // The other way around: absence is not what is the matter with it.
    cluster.out(&["put", "/file", "1"]);
    for flags in ["-r", "-rf", "-f"] {
        let told = cluster.refused(&["rm", flags, "/file/"], b"");
        assert_eq!(told, "/file is a file: name it without the final /");
    }
    assert_eq!(cluster.out(&["rm", "-r", "/file"]), "");
    assert_eq!(cluster.out(&["ls"]), "");

    for flags in [&["rm"][..], &["rm", "-rf"]] {
        let told = cluster.refused(&[flags, &["a"]].concat(), b"");
        assert_eq!(told, "\"a\" is no path: a path begins with /");
        let told = cluster.refused(&[flags, &["/"]].concat(), b"");
        assert_eq!(told, "bad request: the root cannot be deleted");
    }
}

#[test]
fn what_was_removed_is_said_in_json() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/d/e/a", "1", "--parents"]);
    cluster.out(&["put", "/f", "1"]);
    assert_eq!(cluster.json(&["rm", "/f"]), json!({"path": "/f", "removed": 1}));
    assert_eq!(cluster.json(&["rm", "-f", "/f"]), json!({"path": "/f", "removed": 0}));
    assert_eq!(cluster.json(&["rm", "-r", "/d"]), json!({"path": "/d/", "removed": 3}));
}

#[test]
fn files_and_directories_get_other_names() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/a", "1"]);
    cluster.out(&["put", "/d/x/y", "2", "--parents"]);
    assert_eq!(cluster.out(&["mv", "/a", "/b"]), "");
    assert_eq!(cluster.out(&["get", "/b"]), "1");
    assert_eq!(cluster.refused(&["mv", "/a", "/c"], b""), "/a does not exist");
    for (from, to) in [("/d", "/e"), ("/e/", "/f"), ("/f", "/g/"), ("/g/", "/h/")] {
        assert_eq!(cluster.out(&["mv", from, to]), "");
    }
    assert_eq!(cluster.out(&["ls", "-R"]), "b\nh/\nh/x/\nh/x/y\n");
    assert_eq!(cluster.json(&["mv", "/h", "/d"])["path"], "/d/");

    // Nothing is replaced that was not meant to be, and nothing disappears in a directory.
    cluster.out(&["put", "/c", "3"]);
    cluster.out(&["mkdir", "/e"]);
    assert_eq!(cluster.refused(&["mv", "/b", "/c", "--no-replace"], b""), "/c exists already");
    assert_eq!(cluster.refused(&["mv", "/d", "/e"], b""), "/e/ exists already");
    let told = "/e/ is a directory: a file of that name cannot be there, too";
    assert_eq!(cluster.refused(&["mv", "/b", "/e"], b""), told);
    let told = "/c is a file: a directory of that name cannot be there, too";
    assert_eq!(cluster.refused(&["mv", "/d", "/c"], b""), told);
    assert_eq!(cluster.out(&["mv", "/b", "/c"]), "");
    assert_eq!(cluster.out(&["ls", "-R"]), "c\nd/\ne/\nd/x/\nd/x/y\n");
    assert_eq!(cluster.out(&["get", "/c"]), "1");
}

fn put_all(cluster: &Cluster, paths: impl Iterator<Item = String>, value: &str) {
    let puts: Vec<Value> =
        paths.map(|path| json!({"put": {"path": path, "value": value, "parents": true}})).collect();
    let ended = cluster.run_with(&["txn"], json!({"then": puts}).to_string().as_bytes());
    assert_eq!((ended.code, &*ended.error), (0, ""));
}

/// It used to be refused with the advice to do it in pieces, which nothing on the command line could.
#[test]
fn more_than_one_command_may_touch_is_removed() {
    let cluster = Cluster::start();
    for thousands in [0..2500, 2500..5000] {
        put_all(&cluster, thousands.map(|n| format!("/big/many/{n:04}")), "");
    }
    // Few, but more bytes than one command may touch; and below more directories than one.
    let heavy = "x".repeat(1 << 20);
    for n in 0..5 {
        put_all(&cluster, (0..3).map(|m| format!("/big/heavy/{n}/{m}")), &heavy);
    }
    put_all(&cluster, (0..50).map(|n| format!("/big/small/{n}/file")), "1");
    cluster.out(&["put", "/other", "stays"]);
    // The directories: many, heavy and its five, small and its fifty, big.
    let total = 5000 + 15 + 50 + (1 + 6 + 51 + 1);

    let at_once = cluster.refused(&["txn"], br#"{"then": [{"rm": {"path": "/big/", "recursive": true}}]}"#);
    assert!(at_once.starts_with("one command would touch too much at /big/"), "{at_once}");

    // What is in the way is told of, and what is done already.
    let mut holder = cluster.begin(&["lock", "/big/many/4999", "--", "sleep", "1000"]);
    until("the lock", || cluster.lock_state("/big/many/4999").0.is_some());
    let told = cluster.refused(&["rm", "-r", "/big"], b"");
    let (removed, why) = told.split_once(" entries are removed, the rest is there: ").unwrap();
    assert_eq!(why, "/big/many/4999 is locked by another session, or waited for");
    let removed: u64 = removed.parse().unwrap();
    assert!(removed > 0 && cluster.out(&["ls", "/big/many"]).ends_with("4999\n"));
    holder.send(Signal::SIGTERM);
    holder.ended();

    let done = cluster.json(&["rm", "-r", "/big"]);
    assert_eq!(done["path"], "/big/");
    assert_eq!(done["removed"].as_u64().unwrap() + removed, total);
    assert_eq!(cluster.out(&["ls", "-R"]), "other\n");
}
