//! Who is told of what, when, and what is kept for it.

use futures::FutureExt as _;
use nuwa_api::proto::{Entry, EventKind};

use super::*;

fn event(revision: u64, number: u32, path: &str, value: usize) -> Event {
    let entry = Entry { path: path.to_owned(), value: vec![0; value].into(), ..Entry::default() };
    Event { revision, number, kind: EventKind::Put.into(), entry: Some(entry), holder: None }
}

fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::default());
    hub.prime(0);
    hub
}

fn publish(hub: &Hub, revision: u64, paths: &[&str]) {
    let events = (0..).zip(paths).map(|(number, path)| event(revision, number, path, 0));
    hub.applied(events.collect());
    hub.publish();
}

fn look(hub: &Arc<Hub>, path: &str, from: Place) -> Look {
    hub.look(&Path::new(path).unwrap(), from, 1000)
}

fn found(look: Look) -> (Vec<(u64, u32)>, Place) {
    match look {
        Look::Found { events, next } => {
            (events.iter().map(|event| (event.revision, event.number)).collect(), next)
        }
        Look::Wait { .. } => panic!("it waits"),
        Look::Older | Look::Unknown => panic!("it is to be read from the store"),
    }
}

fn waits(look: Look) -> (Place, Ticket) {
    match look {
        Look::Wait { next, ticket } => (next, ticket),
        other => panic!("{:?}", found(other)),
    }
}

#[test]
fn each_watcher_gets_its_own_events_in_order() {
    let hub = hub();
    publish(&hub, 1, &["/a/", "/a/x", "/b"]);
    publish(&hub, 2, &["/a/x"]);
    assert_eq!(
        found(look(&hub, "/", Place::after(0))),
        (vec![(1, 0), (1, 1), (1, 2), (2, 0)], Place::after(2))
    );
    assert_eq!(found(look(&hub, "/a/", Place::after(0))), (vec![(1, 0), (1, 1), (2, 0)], Place::after(2)));
    assert_eq!(found(look(&hub, "/a/x", Place { revision: 1, number: 2 })), (vec![(2, 0)], Place::after(2)));
    let (next, _) = waits(look(&hub, "/b", Place::after(1)));
    assert_eq!(next, Place::after(2), "what others were told of is behind it");
    let (next, _) = waits(look(&hub, "/b", Place::after(7)));
    assert_eq!(next, Place::after(7), "a place ahead of this member stays");
    assert_eq!(found(look(&hub, "/b", Place::NOW)), (vec![], Place::after(2)));
}

#[test]
fn an_answer_that_is_full_says_where_to_go_on() {
    let hub = hub();
    publish(&hub, 1, &["/a", "/a", "/b", "/a"]);
    let path = Path::new("/a").unwrap();
    let (events, next) = found(hub.look(&path, Place::after(0), 2));
    assert_eq!((events, next), (vec![(1, 0), (1, 1)], Place { revision: 1, number: 3 }));
    assert_eq!(found(hub.look(&path, next, 2)), (vec![(1, 3)], Place::after(1)));
    hub.applied((0..3).map(|number| event(2, number, "/a", ANSWER_BYTES_MAX)).collect());
    hub.publish();
    let (events, next) = found(look(&hub, "/a", Place::after(1)));
    assert_eq!((events, next), (vec![(2, 0)], Place { revision: 2, number: 1 }), "one goes always");
}

#[test]
fn whoever_waits_is_woken_by_its_own_events_once_the_store_has_them() {
    let hub = hub();
    let mut tickets: Vec<_> =
        ["/", "/a/", "/a/x", "/a/y", "/ab/"].map(|path| waits(look(&hub, path, Place::after(0))).1).into();
    assert_eq!(hub.waiters(), 5);
    hub.applied(vec![event(1, 0, "/a/x", 0)]);
    assert!(tickets.iter_mut().all(|ticket| ticket.woken().now_or_never().is_none()));
    hub.publish();
    let woken: Vec<_> = tickets.iter_mut().map(|ticket| ticket.woken().now_or_never().is_some()).collect();
    assert_eq!(woken, [true, true, true, false, false]);
    drop(tickets);
    assert_eq!((hub.waiters(), hub.inner.lock().waiting.len()), (0, 0));
}

#[test]
fn what_is_behind_the_ring_is_the_stores() {
    let hub = Arc::new(Hub::default());
    assert!(matches!(look(&hub, "/", Place::after(0)), Look::Unknown));
    assert_eq!(hub.revision(), None);
    hub.prime(5);
    assert_eq!(hub.revision(), Some(5));
    assert!(matches!(look(&hub, "/", Place::after(4)), Look::Older));
    let mut ticket = waits(look(&hub, "/", Place::after(5))).1;
    hub.forget();
    assert!(ticket.woken().now_or_never().is_some());
    assert!(matches!(look(&hub, "/", Place::after(5)), Look::Unknown));
    publish(&hub, 9, &["/"]);
    hub.prime(5);
    assert_eq!(hub.revision(), Some(9), "what was published since is newer");
    assert!(matches!(look(&hub, "/", Place::after(7)), Look::Older));
}

#[test]
fn the_ring_is_bounded_and_drops_whole_revisions() {
    let hub = hub();
    for revision in 1..=40 {
        hub.applied((0..2).map(|number| event(revision, number, "/a", 1 << 20)).collect());
        hub.publish();
    }
    let inner = hub.inner.lock();
    assert!(inner.ring_bytes <= RING_BYTES_MAX && inner.ring.len() >= 14);
    assert_eq!(inner.ring_bytes, inner.ring.iter().map(size).sum::<usize>());
    assert_eq!(inner.first, inner.ring.front().map(|event| event.revision));
    assert_eq!(inner.ring.front().map(|event| event.number), Some(0));
}

#[test]
fn a_tree_that_was_replaced_has_no_history_before() {
    let hub = hub();
    publish(&hub, 1, &["/a"]);
    let (_, mut ticket) = waits(look(&hub, "/a", Place::after(1)));
    hub.replaced(1000);
    assert!(ticket.woken().now_or_never().is_none(), "the store does not have it yet");
    assert_eq!(hub.revision(), Some(1));
    hub.applied(vec![event(1001, 0, "/b", 0)]);
    hub.publish();
    assert!(ticket.woken().now_or_never().is_some());
    assert_eq!(hub.revision(), Some(1001));
    assert!(matches!(look(&hub, "/a", Place::after(1)), Look::Older));
    assert_eq!(found(look(&hub, "/", Place::after(1000))), (vec![(1001, 0)], Place::after(1001)));
    hub.replaced(2000);
    hub.publish();
    assert_eq!(hub.revision(), Some(2000));
    assert!(matches!(look(&hub, "/", Place::after(1000)), Look::Older));
}
