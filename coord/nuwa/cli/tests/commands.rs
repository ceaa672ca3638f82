//! The program as people use it: what it says, and how it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nuwa_server::{Config, NuwaServer};
use tempfile::TempDir;

/// A cluster of one member, on a thread of its own.
struct Cluster {
    dir: TempDir,
    description: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: Vec<u8>,
    error: String,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/nuwa.sock", dir.path().display());
        let config = Config::new(1, [(1, address.parse().unwrap())].into(), dir.path().join("data"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = NuwaServer::start(config).await.unwrap();
                server.failed().await;
            });
        });
        let description = dir.path().join("cluster.toml");
        std::fs::write(&description, format!("name = \"test\"\nnuwa = [\"{address}\"]\n")).unwrap();
        Self { dir, description }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let description = self.description.to_str().unwrap();
        run(&[&["--cluster", description, "--timeout", "60"], arguments].concat(), input)
    }

    fn out(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, &*ended.error), (0, ""), "{arguments:?}");
        String::from_utf8(ended.out).unwrap()
    }

    /// What it says when it refuses, without the program's name.
    fn refused(&self, arguments: &[&str], input: &[u8]) -> String {
        let ended = self.run_with(arguments, input);
        assert_eq!((ended.code, ended.out), (1, Vec::new()), "{arguments:?}: {}", ended.error);
        let error = ended.error.strip_prefix("nuwa: ").unwrap_or_else(|| panic!("{}", ended.error));
        error.strip_suffix('\n').unwrap().to_owned()
    }
}

fn run(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nuwa"))
        .args(arguments)
        .env_remove("FEITIAN_CLUSTER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().unwrap(), out: output.stdout, error }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

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

#[test]
fn a_snapshot_is_taken_checked_and_restored() {
    let (old, new) = (Cluster::start(), Cluster::start());
    old.out(&["put", "/config/limits", "max=10", "--parents"]);
    old.out(&["put", "/config/limits", "max=11"]);
    old.out(&["mkdir", "/empty"]);
    let path = old.file("tree.nuwa");
    let file = text(&path);
    let said = old.out(&["snapshot", file]);
    assert!(
        said.starts_with(&format!("{file}: test at revision 3: 2 directories, 1 files with 6 bytes; ")),
        "{said}"
    );
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(said.ends_with(&format!("; {} bytes\n", bytes.len())));
    assert_eq!(run(&["snapshot", "--check", file], b"").out, said.as_bytes());
    let json: serde_json::Value =
        serde_json::from_str(&old.out(&["snapshot", "--check", file, "--json"])).unwrap();
    assert_eq!((json["revision"].as_u64(), json["files"].as_u64()), (Some(3), Some(1)));

    // What is there is not replaced unless it is asked for; and nothing else is left lying there.
    let exists = old.refused(&["snapshot", file], b"");
    assert_eq!(exists, format!("{file} exists: take another name, or --force to replace it"));
    old.out(&["snapshot", file, "--force"]);
    let piped = old.run(&["snapshot", "-"]);
    assert!(piped.code == 0 && piped.error.starts_with("-: test at revision 3"), "{}", piped.error);
    assert_eq!(piped.out.len(), bytes.len());
    let mut names: Vec<_> =
        std::fs::read_dir(old.dir.path()).unwrap().map(|name| name.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["cluster.toml", "data", "nuwa.sock", "tree.nuwa"]);

    // A cluster that has a tree keeps it.
    let refused = old.refused(&["restore", file], b"");
    assert_eq!(
        refused,
        "a snapshot goes into an empty tree only; nothing was changed: / is not empty: delete what is in it first, or the whole subtree"
    );
    assert_eq!(old.out(&["get", "/config/limits"]), "max=11");

    // Damage is found before the new cluster hears of anything.
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    let bad = new.file("bad.nuwa");
    std::fs::write(&bad, &bytes).unwrap();
    for arguments in [&["restore", text(&bad)][..], &["snapshot", "--check", text(&bad)]] {
        let damaged = new.refused(arguments, b"");
        assert!(
            damaged.starts_with(&format!("{}: block 1 of the snapshot, at byte ", text(&bad))),
            "{damaged}"
        );
        assert!(damaged.ends_with(", is wrong: it does not match its checksum: it is damaged"), "{damaged}");
    }
    let cut = new.refused(&["restore", "-"], &bytes[..at]);
    assert!(cut.ends_with("is wrong: the file ends before its end: it is cut off"), "{cut}");
    let other = new.refused(&["restore", "-"], b"#!/bin/sh");
    assert_eq!(other, "-: this is no snapshot of Nuwa: it does not begin with NUWASNAP");
    let missing = new.refused(&["restore", "/nowhere/f"], b"");
    assert_eq!(missing, "open /nowhere/f: No such file or directory (os error 2)");
    assert_eq!(new.out(&["ls", "-R"]), "");

    let restored = new.out(&["restore", file, "--revision-bump", "1000"]);
    assert!(restored.ends_with("restored: the tree is at revision 1003 now\n"), "{restored}");
    assert_eq!(new.out(&["ls", "-lR", "--json"]), old.out(&["ls", "-lR", "--json"]));
    new.out(&["put", "/config/limits", "max=12"]);
    let entry: serde_json::Value =
        serde_json::from_str(&new.out(&["get", "/config/limits", "--json"])).unwrap();
    assert_eq!((entry["version"].as_u64(), entry["modified"].as_u64()), (Some(3), Some(1004)));

    // From a pipe; and the tree may be emptied for it.
    new.out(&["rm", "-r", "/config/"]);
    new.out(&["rm", "-r", "/empty/"]);
    let ended = new.run_with(&["restore", "-", "--json"], &piped.out);
    assert_eq!((ended.code, &*ended.error), (0, ""));
    let json: serde_json::Value = serde_json::from_slice(&ended.out).unwrap();
    assert!(json["restored_revision"].as_u64() > Some(1_000_001_000), "{json}");
    assert_eq!(new.out(&["get", "/config/limits"]), "max=11");
    new.out(&["restore", "--abandon"]);
    assert_eq!(new.out(&["get", "/config/limits"]), "max=11", "there was none to give up");
    assert!(new.out(&["status"]).contains("revision"));
}
