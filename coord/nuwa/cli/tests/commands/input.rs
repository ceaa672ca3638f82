//! What is wrong with what it is given, and that it says what to do.

use crate::fixture::{Cluster, run, text};

#[test]
fn bad_input_is_told_what_to_do() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/file", "1"]);
    cluster.out(&["put", "/d/x", "", "--parents"]);
    cluster.out(&["put", "/d/y", ""]);
    cluster.out(&["quota", "/d/", "--entries", "2"]);
    let before = cluster.out(&["ls", "-lR", "--json"]);
    for (arguments, told) in [
        (&["get", "a"][..], "\"a\" is no path: a path begins with /"),
        (&["get", "/none"], "/none does not exist"),
        (&["put", "/a//b", ""], "\"/a//b\" is no path: a path has no empty component: write / once"),
        (&["put", "/a/../b", ""], "\"/a/../b\" is no path: a component must not be . or .."),
        (
            &["put", "/x/", ""],
            "\"/x/\" is no path: this names a directory, because it ends in /; a file is wanted",
        ),
        (
            &["put", "/no/x", ""],
            "the directory /no/ does not exist: make it first, or ask for missing parents to be made",
        ),
        (&["put", "/d", ""], "/d/ is a directory: a file of that name cannot be there, too"),
        (&["put", "/file", "2", "--new"], "/file exists already"),
        (
            &["put", "/file", "2", "--version", "7"],
            "/file does not have version 7 any more: nothing was changed",
        ),
        (
            &["put", "/d/third", ""],
            "the quota of /d/ is 2 entries: delete something below it, or have it raised",
        ),
        (&["rm", "/d/"], "/d/ is not empty: delete what is in it first, or the whole subtree"),
        (&["rm", "/"], "bad request: the root cannot be deleted"),
        (&["ls", "/none"], "/none/ does not exist"),
        (
            &["mv", "/file", "/dir/"],
            "bad request: a file stays a file, a directory a directory: end both in / or none",
        ),
        (&["quota", "/none/", "--entries", "1"], "/none/ does not exist"),
        (
            &["lock", "/d/", "true"],
            "\"/d/\" is no path: this names a directory, because it ends in /; a file is wanted",
        ),
    ] {
        assert_eq!(cluster.refused(arguments, b""), told, "{arguments:?}");
    }
    let large = cluster.refused(&["put", "/large"], &vec![7; (1 << 20) + 1]);
    assert_eq!(
        large,
        "the value for /large has 1048577 bytes, at most 1048576 are possible: keep it in a file system, and its name here"
    );
    let unknown = cluster.refused(&["member", "remove", "9"], b"");
    assert!(unknown.ends_with("there is no member 9: there are 1"), "{unknown}");
    let nobody = cluster.refused(&["member", "add", "unix:///nowhere.sock"], b"");
    assert!(nobody.ends_with("start it there with --join first"), "{nobody}");
    let no_txn = cluster.refused(&["txn"], b"{]");
    assert!(
        no_txn.starts_with("the transaction does not parse: `nuwa txn --help` shows what it looks like"),
        "{no_txn}"
    );
    assert_eq!(cluster.out(&["ls", "-lR", "--json"]), before, "nothing was changed");
}

#[test]
fn a_cluster_that_is_not_there_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let description = dir.path().join("cluster.toml");
    let missing = run(&["--cluster", text(&description), "get", "/a"], b"");
    assert_eq!(missing.code, 1);
    assert!(missing.error.starts_with("nuwa: read the cluster description"), "{}", missing.error);
    std::fs::write(&description, "name = \"x\"\nmasters = [\"unix:///m.sock\"]\n").unwrap();
    let none = run(&["--cluster", text(&description), "get", "/a"], b"");
    assert!(none.error.contains("lists no members of Nuwa: write nuwa = "), "{}", none.error);
    let address = dir.path().join("nobody.sock");
    std::fs::write(&description, format!("name = \"x\"\nnuwa = [\"unix://{}\"]\n", address.display()))
        .unwrap();
    let without = run(&["--cluster", text(&description), "get", "/a"], b"");
    assert!(without.code == 1 && without.error.contains("there are no keys in"), "{}", without.error);
    zhongkui_access::KeyDirectory::at(dir.path().join("keys")).init().unwrap();
    let silent = run(&["--cluster", text(&description), "--timeout", "1", "get", "/a"], b"");
    assert_eq!(silent.code, 1);
    assert!(
        silent.error.starts_with("nuwa: nobody answered in time; the last one said: "),
        "{}",
        silent.error
    );
    for wrong in [&["restore"][..], &["snapshot"], &["restore", "f", "--revision-bump", "0"], &["nonsense"]] {
        let ended = run(wrong, b"");
        assert!(ended.code == 2 && ended.error.contains("try '--help'"), "{wrong:?}: {}", ended.error);
    }
}
