//! Histories that are linearizable because they were made from an order pass; with one thing made wrong they fail.

mod nuwa;

use proptest::prelude::*;

use super::*;
use crate::names::{Act, Done, Names, WATCHED};
use crate::registers::{Access, Register};

/// An operation that takes effect at `at`, called up to `early` before and back up to `late` after.
fn around<A>(worker: usize, action: A, at: u64, (early, late): (u64, u64)) -> Operation<A> {
    Operation { worker, action, called_ns: at - early, returned_ns: Some(at + late) }
}

fn register(steps: &[(bool, u64, u64, u8)]) -> Vec<Operation<Access>> {
    let mut now = 0;
    let history = steps.iter().enumerate().map(|(at, (write, early, late, unknown))| {
        let number = at as u64 + 1;
        let action = if *write {
            now = number;
            Access::Write(number)
        } else {
            Access::Read(now)
        };
        let mut operation = around(at % 4, action, 1000 + number * 10, (*early, *late));
        if *write && *unknown == 0 {
            operation.returned_ns = None;
        }
        operation
    });
    history.collect()
}

fn op<A>(called_ns: u64, returned_ns: u64, action: A) -> Operation<A> {
    Operation { worker: 0, action, called_ns, returned_ns: Some(returned_ns) }
}

fn is_wrong(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Not { .. })
}

proptest! {
    #[test]
    fn what_was_made_from_an_order_is_linearizable(
        steps in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..60, 0_u8..12), 1..300)
    ) {
        prop_assert_eq!(check(&Register, &register(&steps)), Verdict::Linearizable);
    }

    /// A read that begins after two further writes were confirmed gives the value before them.
    #[test]
    fn a_stale_read_is_found(
        steps in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..60, 1_u8..12), 1..200)
    ) {
        let mut history = register(&steps);
        let end = 1000 + (steps.len() as u64 + 1) * 10 + 60;
        let last = history.iter().rev().find_map(|o| match o.action { Access::Write(v) => Some(v), Access::Read(_) => None });
        history.push(op(end + 100, end + 101, Access::Write(9001)));
        history.push(op(end + 200, end + 201, Access::Read(last.unwrap_or(0))));
        prop_assert!(is_wrong(&check(&Register, &history)));
    }

    /// A confirmed write is lost: whoever reads later sees what was there before it, and then it is overwritten.
    #[test]
    fn a_lost_write_is_found(
        steps in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..60, 1_u8..12), 1..200),
        place in 0.0_f64..1.0,
    ) {
        let mut history = register(&steps);
        let from = 1000 + 10 * (steps.len() as f64 * place) as u64;
        // Everything after `from` moves to make room.
        for operation in history.iter_mut().filter(|o| o.called_ns >= from) {
            operation.called_ns += 1000;
            operation.returned_ns = operation.returned_ns.map(|at| at + 1000);
        }
        let busy_until = history.iter().filter(|o| o.called_ns < from).filter_map(|o| o.returned_ns).max().unwrap_or(from);
        let now = busy_until.max(from);
        history.push(op(now + 100, now + 101, Access::Write(9001)));
        history.push(op(now + 200, now + 201, Access::Write(9002)));
        history.push(op(now + 300, now + 301, Access::Read(9001)));
        prop_assert!(is_wrong(&check(&Register, &history)));
    }

    #[test]
    fn names_made_from_an_order_are_linearizable_and_two_winners_are_not(
        steps in prop::collection::vec((0_usize..7, 0_usize..4, 0_usize..6, 0_u64..60, 0_u64..60, 0_u8..12), 1..250)
    ) {
        let mut state = Names.start();
        let mut history = Vec::new();
        for (at, (what, one, other, early, late, unknown)) in steps.into_iter().enumerate() {
            let act = Act::of(what, one, other);
            let result = Names::result(&state, act);
            let known = unknown > 0 || act == Act::List;
            let done = Done::new(act, known.then_some(result));
            if let Some(after) = Names.step(&state, &Done::new(act, Some(result))) {
                state = after;
            }
            let mut operation = around(at % 4, done, 1000 + at as u64 * 10, (early, late));
            operation.returned_ns = operation.returned_ns.filter(|_| known);
            history.push(operation);
        }
        prop_assert_eq!(check(&Names, &history), Verdict::Linearizable);
        // Whatever was there: all is removed, seen to be so, and then two create the same name.
        let known: Vec<_> = history.into_iter().filter(|o| o.returned_ns.is_some()).collect();
        let end = known.iter().filter_map(|o| o.returned_ns).max().unwrap_or(0);
        let create = Done::new(Act::Create(0), Some(crate::names::Said::Ok));
        let list = Done::new(Act::List, Some(crate::names::Said::Listed([0; WATCHED])));
        let alone = vec![
            op(end + 10, end + 20, list),
            op(end + 30, end + 50, create),
            op(end + 31, end + 51, create),
        ];
        prop_assert!(is_wrong(&check(&Names, &alone)));
    }
}

#[test]
fn what_overlaps_may_be_in_any_order() {
    let history = [
        op(0, 10, Access::Write(1)),
        op(5, 15, Access::Write(2)),
        op(6, 9, Access::Read(0)),
        op(20, 21, Access::Read(1)),
    ];
    assert_eq!(check(&Register, &history), Verdict::Linearizable);
}

#[test]
fn what_never_returned_may_happen_late_once_or_never() {
    let unknown = |called_ns, action| Operation { worker: 0, action, called_ns, returned_ns: None };
    let late = [unknown(0, Access::Write(1)), op(50, 60, Access::Read(0)), op(70, 80, Access::Read(1))];
    assert_eq!(check(&Register, &late), Verdict::Linearizable);
    let never = [unknown(0, Access::Write(1)), op(50, 60, Access::Read(0))];
    assert_eq!(check(&Register, &never), Verdict::Linearizable);
    let twice = [
        unknown(0, Access::Write(1)),
        op(50, 60, Access::Read(1)),
        op(61, 62, Access::Write(2)),
        op(70, 80, Access::Read(1)),
    ];
    assert!(is_wrong(&check(&Register, &twice)));
    let before = [op(50, 60, Access::Read(1)), unknown(70, Access::Write(1))];
    assert!(is_wrong(&check(&Register, &before)));
}

#[test]
fn the_operation_that_cannot_be_is_named() {
    let history = [op(0, 10, Access::Write(1)), op(20, 30, Access::Write(2)), op(40, 50, Access::Read(1))];
    assert_eq!(check(&Register, &history), Verdict::Not { ordered: 2, stuck: 2 });
}

/// Many at once for a long time, a third of it never confirmed: within memory.
#[test]
fn a_long_busy_history_is_decided() {
    let steps: Vec<_> =
        (0..6000_u64).map(|at| (at % 3 == 0, at * 7 % 45, at * 11 % 45, (at % 900 != 0) as u8)).collect();
    assert_eq!(check(&Register, &register(&steps)), Verdict::Linearizable);
}

/// Calls that only see something, each for as long as many changes take: their order among each other is nobody's business.
#[test]
fn long_looks_beside_many_changes_are_decided() {
    let writes = (1..=400).map(|value| op(value * 10, value * 10 + 25, Access::Write(value)));
    let looks = (1..=4000_u64).map(|look| {
        let value = look / 10 + 1;
        op((value * 10).saturating_sub(500), value * 10 + 500, Access::Read(value.min(400)))
    });
    let mut history: Vec<_> = writes.chain(looks).collect();
    assert_eq!(check(&Register, &history), Verdict::Linearizable);
    history.push(op(5000, 5001, Access::Read(7)));
    assert!(is_wrong(&check(&Register, &history)));
}
