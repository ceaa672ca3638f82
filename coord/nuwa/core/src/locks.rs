//! Locks of files: who holds them, who waits, and the fence of each grant.

use nuwa_model::proto::{EventKind, Lock, LockHolder, LockReply, Unlock};
use nuwa_model::{Path, Refusal};
use prost::Message as _;

use crate::entries;
use crate::error::{Outcome, path};
use crate::keys::{self, ClaimKind};
use crate::records::{Claim, EntryRecord, LockRecord};
use crate::state::{State, read_lock};

/// Of one lock, of those who hold it and who wait: all are in one record, which each claim writes anew.
const CLAIMS_MAX: usize = 1024;
/// Of the value a claim carries: an address, not a document. Those of all waiters are in that record, too.
const VALUE_MAX_BYTES: usize = 1024;

fn holder(claim: &Claim) -> LockHolder {
    LockHolder { session: claim.session, owner: claim.owner, shared: claim.shared, fence: claim.fence }
}

impl LockRecord {
    fn take(&mut self, is_it: impl Fn(&Claim) -> bool) -> (Vec<Claim>, Vec<Claim>) {
        let holders = self.holders.extract_if(.., |claim| is_it(claim)).collect();
        let waiters = self.waiters.extract_if(.., |claim| is_it(claim)).collect();
        (holders, waiters)
    }

    fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    fn is_claimed_by(&self, session: u64) -> bool {
        self.holders.iter().chain(&self.waiters).any(|claim| claim.session == session)
    }
}

/// Whether the first who waits may have it.
pub(crate) fn is_next_due(lock: &LockRecord) -> bool {
    lock.waiters.first().is_some_and(|next| {
        lock.holders.is_empty() || (next.shared && lock.holders.iter().all(|claim| claim.shared))
    })
}

pub(crate) fn lock(state: &mut State<'_>, request: Lock) -> Outcome<LockReply> {
    let Lock { session, owner, shared, wait, value, with_file, path: given } = request;
    state.session(session)?;
    let target = path(&given, Path::file)?;
    if value.as_ref().is_some_and(|value| shared || value.len() > VALUE_MAX_BYTES) {
        return Err(Refusal::Invalid("only an exclusive claim carries a value, of at most 1 KiB").into());
    }
    if state.entry(&target)?.is_none() {
        if !with_file {
            return Err(Refusal::NotFound(target).into());
        }
        entries::make_parents(state, &target, true)?;
        entries::create(state, &target, EntryRecord::default())?;
    }
    let mut lock = read_lock(state.read(), &target)?;
    let is_it = |claim: &Claim| (claim.session, claim.owner) == (session, owner);
    if let Some(claim) = lock.holders.iter().find(|claim| is_it(claim) && claim.shared == shared) {
        return Ok(LockReply { held: true, fence: claim.fence });
    }
    if lock.waiters.iter().any(|claim| is_it(claim) && claim.shared == shared) {
        return Ok(LockReply { held: false, fence: 0 });
    }
    release(state, &target, &mut lock, is_it)?;
    if lock.holders.len() + lock.waiters.len() >= CLAIMS_MAX {
        return Err(Refusal::TooManyClaims { path: target, claims_max: CLAIMS_MAX as u64 }.into());
    }
    lock.waiters.push(Claim { session, owner, shared, fence: 0, value });
    grant(state, &target, &mut lock)?;
    let held = lock.holders.iter().any(is_it);
    if !held && !wait {
        return Err(Refusal::Locked(target).into());
    }
    store(state, &target, &lock, session);
    Ok(LockReply { held, fence: if held { state.revision() } else { 0 } })
}

pub(crate) fn unlock(state: &mut State<'_>, request: &Unlock) -> Outcome<()> {
    let target = path(&request.path, Path::file)?;
    state.session(request.session)?;
    // Those who wait are not the holder's business, nor is a quota their value goes over.
    state.is_forced = true;
    let mut lock = read_lock(state.read(), &target)?;
    let is_it = |claim: &Claim| (claim.session, claim.owner) == (request.session, request.owner);
    if !release(state, &target, &mut lock, is_it)? {
        return Err(Refusal::NotHeld(target).into());
    }
    grant(state, &target, &mut lock)?;
    store(state, &target, &lock, request.session);
    Ok(())
}

/// Takes claims away; whether there were any.
fn release(
    state: &mut State<'_>,
    target: &Path,
    lock: &mut LockRecord,
    is_it: impl Fn(&Claim) -> bool,
) -> Outcome<bool> {
    let (holders, waiters) = lock.take(is_it);
    for claim in &holders {
        state.tell_lock(EventKind::Unlocked, target, holder(claim))?;
    }
    Ok(!holders.is_empty() || !waiters.is_empty())
}

/// Gives the lock to those whose turn it is.
fn grant(state: &mut State<'_>, target: &Path, lock: &mut LockRecord) -> Outcome<()> {
    while is_next_due(lock) {
        let next = lock.waiters.remove(0);
        let claim = Claim { fence: state.revision(), value: None, ..next };
        state.tell_lock(EventKind::Locked, target, holder(&claim))?;
        lock.holders.push(claim);
        if let Some(value) = next.value {
            let record = state.entry(target)?.unwrap_or_default();
            entries::replace(state, target, record, value)?;
        }
    }
    Ok(())
}

/// Writes a lock, and what the session, whose claims may have changed, has to do with it.
fn store(state: &mut State<'_>, target: &Path, lock: &LockRecord, session: u64) {
    if lock.is_free() {
        state.delete(keys::LOCKS, keys::path(target));
    } else {
        state.put(keys::LOCKS, keys::path(target), lock);
    }
    let key = keys::claim(session, ClaimKind::Lock, target);
    if lock.is_claimed_by(session) {
        state.put(keys::CLAIMS, key, &());
    } else {
        state.delete(keys::CLAIMS, key);
    }
}

impl State<'_> {
    /// Takes all of a session's claims to a lock away.
    pub(crate) fn release_all(&mut self, target: &Path, session: u64) -> Outcome<()> {
        let mut lock = read_lock(self.read(), target)?;
        self.look_at(target, lock.encoded_len())?;
        release(self, target, &mut lock, |claim| claim.session == session)?;
        grant(self, target, &mut lock)?;
        store(self, target, &lock, session);
        Ok(())
    }

    /// The file goes, and its lock with it. `by`: refuses if another session has to do with it; `None`: whoever has.
    pub(crate) fn drop_lock(&mut self, target: &Path, by: Option<u64>) -> Outcome<()> {
        let mut lock = read_lock(self.read(), target)?;
        if lock.is_free() {
            return Ok(());
        }
        self.look_at(target, lock.encoded_len())?;
        let claims = || lock.holders.iter().chain(&lock.waiters);
        if by.is_some_and(|session| claims().any(|claim| claim.session != session)) {
            return Err(Refusal::Locked(target.clone()).into());
        }
        let sessions: Vec<u64> = claims().map(|claim| claim.session).collect();
        release(self, target, &mut lock, |_| true)?;
        for session in sessions {
            store(self, target, &lock, session);
        }
        Ok(())
    }
}
