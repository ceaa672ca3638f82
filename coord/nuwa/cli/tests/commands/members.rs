//! `nuwa member`, `status`, `service`.

use serde_json::json;

use crate::fixture::{Cluster, until};

#[test]
fn a_member_is_added_and_removed() {
    let cluster = Cluster::start();
    let (second, third) = (cluster.start_newcomer(2), cluster.start_newcomer(3));
    let ids = || -> Vec<u64> {
        let status = cluster.json(&["status"]);
        let members = status["members"].as_array().unwrap();
        members
            .iter()
            .filter(|member| member["voter"] == json!(true))
            .map(|member| member["id"].as_u64().unwrap())
            .collect()
    };
    let add = |address: &str| {
        // It may not listen yet.
        until("the newcomer", || cluster.run(&["member", "add", address]).code == 0);
    };
    add(&second);
    assert_eq!(ids(), [1, 2]);
    assert_eq!(cluster.out(&["member", "add", &second]), "member 2 is one of the cluster already\n");
    let again = cluster.json(&["member", "add", &second]);
    assert_eq!(again, json!({"id": 2, "address": second, "already": true}));
    add(&third);
    assert_eq!(ids(), [1, 2, 3]);
    let removed = cluster.json(&["member", "remove", "3"]);
    assert_eq!(removed, json!({"id": 3, "removed": true}));
    let said = cluster.out(&["member", "remove", "2"]);
    assert_eq!(said, "member 2 is removed: its process can be stopped\n");
    assert_eq!(ids(), [1]);
}

#[test]
fn status_says_who_leads() {
    let cluster = Cluster::start();
    cluster.out(&["put", "/a", "1"]);
    let status = cluster.json(&["status"]);
    let address = format!("unix://{}", cluster.file("nuwa.sock").display());
    assert_eq!((&status["leader"], &status["revision"]), (&json!(address), &json!(1)));
    assert_eq!(status["restoring"], json!(false));
    let member = &status["members"][0];
    assert_eq!((&member["id"], &member["address"]), (&json!(1), &json!(address)));
    assert_eq!(
        (&member["voter"], &member["answers"], &member["watchers"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(status["term"].as_u64() > Some(0) && member["applied_index"].as_u64() > Some(0), "{status}");
    let page = cluster.out(&["status"]);
    assert!(
        page.lines().any(|line| line.starts_with(&format!("1       {address}")) && line.contains(" leader ")),
        "{page}"
    );
    assert!(page.contains("\nrevision 1, term "), "{page}");
}

#[test]
fn services_are_listed() {
    let cluster = Cluster::start();
    assert_eq!(cluster.out(&["service", "ls"]), "");
    let put = |service: &str, n: u32, record: &str| {
        cluster.out(&["put", &format!("/services/{service}/{n}"), record, "--parents"]);
    };
    put("Master", 1, r#"{"address": "tcp://10.0.0.1:7101", "weight": 7, "rack": "/r/1"}"#);
    put("Master", 2, r#"{"address": "tcp://10.0.0.2:7101", "health": "stopping"}"#);
    put("Chunks", 1, r#"{"address": "tcp://10.0.0.3:7101"}"#);
    let columns = |said: String| -> Vec<String> {
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(columns(cluster.out(&["service", "ls"])), ["Chunks 1 endpoint", "Master 2 endpoints"]);
    assert_eq!(
        columns(cluster.out(&["service", "ls", "Master"])),
        ["tcp://10.0.0.1:7101 serving weight 7 rack /r/1", "tcp://10.0.0.2:7101 stopping weight 100 rack -"]
    );
    // One that nobody can read hides no other.
    put("Chunks", 2, "x");
    let ended = cluster.run(&["service", "ls", "Chunks"]);
    assert_eq!((ended.code, ended.out.iter().filter(|byte| **byte == b'\n').count()), (0, 1));
    assert!(ended.error.starts_with("nuwa: /services/Chunks/2 is skipped: "), "{}", ended.error);
    let told = cluster.refused(&["service", "ls", "Nobody"], b"");
    assert_eq!(told, "nobody has ever served Nobody: `nuwa service ls` lists all services");
}
