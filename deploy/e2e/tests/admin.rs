//! What the programs tell people: where a file's pieces are, how the cluster is, and what to do about an error.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use deploy_e2e::{Content, run};
use deploy_local_cluster::Cluster;

#[test]
fn where_shows_three_racks_and_status_shows_everyone() {
    let mut cluster = Cluster::start(3, 3).unwrap();
    let root = cluster.mount().unwrap();
    let path = root.join("file");
    fs::write(&path, Content::new(1).bytes(20_000_000)).unwrap();

    let text = |arguments: &[&str]| {
        let output = cluster.pangu(arguments).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pangu {arguments:?}: {out}{err}");
        out.into_owned()
    };
    let place = path.to_str().unwrap();
    let said = text(&["where", place]);
    for rack in ["rack1", "rack2", "rack3"] {
        assert!(said.contains(rack), "{said}");
    }
    let json: serde_json::Value = serde_json::from_str(&text(&["where", place, "--json"])).unwrap();
    assert!(json.to_string().contains("rack3"), "{json}");
    let status = text(&["status"]);
    assert!(status.contains("leader"), "{status}");
    let json: serde_json::Value = serde_json::from_str(&text(&["status", "--json"])).unwrap();
    assert!(json.is_object(), "{json}");
    assert!(!text(&["df"]).trim().is_empty());
    let verified = text(&["verify", place]);
    assert!(!verified.trim().is_empty());
    let absent = cluster.pangu(&["where", root.join("absent").to_str().unwrap()]).unwrap();
    assert!(!absent.status.success());
    assert!(String::from_utf8_lossy(&absent.stderr).contains("absent"));
    cluster.finish().unwrap();
}

#[test]
fn wrong_flags_are_answered_with_what_is_wrong() {
    let cluster = Cluster::start(1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "name = \"x\"\nmasters = [\"tcp://127.0.0.1:1\"\n").unwrap();
    let taken = fs::read_to_string(cluster.description()).unwrap();
    let taken = taken.split('"').find(|part| part.starts_with("tcp://")).unwrap().to_owned();
    let (data, good) = (folder.path().join("data"), cluster.description());
    let (data, good, broken) = (data.to_str().unwrap(), good.to_str().unwrap(), broken.to_str().unwrap());
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("pangu-master", &["--help"], &["--listen", "--data"]),
        ("pangu-chunkserver", &["--help"], &["--location", "--capacity"]),
        ("pangu-fuse", &["--help"], &["--cluster", "--memory"]),
        ("pangu", &["--help"], &["status", "where", "verify"]),
        ("pangu-master", &["--no-such-flag"], &["--no-such-flag"]),
        (
            "pangu-master",
            &["--id", "1", "--listen", "nonsense", "--data", data, "--cluster", good],
            &["nonsense"],
        ),
        (
            "pangu-master",
            &["--id", "1", "--listen", "tcp://127.0.0.1:1", "--data", data, "--cluster", broken],
            &["broken.toml"],
        ),
        ("pangu-master", &["--id", "1", "--listen", &taken, "--data", data, "--cluster", good], &["in use"]),
        (
            "pangu-chunkserver",
            &["--listen", "tcp://127.0.0.1:0", "--data", data, "--location", "no-slash", "--cluster", good],
            &["no-slash"],
        ),
        (
            "pangu-chunkserver",
            &[
                "--listen",
                "tcp://127.0.0.1:0",
                "--data",
                data,
                "--location",
                "/a/b/c",
                "--cluster",
                good,
                "--capacity",
                "much",
            ],
            &["much"],
        ),
        ("pangu-fuse", &["/proc/none/such", "--cluster", good], &["/proc/none/such"]),
        ("pangu", &["--cluster", "/no/such/file.toml", "status"], &["/no/such/file.toml"]),
    ];
    for (program, arguments, wanted) in cases {
        let output =
            run(Command::new(cluster.binaries().join(program)).args(*arguments), Duration::from_secs(30));
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success(), arguments == &["--help"], "{program} {arguments:?}: {said}");
        for word in *wanted {
            assert!(said.contains(word), "{program} {arguments:?} does not mention {word}: {said}");
        }
        assert!(!said.contains("panicked"), "{program} {arguments:?}: {said}");
    }
    cluster.finish().unwrap();
}
