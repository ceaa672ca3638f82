//! Files and directories: put, made, deleted, renamed, compared, in transactions.

use bytes::Bytes;
use nuwa_model::VALUE_MAX_BYTES;
use nuwa_model::proto::compare::With;
use nuwa_model::proto::{
    Compare, EventKind, Existence, Get, Put, RefusalCode as Code, Relation, Rename, Txn,
};

use crate::world::{Does, World, compare, delete, directory, new, owned, path, put, rename, subtree};

#[test]
fn a_file_is_put_read_and_deleted() {
    let mut world = World::new();
    world.op(put("/a", "one")).unwrap();
    let first = world.get("/a").unwrap();
    assert_eq!((first.version, first.created, first.modified, first.owner), (1, 1, 1, 0));
    world.op(put("/a", "two")).unwrap();
    let second = world.get("/a").unwrap();
    assert_eq!((second.version, second.created, second.modified), (2, 1, 2));
    assert!(second.modified_unix_nanos > first.modified_unix_nanos);
    assert_eq!(world.value("/a").unwrap(), "two");
    world.op(delete("/a")).unwrap();
    assert_eq!((world.get("/a"), world.revision()), (None, 3));
    assert_eq!(world.op(delete("/a")), Err(Code::NotFound));
}

#[test]
fn existence_can_be_asked_for() {
    let mut world = World::new();
    let old = |put| Put { existence: Existence::MustExist.into(), ..put };
    assert_eq!(world.op(old(put("/a", "x"))), Err(Code::NotFound));
    world.op(new(put("/a", "x"))).unwrap();
    assert_eq!(world.op(new(put("/a", "y"))), Err(Code::Exists));
    world.op(old(put("/a", "z"))).unwrap();
    assert_eq!(world.value("/a").unwrap(), "z");
}

#[test]
fn a_name_is_a_file_or_a_directory() {
    let mut world = World::new();
    world.op(put("/a", "")).unwrap();
    assert_eq!(world.op(directory("/a/")), Err(Code::NotADirectory));
    let deep = Put { with_parents: true, ..put("/a/b/c", "") };
    assert_eq!(world.op(deep.clone()), Err(Code::NotADirectory));
    world.op(delete("/a")).unwrap();
    assert_eq!(world.op(put("/a/b/c", "")), Err(Code::ParentNotFound));
    world.op(deep).unwrap();
    assert_eq!(world.op(put("/a/b", "")), Err(Code::IsADirectory));
    assert_eq!(world.list("/"), ["/a/"]);
    assert_eq!(world.list("/a/"), ["/a/b/"]);
    assert_eq!(world.op(directory("/a/")), Err(Code::Exists));
    assert_eq!(world.op(put("/a/b/", "")), Err(Code::BadPath));
    assert_eq!(world.op(directory("/x")), Err(Code::BadPath));
    assert_eq!(world.op(put("x", "")), Err(Code::BadPath));
}

#[test]
fn a_value_has_a_limit() {
    let mut world = World::new();
    let of = |len| Put { value: Bytes::from(vec![7; len]), ..put("/a", "") };
    assert_eq!(world.op(of(VALUE_MAX_BYTES + 1)), Err(Code::ValueTooLarge));
    world.op(of(VALUE_MAX_BYTES)).unwrap();
    assert_eq!(world.get("/a").unwrap().value.len(), VALUE_MAX_BYTES);
    let many = (0..20).map(|n| Put { path: format!("/{n}"), ..of(VALUE_MAX_BYTES) }.operation()).collect();
    assert_eq!(world.txn(Txn { then: many, ..Txn::default() }).unwrap_err(), Code::TooMuch);
}

#[test]
fn a_directory_goes_when_it_is_empty_or_with_all_that_is_in_it() {
    let mut world = World::new();
    for at in ["/d/x", "/d/e/y", "/d/e/z", "/other"] {
        world.op(Put { with_parents: true, ..put(at, "v") }).unwrap();
    }
    assert_eq!(world.op(delete("/d/")), Err(Code::NotEmpty));
    assert_eq!(world.op(subtree("/")), Err(Code::Invalid));
    world.op(subtree("/d/")).unwrap();
    let deleted = |at: &str| (EventKind::Deleted, at.to_owned());
    let wanted = ["/d/e/z", "/d/e/y", "/d/x", "/d/e/", "/d/"].map(deleted);
    assert_eq!(world.told(), wanted, "children first");
    assert_eq!(world.list("/"), ["/other"]);
    world.op(directory("/d/")).unwrap();
    world.op(delete("/d/")).unwrap();
}

#[test]
fn what_is_renamed_stays_what_it_was() {
    let mut world = World::new();
    let session = world.session();
    for at in ["/d/x", "/d/e/y"] {
        world.op(Put { with_parents: true, ..put(at, "v") }).unwrap();
    }
    world.op_of(session, owned(put("/d/e/mine", "m"))).unwrap();
    let created = world.get("/d/x").unwrap().created;
    world.op(rename("/d/", "/new/")).unwrap();
    assert_eq!(world.list("/"), ["/new/"]);
    assert_eq!(world.list("/new/e/"), ["/new/e/mine", "/new/e/y"]);
    assert_eq!(world.get("/new/x").unwrap().created, created);
    assert_eq!(world.get("/new/e/mine").unwrap().owner, session);
    world.end(session);
    assert_eq!(world.get("/new/e/mine"), None, "it moved with its session");

    world.op(put("/f", "f")).unwrap();
    assert_eq!(world.op(Rename { no_replace: true, ..rename("/f", "/new/x") }), Err(Code::Exists));
    world.op(rename("/f", "/new/x")).unwrap();
    assert_eq!((world.value("/new/x").unwrap().as_str(), world.get("/f")), ("f", None));
    world.op(rename("/new/x", "/new/x")).unwrap();
    assert_eq!(world.events, []);
    for (from, to, code) in [
        ("/gone", "/x", Code::NotFound),
        ("/new/x", "/x/", Code::Invalid),
        ("/new/", "/new/e/in/", Code::Invalid),
        ("/new/x", "/no/x", Code::ParentNotFound),
        ("/new/x", "/new/e", Code::IsADirectory),
        ("/new/e/", "/new/", Code::Exists),
    ] {
        assert_eq!(world.op(rename(from, to)), Err(code), "{from} to {to}");
    }
}

