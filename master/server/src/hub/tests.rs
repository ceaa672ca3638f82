//! The table of who watches what, and who is woken by what.

use futures::FutureExt as _;
use master_api::model::{EventKind, Name};

use super::*;

const BOUNDS: Bounds = Bounds {
    watchers: 3,
    watchers_per_session: 2,
    directories: 4,
    directories_per_watcher: 3,
    idle: Duration::from_secs(60),
};

fn hub() -> Hub {
    let hub = Hub::new(BOUNDS);
    hub.stored(10);
    hub
}

const fn key(session: u64, watcher: u64) -> Key {
    Key { session: SessionId(session), watcher }
}

fn update(
    hub: &Hub,
    key: Key,
    (acknowledged, sequence): (u64, u64),
    add: &[u64],
    remove: &[u64],
) -> Result<Vec<u64>, Refusal> {
    update_at(hub, key, (acknowledged, sequence), (add, remove), Instant::now())
}

fn update_at(
    hub: &Hub,
    key: Key,
    (acknowledged, sequence): (u64, u64),
    (add, remove): (&[u64], &[u64]),
    now: Instant,
) -> Result<Vec<u64>, Refusal> {
    let inos = |numbers: &[u64]| numbers.iter().copied().map(InodeId).collect::<Vec<_>>();
    let (add, remove) = (inos(add), inos(remove));
    let refused = hub.update(key, Update { sequence, acknowledged, add: &add, remove: &remove }, now)?;
    assert!(refused.iter().all(|(_, errno)| *errno == Errno::ENOSPC));
    Ok(refused.into_iter().map(|(directory, _)| directory.0).collect())
}

fn happens(hub: &Hub, index: u64, directory: u64) {
    applied(hub, index, directory);
    hub.publish();
}

fn applied(hub: &Hub, index: u64, directory: u64) {
    let name = Name::try_from(b"x".as_slice()).ok();
    let change =
        Change { directory: InodeId(directory), kind: EventKind::Created, ino: InodeId(index), name };
    hub.applied(index, &[change]);
}

/// The log indexes of the events found, and where to go on.
fn found(hub: &Hub, key: Key, sequence: u64, after: Position) -> (Vec<u64>, Position) {
    match hub.look(key, sequence, Some(after)).unwrap() {
        Look::Found { events, next } => (events.iter().map(|event| event.position.index).collect(), next),
        Look::Wait { next, .. } => (Vec::new(), next),
        _ => panic!("it is in the ring"),
    }
}

#[test]
fn who_watches_is_told_of_its_directories_alone() {
    let hub = hub();
    let (one, other) = (key(1, 1), key(2, 1));
    assert_eq!(update(&hub, one, (0, 1), &[5, 6], &[]), Ok(vec![]));
    assert_eq!(update(&hub, other, (0, 1), &[6], &[]), Ok(vec![]));
    let start = Position::end_of(10);
    for (index, directory) in [(11, 5), (12, 6), (13, 7)] {
        happens(&hub, index, directory);
    }
    let end = Position::end_of(13);
    assert_eq!(found(&hub, one, 1, start), (vec![11, 12], end));
    assert_eq!(found(&hub, other, 1, start), (vec![12], end));
    assert_eq!(found(&hub, other, 1, end), (vec![], end));
    // What is added now is told from the same place on.
    update(&hub, other, (1, 2), &[7], &[6]).unwrap();
    assert_eq!(found(&hub, other, 2, start), (vec![13], end));
    assert_eq!(hub.counts(), (2, 3));
    hub.forget_session(SessionId(1));
    assert_eq!(hub.counts(), (1, 1));
    assert!(matches!(hub.look(one, 1, None), Err(Refusal::Unknown)));
}

#[test]
fn who_waits_is_woken_by_its_directories_once_the_store_has_the_change() {
    let hub = hub();
    let one = key(1, 1);
    update(&hub, one, (0, 1), &[5], &[]).unwrap();
    let wait = |after| match hub.look(one, 1, Some(after)).unwrap() {
        Look::Wait { next, woken } => (next, Box::pin(woken)),
        _ => panic!("there is nothing"),
    };
    let (next, mut woken) = wait(Position::end_of(10));
    happens(&hub, 11, 6);
    assert!(woken.as_mut().now_or_never().is_none(), "another's directory");
    applied(&hub, 12, 5);
    assert!(woken.as_mut().now_or_never().is_none(), "the store does not have it");
    hub.publish();
    assert!(woken.now_or_never().is_some());
    let (events, next) = found(&hub, one, 1, next);
    assert_eq!(events, [12]);
    // A new state wakes everybody; then nothing is known.
    let (_, woken) = wait(next);
    hub.forget();
    assert!(woken.now_or_never().is_some());
    assert!(matches!(hub.look(one, 1, Some(next)), Ok(Look::Blank)));
    hub.stored(100);
    assert!(matches!(hub.look(one, 1, Some(next)), Ok(Look::Lost { next }) if next == Position::end_of(100)));
}

