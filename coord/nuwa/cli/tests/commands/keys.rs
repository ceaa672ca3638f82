//! Other keys than the administrator's.

use zhongkui::Rights;

use crate::fixture::{Cluster, run, text};

#[test]
fn a_user_does_what_the_capability_says() {
    let cluster = Cluster::start();
    cluster.out(&["mkdir", "/a/"]);
    cluster.out(&["put", "/b", "secret"]);
    let (key, cap) = cluster.user("alice", Rights::READ | Rights::WRITE | Rights::LOCK, "nuwa:/a/");
    let pair = ["--key", text(&key), "--cap", text(&cap)];
    let with = |arguments: &[&'static str]| -> Vec<String> {
        pair.iter().chain(arguments).map(|&argument| argument.to_owned()).collect()
    };
    let out = |arguments: &[&'static str]| {
        let arguments = with(arguments);
        cluster.out(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |arguments: &[&'static str]| {
        let arguments = with(arguments);
        cluster.refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"")
    };
    out(&["put", "/a/x", "mine"]);
    assert_eq!(out(&["get", "/a/x"]), "mine");
    assert_eq!(out(&["lock", "/a/x", "--", "echo", "held"]), "held\n");
    for arguments in [
        &["get", "/b"][..],
        &["put", "/b", "other"],
        &["ls"],
        &["rm", "/b"],
        &["mv", "/b", "/a/b"],
        &["watch", "/"],
        &["lock", "/b", "--", "true"],
        &["quota", "/a/", "--entries", "9"],
        &["history", "--events", "9"],
        &["member", "remove", "9"],
        &["snapshot", "-"],
    ] {
        let said = refused(arguments);
        assert!(
            said.contains("alice may not: ") && said.contains("does not allow it"),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(cluster.out(&["get", "/b"]), "secret");
    let alone = run(&cluster.with_flags(&["--key", text(&key), "get", "/a/x"]), b"");
    assert!(alone.code == 2 && alone.error.contains("--cap"), "{}", alone.error);
    // Of another cluster.
    let other = Cluster::start();
    let strange = run(&cluster.with_flags(&["--keys", text(&other.file("keys")), "get", "/a/x"]), b"");
    assert!(strange.code == 1 && strange.error.contains("this is no server of ours"), "{}", strange.error);
}
