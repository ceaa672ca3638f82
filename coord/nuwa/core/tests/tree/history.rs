//! Events: kept, paged, and dropped when they are many.

use nuwa_core::query::{self, Page};
use nuwa_model::proto::{SetHistory, Txn, command};

use crate::world::{Does, World, put};

fn revisions(world: &World, from: (u64, u32), limit: usize) -> Vec<(u64, u32)> {
    match query::events(&world.kv, from, limit).unwrap() {
        Page::Events(events) => events.into_iter().map(|event| (event.revision, event.number)).collect(),
        Page::Lost { first } => panic!("lost, from {first} on there is"),
    }
}

#[test]
fn events_are_kept_and_read_from_any_one_on() {
    let mut world = World::new();
    let two = || vec![put("/a", "").operation(), put("/b", "").operation()];
    for _ in 0..3 {
        world.txn(Txn { then: two(), ..Txn::default() }).unwrap();
    }
    assert_eq!(revisions(&world, (1, 0), 9), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]);
    assert_eq!(revisions(&world, (2, 1), 2), [(2, 1), (3, 0)]);
    assert_eq!(revisions(&world, (4, 0), 9), [], "it did not happen yet");
    let Page::Events(events) = query::events(&world.kv, (3, 1), 1).unwrap() else { panic!("it is kept") };
    assert_eq!(events, world.events[1..], "as it was told when it happened");
}

#[test]
fn old_events_are_dropped_whole_revisions_at_a_time() {
    let mut world = World::new();
    let three = || ["/a", "/b", "/c"].map(|at| put(at, "").operation()).to_vec();
    let limit = SetHistory { events_max: 10, bytes_max: 0 };
    world.ask(command::What::SetHistory(limit)).unwrap();
    for _ in 0..10 {
        world.txn(Txn { then: three(), ..Txn::default() }).unwrap();
    }
    let meta = query::meta(&world.kv).unwrap();
    assert_eq!((meta.history_first, meta.history_events), (8, 9));
    assert_eq!(query::events(&world.kv, (7, 2), 9).unwrap(), Page::Lost { first: 8 });
    assert_eq!(revisions(&world, (8, 0), 99).len(), 9);
}

#[test]
fn a_smaller_limit_is_reached_step_by_step_and_the_newest_stays() {
    let mut world = World::new();
    for _ in 0..300 {
        world.op(put("/a", "some value")).unwrap();
    }
    world.ask(command::What::SetHistory(SetHistory { events_max: 0, bytes_max: 1 })).unwrap();
    world.op(put("/a", "x")).unwrap();
    let left = query::meta(&world.kv).unwrap().history_events;
    assert!((1..300).contains(&left), "{left}");
    for _ in 0..10 {
        world.op(put("/a", "more than the limit")).unwrap();
    }
    let meta = query::meta(&world.kv).unwrap();
    assert_eq!((meta.history_events, meta.history_first), (1, meta.revision));
}