#[test]
fn requests_are_obeyed_in_their_order() {
    let hub = hub();
    let one = key(1, 1);
    assert_eq!(update(&hub, one, (1, 2), &[5], &[]), Err(Refusal::Unknown), "it was never told of");
    update(&hub, one, (0, 1), &[5], &[]).unwrap();
    let waits = hub.look(one, 1, Some(Position::end_of(10))).unwrap();
    update(&hub, one, (1, 2), &[6], &[]).unwrap();
    let Look::Wait { woken, .. } = waits else { panic!("there is nothing") };
    assert!(woken.now_or_never().is_some(), "a later request takes its place");
    assert!(matches!(hub.look(one, 1, None), Err(Refusal::Overtaken)));
    // The same again, as after a lost answer.
    update(&hub, one, (1, 2), &[6], &[]).unwrap();
    // The answer to 2 was not waited for: 3 goes on from 1.
    update(&hub, one, (1, 3), &[7], &[6]).unwrap();
    assert_eq!(update(&hub, one, (1, 2), &[6], &[]), Err(Refusal::Overtaken), "it comes late");
    assert_eq!(hub.counts(), (1, 2));
    // It was somewhere else in between.
    assert_eq!(update(&hub, one, (5, 6), &[], &[]), Err(Refusal::Unknown));
    update(&hub, one, (0, 7), &[8], &[]).unwrap();
    assert_eq!(hub.counts(), (1, 1));
    assert_eq!(update(&hub, one, (0, 6), &[], &[]), Err(Refusal::Overtaken));
    happens(&hub, 11, 8);
    assert_eq!(found(&hub, one, 7, Position::end_of(10)).0, [11]);
}

#[test]
fn everything_is_bounded() {
    let hub = hub();
    let began = Instant::now();
    assert_eq!(update(&hub, key(1, 1), (0, 1), &[1, 2, 3, 4], &[]), Ok(vec![4]), "of one watcher");
    update(&hub, key(1, 2), (0, 1), &[], &[]).unwrap();
    assert_eq!(update(&hub, key(1, 3), (0, 1), &[], &[]), Err(Refusal::TooMany));
    assert_eq!(update(&hub, key(2, 1), (0, 1), &[1, 2], &[]), Ok(vec![2]), "of all");
    assert_eq!(update(&hub, key(3, 1), (0, 1), &[], &[]), Err(Refusal::Full));
    // Who is known needs no room.
    assert_eq!(update(&hub, key(1, 1), (0, 2), &[1, 2, 3], &[]), Ok(vec![]));
    // Whoever was silent for long makes room.
    let later = began + Duration::from_secs(59);
    update_at(&hub, key(2, 1), (1, 2), (&[], &[1]), later).unwrap();
    let later = began + Duration::from_secs(130);
    update_at(&hub, key(3, 1), (0, 1), (&[], &[]), later).unwrap();
    assert_eq!(hub.counts(), (1, 0));
}

#[test]
fn many_events_of_others_are_looked_at_in_pieces() {
    let hub = hub();
    let one = key(1, 1);
    update(&hub, one, (0, 1), &[5], &[]).unwrap();
    let last = 11 + SCAN_MAX as u64;
    (11..last).for_each(|index| happens(&hub, index, 6));
    happens(&hub, last, 5);
    let Ok(Look::More { next }) = hub.look(one, 1, Some(Position::end_of(10))) else {
        panic!("there is more than is looked at in one go")
    };
    assert_eq!(next, Position { index: last - 1, number: 0 });
    assert_eq!(found(&hub, one, 1, next).0, [last]);
    // And so are many of its own.
    let many = ANSWER_EVENTS_MAX as u64 + 1;
    (last + 1..=last + many).for_each(|index| happens(&hub, index, 5));
    let (events, next) = found(&hub, one, 1, Position::end_of(last));
    assert_eq!((events.len(), next), (ANSWER_EVENTS_MAX, Position { index: last + many - 1, number: 0 }));
    assert_eq!(found(&hub, one, 1, next).0, [last + many]);
}
