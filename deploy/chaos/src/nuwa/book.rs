//! What a client writes down: each operation as its caller saw it, and what the history must say of it if it was done.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{cells, locks, sequences};
use crate::crew::Span;
use crate::linear::Operation;
use crate::names::Done;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Kind {
    Put,
    Deleted,
}

/// What an event says, as far as whoever asks for a change knows beforehand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Told {
    pub(crate) kind: Kind,
    /// Of a sequential name without its digits.
    pub(crate) path: String,
    /// The number the value stands for; 0 of what is deleted.
    pub(crate) number: u64,
}

impl Told {
    pub(crate) fn put(path: impl Into<String>, number: u64) -> Self {
        Self { kind: Kind::Put, path: path.into(), number }
    }

    pub(crate) fn deleted(path: impl Into<String>) -> Self {
        Self { kind: Kind::Deleted, path: path.into(), number: 0 }
    }
}

/// A command that changes files, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) called_ns: u64,
    /// None: it is not known whether it was done.
    pub(crate) returned_ns: Option<u64>,
    /// As it was acknowledged; 0: not done, or not known.
    pub(crate) revision: u64,
    /// What it told watchers, or would have; empty if it changed nothing.
    pub(crate) told: Vec<Told>,
}

/// An operation on an object, to be checked with all others on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Noted<A> {
    pub(crate) object: usize,
    pub(crate) operation: Operation<A>,
    /// The change it made or would have made, by its place in the book.
    pub(crate) change: Option<usize>,
}

/// A current read, and the revision that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Looked {
    pub(crate) span: Span,
    pub(crate) revision: u64,
}

/// A read of a file that need not be current, but not older than what its client has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stale {
    pub(crate) path: String,
    /// The newest revision its client had seen.
    pub(crate) seen: u64,
    /// The one that came with the answer.
    pub(crate) revision: u64,
    /// Number and version; both 0 if there was no file.
    pub(crate) found: (u64, u64),
}

/// One client's.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Book {
    pub(crate) changes: Vec<Change>,
    pub(crate) cells: Vec<Noted<cells::Action>>,
    pub(crate) names: Vec<Noted<Done>>,
    pub(crate) locks: Vec<Noted<locks::Action>>,
    pub(crate) sequences: Vec<sequences::Given>,
    pub(crate) looked: Vec<Looked>,
    pub(crate) stale: Vec<Stale>,
    /// Claims of locks by the change of their state that was confirmed: the fence.
    pub(crate) grants: BTreeMap<u64, u64>,
    /// Claims that were given back, and that was confirmed.
    pub(crate) returned: Vec<u64>,
    /// Sessions that were opened.
    pub(crate) sessions: Vec<u64>,
}

impl Book {
    /// Takes a change down, and answers its place.
    pub(crate) fn change(&mut self, span: Span, done: Option<u64>, told: Vec<Told>) -> usize {
        self.changes.push(Change {
            called_ns: span.called_ns,
            returned_ns: done.map(|_| span.returned_ns),
            revision: done.unwrap_or(0),
            told,
        });
        self.changes.len() - 1
    }
}
