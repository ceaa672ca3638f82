//! What was made from a history agrees with it; with one thing made wrong it does not.

use nuwa_api::Place;

use super::*;
use crate::crew::Span;

fn happened(place: (u64, u32), kind: EventKind, path: &str, cell: (u64, u64)) -> Happened {
    let digest = place.0 << 32 | u64::from(place.1);
    Happened { place, kind, path: path.to_owned(), cell, owner: 0, claim: (0, 0), digest }
}

fn put(revision: u64, path: &str, number: u64, version: u64) -> Happened {
    happened((revision, 0), EventKind::Put, path, (number, version))
}

fn deleted(revision: u64, path: &str) -> Happened {
    happened((revision, 0), EventKind::Deleted, path, (0, 0))
}

fn locked(revision: u64, kind: EventKind, claim: (u64, u64)) -> Happened {
    Happened { claim, ..happened((revision, 0), kind, "/locks/1", (0, 0)) }
}

/// A directory and a file, a put, a deletion, and again a file.
fn history() -> History {
    let mut events = vec![
        happened((1, 0), EventKind::Put, "/d/", (0, 1)),
        happened((1, 1), EventKind::Put, "/d/x", (11, 1)),
        put(2, "/y", 12, 1),
        put(3, "/d/x", 13, 2),
        deleted(4, "/d/x"),
    ];
    events.push(put(5, "/d/x", 14, 1));
    History { events }
}

fn change(revision: u64, told: Vec<Told>) -> Change {
    let at = revision * 100;
    Change { called_ns: at, returned_ns: Some(at + 50), revision, told }
}

fn unknown(told: Vec<Told>) -> Change {
    Change { called_ns: 1, returned_ns: None, revision: 0, told }
}

fn changes() -> Vec<Change> {
    vec![
        change(1, vec![Told::put("/d/x", 11)]),
        change(2, vec![Told::put("/y", 12)]),
        change(3, vec![Told::put("/d/x", 13)]),
        change(4, vec![Told::deleted("/d/x")]),
        change(5, vec![Told::put("/d/x", 14)]),
    ]
}

#[test]
fn a_gap_is_found() {
    assert_eq!(history().gaps(), Vec::<String>::new());
    for missing in 0..5 {
        let mut broken = history();
        broken.events.remove(missing);
        // That it was the last of its revision only whoever made the change can tell.
        let found = if missing == 1 { broken.reconcile(&changes()).wrong } else { broken.gaps() };
        assert!(!found.is_empty(), "event {missing} is missing");
    }
    let mut broken = history();
    broken.events.swap(2, 3);
    assert!(!broken.gaps().is_empty());
}

#[test]
fn what_was_acknowledged_is_in_the_history_once() {
    assert_eq!(history().reconcile(&changes()).wrong, Vec::<String>::new());
    // Lost: acknowledged, and not there.
    let mut lost = history();
    lost.events.remove(2);
    assert!(!lost.reconcile(&changes()).wrong.is_empty());
    // Made twice: there again, and nobody asked for it again.
    let mut twice = history();
    twice.events.push(put(6, "/d/x", 14, 2));
    assert!(!twice.reconcile(&changes()).wrong.is_empty());
    // Told another revision.
    let mut elsewhere = changes();
    (elsewhere[2].revision, elsewhere[4].revision) = (5, 3);
    assert!(!history().reconcile(&elsewhere).wrong.is_empty());
    // Two were told the same one.
    let mut same = changes();
    same.push(changes().remove(1));
    assert!(!history().reconcile(&same).wrong.is_empty());
}

#[test]
fn what_nobody_was_told_of_may_have_happened_as_often_as_it_was_asked_for() {
    let mut some = changes();
    some[3] = unknown(vec![Told::deleted("/d/x")]);
    let reconciled = history().reconcile(&some);
    assert_eq!(reconciled.wrong, Vec::<String>::new());
    assert!(reconciled.may_have_happened(&some[3]));
    assert!(!reconciled.may_have_happened(&unknown(vec![Told::deleted("/y")])));
    // Refused, and done all the same: nobody asked for it without an answer.
    some.remove(3);
    assert!(!history().reconcile(&some).wrong.is_empty());
}

#[test]
fn a_watcher_is_told_all_of_its_own_in_order() {
    let log = |path: &str, from: u64| {
        let place = |event: &Happened| (event.place.0, event.place.1, event.digest);
        let own = |event: &&Happened| event.place.0 >= from && event.path.starts_with(path);
        Log {
            name: "w".to_owned(),
            path: path.to_owned(),
            from: Place { revision: from, number: 0 },
            seen: history().events.iter().filter(own).map(place).collect(),
            breaks: 0,
            wrong: Vec::new(),
        }
    };
    for (path, from) in [("/", 1), ("/d/", 1), ("/d/", 4), ("/y", 1)] {
        let right = log(path, from);
        assert_eq!(history().watched(&right), Vec::<String>::new());
        for index in 0..right.seen.len() {
            let mut gap = right.clone();
            gap.seen.remove(index);
            assert!(!history().watched(&gap).is_empty(), "{path} without {index}");
            let mut twice = right.clone();
            twice.seen.insert(index, twice.seen[index]);
            assert!(!history().watched(&twice).is_empty(), "{path} with {index} twice");
            let mut other = right.clone();
            other.seen[index].2 += 1;
            assert!(!history().watched(&other).is_empty(), "{path} with another value at {index}");
        }
    }
    let mut turned = log("/", 1);
    turned.seen.swap(2, 3);
    assert!(!history().watched(&turned).is_empty());
}

