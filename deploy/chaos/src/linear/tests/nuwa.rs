//! The same for Nuwa's cells and locks.

use proptest::prelude::*;

use super::super::{Model as _, Operation, Verdict, check};
use super::{around, is_wrong, op};
use crate::names::{Act as NameAct, Done, FILE, Names, Said as NameSaid, WATCHED};
use crate::nuwa::cells::{Act, Action, Cell, Pair, Said};
use crate::nuwa::locks::{self, Lock};

fn act(what: usize, at: usize, number: u64, known: [Cell; 2]) -> Act {
    match what {
        0 => Act::Put { at, number },
        1 => Act::Create { at, number },
        2 => Act::Delete { at },
        3 => Act::Swap { at, version: known[at].version, number },
        // Of a version that was.
        4 => Act::Swap { at, version: known[at].version.saturating_sub(1), number },
        5 => Act::SwapBoth { versions: known.map(|cell| cell.version), number },
        6 => Act::PutBoth { number },
        7 => Act::PutAndCreate { number },
        8 => Act::Get { at },
        _ => Act::GetBoth,
    }
}

type Step = (usize, usize, u64, u64, u8);

fn pairs(steps: &[Step]) -> (Vec<Operation<Action>>, [Cell; 2]) {
    let mut state = Pair.start();
    let mut history = Vec::new();
    for (index, (what, at, early, late, unknown)) in steps.iter().enumerate() {
        let act = act(*what, *at, index as u64 + 1, state);
        let (said, after) = act.apply(&state);
        state = after;
        let known = *unknown > 0 || matches!(said, Said::Saw(_));
        let action = Action { act, said: known.then_some(said) };
        let mut operation = around(index % 4, action, 1000 + index as u64 * 10, (*early, *late));
        operation.returned_ns = operation.returned_ns.filter(|_| known);
        history.push(operation);
    }
    (history, state)
}

fn done(act: Act, said: Said) -> Action {
    Action { act, said: Some(said) }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0_usize..10, 0_usize..2, 0_u64..60, 0_u64..60, 0_u8..12), 1..250)
}

