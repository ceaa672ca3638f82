//! What is made of histories and errors when the run is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::crew::{Met, Mounts, Span};
use crate::linear::{Model, Operation, Verdict, check};
use crate::names::{self, Done, Names};
use crate::nemesis::Event;
use crate::plan::Fault;
use crate::registers::{Access, Register};

/// After a disk has room again, what was refused before may still be told: data is sent when it is a second old, and
/// servers believe each other's news for another.
const FULL_LINGERS: Duration = Duration::from_secs(5);

/// Operations by what they were of.
pub(crate) type Histories<A> = BTreeMap<usize, Vec<Operation<A>>>;

pub(crate) fn sorted<A>(all: impl IntoIterator<Item = (usize, Operation<A>)>) -> Histories<A> {
    let mut sorted: Histories<A> = BTreeMap::new();
    for (key, operation) in all {
        sorted.entry(key).or_default().push(operation);
    }
    sorted.values_mut().for_each(|history| history.sort_by_key(|operation| operation.called_ns));
    sorted
}

/// Operations of which nobody knows whether they happened.
pub(crate) fn unknown<A>(histories: &Histories<A>) -> usize {
    histories.values().flatten().filter(|operation| operation.returned_ns.is_none()).count()
}

/// An error that belongs to a fault: any while everything is dead, a full disk's while it is full.
pub(crate) fn belongs(met: &Met, event: &Event) -> bool {
    let Span { called_ns, returned_ns } = event.span;
    match event.fault {
        Fault::Everything => met.span.meets(event.span),
        Fault::Full => {
            let lingers = u64::try_from(FULL_LINGERS.as_nanos()).expect("seconds");
            met.no_space
                && met.span.meets(Span { called_ns, returned_ns: returned_ns.saturating_add(lingers) })
        }
        _ => false,
    }
}

/// Writes nobody read and nobody heard of again: they need not have happened, and need not be tried.
fn known_or_read(history: &[Operation<Access>]) -> Vec<Operation<Access>> {
    let read: BTreeSet<u64> = history
        .iter()
        .filter_map(|operation| match operation.action {
            Access::Read(value) => Some(value),
            Access::Write(_) => None,
        })
        .collect();
    let counts = |operation: &&Operation<Access>| match operation.action {
        Access::Write(value) => operation.returned_ns.is_some() || read.contains(&value),
        Access::Read(_) => true,
    };
    history.iter().filter(counts).cloned().collect()
}

pub(crate) fn registers(histories: &Histories<Access>) -> Vec<String> {
    let judge = |(key, history): (&usize, &Vec<_>)| {
        wrong(&Register, &known_or_read(history)).map(|what| format!("register {key}: {what}"))
    };
    histories.iter().filter_map(judge).collect()
}

pub(crate) fn names(histories: &Histories<Done>, mounts: &Mounts) -> Vec<String> {
    let judge = |(key, history): (&usize, &Vec<_>)| {
        wrong(&Names, &names::believed(history, mounts)).map(|what| format!("arena {key}: {what}"))
    };
    histories.iter().filter_map(judge).collect()
}

/// What is wrong with a history, if no order of it is right.
pub(crate) fn wrong<M: Model>(model: &M, history: &[Operation<M::Action>]) -> Option<String>
where
    M::Action: Serialize,
{
    match check(model, history) {
        Verdict::Linearizable => None,
        Verdict::Undecided => Some(format!("{} operations: too many orders to try", history.len())),
        Verdict::Not { ordered, stuck } => {
            let words = serde_json::to_string(&history[stuck]).unwrap_or_default();
            Some(format!("no order of {} operations: {ordered} fit, then not {words}", history.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn event(fault: Fault) -> Event {
        Event { fault, whom: String::new(), span: Span { called_ns: 10 * S, returned_ns: 20 * S } }
    }

    fn met(from_s: u64, upto_s: u64, no_space: bool) -> Met {
        Met { span: Span { called_ns: from_s * S, returned_ns: upto_s * S }, what: String::new(), no_space }
    }

    #[test]
    fn errors_belong_to_faults_that_promise_nothing_else() {
        assert!(belongs(&met(8, 11, false), &event(Fault::Everything)));
        assert!(!belongs(&met(21, 22, false), &event(Fault::Everything)));
        assert!(!belongs(&met(12, 13, false), &event(Fault::Kill)));
        assert!(!belongs(&met(12, 13, false), &event(Fault::Full)), "another error than ENOSPC");
        assert!(belongs(&met(12, 13, true), &event(Fault::Full)));
        assert!(belongs(&met(24, 24, true), &event(Fault::Full)));
        assert!(!belongs(&met(26, 27, true), &event(Fault::Full)));
    }

    #[test]
    fn a_wrong_history_is_quoted() {
        let op =
            |called_ns, action| Operation { worker: 1, action, called_ns, returned_ns: Some(called_ns + 1) };
        let history =
            [(3, op(1, Access::Write(1))), (3, op(5, Access::Read(0))), (4, op(1, Access::Read(0)))];
        let wrong = registers(&sorted(history));
        assert_eq!(wrong.len(), 1);
        assert!(
            wrong[0].starts_with("register 3: no order of 2 operations: 1 fit")
                && wrong[0].contains(r#"{"Read":0}"#),
            "{wrong:?}"
        );
    }

    #[test]
    fn an_unknown_write_counts_if_it_was_read() {
        let op = |called_ns, returned_ns, action| Operation { worker: 1, action, called_ns, returned_ns };
        let history =
            [op(1, None, Access::Write(1)), op(2, None, Access::Write(2)), op(5, Some(6), Access::Read(2))];
        assert_eq!(known_or_read(&history).len(), 2);
        assert_eq!(registers(&sorted(history.map(|operation| (0, operation)))), Vec::<String>::new());
    }
}
