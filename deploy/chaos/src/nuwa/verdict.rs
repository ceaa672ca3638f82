//! What is made of the books and the history when the run is over.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::book::{Book, Change, Looked, Noted};
use super::history::{History, Reconciled, revisions_out_of_order};
use super::watchers::Log;
use super::{cells, locks};
use crate::linear::Model;
use crate::names::Names;
use crate::report::Check;
use crate::verdict::{Histories, sorted, unknown, wrong};

/// All that was found, and the histories that explain it.
pub(crate) struct Judged {
    pub(crate) checks: Vec<Check>,
    pub(crate) sentence: String,
    pub(crate) figures: Map<String, Value>,
    pub(crate) histories: Value,
}

/// Operations of a kind with those left out that nobody was told of and the history does not have either.
fn happened<A: Clone>(
    books: &[Book],
    of: impl Fn(&Book) -> &[Noted<A>],
    may_have: impl Fn(&Book, &Noted<A>) -> bool,
) -> Histories<A> {
    let mut all = Vec::new();
    for book in books {
        let happened = |noted: &&Noted<A>| noted.operation.returned_ns.is_some() || may_have(book, noted);
        all.extend(of(book).iter().filter(happened).map(|noted| (noted.object, noted.operation.clone())));
    }
    sorted(all)
}

fn linear<M: Model>(what: &str, model: &M, histories: &Histories<M::Action>) -> Vec<String>
where
    M::Action: Serialize,
{
    let judge = |(object, history): (&usize, &Vec<_>)| {
        wrong(model, history).map(|wrong| format!("{what} {object}: {wrong}"))
    };
    histories.iter().filter_map(judge).collect()
}

/// The claim of an operation of which nobody knows whether it was done, with the fence it got if it was.
fn granted(noted: &Noted<locks::Action>, grants: &BTreeMap<u64, u64>) -> Option<Option<u64>> {
    match noted.operation.action {
        locks::Action::Acquire { claim, .. } | locks::Action::Release { claim } => {
            grants.get(&claim).map(|fence| Some(*fence))
        }
        _ => Some(None),
    }
}

/// Judges everything but the trees.
pub(crate) fn judge(mut books: Vec<Book>, history: &History, logs: &[Log]) -> Judged {
    let grants = history.grants();
    // Who was not told the fence of a grant learns it from the history.
    for noted in books.iter_mut().flat_map(|book| &mut book.locks) {
        if let locks::Action::Acquire { claim, fence: fence @ None, .. } = &mut noted.operation.action {
            *fence = grants.get(claim).copied();
        }
    }
    let changes: Vec<Change> = books.iter().flat_map(|book| book.changes.iter().cloned()).collect();
    let looked: Vec<Looked> = books.iter().flat_map(|book| book.looked.iter().copied()).collect();
    let stale: Vec<_> = books.iter().flat_map(|book| book.stale.iter().cloned()).collect();
    let given: Vec<_> = books.iter().flat_map(|book| book.sequences.iter().copied()).collect();
    let reconciled: Reconciled = history.reconcile(&changes);
    fn changed<A>(reconciled: &Reconciled) -> impl Fn(&Book, &Noted<A>) -> bool {
        |book, noted| {
            let change = noted.change.and_then(|at| book.changes.get(at));
            change.is_none_or(|change| reconciled.may_have_happened(change))
        }
    }
    let cells = happened(&books, |book| &book.cells, changed(&reconciled));
    let names = happened(&books, |book| &book.names, changed(&reconciled));
    let locks = happened(&books, |book| &book.locks, |_, noted| granted(noted, &grants).is_some());
    let open = changes.iter().filter(|change| change.returned_ns.is_none()).count();
    let count = |histories: usize, name: &str, figures: &mut Map<String, Value>| {
        figures.insert(name.to_owned(), json!(histories));
        histories
    };
    let mut figures = Map::new();
    let of = |n, name, figures: &mut _| count(n, name, figures);
    let (cells_n, names_n, locks_n) = (
        of(cells.values().map(Vec::len).sum(), "cell_operations", &mut figures),
        of(names.values().map(Vec::len).sum(), "name_operations", &mut figures),
        of(locks.values().map(Vec::len).sum(), "lock_operations", &mut figures),
    );
    let told: usize = logs.iter().map(|log| log.seen.len()).sum();
    let breaks: usize = logs.iter().map(|log| log.breaks).sum();
    of(given.len(), "sequential_names", &mut figures);
    of(stale.len(), "stale_reads", &mut figures);
    of(changes.len(), "changes", &mut figures);
    of(open, "changes_of_unknown_outcome", &mut figures);
    of(history.events.len(), "events", &mut figures);
    of(told, "events_told_to_watchers", &mut figures);
    of(breaks, "watchers_broken_off", &mut figures);
    let sentence = format!(
        "{} changes, {open} of unknown outcome; checked for linearizability: {cells_n} operations on cells, {names_n} on names, \
         {locks_n} on locks ({} open); {} sequential names, {} stale reads; {} events, of which {} watchers were told {told}, \
         broken off {breaks} times",
        changes.len(),
        unknown(&cells) + unknown(&names) + unknown(&locks),
        given.len(),
        stale.len(),
        history.events.len(),
        logs.len(),
    );
    let check = |name, wrong| Check { name, wrong };
    let checks = vec![
        check("registers and transactions are linearizable", linear("cells", &cells::Pair, &cells)),
        check("names and lists are linearizable", linear("names", &Names, &names)),
        check("locks are linearizable, fences ascend", linear("lock", &locks::Lock, &locks)),
        check("sequential names are all different and ascend", history.sequences(&given)),
        check("revisions ascend as time does", revisions_out_of_order(&changes, &looked)),
        check("stale reads show nothing older than was seen", history.stale(&stale)),
        check("the history has no gap", history.gaps()),
        check(
            "each acknowledged change is in the history once, and nothing nobody asked for",
            reconciled.wrong,
        ),
        check("each grant of a lock, and each return, is in the history once", history.locks(&books)),
        check(
            "watchers were told the history, in order and without a gap",
            logs.iter().flat_map(|log| history.watched(log)).collect(),
        ),
    ];
    let histories = json!({"cells": cells, "names": names, "locks": locks, "books": books});
    Judged { checks, sentence, figures, histories }
}
