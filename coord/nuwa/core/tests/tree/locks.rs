//! Locks and elections: turns, fences, and what a lock protects.

use bytes::Bytes;
use nuwa_model::proto::compare::With;
use nuwa_model::proto::{EventKind, Lock, LockReply, RefusalCode as Code, Txn};

use crate::world::{Does, World, compare, delete, exclusive, owned, put, rename, shared, subtree};

fn waits() -> Result<LockReply, Code> {
    Ok(LockReply { held: false, fence: 0 })
}

#[test]
fn a_lock_goes_from_one_to_the_next_with_a_greater_fence() {
    let mut world = World::new();
    let (a, b, c) = (world.session(), world.session(), world.session());
    assert_eq!(world.lock(exclusive(a, "/l")), Err(Code::NotFound));
    let first = world.lock(Lock { with_file: true, ..exclusive(a, "/d/l") }).unwrap();
    assert!(first.held && first.fence == world.revision());
    assert_eq!(world.lock(exclusive(a, "/d/l")), Ok(first), "again, as after a lost reply");
    assert_eq!(world.lock(Lock { wait: false, ..exclusive(b, "/d/l") }), Err(Code::Locked));
    assert_eq!(world.lock(exclusive(b, "/d/l")), waits());
    assert_eq!(world.lock(exclusive(c, "/d/l")), waits());
    assert_eq!(world.lock(exclusive(b, "/d/l")), waits(), "again");
    assert_eq!(world.holders("/d/l"), (vec![a], 2));
    world.unlock(a, "/d/l").unwrap();
    assert_eq!(
        world.told().into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(),
        [EventKind::Unlocked, EventKind::Locked]
    );
    let granted = world.events[1].holder.unwrap();
    assert!(granted.session == b && granted.fence > first.fence);
    assert_eq!(world.unlock(a, "/d/l"), Err(Code::NotHeld));
    world.unlock(c, "/d/l").unwrap();
    assert_eq!((world.holders("/d/l"), world.events.len()), ((vec![b], 0), 0), "it waits no more");
    world.unlock(b, "/d/l").unwrap();
    world.op(delete("/d/l")).unwrap();
}

#[test]
fn shared_claims_hold_together_and_nobody_overtakes() {
    let mut world = World::new();
    let (a, b, c, d) = (world.session(), world.session(), world.session(), world.session());
    world.op(put("/l", "")).unwrap();
    assert!(world.lock(shared(a, "/l")).unwrap().held && world.lock(shared(b, "/l")).unwrap().held);
    assert_eq!(world.lock(exclusive(c, "/l")), waits());
    assert_eq!(world.lock(shared(d, "/l")), waits(), "who came first is first");
    world.unlock(a, "/l").unwrap();
    assert_eq!(world.holders("/l"), (vec![b], 2));
    world.end(c);
    assert_eq!(world.holders("/l"), (vec![b, d], 0), "nobody exclusive is before it any more");
    world.end(b);
    world.end(d);
    assert_eq!(world.holders("/l"), (vec![], 0));
}

#[test]
fn owners_of_one_session_are_told_apart_and_kinds_are_changed() {
    let mut world = World::new();
    let a = world.session();
    world.op(put("/l", "")).unwrap();
    assert!(world.lock(exclusive(a, "/l")).unwrap().held);
    let other = Lock { owner: 2, ..exclusive(a, "/l") };
    assert_eq!(world.lock(other.clone()), waits());
    assert!(!world.lock(shared(a, "/l")).unwrap().held, "it goes to the end of the line");
    assert_eq!(world.lock(other).map(|reply| reply.held), Ok(true));
    assert_eq!(world.lock(Lock { wait: false, shared: false, ..shared(a, "/l") }), Err(Code::Locked));
    assert_eq!(world.holders("/l"), (vec![a], 1), "a refusal changes nothing");
    world.end(a);
    assert_eq!(world.holders("/l"), (vec![], 0));
}

#[test]
fn what_others_locked_stays() {
    let mut world = World::new();
    let (a, b) = (world.session(), world.session());
    world.lock(Lock { with_file: true, ..exclusive(a, "/d/l") }).unwrap();
    world.op(put("/f", "")).unwrap();
    assert_eq!(world.op_of(b, delete("/d/l")), Err(Code::Locked));
    assert_eq!(world.op_of(b, subtree("/d/")), Err(Code::Locked));
    assert_eq!(world.op_of(b, rename("/f", "/d/l")), Err(Code::Locked));
    assert_eq!(world.op_of(a, rename("/d/l", "/x")), Err(Code::Locked), "not even by who holds it");
    assert_eq!(world.op_of(a, rename("/d/", "/x/")), Err(Code::Locked));
    world.op_of(b, put("/d/l", "may be written")).unwrap();
    world.op_of(a, delete("/d/l")).unwrap();
    assert_eq!(
        world.told().into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(),
        [EventKind::Unlocked, EventKind::Deleted]
    );
}

#[test]
fn an_election_says_who_leads_and_fences_those_who_led() {
    let mut world = World::new();
    let (a, b) = (world.session(), world.session());
    let stand = |session, address: &'static str| Lock {
        value: Some(Bytes::from_static(address.as_bytes())),
        with_file: true,
        ..exclusive(session, "/leader")
    };
    let led = world.lock(stand(a, "a:1")).unwrap().fence;
    assert_eq!(world.value("/leader").unwrap(), "a:1");
    assert_eq!(world.lock(stand(b, "b:2")), waits());
    assert_eq!(world.value("/leader").unwrap(), "a:1");
    let under = |fence| Txn {
        compares: vec![compare("/leader", With::Fence(fence))],
        then: vec![put("/work", "").operation()],
        ..Txn::default()
    };
    assert!(world.txn(under(led)).unwrap().succeeded);
    world.end(a);
    assert_eq!(world.value("/leader").unwrap(), "b:2");
    assert!(!world.txn(under(led)).unwrap().succeeded, "a stale fence");
    let leads = nuwa_core::query::lock(&world.kv, &crate::world::path("/leader")).unwrap().0;
    assert!(world.txn(under(leads[0].fence)).unwrap().succeeded);
    let long = Lock { value: Some(Bytes::from(vec![0; 1025])), ..stand(b, "") };
    assert_eq!(world.lock(Lock { owner: 1, ..long }), Err(Code::Invalid));
    assert_eq!(world.lock(Lock { owner: 1, shared: true, ..stand(b, "x") }), Err(Code::Invalid));
}

#[test]
fn an_owned_file_goes_even_if_others_locked_it() {
    let mut world = World::new();
    let (a, b) = (world.session(), world.session());
    world.op_of(a, owned(put("/f", ""))).unwrap();
    assert!(world.lock(exclusive(b, "/f")).unwrap().held);
    assert_eq!(world.lock(exclusive(a, "/f")), waits());
    world.end(a);
    assert_eq!((world.get("/f"), world.holders("/f")), (None, (vec![], 0)));
    assert_eq!(world.unlock(b, "/f"), Err(Code::NotHeld));
}