proptest! {
    #[test]
    fn pairs_made_from_an_order_are_linearizable(steps in steps()) {
        prop_assert_eq!(check(&Pair, &pairs(&steps).0), Verdict::Linearizable);
    }

    /// Two put if the version is the same one, and both are told that they did. Or a put is made twice. Or one of two files of a
    /// transaction shows it and the other does not.
    #[test]
    fn a_lost_swap_a_change_made_twice_and_half_a_transaction_are_found(steps in steps()) {
        let (history, state) = pairs(&steps);
        // Nothing is under way any more, and nobody waits for an answer.
        let known: Vec<_> = steps.iter().map(|(what, at, early, late, _)| (*what, *at, *early, *late, 1)).collect();
        let (mut history, state) = if history.iter().all(|o| o.returned_ns.is_some()) { (history, state) } else { pairs(&known) };
        let end = 1000 + (steps.len() as u64 + 1) * 10 + 60;
        let version = state[0].version;
        let swap = |number| done(Act::Swap { at: 0, version, number }, Said::Put([version + 1, 0]));
        let mut lost = history.clone();
        lost.push(op(end, end + 10, swap(9001)));
        lost.push(op(end + 1, end + 11, swap(9002)));
        prop_assert!(is_wrong(&check(&Pair, &lost)));
        let mut twice = history.clone();
        twice.push(op(end, end + 10, done(Act::Put { at: 0, number: 9001 }, Said::Put([version + 1, 0]))));
        let seen = Some(Cell { number: 9001, version: version + 2 });
        twice.push(op(end + 20, end + 30, done(Act::Get { at: 0 }, Said::Saw([seen, None]))));
        prop_assert!(is_wrong(&check(&Pair, &twice)));
        let versions = state.map(|cell| cell.version + 1);
        let seen = [Some(Cell { number: 9001, version: versions[0] }), Some(state[1])];
        history.push(op(end, end + 30, done(Act::PutBoth { number: 9001 }, Said::Put(versions))));
        history.push(op(end + 1, end + 2, done(Act::GetBoth, Said::Saw(seen))));
        prop_assert!(is_wrong(&check(&Pair, &history)));
    }

    #[test]
    fn locks_made_from_an_order_are_linearizable_and_two_holders_are_not(
        steps in prop::collection::vec((0_u8..5, any::<bool>(), 0_u64..60, 0_u64..60), 1..250)
    ) {
        let mut state = Lock.start();
        let (mut history, mut held) = (Vec::new(), Vec::<(u64, bool)>::new());
        for (index, (what, shared, early, late)) in steps.into_iter().enumerate() {
            let claim = index as u64 + 1;
            let acquire = locks::Action::Acquire { claim, shared, fence: Some(claim) };
            let action = match (what, held.last().copied()) {
                (0..2, Some((claim, _))) => locks::Action::Release { claim },
                (2, Some((claim, _))) => locks::Action::Write { claim, done: true },
                (2, None) => locks::Action::Write { claim, done: false },
                _ if Lock.step(&state, &acquire).is_some() => acquire,
                _ => locks::Action::Refused { shared },
            };
            match action {
                locks::Action::Acquire { .. } => held.push((claim, shared)),
                locks::Action::Release { .. } => drop(held.pop()),
                _ => {}
            }
            state = Lock.step(&state, &action).expect("it was made to be right");
            history.push(around(index % 4, action, 1000 + index as u64 * 10, (early, late)));
        }
        prop_assert_eq!(check(&Lock, &history), Verdict::Linearizable);
        let end = history.iter().filter_map(|o| o.returned_ns).max().unwrap_or(0) + 10;
        for (index, (claim, _)) in held.iter().enumerate() {
            let at = end + index as u64 * 10;
            history.push(op(at, at + 5, locks::Action::Release { claim: *claim }));
        }
        let at = end + held.len() as u64 * 10;
        let acquire = |claim, shared, fence| locks::Action::Acquire { claim, shared, fence: Some(fence) };
        let with = |more: Vec<Operation<locks::Action>>| check(&Lock, &[history.clone(), more].concat());
        prop_assert_eq!(with(vec![op(at, at + 9, acquire(9001, false, 9001))]), Verdict::Linearizable);
        let two = vec![op(at, at + 9, acquire(9001, false, 9001)), op(at + 1, at + 9, acquire(9002, true, 9002))];
        prop_assert!(is_wrong(&with(two)));
        let same_fence = vec![
            op(at, at + 9, acquire(9001, false, 9001)),
            op(at + 10, at + 12, locks::Action::Release { claim: 9001 }),
            op(at + 13, at + 14, acquire(9002, false, 9001)),
        ];
        prop_assert!(is_wrong(&with(same_fence)));
        // Written under the fence of one who gave it back.
        let stale = vec![
            op(at, at + 9, acquire(9001, false, 9001)),
            op(at + 10, at + 12, locks::Action::Release { claim: 9001 }),
            op(at + 13, at + 14, locks::Action::Write { claim: 9001, done: true }),
        ];
        prop_assert!(is_wrong(&with(stale)));
    }
}

/// A session whose holder is gone: the lock is free once its time may be over, and not before.
#[test]
fn what_an_abandoned_session_holds_is_free_after_its_time() {
    let acquire = |claim, fence| locks::Action::Acquire { claim, shared: false, fence: Some(fence) };
    let abandoned = |from_ns| Operation {
        worker: 0,
        action: locks::Action::Release { claim: 1 },
        called_ns: from_ns,
        returned_ns: None,
    };
    let history = |from_ns| [op(0, 10, acquire(1, 5)), abandoned(from_ns), op(20, 100, acquire(2, 6))];
    assert_eq!(check(&Lock, &history(90)), Verdict::Linearizable);
    assert!(is_wrong(&check(&Lock, &history(101))));
}

#[test]
fn a_list_without_a_name_that_is_there_is_found() {
    let create = Done::new(NameAct::Create(0), Some(NameSaid::Ok));
    let list = |first| {
        let mut listed = [0; WATCHED];
        listed[0] = first;
        Done::new(NameAct::List, Some(NameSaid::Listed(listed)))
    };
    let history = |called_ns, first| [op(0, 10, create), op(called_ns, called_ns + 10, list(first))];
    assert_eq!(check(&Names, &history(5, 0)), Verdict::Linearizable, "it may come before");
    assert_eq!(check(&Names, &history(20, FILE)), Verdict::Linearizable);
    assert!(is_wrong(&check(&Names, &history(20, 0))));
}
