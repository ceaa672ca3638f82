//! Events: kept, paged, and dropped when they are many.

use std::sync::atomic::{AtomicUsize, Ordering};

use coord_kv::{Family, MemKv, Pair, Range, Read};
use nuwa_core::query::{self, Page};
use nuwa_model::proto::{Put, SetHistory, Txn, command};

use crate::world::{Does, World, directory, owned, put, rename, subtree};

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

fn keep(world: &mut World, events_max: u64, bytes_max: u64) {
    world.ask(command::What::SetHistory(SetHistory { events_max, bytes_max })).unwrap();
}

fn files(of: &str, count: usize) -> impl Iterator<Item = Put> {
    (0..count).map(move |n| put(&format!("{of}{n}"), ""))
}

/// The oldest revision was dropped only if the next one began within as many events as a command looked at: 258, for one
/// that adds one. A revision with more stayed for ever, and all that came after it.
#[test]
fn a_revision_of_hundreds_of_events_is_dropped_like_any_other() {
    let mut world = World::new();
    let session = world.session();
    world.op(directory("/d/")).unwrap();
    world.op(directory("/s/")).unwrap();
    keep(&mut world, 50, 0);
    let most = |world: &mut World, what: &str| {
        let large = world.events.len();
        assert!(large > 257, "{what}: {large}");
        assert_eq!(query::meta(&world.kv).unwrap().history_events, large as u64, "{what}: its own stay");
        for n in 0..60 {
            world.op(put("/x", "")).unwrap();
            let left = query::meta(&world.kv).unwrap().history_events;
            assert!(left <= 50, "{what}, {n} later: {left} events are kept");
        }
    };
    world.fill(0, files("/d/", 300));
    most(&mut world, "a transaction");
    world.op(rename("/d/", "/e/")).unwrap();
    most(&mut world, "a directory is moved");
    world.op(subtree("/e/")).unwrap();
    most(&mut world, "a subtree is deleted");
    world.fill(session, files("/s/", 300).map(owned));
    world.end(session);
    most(&mut world, "a session ends");
}

/// A fixed number of events went for each that came, whatever their sizes: large ones grew beyond any limit while small
/// ones went.
#[test]
fn large_events_drive_out_as_many_bytes_of_small_ones() {
    let mut world = World::new();
    keep(&mut world, 0, 200_000);
    for n in 0..4 {
        world.fill(0, files(&format!("/{n}-"), 1000));
    }
    let value = bytes::Bytes::from(vec![7; 50_000]);
    for n in 0..20 {
        world.op(Put { value: value.clone(), ..put("/large", "") }).unwrap();
        let left = query::meta(&world.kv).unwrap().history_bytes;
        assert!(left <= 200_000, "{n}: {left} bytes are kept");
    }
}

/// What a read sees when one store takes the place of another between two calls: a follower installs a snapshot.
struct Replaced<'a> {
    stores: [&'a MemKv; 2],
    /// Calls that still see the first.
    left: AtomicUsize,
}

impl Replaced<'_> {
    fn store(&self) -> &MemKv {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        self.stores[usize::from(left.is_err())]
    }
}

impl Read for Replaced<'_> {
    fn get(&self, family: Family, key: &[u8]) -> coord_kv::Result<Option<Vec<u8>>> {
        self.store().get(family, key)
    }

    fn scan(&self, family: Family, range: &Range, limit: usize) -> coord_kv::Result<Vec<Pair>> {
        self.store().scan(family, range, limit)
    }
}

/// What is kept was read from one store and the events from the next: a watcher went on as if nothing had happened
/// between.
#[test]
fn a_snapshot_that_is_installed_during_a_read_leaves_no_gap() {
    let (mut old, mut new) = (World::new(), World::new());
    keep(&mut new, 3, 0);
    for n in 0..20 {
        new.op(put("/a", "")).unwrap();
        if n < 5 {
            old.op(put("/a", "")).unwrap();
        }
    }
    let first = query::meta(&new.kv).unwrap().history_first;
    for calls in 0..4 {
        let read = Replaced { stores: [&old.kv, &new.kv], left: AtomicUsize::new(calls) };
        match query::events(&read, (3, 0), 99).unwrap() {
            Page::Lost { first: from } => assert_eq!(from, first),
            Page::Events(events) => {
                let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
                assert_eq!(revisions, [3, 4, 5], "after {calls} calls");
            }
        }
    }
}
