//! Locks, exclusive and shared: asked for, waited for, tried, given back, left behind by sessions that end or are abandoned; and
//! writes under the fence of a holder, which are refused to anybody who is none any more.
//!
//! Each time a lock is asked for it is for another owner, so that a claim has one number for good. A claim is given back between
//! the call of the unlock and its return. One whose session is over is given back between the moment from which the session
//! may be over, at the earliest ([`Kept::lives_until_ns`]), and the moment at which it was told so; one whose session was abandoned,
//! at any time after that.

use std::sync::Arc;
use std::time::Duration;

use nuwa_api::LockRequest;
use nuwa_api::ops;
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{Put, RefusalCode, Relation};
use rand::Rng as _;
use serde::Serialize;

use super::book::{Noted, Told};
use super::sites::Arenas;
use super::value::value;
use super::worker::{Answer, Kept, Worker};
use crate::linear::{Model, Operation};

/// In use at the same time.
const LOCKS: usize = 3;
/// Of the sessions here: some end by it while others wait.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How long a lock is waited for: longer than a session lives that was abandoned.
const WAIT_MAX_MS: u64 = 6000;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Action {
    /// It was granted. The fence is not known if nobody was told.
    Acquire { claim: u64, shared: bool, fence: Option<u64> },
    /// Others had it.
    Refused { shared: bool },
    /// It was given back, or went with its session.
    Release { claim: u64 },
    /// It was not there to be given back.
    NotHeld { claim: u64 },
    /// Something was written under its fence, or refused.
    Write { claim: u64, done: bool },
}

/// A lock.
#[derive(Debug)]
pub(crate) struct Lock;

/// Who holds it, sorted, and the fence of the last grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Holders {
    claims: Vec<(u64, bool)>,
    fence: u64,
}

impl Holders {
    fn has(&self, claim: u64) -> bool {
        self.claims.iter().any(|(holder, _)| *holder == claim)
    }
}

impl Model for Lock {
    type State = Holders;
    type Action = Action;

    fn start(&self) -> Holders {
        Holders::default()
    }

    fn step(&self, state: &Holders, action: &Action) -> Option<Holders> {
        let is_right = match *action {
            Action::Acquire { claim, shared, fence } => {
                // Shared holders may have been granted the lock by one change.
                let is_free = state.claims.iter().all(|(_, other)| *other && shared);
                let ascends = fence.is_none_or(|fence| fence > state.fence || shared && fence == state.fence);
                let mut after = state.clone();
                after.claims.push((claim, shared));
                after.claims.sort_unstable();
                after.fence = fence.unwrap_or(state.fence);
                return (is_free && ascends).then_some(after);
            }
            Action::Release { claim } => {
                let mut after = state.clone();
                after.claims.retain(|(holder, _)| *holder != claim);
                return state.has(claim).then_some(after);
            }
            // Who asks for it shared may have been refused for the sake of one who waits.
            Action::Refused { .. } => !state.claims.is_empty(),
            Action::NotHeld { claim } => !state.has(claim),
            Action::Write { claim, done } => state.has(claim) == done,
        };
        is_right.then(|| state.clone())
    }

    fn only_looks(&self, action: &Action) -> bool {
        matches!(action, Action::Refused { .. } | Action::NotHeld { .. } | Action::Write { .. })
    }
}

/// A claim that is, or was, held exclusively.
#[derive(Clone, Copy, Debug)]
struct Fenced {
    object: usize,
    claim: u64,
    fence: u64,
}

fn path(object: usize) -> String {
    format!("/locks/{object}")
}

/// Works on locks until it is told to stop.
pub(crate) async fn work(worker: &mut Worker, arenas: &Arenas) {
    // Held once, and tried again much later.
    let mut old: Option<Fenced> = None;
    while worker.crew.goes_on() {
        let object = arenas.locks.enter() * LOCKS + worker.dice.random_range(0..LOCKS);
        if let Some(kept) = worker.session().await
            && let Some(held) = acquire(worker, &kept, object).await
        {
            old = hold(worker, kept, held).await.or(old);
        }
        if worker.dice.random_ratio(1, 20)
            && let Some(fenced) = old.take()
            && let Some(kept) = worker.session().await
        {
            write(worker, &kept, fenced).await;
        }
        worker.breathe().await;
    }
}

/// A claim that was granted.
#[derive(Clone, Copy, Debug)]
struct Held {
    fenced: Fenced,
    shared: bool,
}

