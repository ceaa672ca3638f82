//! Sessions: what they own, and their end.

use nuwa_core::{SessionEffect, query};
use nuwa_model::proto::{EventKind, OpenSession, Put, RefusalCode as Code, Txn, command};
use prost::Message as _;

use crate::world::{Does, World, delete, directory, exclusive, owned, put};

#[test]
fn what_a_session_owns_goes_with_it() {
    let mut world = World::new();
    let (one, two) = (world.session(), world.session());
    assert_eq!((one, two, world.effect), (1, 2, SessionEffect::Opened { session: 2, ttl_ms: 1000 }));
    world.op_of(one, owned(put("/mine", ""))).unwrap();
    world.op_of(two, owned(put("/other", ""))).unwrap();
    world.op_of(two, put("/mine", "changed by another, who does not own it for that")).unwrap();
    assert_eq!(world.get("/mine").unwrap().owner, one);
    assert!(!world.end(one));
    assert_eq!(world.effect, SessionEffect::Ended(one));
    assert_eq!(world.told(), [(EventKind::Deleted, "/mine".to_owned())]);
    assert_eq!(world.list("/"), ["/other"]);
    assert!(!world.end(one), "again, as after a lost reply");
    assert_eq!((world.effect, world.events.len()), (SessionEffect::None, 0));
}

/// A name is kept as long as the session is, also while it is ending; one that would not fit into the record is refused.
#[test]
fn a_session_says_whose_it_is() {
    let mut world = World::new();
    let session = world.session();
    let owner = |world: &World| query::session(&world.kv, session).unwrap().unwrap().owner;
    assert_eq!(owner(&world), "alice");
    let open = |bytes| {
        let owner = "x".repeat(bytes);
        command::What::OpenSession(OpenSession { owner, ..OpenSession::default() })
    };
    assert!(world.ask(open(128)).is_ok());
    assert_eq!(world.ask(open(129)), Err(Code::Invalid));
    world.op(directory("/d/")).unwrap();
    let names = (0..1001).map(|n| owned(put(&format!("/d/{n}"), "")).operation()).collect();
    world.txn(Txn { session, then: names, ..Txn::default() }).unwrap();
    assert!(world.end(session), "it owns more");
    assert_eq!(owner(&world), "alice");
}

/// What a release wrote that knew of no owners.
#[test]
fn a_record_without_an_owner_is_anybodys() {
    #[derive(prost::Message)]
    struct Before {
        #[prost(uint32, tag = "1")]
        ttl_ms: u32,
        #[prost(string, tag = "2")]
        description: String,
    }
    let before = Before { ttl_ms: 1000, description: "old".to_owned() };
    let record = nuwa_core::records::SessionRecord::decode(&*before.encode_to_vec()).unwrap();
    assert_eq!((record.ttl_ms, &*record.description, &*record.owner), (1000, "old", ""));
}

#[test]
fn a_session_that_is_over_can_do_nothing() {
    let mut world = World::new();
    let session = world.session();
    world.end(session);
    assert_eq!(world.op_of(session, put("/a", "")), Err(Code::SessionOver));
    assert_eq!(world.op_of(99, put("/a", "")), Err(Code::SessionOver));
    assert_eq!(world.lock(exclusive(session, "/a")), Err(Code::SessionOver));
    assert_eq!(world.op(owned(put("/a", ""))), Err(Code::Invalid), "nobody owns nothing");
    assert_eq!(world.session(), session + 1, "numbers are not used again");
}

#[test]
fn the_end_of_a_session_that_owns_much_takes_several_commands() {
    let mut world = World::new();
    let (session, other) = (world.session(), world.session());
    world.op(directory("/d/")).unwrap();
    let names =
        (0..1500).map(|n| owned(Put { path: format!("/d/{n}"), ..put("", "") }).operation()).collect();
    world.txn(Txn { session, then: names, ..Txn::default() }).unwrap();
    assert_eq!(world.lock(exclusive(other, "/d/7")).map(|reply| reply.held), Ok(true));
    assert!(world.end(session));
    assert_eq!(world.op_of(session, put("/a", "")), Err(Code::SessionOver), "from the first on");
    assert!(query::session(&world.kv, session).unwrap().unwrap().ending);
    assert!(!world.end(session));
    assert_eq!(world.list("/d/"), Vec::<String>::new());
    assert_eq!(world.holders("/d/7").0, Vec::<u64>::new(), "a lock goes with its file");
    assert_eq!(
        query::sessions(&world.kv, 0, 9).unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
        [other]
    );
    world.op(delete("/d/")).unwrap();
}
