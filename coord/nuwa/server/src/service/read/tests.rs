//! How much one page of a directory costs, whatever is in it.

use super::*;
use crate::portions::{BYTES_MAX, PORTION_MAX};
use crate::testing::Counted;

/// Names of all pages, in order; how many pages; the most that one of them read.
fn pages(tree: &Counted, request: proto::List) -> (Vec<String>, usize, usize) {
    let directory = Path::directory("/d/".to_owned()).unwrap();
    let (mut names, mut pages, mut most) = (Vec::new(), 0, 0);
    let mut request = proto::List { path: "/d/".to_owned(), ..request };
    loop {
        let Ok(Answer::List(listed)) = list(tree, &directory, &request).unwrap() else { panic!("refused") };
        most = most.max(tree.take_bytes());
        pages += 1;
        names.extend(listed.entries.iter().map(|entry| entry.path["/d/".len()..].to_owned()));
        assert!(listed.entries.iter().all(|entry| entry.value.is_empty() != request.with_values));
        if !listed.more {
            return (names, pages, most);
        }
        assert!(!listed.entries.is_empty());
        request.after = names.last().unwrap().clone();
    }
}

/// A page without values read all of them: a gigabyte for a thousand names, on the thread that everything else waits for.
#[test]
fn a_page_without_values_reads_no_more_than_its_portions() {
    const VALUE: usize = 1 << 20;
    let tree = Counted::with_files(40, VALUE);
    let expected: Vec<_> = (0..40).map(|file| format!("{file:04}")).collect();
    for (with_values, most_bytes) in [(false, BYTES_MAX + PORTION_MAX * VALUE), (true, BYTES_MAX + VALUE)] {
        let (names, _, most) = pages(&tree, proto::List { with_values, ..proto::List::default() });
        assert_eq!(names, expected);
        assert!(most <= most_bytes, "{most} bytes for one page");
    }
}

#[test]
fn small_values_are_listed_a_thousand_at_a_time() {
    let tree = Counted::with_files(1010, 10);
    let expected: Vec<_> = (0..1010).map(|file| format!("{file:04}")).collect();
    for (entries_max, count) in [(0, 2), (1000, 2), (500, 3), (1, 1010)] {
        for with_values in [false, true] {
            let list = proto::List { entries_max, with_values, ..proto::List::default() };
            let (names, pages, _) = pages(&tree, list);
            assert_eq!((names, pages), (expected.clone(), count));
        }
    }
}
