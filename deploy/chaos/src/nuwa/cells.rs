//! Cells: pairs of files that are put, created, deleted, read, and changed by transactions on their versions, singly and both at
//! once. A version counts the puts: a change that is made twice shows in it.

use nuwa_api::client::Freshness;
use nuwa_api::ops;
use nuwa_api::proto::read_reply::What as Shown;
use nuwa_api::proto::read_request::What as Question;
use nuwa_api::proto::{Compare, Delete, Entry, Get, Operation as Op, OperationResult, Put, RefusalCode};
use nuwa_api::session::TxnDone;
use rand::Rng as _;
use serde::Serialize;

use super::book::{Noted, Stale, Told};
use super::sites::Arenas;
use super::value::{number, value};
use super::worker::{Answer, Worker};
use crate::crew::Span;
use crate::linear::{Model, Operation};

/// Pairs in use at the same time: few enough that operations meet.
const PAIRS: usize = 3;
const NAMES: [&str; 2] = ["a", "b"];

/// A file: the number its value stands for, and its version; both 0 if it is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Cell {
    pub(crate) number: u64,
    pub(crate) version: u64,
}

/// What is asked. `at`: which of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Act {
    Put {
        at: usize,
        number: u64,
    },
    Create {
        at: usize,
        number: u64,
    },
    Delete {
        at: usize,
    },
    /// If the version is this one.
    Swap {
        at: usize,
        version: u64,
        number: u64,
    },
    SwapBoth {
        versions: [u64; 2],
        number: u64,
    },
    PutBoth {
        number: u64,
    },
    /// The second must not be there, or neither is put.
    PutAndCreate {
        number: u64,
    },
    Get {
        at: usize,
    },
    GetBoth,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Said {
    /// The versions after it; 0 of what was not put.
    Put([u64; 2]),
    Exists,
    Deleted(bool),
    /// What was looked at, also if a version was not as wanted.
    Saw([Option<Cell>; 2]),
}

/// A call with what it was told, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Action {
    pub(crate) act: Act,
    pub(crate) said: Option<Said>,
}

/// A pair of files.
#[derive(Debug)]
pub(crate) struct Pair;

type State = [Cell; 2];

impl Act {
    /// What a caller that is alone is told, and the pair after it.
    pub(crate) fn apply(self, state: &State) -> (Said, State) {
        let mut after = *state;
        let mut versions = [0; 2];
        let mut put = |at: usize, number| {
            after[at] = Cell { number, version: state[at].version + 1 };
            versions[at] = after[at].version;
        };
        let is_there = |at: usize| state[at].version > 0;
        let mut saw = [None; 2];
        match self {
            Self::Create { at, .. } if is_there(at) => return (Said::Exists, *state),
            Self::PutAndCreate { .. } if is_there(1) => return (Said::Exists, *state),
            Self::Swap { at, version, .. } if state[at].version != version => {
                saw[at] = Some(state[at]);
                return (Said::Saw(saw), *state);
            }
            Self::SwapBoth { versions, .. } if state.map(|cell| cell.version) != versions => {
                return (Said::Saw(state.map(Some)), *state);
            }
            Self::Put { at, number } | Self::Create { at, number } | Self::Swap { at, number, .. } => {
                put(at, number);
            }
            Self::SwapBoth { number, .. } | Self::PutBoth { number } | Self::PutAndCreate { number } => {
                put(0, number);
                put(1, number);
            }
            Self::Delete { at } => {
                after[at] = Cell::default();
                return (Said::Deleted(is_there(at)), after);
            }
            Self::Get { at } => {
                saw[at] = Some(state[at]);
                return (Said::Saw(saw), *state);
            }
            Self::GetBoth => return (Said::Saw(state.map(Some)), *state),
        }
        (Said::Put(versions), after)
    }

    /// The files it puts, or deletes, if it does what it is asked.
    fn told(self, folder: &str) -> Vec<Told> {
        let path = |at: usize| format!("{folder}{}", NAMES[at]);
        match self {
            Self::Put { at, number } | Self::Create { at, number } | Self::Swap { at, number, .. } => {
                vec![Told::put(path(at), number)]
            }
            Self::SwapBoth { number, .. } | Self::PutBoth { number } | Self::PutAndCreate { number } => {
                vec![Told::put(path(0), number), Told::put(path(1), number)]
            }
            Self::Delete { at } => vec![Told::deleted(path(at))],
            Self::Get { .. } | Self::GetBoth => Vec::new(),
        }
    }

