//! What cannot be done is refused with what to do instead, and nothing is lost or left behind.

use std::time::Duration;

use nuwa_api::client::Freshness;
use nuwa_api::ops::{create, delete, get, make_directory, put, rename};
use nuwa_api::proto::{self, Compare, Lock, Operation, Put, SetQuota, Txn, Unlock, command};
use nuwa_api::{ClientError, Session, snapshot};

use crate::fixture::{Cluster, PATIENCE, refused, soon};

/// All there is, and the newest revision.
async fn everything(session: &Session) -> (Vec<u8>, u64) {
    let saved = snapshot::save(session.client(), "", Vec::new(), PATIENCE, |_| {}).await;
    let (file, contents) = saved.unwrap();
    // The first block says when it was made.
    let header = contents.header;
    let mut reader = snapshot::Reader::new(&file[..]).unwrap();
    let mut records = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        records.extend_from_slice(format!("{block:?}").as_bytes());
    }
    (records, header.revision)
}

fn set_quota(path: &str, entries_max: u64, bytes_max: u64) -> command::What {
    command::What::SetQuota(SetQuota { path: path.to_owned(), entries_max, bytes_max })
}

fn operations() -> Vec<(Operation, String)> {
    let deep = "/d".repeat(33);
    let far = "/0123456789".repeat(400);
    let long = format!("/{}", "n".repeat(256));
    let put = |path: &str| put(path, "").into();
    let say = |text: &str| text.to_owned();
    vec![
        (put(""), say("\"\" is no path: a path begins with /")),
        (put("a"), say("\"a\" is no path: a path begins with /")),
        (put("//"), say("\"//\" is no path: a path has no empty component: write / once")),
        (put("/a//b"), say("\"/a//b\" is no path: a path has no empty component: write / once")),
        (put("/a/../b"), say("\"/a/../b\" is no path: a component must not be . or ..")),
        (put("/."), say("\"/.\" is no path: a component must not be . or ..")),
        (put("/a\0b"), say("\"/a\\0b\" is no path: a path must not contain a NUL")),
        (put(&long), format!("{long:?} is no path: a component has at most 255 bytes")),
        // As much of it as a path can have.
        (put(&far), format!("{:?} is no path: a path has at most 4096 bytes", &far[..4096])),
        (put(&deep), format!("{deep:?} is no path: a path has at most 32 components")),
        (
            put("/x/"),
            say("\"/x/\" is no path: this names a directory, because it ends in /; a file is wanted"),
        ),
        (
            make_directory("/x").into(),
            say("\"/x\" is no path: this names a file; a directory, which ends in /, is wanted"),
        ),
        (
            put("/no/x"),
            say("the directory /no/ does not exist: make it first, or ask for missing parents to be made"),
        ),
        (put("/d"), say("/d/ is a directory: a file of that name cannot be there, too")),
        (
            make_directory("/file/").into(),
            say("/file is a file: a directory of that name cannot be there, too"),
        ),
        (create("/file", "").into(), say("/file exists already")),
        (delete("/none").into(), say("/none does not exist")),
        (delete("/").into(), say("bad request: the root cannot be deleted")),
        (delete("/d/").into(), say("/d/ is not empty: delete what is in it first, or the whole subtree")),
        (
            rename("/file", "/file/").into(),
            say("bad request: a file stays a file, a directory a directory: end both in / or none"),
        ),
        (
            rename("/d/", "/d/e/").into(),
            say("bad request: a directory cannot be moved into itself, nor the root at all"),
        ),
        (get("relative").into(), say("\"relative\" is no path: a path begins with /")),
        (Operation { what: None }, say("bad request: an operation says what to do")),
        (Put { existence: 7, ..nuwa_api::ops::put("/y", "") }.into(), say("bad request: no such existence")),
        (
            nuwa_api::ops::put("/y", vec![0; (1 << 20) + 1]).into(),
            say(
                "the value for /y has 1048577 bytes, at most 1048576 are possible: keep it in a file system, and its name here",
            ),
        ),
        (
            nuwa_api::ops::put("/d/x", "far too long for the quota").into(),
            say("the quota of /d/ is 20 bytes: delete something below it, or have it raised"),
        ),
        (put("/d/third"), say("the quota of /d/ is 2 entries: delete something below it, or have it raised")),
        (
            put("/held"),
            // A put does not mind a lock; taking the file away does.
            String::new(),
        ),
        (delete("/held").into(), say("/held is locked by another session, or waited for")),
    ]
}

