//! What `pangu-master` says to wrong flags and files: one line that names the thing, and a failing exit.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::path::Path;
use std::process::Command;

use zhongkui_access::KeyDirectory;

fn refusal(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pangu-master"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("FEITIAN_CLUSTER")
        .env("HOME", dir)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?} was accepted");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("backtrace"), "{said}");
    said
}

#[test]
fn says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("good.toml", "name = \"x\"\nmasters = [\"unix:///nonexistent/m.sock\"]\n");
    write("bad.toml", "name = \"x\"\n\nmasters = [\"http://m\"]\n");
    write("file", "");
    let good = ["--cluster", "good.toml", "--id", "1"];
    let with = |more: &[&'static str]| refusal(dir.path(), &[good.as_slice(), more].concat());
    let bad = refusal(dir.path(), &["--cluster", "bad.toml", "--id", "1", "--data", "d"]);
    assert!(bad.contains("bad.toml:3:") && bad.contains("masters = [\"http://m\"]"), "{bad}");
    let missing = refusal(dir.path(), &["--cluster", "none.toml", "--id", "1", "--data", "d"]);
    assert!(missing.contains("none.toml") && missing.contains("No such file"), "{missing}");
    let nowhere = refusal(dir.path(), &["--id", "1", "--data", "d"]);
    assert!(nowhere.contains("--cluster FILE"), "{nowhere}");
    let stranger = refusal(dir.path(), &["--cluster", "good.toml", "--id", "2", "--data", "d"]);
    assert!(stranger.contains("master 2 is not in the cluster's list"), "{stranger}");
    assert!(with(&["--data", "d", "--replicas", "9"]).contains("--replicas is 9"));
    assert!(with(&["--data", "d", "--min-replicas", "4"]).contains("--min-replicas is 4"));
    assert!(with(&["--data", "d", "--listen", "nonsense"]).contains("\"nonsense\" is no address"));
    let keys = with(&["--data", "d"]);
    assert!(keys.contains("there are no keys in keys") && keys.contains("zhongkui init"), "{keys}");
    KeyDirectory::at(dir.path().join("keys")).init().unwrap();
    let data = with(&["--data", "file"]);
    assert!(data.contains("data directory file"), "{data}");
    let socket = with(&["--data", "d"]);
    assert!(socket.contains("/nonexistent/m.sock"), "{socket}");
    assert!(with(&[]).contains("--data"));
}
