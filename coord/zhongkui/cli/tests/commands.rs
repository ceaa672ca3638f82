//! The commands as people type them: from a new cluster to a capability that was handed on; and what goes wrong, in words.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs it in the key directory, so that files are named without one.
    fn run(&self, line: &str) -> Output {
        // 'a b' is one argument.
        let quoted = line.split('\'').enumerate();
        let arguments = quoted
            .flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
        Command::new(env!("CARGO_BIN_EXE_zhongkui"))
            .arg("--keys")
            .arg(self.folder.path())
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{line}: {out}{err}");
        out
    }

    fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

#[test]
fn from_a_new_cluster_to_a_capability_that_was_handed_on() {
    let cluster = Cluster::new();
    cluster.done("init");
    for (user, uid) in [("alice", 1000), ("bob", 1001)] {
        cluster.done(&format!("user add {user} --uid {uid} --gid 100"));
    }
    let mode = |name| fs::metadata(cluster.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("authority.key"), mode("alice.key"), mode("alice.pub")], [0o600, 0o600, 0o644]);

    cluster.done("grant alice 'read,write on directory:1099' 'lock on nuwa:/locks/' --for 90days");
    let shown = cluster.done("show alice.cap");
    for words in [
        "for alice, uid 1000, gids 100",
        "directory 1099 and all below: read, write",
        "/locks/ and all below in Nuwa: lock",
        "valid now",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    cluster.done("narrow alice.cap 'read on directory:2000' --for 8h --key alice.key --to bob.pub --authority authority.pub --out bob.cap");
    let shown = cluster.done("show bob.cap");
    for words in
        ["for alice, uid 1000", "handed on by", "directory 2000 and all below: read", "all of these allow"]
    {
        assert!(shown.contains(words), "{shown}");
    }
    // Bob has no other key than his own.
    let refused = cluster.refused("narrow alice.cap 'read on directory:1099' --key bob.key --to bob.pub --authority authority.pub --out x.cap");
    assert!(refused.contains("does not hold the capability"), "{refused}");
    assert!(!cluster.file("x.cap").exists());
    assert!(cluster.done("show alice.pub").contains("public key"));
    assert!(cluster.done("show alice.key").contains("secret key"));
}

#[test]
fn a_capability_of_another_cluster_is_none_here() {
    let (here, there) = (Cluster::new(), Cluster::new());
    for cluster in [&here, &there] {
        cluster.done("init");
        cluster.done("user add alice --uid 1000");
        cluster.done("grant alice 'all on everything'");
    }
    fs::copy(there.file("alice.cap"), here.file("theirs.cap")).unwrap();
    let refused = here.refused("show theirs.cap");
    assert!(refused.contains("no authority of this cluster"), "{refused}");
}

#[test]
fn what_goes_wrong_is_said() {
    let cluster = Cluster::new();
    for (line, words) in [
        ("user add alice --uid 1", "'zhongkui init' makes"),
        ("grant alice 'read on everything'", "'zhongkui init' makes"),
        ("show nothing.cap", "nothing.cap"),
    ] {
        let refused = cluster.refused(line);
        assert!(refused.contains(words), "{line}: {refused}");
    }
    cluster.done("init");
    cluster.done("user add alice --uid 1");
    cluster.done("grant alice 'read on nuwa:/a/'");
    for (line, words) in [
        ("init", "is there already"),
        ("user add alice --uid 1", "is there already"),
        ("user add authority --uid 1", "choose another"),
        ("user add Alice --uid 1", "a-z, 0-9"),
        ("grant carol 'read on everything'", "'zhongkui user add carol'"),
        ("grant alice 'read'", "'RIGHTS on RESOURCE'"),
        ("grant alice 'fly on everything'", "'fly' is no right"),
        ("grant alice 'read on the moon'", "is no resource"),
        ("grant alice 'read on everything' --for 0s", "at least one second"),
        ("grant alice 'read on everything'", "is there already"),
        (
            "narrow alice.cap 'write on nuwa:/a/' --key alice.key --to alice.pub --authority authority.pub --out y.cap",
            "has nothing of that",
        ),
        ("show alice.user", "there is something else"),
    ] {
        let refused = cluster.refused(line);
        assert!(refused.contains(words), "{line}: {refused}");
    }
    fs::set_permissions(cluster.file("authority.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = cluster.refused("grant alice 'read on everything' --out z.cap");
    assert!(refused.contains("chmod 600"), "{refused}");
}
