//! Sessions: opened, and ended with all they own. Leases are not here: they are the leader's own, with its own clock.

use nuwa_model::Refusal;
use nuwa_model::proto::OpenSession;

use crate::error::{Outcome, corrupt};
use crate::keys::{self, ClaimKind};
use crate::quotas::Use;
use crate::records::SessionRecord;
use crate::state::{State, read_session};

/// Files and locks one command lets go of, at most. A session with more takes several, so that no command holds up all
/// others.
const PER_COMMAND: usize = 1000;
const TTL_DEFAULT_MS: u32 = 10_000;

/// How long a session may live without being renewed: longer than an election, and short enough that nobody waits for a
/// forgotten one for long.
const TTL_MS: std::ops::RangeInclusive<u32> = 1_000..=600_000;
/// Of what it says of itself.
const DESCRIPTION_MAX_BYTES: usize = 256;
/// Of its owner's name.
const OWNER_MAX_BYTES: usize = 128;

/// Its number, and how long it lives.
pub(crate) fn open(state: &mut State<'_>, request: OpenSession) -> Outcome<(u64, u32)> {
    let ttl_ms = if request.ttl_ms == 0 { TTL_DEFAULT_MS } else { request.ttl_ms };
    if !TTL_MS.contains(&ttl_ms) {
        return Err(Refusal::Invalid("a session lives for 1000 to 600000 ms without being renewed").into());
    }
    if request.description.len() > DESCRIPTION_MAX_BYTES {
        return Err(Refusal::Invalid("a session's description has at most 256 bytes").into());
    }
    if request.owner.len() > OWNER_MAX_BYTES {
        return Err(Refusal::Invalid("a session's owner has a name of at most 128 bytes").into());
    }
    let session = state.meta.next_session;
    state.meta.next_session += 1;
    let record = SessionRecord {
        ttl_ms,
        description: request.description,
        opened_unix_nanos: state.now_nanos(),
        ending: false,
        owner: request.owner,
    };
    state.put(keys::SESSIONS, keys::session(session), &record);
    Ok((session, ttl_ms))
}

/// What ending a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was not there.
    Never,
    /// It is gone.
    Gone,
    /// It is over, but owns more: end it again.
    More,
}

pub(crate) fn end(state: &mut State<'_>, session: u64) -> Outcome<Ended> {
    let Some(record) = read_session(state.read(), session)? else { return Ok(Ended::Never) };
    // Nobody could do anything about a refusal.
    state.is_forced = true;
    let claims = state.scan(keys::CLAIMS, &keys::claims(session), PER_COMMAND + 1)?;
    let mut done = 0;
    for (key, _) in claims.iter().take(PER_COMMAND) {
        if state.has_done_enough() {
            break;
        }
        done += 1;
        let (_, kind, target) = keys::split_claim(key).ok_or_else(|| corrupt("the key of a claim"))?;
        match kind {
            ClaimKind::File => {
                let record = state.entry(&target)?.ok_or_else(|| corrupt("a session's file"))?;
                state.drop_lock(&target, None)?;
                state.charge(&target, -Use::of(&target, &record))?;
                state.unset(&target, record)?;
            }
            ClaimKind::Lock => state.release_all(&target, session)?,
        }
    }
    if claims.len() > done {
        state.put(keys::SESSIONS, keys::session(session), &SessionRecord { ending: true, ..record });
        return Ok(Ended::More);
    }
    state.delete(keys::SESSIONS, keys::session(session));
    Ok(Ended::Gone)
}
