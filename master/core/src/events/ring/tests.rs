//! The ring against a list of everything that ever happened.

use proptest::prelude::*;

use super::*;

fn change(directory: u64, name: &str) -> Change {
    let kind = EventKind::Created;
    Change {
        directory: InodeId(directory),
        kind,
        ino: InodeId(7),
        name: Name::try_from(name.as_bytes()).ok(),
    }
}

fn names(ring: &Ring, place: Position) -> Option<Vec<String>> {
    let name = |stored: Stored<'_>| stored.event().name.map_or_else(String::new, |name| name.to_string());
    Some(ring.behind(place)?.map(name).collect())
}

#[test]
fn nothing_is_shown_before_the_store_has_it() {
    let mut ring = Ring::new(10, 100);
    assert_eq!((ring.newest(), names(&ring, Position::end_of(0))), (None, None));
    ring.applied(5, &[change(1, "a")]);
    assert_eq!(names(&ring, Position::end_of(4)), Some(vec![]));
    assert_eq!(ring.publish().collect::<Vec<_>>(), [InodeId(1)]);
    assert_eq!(names(&ring, Position::end_of(4)).unwrap(), ["a"]);
    assert_eq!(ring.publish().count(), 0);
    // Of what came before entry 5 nothing is known, and of what comes after the end neither.
    assert_eq!(names(&ring, Position::end_of(3)), None);
    assert_eq!(names(&ring, Position::end_of(6)), None);
    // A log has entries that are no commands.
    ring.stored(6);
    assert_eq!(names(&ring, Position::end_of(6)), Some(vec![]));
    ring.forget();
    assert_eq!((ring.newest(), names(&ring, Position::end_of(6))), (None, None));
    ring.stored(100);
    assert_eq!(ring.newest(), Some(Position::end_of(100)));
}

#[test]
fn the_events_of_an_entry_are_numbered_over_its_commands() {
    let mut ring = Ring::new(10, 100);
    ring.applied(5, &[change(1, "a"), change(1, "b")]);
    ring.applied(5, &[change(1, "c")]);
    ring.applied(6, &[change(1, "d")]);
    ring.publish().for_each(drop);
    let positions: Vec<_> = ring.behind(Position::end_of(4)).unwrap().map(Stored::position).collect();
    let at = |index, number| Position { index, number };
    assert_eq!(positions, [at(5, 0), at(5, 1), at(5, 2), at(6, 0)]);
    assert_eq!(names(&ring, at(5, 1)).unwrap(), ["c", "d"]);
}

#[test]
fn more_at_once_than_it_holds_is_lost_for_everybody() {
    let mut ring = Ring::new(2, 100);
    ring.stored(4);
    ring.applied(5, &[change(1, "a"), change(1, "b"), change(1, "c")]);
    let before = ring.newest().unwrap();
    assert_eq!((before, names(&ring, before)), (Position::end_of(4), None));
    assert_eq!(ring.publish().count(), 2);
    assert_eq!(names(&ring, before), None);
    assert_eq!(names(&ring, Position { index: 5, number: 0 }).unwrap(), ["b", "c"]);
}

proptest! {
    #[test]
    fn a_watcher_sees_everything_or_is_told_that_it_does_not(
        entries in prop::collection::vec((prop::collection::vec(1..=9_usize, 0..5), any::<bool>()), 1..60),
        events_max in 1..30_usize,
        names_bytes_max in 9..100_usize,
    ) {
        let mut ring = Ring::new(events_max, names_bytes_max);
        let mut all: Vec<(Position, String)> = Vec::new();
        let mut published = 0;
        let mut newest = None;
        for (at, (lengths, publish)) in entries.into_iter().enumerate() {
            let index = 10 + at as u64;
            let changes: Vec<_> = lengths.iter().map(|len| change(1, &"x".repeat(*len))).collect();
            ring.applied(index, &changes);
            for (number, len) in (0..).zip(lengths) {
                all.push((Position { index, number }, "x".repeat(len)));
            }
            if publish {
                ring.publish().for_each(drop);
                (published, newest) = (all.len(), Some(Position::end_of(index)));
            }
            prop_assert!(ring.records.len() <= events_max && ring.names.len() <= names_bytes_max);
            let names_len: usize = ring.records.iter().map(|record| usize::from(record.name_len)).sum();
            prop_assert_eq!(names_len, ring.names.len());
            let places = all.iter().map(|(position, _)| *position).chain(newest);
            for place in places.filter(|place| newest.is_some_and(|newest| *place <= newest)) {
                let expected: Vec<_> = all[..published].iter().filter(|(at, _)| *at > place).collect();
                match names(&ring, place) {
                    Some(found) => {
                        let expected: Vec<_> = expected.iter().map(|(_, name)| name.clone()).collect();
                        prop_assert_eq!(found, expected);
                    }
                    None => {
                        let behind = all.iter().filter(|(at, _)| *at > place);
                        let bytes: usize = behind.clone().map(|(_, name)| name.len()).sum();
                        prop_assert!(behind.count() > events_max || bytes > names_bytes_max);
                    }
                }
            }
        }
    }
}
