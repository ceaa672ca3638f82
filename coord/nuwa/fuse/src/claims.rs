//! What an open file has of its lock in the cluster: claims that were asked for, are held, or are to be given back.
//!
//! Invariants: a claim is noted before Nuwa hears of it, and forgotten when Nuwa has said that it is gone, so that whatever is interrupted in
//! between is given back when the file is closed, at the latest. Its number is never used again, not even for the same file: a claim is given
//! back without anybody waiting for it, and whoever asks next is not the one who loses by it. (The kernel's number of a lock's owner is
//! the address of an open file, and the next one may be at the same.)
//!
//! | state   | Nuwa granted it | Nuwa refused it | the caller is gone | is to be given back | Nuwa has taken it back |
//! | ------- | --------------- | --------------- | ------------------ | ------------------- | ---------------------- |
//! | asked   | held            | forgotten       | leaving            | stays: its caller waits | -                  |
//! | held    | -               | -               | -                  | leaving             | -                      |
//! | leaving | -               | -               | -                  | leaving             | forgotten              |

use std::sync::Arc;

use fs_client::Errno;
use nuwa_api::{Session, SessionState};
use parking_lot::Mutex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Held { fence: u64 },
    Leaving,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) session: Arc<Session>,
    /// Its number.
    pub(crate) owner: u64,
    pub(crate) shared: bool,
    state: State,
}

/// What a file knows of the fence of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// It holds no lock.
    None,
    /// It holds the lock; `None`: together with others.
    Held(Option<u64>),
    /// It held a lock of a session that is over.
    Lost,
}

/// Those of one open file: mostly one at most.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Vec<Claim>>);

impl Claims {
    /// The claim that is held.
    pub(crate) fn held(&self) -> Option<Claim> {
        let claims = self.0.lock();
        claims.iter().rfind(|claim| matches!(claim.state, State::Held { .. })).cloned()
    }

    pub(crate) fn fence(&self) -> Fence {
        let Some(held) = self.held() else { return Fence::None };
        match held.state {
            _ if held.session.state() == SessionState::Lost => Fence::Lost,
            State::Held { fence } => Fence::Held(Some(fence).filter(|_| !held.shared)),
            State::Asked | State::Leaving => Fence::None,
        }
    }

    /// EIO if a lock was held of a session that is over.
    pub(crate) fn check(&self) -> Result<(), Errno> {
        if self.fence() == Fence::Lost { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Notes a claim that is about to be asked for. `owner`: a number that was never used.
    pub(crate) fn ask(&self, session: Arc<Session>, owner: u64, shared: bool) -> Asking<'_> {
        self.0.lock().push(Claim { session, owner, shared, state: State::Asked });
        Asking { claims: self, owner, then: Some(State::Leaving) }
    }

    /// Those that are to be given back: held ones, and what others left. Until they are [forgotten](Self::forget).
    pub(crate) fn leave(&self) -> Vec<Claim> {
        let mut claims = self.0.lock();
        for claim in claims.iter_mut().filter(|claim| claim.state != State::Asked) {
            claim.state = State::Leaving;
        }
        claims.iter().filter(|claim| claim.state == State::Leaving).cloned().collect()
    }

    pub(crate) fn forget(&self, owner: u64) {
        self.0.lock().retain(|claim| claim.owner != owner);
    }
}

/// A claim whose caller waits for the answer. Dropped without one, there may be a claim: it is left.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    claims: &'a Claims,
    owner: u64,
    then: Option<State>,
}

impl Asking<'_> {
    pub(crate) fn granted(mut self, fence: u64) {
        self.then = Some(State::Held { fence });
    }

    pub(crate) fn refused(mut self) {
        self.then = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(then) = self.then else { return self.claims.forget(self.owner) };
        let mut claims = self.claims.0.lock();
        if let Some(claim) = claims.iter_mut().find(|claim| claim.owner == self.owner) {
            claim.state = then;
        }
    }
}
