//! What a watcher that is far behind costs.

use super::*;
use crate::portions::{BYTES_MAX, PORTION_MAX};
use crate::testing::Counted;

/// Revisions of all answers, in order; how many answers; the most that one of them read.
fn answers(tree: &Counted, path: &str, newest: u64) -> (Vec<u64>, usize, usize) {
    let path = Path::new(path.to_owned()).unwrap();
    let (mut revisions, mut answers, mut most) = (Vec::new(), 0, 0);
    let mut place = Place { revision: 1, number: 0 };
    while place.revision <= newest {
        let Older::Found { events, next } = older(tree, &path, place, EVENTS_MAX, || Ok(newest)).unwrap()
        else {
            panic!("nothing is lost");
        };
        most = most.max(tree.take_bytes());
        answers += 1;
        assert!(next > place, "it goes on");
        place = next;
        revisions.extend(events.iter().map(|event| event.revision));
    }
    assert_eq!(place, Place::after(newest));
    (revisions, answers, most)
}

/// 512 events were read for one answer, however large: half a gigabyte, of which it took one megabyte.
#[test]
fn an_answer_reads_no_more_than_its_portions() {
    const VALUE: usize = 1 << 20;
    let tree = Counted::with_files(40, VALUE);
    for (path, expected) in [("/d/", (1..=40).collect()), ("/d/0012", vec![13]), ("/other/", Vec::new())] {
        let (revisions, _, most) = answers(&tree, path, 40);
        let revisions: std::collections::BTreeSet<_> = revisions.into_iter().collect();
        assert_eq!(revisions.into_iter().collect::<Vec<u64>>(), expected, "{path}");
        assert!(most <= BYTES_MAX + PORTION_MAX * VALUE, "{most} bytes for one answer");
    }
}

#[test]
fn small_events_come_many_at_a_time() {
    let tree = Counted::with_files(3000, 10);
    // Each answer has a thousand of them; the first change made the directory too.
    let (revisions, count, _) = answers(&tree, "/d/", 3000);
    assert_eq!((revisions.len(), count), (3001, 4));
    // Of those that none of its business are, each answer looks at some.
    let (revisions, count, _) = answers(&tree, "/d/2999", 3000);
    assert_eq!((revisions, count), (vec![3000], 2));
}