    /// As a transaction.
    fn operations(self, folder: &str) -> (Vec<Compare>, Vec<Op>, Vec<Op>) {
        let path = |at: usize| format!("{folder}{}", NAMES[at]);
        let put = |at, number| Put { with_parents: true, ..ops::put(path(at), value(number)) };
        let create = |at, number| Put { with_parents: true, ..ops::create(path(at), value(number)) };
        let get = |at| Op::from(ops::get(path(at)));
        let (compares, then, otherwise) = match self {
            Self::Put { at, number } => (vec![], vec![put(at, number).into()], vec![]),
            Self::Create { at, number } => (vec![], vec![create(at, number).into()], vec![]),
            Self::Delete { at } => {
                (vec![], vec![Delete { may_be_absent: true, ..ops::delete(path(at)) }.into()], vec![])
            }
            Self::Swap { at, version, number } => {
                (vec![ops::version_is(path(at), version)], vec![put(at, number).into()], vec![get(at)])
            }
            Self::SwapBoth { versions, number } => (
                vec![ops::version_is(path(0), versions[0]), ops::version_is(path(1), versions[1])],
                vec![put(0, number).into(), put(1, number).into()],
                vec![get(0), get(1)],
            ),
            Self::PutBoth { number } => (vec![], vec![put(0, number).into(), put(1, number).into()], vec![]),
            Self::PutAndCreate { number } => {
                (vec![], vec![put(0, number).into(), create(1, number).into()], vec![])
            }
            Self::Get { at } => (vec![], vec![get(at)], vec![]),
            Self::GetBoth => (vec![], vec![get(0), get(1)], vec![]),
        };
        (compares, then, otherwise)
    }

    /// Which of the pair each result is of.
    fn places(self) -> Vec<usize> {
        match self {
            Self::Put { at, .. }
            | Self::Create { at, .. }
            | Self::Delete { at }
            | Self::Swap { at, .. }
            | Self::Get { at } => vec![at],
            Self::SwapBoth { .. } | Self::PutBoth { .. } | Self::PutAndCreate { .. } | Self::GetBoth => {
                vec![0, 1]
            }
        }
    }

    /// What the results of the transaction say.
    fn said(self, done: &TxnDone) -> Result<Said, String> {
        let looks = !done.succeeded || matches!(self, Self::Get { .. } | Self::GetBoth);
        if let (Self::Delete { .. }, [result]) = (self, done.results.as_slice()) {
            return Ok(Said::Deleted(result.touched > 0));
        }
        let (mut versions, mut saw) = ([0; 2], [None; 2]);
        for (at, result) in self.places().into_iter().zip(&done.results) {
            let OperationResult { entry, .. } = result;
            if looks {
                saw[at] = Some(cell(entry.as_ref())?);
            } else {
                versions[at] = entry.as_ref().map_or(0, |entry| entry.version);
            }
        }
        Ok(if looks { Said::Saw(saw) } else { Said::Put(versions) })
    }
}

/// What an entry says.
pub(crate) fn cell(entry: Option<&Entry>) -> Result<Cell, String> {
    let Some(entry) = entry else { return Ok(Cell::default()) };
    Ok(Cell { number: number(&entry.value)?, version: entry.version })
}

impl Model for Pair {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        State::default()
    }

    fn step(&self, state: &State, action: &Action) -> Option<State> {
        let (said, after) = action.act.apply(state);
        action.said.is_none_or(|told| told == said).then_some(after)
    }

    fn only_looks(&self, action: &Action) -> bool {
        matches!(action.said, Some(Said::Saw(_) | Said::Exists | Said::Deleted(false)))
    }
}

fn folder(object: usize) -> String {
    format!("/cells/{object}/")
}

/// Works on cells until it is told to stop.
pub(crate) async fn work(worker: &mut Worker, arenas: &Arenas) {
    // Of each pair what this worker knows of its versions.
    let mut known: (usize, State) = (usize::MAX, State::default());
    while worker.crew.goes_on() {
        let object = arenas.cells.enter() * PAIRS + worker.dice.random_range(0..PAIRS);
        if known.0 != object {
            known = (object, State::default());
        }
        let act = draw(worker, &known.1);
        let folder = folder(object);
        match act {
            Act::Get { at } if worker.dice.random_bool(0.3) => look_back(worker, &folder, at).await,
            Act::Get { at } if worker.dice.random_bool(0.7) => {
                let question = Question::Get(Get { path: format!("{folder}{}", NAMES[at]) });
                if let Some((span, shown)) = worker.look(question).await {
                    let found = match shown {
                        Ok(Shown::Entry(reply)) => cell(reply.entry.as_ref()),
                        other => Err(format!("{other:?}")),
                    };
                    saw(worker, object, (span, act), found);
                }
            }
            _ => change(worker, object, act, &mut known.1).await,
        }
        worker.breathe().await;
    }
}

