//! Is a history linearizable: is there one order of its operations, each at a moment between its call and its return,
//! in which every result is right?
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", J. Parallel Distrib. Comput. 17, 1993) with
//! the memory of Lowe ("Testing for linearizability", Concurrency Comput. Pract. Exp. 29, 2017): a set of operations
//! that were put in order before, and led to the same state, is not tried again. An operation that never returned may
//! have happened at any moment after its call, or never. What only looks is put in order as soon as it is right, and no other
//! place is tried for it.
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

    /// What else may have become of the state with that result.
    fn otherwise(&self, _state: &Self::State, _action: &Self::Action) -> Option<Self::State> {
        None
    }

    /// Whether an action with its result changes no state in which the result is right.
    fn only_looks(&self, action: &Self::Action) -> bool;
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

/// An operation in its place.
struct Ordered<S> {
    index: usize,
    before: S,
    /// It is what [`Model::otherwise`] says.
    otherwise: bool,
    /// There is no better place for it, so no other is tried.
    settled: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Operation<M::Action>],
    events: Events,
    state: M::State,
    ordered: Vec<Ordered<M::State>>,
    /// A bit for each operation in order.
    set: Vec<u64>,
    /// Operations that returned and are not in order.
    waiting: usize,
}

impl<M: Model> Search<'_, M> {
    fn put_in_order(&mut self, index: usize, after: M::State, otherwise: bool, settled: bool) {
        let before = std::mem::replace(&mut self.state, after);
        self.ordered.push(Ordered { index, before, otherwise, settled });
        self.set[index / 64] |= 1 << (index % 64);
        self.waiting -= usize::from(self.operations[index].returned_ns.is_some());
        self.events.take(index);
    }

    /// Takes back the newest operation of which another place or outcome can be tried, and all behind it. Answers which, and
    /// whether both its outcomes were tried.
    fn take_back(&mut self) -> Option<(usize, bool)> {
        while let Some(Ordered { index, before, otherwise, settled }) = self.ordered.pop() {
            self.state = before;
            self.set[index / 64] &= !(1 << (index % 64));
            self.waiting += usize::from(self.operations[index].returned_ns.is_some());
            self.events.put_back(index);
            if !settled {
                return Some((index, otherwise));
            }
        }
        None
    }

    /// Puts in order what only looks and is right now. Whatever order is right with it at a later place is right with it here,
    /// since nothing is different for the others.
    fn settle(&mut self) {
        let mut at = self.events.next[0];
        while at != 0 {
            let (index, is_return) = self.events.what[at];
            if is_return {
                return;
            }
            at = self.events.next[at];
            let Operation { action, returned_ns, .. } = &self.operations[index];
            if returned_ns.is_some()
                && self.model.only_looks(action)
                && let Some(same) = self.model.step(&self.state, action)
            {
                debug_assert!(same == self.state, "what only looks changes nothing");
                // Its return may be the entry that comes next.
                if self.events.what[at] == (index, true) {
                    at = self.events.next[at];
                }
                self.put_in_order(index, same, false, true);
            }
        }
    }
}

/// Searches for an order.
pub(crate) fn check<M: Model>(model: &M, operations: &[Operation<M::Action>]) -> Verdict {
    let mut search = Search {
        model,
        operations,
        events: Events::new(operations),
        state: model.start(),
        ordered: Vec::new(),
        set: vec![0; operations.len().div_ceil(64)],
        waiting: operations.iter().filter(|operation| operation.returned_ns.is_some()).count(),
    };
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut deepest = (0, 0);
    search.settle();
    let mut at = search.events.next[0];
    // The usual outcome of the operation there was tried.
    let mut tried_here = false;
    while search.waiting > 0 {
        // The head is reached only past a return, and there is one while anybody waits.
        let (index, is_return) = search.events.what[at];
        if is_return {
            if search.ordered.len() >= deepest.0 {
                deepest = (search.ordered.len(), index);
            }
            let Some((last, both)) = search.take_back() else {
                return Verdict::Not { ordered: deepest.0, stuck: deepest.1 };
            };
            at = search.events.call[last];
            (at, tried_here) = if both { (search.events.next[at], false) } else { (at, true) };
            continue;
        }
        let action = &operations[index].action;
        let mut is_new = |after: &M::State| {
            let mut set = search.set.clone();
            set[index / 64] |= 1 << (index % 64);
            tried.insert((set, after.clone()))
        };
        let usual = if tried_here { None } else { model.step(&search.state, action).filter(&mut is_new) };
        let new = usual
            .map(|after| (after, false))
            .or_else(|| Some((model.otherwise(&search.state, action).filter(&mut is_new)?, true)));
        if tried.len() > REMEMBERED_MAX {
            return Verdict::Undecided;
        }
        tried_here = false;
        at = match new {
            Some((after, otherwise)) => {
                search.put_in_order(index, after, otherwise, false);
                search.settle();
                search.events.next[0]
            }
            None => search.events.next[at],
        };
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests;