#[test]
fn a_stale_read_is_of_a_time_that_was_and_not_before_what_was_seen() {
    let read = |seen, revision, found| {
        let stale = Stale { path: "/d/x".to_owned(), seen, revision, found };
        history().stale(&[stale]).is_empty()
    };
    assert!(read(2, 2, (11, 1)) && read(3, 3, (13, 2)) && read(4, 4, (0, 0)));
    assert!(read(1, 2, (13, 2)), "it may be newer than it says");
    assert!(!read(3, 2, (13, 2)), "older than what was seen");
    assert!(!read(3, 3, (11, 1)), "what was there before");
    assert!(!read(5, 5, (13, 2)), "deleted since");
    assert!(!read(1, 1, (12, 1)), "it never was that");
}

#[test]
fn locks_are_granted_and_given_back_once() {
    let (lock, unlock) = (EventKind::Locked, EventKind::Unlocked);
    let good = || {
        vec![
            locked(1, lock, (7, 1)),
            locked(2, unlock, (7, 1)),
            locked(3, lock, (8, 3)),
            locked(4, unlock, (8, 3)),
        ]
    };
    let book = || Book { grants: [(7, 1), (8, 3)].into(), returned: vec![7, 8], ..Book::default() };
    let wrong = |events, book| History { events }.locks(&[book]);
    assert_eq!(wrong(good(), book()), Vec::<String>::new());
    let mut other_fence = book();
    other_fence.grants.insert(8, 1);
    assert!(!wrong(good(), other_fence).is_empty());
    let without = |index| {
        let mut events = good();
        events.remove(index);
        events
    };
    for index in 0..4 {
        assert!(!wrong(without(index), book()).is_empty(), "event {index}");
    }
    let mut again = good();
    again.push(locked(5, lock, (7, 5)));
    assert!(!wrong(again, book()).is_empty());
}

#[test]
fn sequential_names_are_counted() {
    let names = |digits: &[u64]| {
        let event =
            |(at, digits): (usize, &u64)| put(at as u64 + 1, &format!("/sequences/1/n-{digits:010}"), 9, 1);
        History { events: digits.iter().enumerate().map(event).collect() }
    };
    let given =
        |called_ns, returned_ns, number| Given { object: 1, span: Span { called_ns, returned_ns }, number };
    let asked = [given(1, 5, 0), given(6, 9, 2), given(7, 8, 1)];
    assert_eq!(names(&[0, 1, 2]).sequences(&asked), Vec::<String>::new());
    assert!(!names(&[0, 2]).sequences(&asked).is_empty(), "one is left out");
    assert!(!names(&[0, 1, 1]).sequences(&asked).is_empty(), "given twice");
    assert!(!names(&[0, 1, 2]).sequences(&[given(1, 5, 1), given(6, 9, 0)]).is_empty(), "they descend");
}

#[test]
fn revisions_ascend_as_time_does() {
    let at = |revision, called_ns, returned_ns| Change {
        called_ns,
        returned_ns: Some(returned_ns),
        revision,
        told: vec![],
    };
    let looked =
        |revision, called_ns, returned_ns| Looked { span: Span { called_ns, returned_ns }, revision };
    let good = [at(1, 0, 10), at(3, 5, 20), at(2, 6, 30)];
    assert_eq!(revisions_out_of_order(&good, &[looked(3, 31, 40), looked(3, 41, 42)]), Vec::<String>::new());
    assert!(!revisions_out_of_order(&[at(2, 0, 10), at(1, 11, 20)], &[]).is_empty());
    assert!(!revisions_out_of_order(&good, &[looked(2, 31, 40)]).is_empty(), "a read that is behind");
    assert!(!revisions_out_of_order(&[], &[looked(3, 0, 1), looked(2, 2, 3)]).is_empty(), "time goes back");
}

#[test]
fn the_tree_is_what_is_left() {
    let tree = history().tree();
    let leaf = |cell, modified| Leaf { cell, modified, owner: 0 };
    assert_eq!(tree.len(), 3);
    assert_eq!(tree["/d/x"], leaf((14, 1), 5));
    let mut other = tree.clone();
    other.insert("/y".to_owned(), leaf((12, 2), 2));
    assert_eq!(super::super::tree::differences(&tree, &other, 9).len(), 1);
}