fn commands(session: u64) -> Vec<(command::What, String)> {
    let say = |text: &str| text.to_owned();
    let lock = |path: &str| Lock { session, path: path.to_owned(), ..Lock::default() };
    let many = vec![nuwa_api::ops::put("/y", "").into(); 4097];
    let large = (0..9).map(|n| nuwa_api::ops::put(format!("/{n}"), vec![0; 400 << 10]).into()).collect();
    let compare = |with| Compare { path: "/file".to_owned(), relation: 2, with };
    let compares = |compares| command::What::Txn(Txn { session, compares, ..Txn::default() });
    vec![
        (
            command::What::Txn(Txn { session, then: many, ..Txn::default() }),
            say("bad request: a command has at most 4096 compares, and operations"),
        ),
        // Within the limit of 8 MiB.
        (
            command::What::Txn(Txn { session, compares: vec![], then: large, otherwise: vec![] }),
            String::new(),
        ),
        (compares(vec![compare(None)]), say("bad request: a compare says what with")),
        (
            compares(vec![compare(Some(proto::compare::With::Exists(true)))]),
            say("bad request: values are equal or not equal, neither less nor greater"),
        ),
        (
            command::What::Txn(Txn { session: 999, ..Txn::default() }),
            say("session 999 is over: open another"),
        ),
        (command::What::Lock(lock("/none")), say("/none does not exist")),
        (
            command::What::Lock(lock("/d/")),
            say("\"/d/\" is no path: this names a directory, because it ends in /; a file is wanted"),
        ),
        (command::What::Lock(lock("/held")), say("/held is locked by another session, or waited for")),
        (
            command::What::Lock(Lock { value: Some(vec![0; 1025].into()), ..lock("/file") }),
            say("bad request: only an exclusive claim carries a value, of at most 1 KiB"),
        ),
        (
            command::What::Unlock(Unlock { session, path: "/file".to_owned(), owner: 0 }),
            say("the lock of /file is neither held nor waited for by this owner"),
        ),
        (set_quota("/none/", 1, 1), say("/none/ does not exist")),
        (
            command::What::OpenSession(proto::OpenSession { ttl_ms: 10, ..Default::default() }),
            say("bad request: a session lives for 1000 to 600000 ms without being renewed"),
        ),
        (
            command::What::OpenSession(proto::OpenSession {
                description: "x".repeat(257),
                ..Default::default()
            }),
            say("bad request: a session's description has at most 256 bytes"),
        ),
        (
            command::What::Restore(proto::Restore { restore: 1, step: None }),
            say("bad request: a restore says which step is to be done"),
        ),
        (
            command::What::Restore(proto::Restore {
                restore: 1,
                step: Some(proto::restore::Step::Block(Default::default())),
            }),
            say("bad request: this restore was not begun, or was given up: begin it again"),
        ),
    ]
}

#[tokio::test]
async fn each_is_told_what_to_do_and_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let (session, other) = (cluster.session().await, cluster.session().await);
    session.put("/file", "1", soon()).await.unwrap();
    for path in ["/d/x", "/d/y"] {
        session.change_one(Put { with_parents: true, ..put(path, "") }, soon()).await.unwrap();
    }
    session.change(set_quota("/d/", 2, 20), soon()).await.unwrap();
    let lock = nuwa_api::LockRequest { path: "/held".to_owned(), with_file: true, ..Default::default() };
    other.lock(&lock, soon()).await.unwrap();
    let before = everything(&session).await;
    for (operation, told) in operations() {
        let done = session.change_one(operation.clone(), soon()).await;
        if told.is_empty() {
            done.unwrap();
            session.put("/held", "", soon()).await.unwrap();
        } else {
            assert_eq!(refused(done), told);
        }
    }
    // The put to /held is the one that was done, twice.
    let between = everything(&session).await;
    assert_eq!(between.1, before.1 + 2);
    for (what, told) in commands(session.id()) {
        let done = session.change(what.clone(), soon()).await;
        if told.is_empty() {
            done.unwrap();
            for n in 0..9 {
                session.change_one(delete(format!("/{n}")), soon()).await.unwrap();
            }
        } else {
            assert_eq!(refused(done), told);
        }
    }
    assert_eq!(everything(&session).await, (between.0, between.1 + 10));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_session_that_is_over_and_members_that_are_not_there() {
    let cluster = Cluster::start(1).await;
    let (session, other) = (cluster.session().await, cluster.session().await);
    let end = proto::EndSession { session: session.id() };
    other.change(command::What::EndSession(end), soon()).await.unwrap();
    let told = format!("session {} is over: open another", session.id());
    assert_eq!(refused(session.put("/a", "", soon()).await), told);
    assert_eq!(refused(session.lock(&nuwa_api::LockRequest::default(), soon()).await), told);
    let client = cluster.client();
    let said = |error: ClientError| error.to_string();
    let told = said(client.remove_member(9, soon()).await.unwrap_err());
    assert!(told.ends_with("there is no member 9: there are 1"), "{told}");
    let told = said(client.add_member("tcp://127.0.0.1:1", soon()).await.unwrap_err());
    assert!(told.ends_with("start it there with --join first"), "{told}");
    let told = said(client.add_member("x", soon()).await.unwrap_err());
    assert!(told.contains("\"x\" is no address of a member"), "{told}");
    let nobody = cluster.client_at(2);
    let soon = std::time::Instant::now() + Duration::from_millis(500);
    let told = said(nobody.get("/a", Freshness::Linearizable, Some(soon)).await.unwrap_err());
    assert!(told.starts_with("nobody answered in time; the last one said: "), "{told}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn reads_and_watches_of_what_cannot_be() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let wrong = client.get("a", Freshness::Linearizable, soon()).await;
    assert_eq!(refused(wrong), "\"a\" is no path: a path begins with /");
    let list = proto::List { path: "/d".to_owned(), ..proto::List::default() };
    let wrong = client.list(list, Freshness::Stale, soon()).await;
    assert_eq!(
        refused(wrong),
        "\"/d\" is no path: this names a file; a directory, which ends in /, is wanted"
    );
    let list = proto::List { path: "/none/".to_owned(), ..proto::List::default() };
    assert_eq!(refused(client.list(list, Freshness::Linearizable, soon()).await), "/none/ does not exist");
    let mut watcher = client.watch("a", nuwa_api::Place::NOW);
    let wrong = watcher.next().await.unwrap_err().to_string();
    assert!(wrong.ends_with("\"a\" is no path: a path begins with /"), "{wrong}");
    cluster.shutdown().await;
}
