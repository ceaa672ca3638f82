//! `nuwa snapshot` and `nuwa restore`.

use crate::fixture::{Cluster, run, text};

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
    assert_eq!(names, ["cluster.toml", "data", "keys", "nuwa.sock", "tree.nuwa"]);

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
