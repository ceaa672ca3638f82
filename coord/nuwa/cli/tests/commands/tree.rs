//! `nuwa txn`, `watch`, `quota`, `history`, and how errors look as JSON.

use serde_json::{Value, json};

use crate::fixture::{Cluster, run, until};

const TXN: &[u8] = br#"{
  "if":   [{"path": "/a", "version": 0}],
  "then": [{"put": {"path": "/a", "value": "x"}}, {"mkdir": {"path": "/d/"}}, {"get": {"path": "/a"}}],
  "else": [{"get": {"path": "/a"}}, {"get": {"path": "/none"}}, {"rm": {"path": "/d/"}},
           {"mv": {"from": "/a", "to": "/b"}}]}"#;

#[test]
fn a_transaction_takes_one_branch_or_the_other() {
    let cluster = Cluster::start();
    let ended = cluster.run_with(&["txn"], TXN);
    assert_eq!((ended.code, &*ended.error), (0, ""));
    assert_eq!(
        String::from_utf8(ended.out).unwrap(),
        "every compare held; revision 1\nput    /a  version 1\nmkdir  /d/  directory\nget    /a  version 1  \"x\"\n"
    );
    let ended = cluster.run_with(&["txn"], TXN);
    assert_eq!((ended.code, &*ended.error), (2, ""));
    assert_eq!(
        String::from_utf8(ended.out).unwrap(),
        "a compare did not hold; revision 2\nget    /a  version 1  \"x\"\nget    /none  does not exist\n\
         rm     /d/  1 removed\nmv     /b  version 1\n"
    );
    assert_eq!(cluster.out(&["ls"]), "b\n");
    let ended = cluster.run_with(&["txn", "--json"], TXN);
    assert_eq!((ended.code, &*ended.error), (0, ""));
    let said: Value = serde_json::from_slice(&ended.out).unwrap();
    assert_eq!((&said["succeeded"], &said["revision"]), (&json!(true), &json!(3)));
    let results = said["results"].as_array().unwrap();
    let paths: Vec<_> = results.iter().map(|result| result["path"].as_str().unwrap()).collect();
    assert_eq!((paths, &results[2]["value"]), (vec!["/a", "/d/", "/a"], &json!("x")));
}

#[test]
fn a_watch_tells_of_what_another_process_does() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/config/limits", "max=1", "--parents"]);
    let mut watch = cluster.begin(&["watch", "/config/", "--json", "--count", "2"]);
    until("the watch", || cluster.json(&["status"])["members"][0]["watchers"] == json!(1));
    cluster.out(&["put", "/elsewhere", ""]);
    cluster.out(&["put", "/config/limits", "max=2"]);
    let event: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(
        event,
        json!({
            "revision": 3, "number": 0, "kind": "put", "path": "/config/limits", "version": 2, "value": "max=2",
        })
    );
    assert!(watch.is_running(), "there is one more to come");
    cluster.out(&["rm", "/config/limits"]);
    let event: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((&event["kind"], &event["path"]), (&json!("deleted"), &json!("/config/limits")));
    assert_eq!((watch.line(), watch.ended()), (String::new(), Some(0)));

    let past = cluster.out(&["watch", "/config/", "--from", "1", "--count", "4"]);
    let lines: Vec<_> = past.lines().collect();
    assert_eq!(
        lines,
        [
            "1  put  /config/",
            "1  put  /config/limits  version 1  \"max=1\"",
            "3  put  /config/limits  version 2  \"max=2\"",
            "4  deleted  /config/limits",
        ]
    );
}

#[test]
fn a_quota_is_shown_when_it_is_set() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/d/x", "12", "--parents"]);
    let set = cluster.json(&["quota", "/d", "--entries", "5"]);
    assert_eq!((&set["path"], &set["entries_max"], &set["entries"]), (&json!("/d/"), &json!(5), &json!(1)));
    assert_eq!(cluster.json(&["quota", "/d/"]), set);
    assert!(cluster.out(&["quota", "/d"]).starts_with("/d/: 1 entries, at most 5; "));
    assert_eq!(cluster.out(&["quota", "/d", "--entries", "0"]), "");
}

#[test]
fn history_is_limited_and_the_limit_is_shown() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/a", "1"]);
    let said = cluster.out(&["history"]);
    assert!(said.contains(" on: 1 events, at most the default; "), "{said}");
    assert!(said.ends_with(" bytes, at most the default\n"), "{said}");
    assert_eq!(cluster.out(&["history", "--events", "10"]), "");
    let set = cluster.json(&["history", "--bytes", "5000"]);
    assert_eq!(
        (&set["events_max"], &set["bytes_max"]),
        (&json!(10), &json!(5000)),
        "each stays as it was set"
    );
    assert_eq!(cluster.json(&["history"]), set);
    assert!(cluster.out(&["history"]).contains(" 1 events, at most 10; "));
    for n in 0..15 {
        cluster.out(&["put", "/a", &n.to_string()]);
    }
    let kept = cluster.json(&["history"]);
    let number = |name: &str| kept[name].as_u64().unwrap();
    assert!((1..=10).contains(&number("events")) && number("first") > 1, "{kept}");
    let back = cluster.json(&["history", "--events", "0", "--bytes", "0"]);
    assert_eq!((&back["events_max"], &back["bytes_max"]), (&json!(0), &json!(0)));
}

#[test]
fn errors_are_json_if_json_is_asked_for() {
    let cluster = Cluster::start();
    let error = |arguments: &[&str], code| {
        let ended = cluster.run(arguments);
        assert_eq!((ended.code, &*ended.out), (code, &b""[..]), "{arguments:?}");
        let said: Value = serde_json::from_str(&ended.error).unwrap();
        let said = said.as_object().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        said["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(error(&["get", "/none", "--json"], 1), "/none does not exist");
    assert!(error(&["restore", "--json"], 2).contains("required arguments were not provided"));
    let told = error(&["lock", "/l", "--json", "--", "/no/such/program"], 1);
    assert!(told.starts_with("run /no/such/program: No such file"), "{told}");
    let text = run(&["lock", "/l", "--lease", "0", "--", "x", "--json"], b"");
    assert!(text.code == 2 && text.error.starts_with("error: "), "that flag is the command's: {text:?}");
    assert_eq!(cluster.json(&["restore", "--abandon"]), json!({"abandoned": true}));
}
