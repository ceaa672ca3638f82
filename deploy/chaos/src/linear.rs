//! Is a history linearizable: is there one order of its operations, each at a moment between its call and its return,
//! in which every result is right?
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", J. Parallel Distrib. Comput. 17, 1993) with
//! the memory of Lowe ("Testing for linearizability", Concurrency Comput. Pract. Exp. 29, 2017): a set of operations
//! that were put in order before, and led to the same state, is not tried again. An operation that never returned may
//! have happened at any moment after its call, or never.
//!
//! Written here because what there is takes no operations without a return, or keeps no memory and is made for
//! histories of a dozen operations.

use std::collections::HashSet;
use std::hash::Hash;

use serde::Serialize;

/// What an object is, when only one caller is at work.
pub(crate) trait Model {
    type State: Clone + Eq + Hash;
    type Action;

    fn start(&self) -> Self::State;

    /// The state after an action with its result; none if the result is not right in this state. Of an operation that
    /// never returned the result is unknown.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Option<Self::State>;
}

/// One call of one caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Operation<A> {
    pub(crate) worker: usize,
    pub(crate) action: A,
    /// Since the beginning of the run.
    pub(crate) called_ns: u64,
    /// None: it is not known whether it happened.
    pub(crate) returned_ns: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// The longest order found has this many operations; none goes on to the return of this one.
    Not {
        ordered: usize,
        stuck: usize,
    },
    /// Too many orders to try.
    Undecided,
}

/// Memory for this many (set, state) pairs; a history of the runs here needs a few times its length.
const REMEMBERED_MAX: usize = 2_000_000;

/// Calls and returns in the order of time, as a list from which operations are taken and put back (Lowe).
struct Events {
    /// Operation, and whether this is its return. Entry 0 is the head.
    what: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each operation: its entries. No return: 0.
    call: Vec<usize>,
    back: Vec<usize>,
}

impl Events {
    fn new<A>(operations: &[Operation<A>]) -> Self {
        let mut events = Vec::with_capacity(operations.len() * 2);
        for (index, operation) in operations.iter().enumerate() {
            events.push((operation.called_ns, false, index));
            events.extend(operation.returned_ns.map(|at| (at, true, index)));
        }
        // Calls before returns of the same moment: they overlap.
        events.sort_unstable();
        let mut what = vec![(usize::MAX, false)];
        let (mut call, mut back) = (vec![0; operations.len()], vec![0; operations.len()]);
        for (_, is_return, index) in events {
            if is_return {
                back[index] = what.len()
            } else {
                call[index] = what.len()
            };
            what.push((index, is_return));
        }
        let length = what.len();
        let next = (0..length).map(|at| (at + 1) % length).collect();
        let previous = (0..length).map(|at| (at + length - 1) % length).collect();
        Self { what, next, previous, call, back }
    }

    fn entries(&self, index: usize) -> impl Iterator<Item = usize> + use<> {
        [self.call[index], self.back[index]].into_iter().filter(|entry| *entry != 0)
    }

    fn take(&mut self, index: usize) {
        for entry in self.entries(index) {
            let (before, after) = (self.previous[entry], self.next[entry]);
            (self.next[before], self.previous[after]) = (after, before);
        }
    }

    /// In the reverse order of [`Self::take`].
    fn put_back(&mut self, index: usize) {
        let entries: Vec<usize> = self.entries(index).collect();
        for entry in entries.into_iter().rev() {
            let (before, after) = (self.previous[entry], self.next[entry]);
            (self.next[before], self.previous[after]) = (entry, entry);
        }
    }
}

/// Searches for an order.
pub(crate) fn check<M: Model>(model: &M, operations: &[Operation<M::Action>]) -> Verdict {
    let mut events = Events::new(operations);
    let mut waiting = operations.iter().filter(|operation| operation.returned_ns.is_some()).count();
    let mut state = model.start();
    let mut ordered: Vec<(usize, M::State)> = Vec::new();
    let mut set = vec![0_u64; operations.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut deepest = (0, 0);
    let mut at = events.next[0];
    while waiting > 0 {
        // The head is reached only past a return, and there is one while anybody waits.
        let (index, is_return) = events.what[at];
        if is_return {
            if ordered.len() >= deepest.0 {
                deepest = (ordered.len(), index);
            }
            let Some((last, before)) = ordered.pop() else {
                return Verdict::Not { ordered: deepest.0, stuck: deepest.1 };
            };
            state = before;
            set[last / 64] &= !(1 << (last % 64));
            waiting += usize::from(operations[last].returned_ns.is_some());
            events.put_back(last);
            at = events.next[events.call[last]];
            continue;
        }
        set[index / 64] |= 1 << (index % 64);
        let stepped = model.step(&state, &operations[index].action);
        let new = stepped.filter(|after| tried.insert((set.clone(), after.clone())));
        if tried.len() > REMEMBERED_MAX {
            return Verdict::Undecided;
        }
        match new {
            Some(after) => {
                ordered.push((index, std::mem::replace(&mut state, after)));
                waiting -= usize::from(operations[index].returned_ns.is_some());
                events.take(index);
                at = events.next[0];
            }
            None => {
                set[index / 64] &= !(1 << (index % 64));
                at = events.next[at];
            }
        }
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests;