#[test]
fn sequential_names_ascend_and_are_never_used_twice() {
    let mut world = World::new();
    let next = Put { sequential: true, ..put("/q/n-", "") };
    assert_eq!(world.op(next.clone()), Err(Code::ParentNotFound));
    world.op(directory("/q/")).unwrap();
    world.op(next.clone()).unwrap();
    world.op(next.clone()).unwrap();
    assert_eq!(world.list("/q/"), ["/q/n-0000000000", "/q/n-0000000001"]);
    world.op(delete("/q/n-0000000001")).unwrap();
    let both = vec![next.clone().operation(), next.operation()];
    let made = world.txn(Txn { then: both, ..Txn::default() }).unwrap();
    let made: Vec<_> = made.results.into_iter().map(|result| result.entry.unwrap().path).collect();
    assert_eq!(made, ["/q/n-0000000002", "/q/n-0000000003"]);
    world.op(Put { sequential: true, ..put("/top", "") }).unwrap();
    assert_eq!(world.list("/"), ["/q/", "/top0000000000"]);
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let mut world = World::new();
    let set = |at, value| put(at, value).operation();
    let failing = Txn { then: vec![set("/a", "1"), set("/no/b", "2")], ..Txn::default() };
    assert_eq!(world.txn(failing), Err(Code::ParentNotFound));
    assert_eq!(world.list("/"), Vec::<String>::new());
    let steps = vec![
        set("/a", "1"),
        Get { path: "/a".to_owned() }.operation(),
        directory("/d/").operation(),
        set("/d/x", "2"),
        delete("/d/x").operation(),
        delete("/d/").operation(),
    ];
    let done = world.txn(Txn { then: steps, ..Txn::default() }).unwrap();
    assert_eq!(done.results[1].entry.as_ref().unwrap().value, "1", "it sees what it did itself");
    assert_eq!((world.list("/"), world.revision()), (vec!["/a".to_owned()], 1));
}

#[test]
fn compares_choose_what_is_done() {
    let mut world = World::new();
    world.op(put("/a", "old")).unwrap();
    world.op(put("/a", "now")).unwrap();
    let mut holds = |compare: Compare| {
        let then = vec![put("/yes", "").operation()];
        let otherwise = vec![put("/no", "").operation()];
        let reply = world.txn(Txn { session: 0, compares: vec![compare], then, otherwise }).unwrap();
        assert_eq!(world.told(), [(EventKind::Put, if reply.succeeded { "/yes" } else { "/no" }.to_owned())]);
        reply.succeeded
    };
    let is =
        |relation: Relation, at: &str, with: With| Compare { relation: relation.into(), ..compare(at, with) };
    assert!(holds(compare("/a", With::Exists(true))));
    assert!(holds(compare("/b", With::Exists(false))));
    assert!(!holds(is(Relation::NotEqual, "/b", With::Exists(false))));
    assert!(holds(compare("/a", With::Value(Bytes::from_static(b"now")))));
    assert!(!holds(compare("/a", With::Value(Bytes::from_static(b"old")))));
    assert!(!holds(compare("/b", With::Value(Bytes::new()))), "what is absent has no value");
    assert!(holds(compare("/a", With::Version(2))) && holds(compare("/b", With::Version(0))));
    assert!(
        holds(is(Relation::Less, "/a", With::Modified(3)))
            && !holds(is(Relation::Less, "/a", With::Modified(2)))
    );
    assert!(holds(is(Relation::Greater, "/a", With::Version(1))));
    assert!(holds(compare("/a", With::Owner(0))) && holds(compare("/a", With::Fence(0))));
    let senseless = is(Relation::Less, "/a", With::Value(Bytes::new()));
    assert_eq!(world.txn(Txn { compares: vec![senseless], ..Txn::default() }), Err(Code::Invalid));
}

#[test]
fn a_directory_is_listed_in_pages() {
    let mut world = World::new();
    for at in ["/d/a", "/d/b/x", "/d/c", "/e"] {
        world.op(Put { with_parents: true, ..put(at, "") }).unwrap();
    }
    let page = |after: Option<&str>, limit| -> Vec<String> {
        let entries = nuwa_core::query::list(&world.kv, &path("/d/"), after, limit).unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    };
    assert_eq!(page(None, 2), ["/d/a", "/d/b/"]);
    assert_eq!(page(Some("b/"), 2), ["/d/c"]);
    assert_eq!(page(Some("aa"), 9), ["/d/b/", "/d/c"]);
}

#[test]
fn what_is_no_command_is_refused() {
    let world = World::new();
    for bytes in [&b"\xff\xff"[..], b""] {
        let applied = nuwa_core::apply(&world.kv, 1, bytes).unwrap();
        assert!(applied.events.is_empty() && applied.batch.into_changes().is_empty());
    }
}