async fn acquire(worker: &mut Worker, kept: &Arc<Kept>, object: usize) -> Option<Held> {
    let (claim, shared) = (worker.crew.number(), worker.dice.random_bool(0.3));
    let request = LockRequest { path: path(object), owner: claim, shared, value: None, with_file: true };
    let session = &kept.session;
    let waits = worker.dice.random_bool(0.7);
    let (span, answer) = if waits {
        // How long others hold it says nothing of Nuwa: it is not among the operations that took long.
        let wait = Duration::from_millis(worker.dice.random_range(20..WAIT_MAX_MS));
        let lock = |deadline| async move { session.lock(&request, deadline).await.map(Some) };
        worker.ask_waiting(kept, "a lock", wait, lock).await
    } else {
        let try_lock = |deadline| async move { session.try_lock(&request, deadline).await };
        worker.ask_as(kept, "a lock", None, try_lock).await
    };
    match answer {
        Answer::Done(Some(locked)) => {
            let action = Action::Acquire { claim, shared, fence: Some(locked.fence) };
            note(worker, object, (span.called_ns, Some(span.returned_ns)), action);
            worker.book.grants.insert(claim, locked.fence);
            Some(Held { fenced: Fenced { object, claim, fence: locked.fence }, shared })
        }
        Answer::Done(None) => {
            note(worker, object, (span.called_ns, Some(span.returned_ns)), Action::Refused { shared });
            None
        }
        Answer::Refused(other) => {
            worker.wrong("a lock was refused", &other);
            None
        }
        Answer::Unknown => {
            note(worker, object, (span.called_ns, None), Action::Acquire { claim, shared, fence: None });
            // Who gives up waiting gives the claim back, sooner or later; else it has to be done here.
            if waits || kept.is_over() {
                note(worker, object, (span.called_ns, None), Action::Release { claim });
            } else {
                release(worker, kept, object, claim).await;
            }
            None
        }
    }
}

/// Holds it for a while, and gives it back in one way or another. Answers it if it was held exclusively.
async fn hold(worker: &mut Worker, kept: Arc<Kept>, held: Held) -> Option<Fenced> {
    let Held { fenced: fenced @ Fenced { object, claim, .. }, shared } = held;
    if !shared {
        for _ in 0..worker.dice.random_range(0..3) {
            write(worker, &kept, fenced).await;
        }
    }
    let hold_ms = if worker.dice.random_ratio(1, 25) {
        worker.dice.random_range(200..1500)
    } else {
        worker.dice.random_range(0..20)
    };
    tokio::time::sleep(Duration::from_millis(hold_ms)).await;
    let way = worker.dice.random_range(0..100);
    if way < 2
        && !kept.is_over()
        && let Some((span, is_known)) = worker.end_session().await
    {
        let returned = is_known.then_some(span.returned_ns);
        note(worker, object, (span.called_ns, returned), Action::Release { claim });
    } else if way < 3 && !kept.is_over() {
        // As if this client had died.
        worker.forget_session();
        note(worker, object, (kept.lives_until_ns(), None), Action::Release { claim });
    } else {
        release(worker, &kept, object, claim).await;
    }
    (!shared).then_some(fenced)
}

async fn release(worker: &mut Worker, kept: &Arc<Kept>, object: usize, claim: u64) {
    let (session, path) = (&kept.session, path(object));
    let unlock = |deadline| async move { session.unlock(&path, claim, deadline).await };
    let (span, answer) = worker.ask_as(kept, "an unlock", None, unlock).await;
    let (called_ns, returned_ns) = (span.called_ns, span.returned_ns);
    match answer {
        Answer::Done(()) => {
            worker.book.returned.push(claim);
            note(worker, object, (called_ns, Some(returned_ns)), Action::Release { claim });
        }
        Answer::Refused(RefusalCode::NotHeld) => {
            note(worker, object, (called_ns, Some(returned_ns)), Action::NotHeld { claim });
        }
        Answer::Refused(other) => worker.wrong("an unlock was refused", &other),
        // It went with the session, or was given back before by the same unlock.
        Answer::Unknown if kept.is_over() => {
            let from_ns = called_ns.min(kept.lives_until_ns());
            note(worker, object, (from_ns, Some(returned_ns)), Action::Release { claim });
        }
        Answer::Unknown => note(worker, object, (called_ns, None), Action::Release { claim }),
    }
}

/// Writes if the claim still holds the lock exclusively.
async fn write(worker: &mut Worker, kept: &Kept, Fenced { object, claim, fence }: Fenced) {
    let number = worker.crew.number();
    let data = format!("{}.data", path(object));
    let compare = ops::compare(path(object), Relation::Equal, With::Fence(fence));
    let put = Put { with_parents: true, ..ops::put(&data, value(number)) };
    let (span, answer) = worker.txn(kept, vec![compare], vec![put.into()], Vec::new()).await;
    let told = vec![Told::put(data, number)];
    match answer {
        Answer::Done(done) => {
            if done.succeeded {
                worker.book.change(span, Some(done.revision), told);
            }
            let action = Action::Write { claim, done: done.succeeded };
            note(worker, object, (span.called_ns, Some(span.returned_ns)), action);
        }
        Answer::Refused(other) => worker.wrong("a write under a lock was refused", &other),
        Answer::Unknown => {
            worker.book.change(span, None, told);
        }
    }
}

fn note(worker: &mut Worker, object: usize, (called_ns, returned_ns): (u64, Option<u64>), action: Action) {
    let operation = Operation { worker: worker.number, action, called_ns, returned_ns };
    worker.book.locks.push(Noted { object, operation, change: None });
}