fn draw(worker: &mut Worker, known: &State) -> Act {
    let number = worker.crew.number();
    let dice = &mut worker.dice;
    let at = dice.random_range(0..2);
    match dice.random_range(0..20) {
        0..4 => Act::Put { at, number },
        4 => Act::Create { at, number },
        5 => Act::Delete { at },
        6..9 => Act::Swap { at, version: known[at].version, number },
        9..11 => Act::SwapBoth { versions: known.map(|cell| cell.version), number },
        11 => Act::PutBoth { number },
        12 => Act::PutAndCreate { number },
        13..19 => Act::Get { at },
        _ => Act::GetBoth,
    }
}

/// A current read of one file.
fn saw(worker: &mut Worker, object: usize, (span, act): (Span, Act), found: Result<Cell, String>) {
    let Act::Get { at } = act else { return };
    match found {
        Ok(found) => {
            let mut saw = [None; 2];
            saw[at] = Some(found);
            note(worker, object, (span, true), Action { act, said: Some(Said::Saw(saw)) }, None);
        }
        Err(wrong) => worker.wrong("a read", &wrong),
    }
}

async fn change(worker: &mut Worker, object: usize, act: Act, known: &mut State) {
    let Some(kept) = worker.session().await else { return };
    let folder = folder(object);
    let (compares, then, otherwise) = act.operations(&folder);
    let (span, answer) = worker.txn(&kept, compares, then, otherwise).await;
    let (said, revision) = match answer {
        Answer::Done(done) => match act.said(&done) {
            Ok(said) => (Some(said), done.revision),
            Err(wrong) => return worker.wrong("a transaction", &wrong),
        },
        Answer::Refused(RefusalCode::Exists) => (Some(Said::Exists), 0),
        Answer::Refused(other) => return worker.wrong("a transaction was refused", &other),
        Answer::Unknown => (None, 0),
    };
    let is_made = !matches!(said, Some(Said::Saw(_) | Said::Exists | Said::Deleted(false)));
    let told = if is_made { act.told(&folder) } else { Vec::new() };
    let change = (!told.is_empty()).then(|| worker.book.change(span, said.map(|_| revision), told));
    note(worker, object, (span, said.is_some()), Action { act, said }, change);
    match said {
        Some(Said::Saw(saw)) => {
            for (known, saw) in known.iter_mut().zip(saw) {
                *known = saw.unwrap_or(*known);
            }
        }
        Some(Said::Put(versions)) => {
            for (known, version) in known.iter_mut().zip(versions).filter(|(_, version)| *version > 0) {
                known.version = version;
            }
        }
        Some(Said::Deleted(_) | Said::Exists) | None => {}
    }
}

fn note(
    worker: &mut Worker,
    object: usize,
    (span, is_known): (Span, bool),
    action: Action,
    change: Option<usize>,
) {
    let returned_ns = is_known.then_some(span.returned_ns);
    let operation = Operation { worker: worker.number, action, called_ns: span.called_ns, returned_ns };
    worker.book.cells.push(Noted { object, operation, change });
}

/// A read that may be of any member, but of nothing older than this client has seen.
async fn look_back(worker: &mut Worker, folder: &str, at: usize) {
    let path = format!("{folder}{}", NAMES[at]);
    let seen = worker.client.newest();
    let (client, question) = (worker.client.clone(), Question::Get(Get { path: path.clone() }));
    let work = |deadline| async move { client.read(question, Freshness::Stale, deadline).await };
    let (_, answer) = worker.ask("a stale read", None, work).await;
    match answer {
        Answer::Done((revision, Shown::Entry(reply))) => match cell(reply.entry.as_ref()) {
            Ok(Cell { number, version }) => {
                worker.book.stale.push(Stale { path, seen, revision, found: (number, version) });
            }
            Err(wrong) => worker.wrong("a stale read", &wrong),
        },
        Answer::Unknown => {}
        other => worker.wrong("a stale read", &other),
    }
}
