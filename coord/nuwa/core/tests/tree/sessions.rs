//! Sessions: what they own, and their end.

use nuwa_core::{SessionEffect, query};
use nuwa_model::proto::{EventKind, Put, RefusalCode as Code, Txn};

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
