//! Exactly once: a command that is proposed again under the same session and number is not applied again, but gets
//! the first reply.
//!
//! The table lives in the state, so it fails over with it. It is bounded: per session at most [`REPLIES_MAX`]
//! replies; older ones go even if the session never acknowledged them. That number is part of the format: all members
//! must agree on it.

use bytes::Bytes;
use coord_kv::{Read, Result};
use coord_types::SessionId;

use crate::keys::{self, KitFamilies};
use crate::node::ProposalStamp;
use crate::transaction::{SessionChange, Transaction};
use crate::types::Refusal;

/// Replies kept of one session.
pub(crate) const REPLIES_MAX: u64 = 1024;
/// Longer runs of replies are dropped by range.
const SINGLE_DELETES_MAX: u64 = 64;

/// What is to be done with a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Apply,
    /// It was applied before.
    Answer(Bytes),
    Refuse(Refusal),
}

pub(crate) fn admit(tx: &Transaction<'_>, families: KitFamilies, stamp: ProposalStamp) -> Result<Admission> {
    let Some(record) = tx.get(families.sessions, &keys::session_key(stamp.session))? else {
        return Ok(Admission::Refuse(Refusal::SessionExpired));
    };
    if stamp.seq < keys::parse_number(&record)? {
        return Ok(Admission::Refuse(Refusal::ReplyGone { seq: stamp.seq }));
    }
    match tx.get(families.replies, &keys::reply_key(stamp.session, stamp.seq))? {
        Some(reply) => Ok(Admission::Answer(reply.into())),
        None => Ok(Admission::Apply),
    }
}

/// Keeps the reply and drops those that were acknowledged. Does nothing if the command itself ended its session.
pub(crate) fn record(
    tx: &mut Transaction<'_>,
    families: KitFamilies,
    stamp: ProposalStamp,
    reply: &Bytes,
) -> Result<()> {
    let key = keys::session_key(stamp.session);
    let Some(record) = tx.get(families.sessions, &key)? else { return Ok(()) };
    let before = keys::parse_number(&record)?;
    // The command itself cannot have been acknowledged.
    let acknowledged = stamp.acknowledged_below.min(stamp.seq);
    let below = before.max(acknowledged).max(stamp.seq.saturating_sub(REPLIES_MAX - 1));
    if below > before {
        tx.put(families.sessions, key, below.to_le_bytes());
        if below - before <= SINGLE_DELETES_MAX {
            for seq in before..below {
                tx.delete(families.replies, keys::reply_key(stamp.session, seq));
            }
        } else {
            tx.delete_range(families.replies, keys::reply_range(stamp.session, before, below));
        }
    }
    tx.put(families.replies, keys::reply_key(stamp.session, stamp.seq), reply.to_vec());
    Ok(())
}

/// Carries out what a command asked for.
pub(crate) fn change(tx: &mut Transaction<'_>, families: KitFamilies, change: SessionChange) -> Result<()> {
    match change {
        SessionChange::Register(session) => register(tx, families, session),
        SessionChange::Forget(session) => {
            tx.delete(families.sessions, keys::session_key(session));
            tx.delete_range(families.replies, keys::replies_of(session));
            Ok(())
        }
    }
}

fn register(tx: &mut Transaction<'_>, families: KitFamilies, session: SessionId) -> Result<()> {
    let key = keys::session_key(session);
    if tx.get(families.sessions, &key)?.is_none() {
        tx.put(families.sessions, key, 0_u64.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coord_kv::MemKv;

    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn stamp(seq: u64, acknowledged_below: u64) -> ProposalStamp {
        ProposalStamp { session: SESSION, seq, acknowledged_below }
    }

    fn with_table(test: impl FnOnce(&mut Transaction<'_>, KitFamilies)) {
        let kv = MemKv::new();
        let families = KitFamilies::behind(2);
        let mut tx = Transaction::new(&kv);
        change(&mut tx, families, SessionChange::Register(SESSION)).unwrap();
        test(&mut tx, families);
    }

    #[test]
    fn a_retry_gets_the_first_reply_until_it_was_acknowledged() {
        with_table(|tx, families| {
            assert_eq!(admit(tx, families, stamp(1, 0)).unwrap(), Admission::Apply);
            record(tx, families, stamp(1, 0), &Bytes::from_static(b"one")).unwrap();
            record(tx, families, stamp(2, 0), &Bytes::from_static(b"two")).unwrap();
            assert_eq!(
                admit(tx, families, stamp(1, 0)).unwrap(),
                Admission::Answer(Bytes::from_static(b"one"))
            );
            change(tx, families, SessionChange::Register(SESSION)).unwrap();
            assert_eq!(
                admit(tx, families, stamp(1, 0)).unwrap(),
                Admission::Answer(Bytes::from_static(b"one"))
            );
            record(tx, families, stamp(3, 2), &Bytes::from_static(b"three")).unwrap();
            assert_eq!(
                admit(tx, families, stamp(1, 2)).unwrap(),
                Admission::Refuse(Refusal::ReplyGone { seq: 1 })
            );
            assert_eq!(
                admit(tx, families, stamp(2, 2)).unwrap(),
                Admission::Answer(Bytes::from_static(b"two"))
            );
        });
    }

    #[test]
    fn a_session_never_keeps_more_than_its_bound() {
        with_table(|tx, families| {
            for seq in 1..=3 * REPLIES_MAX {
                record(tx, families, stamp(seq, 0), &Bytes::from_static(b"r")).unwrap();
            }
            let kept = tx.scan(families.replies, &keys::replies_of(SESSION), usize::MAX >> 1).unwrap();
            assert_eq!(kept.len() as u64, REPLIES_MAX);
            record(tx, families, stamp(9 * REPLIES_MAX, 0), &Bytes::from_static(b"r")).unwrap();
            let kept = tx.scan(families.replies, &keys::replies_of(SESSION), usize::MAX >> 1).unwrap();
            assert_eq!(kept.len(), 1);
        });
    }

    #[test]
    fn a_command_that_claims_its_own_acknowledgement_is_still_kept() {
        with_table(|tx, families| {
            record(tx, families, stamp(5, 99), &Bytes::from_static(b"r")).unwrap();
            assert_eq!(
                admit(tx, families, stamp(5, 99)).unwrap(),
                Admission::Answer(Bytes::from_static(b"r"))
            );
        });
    }

    /// A client may count from anywhere. The number behind the largest one overflowed.
    #[test]
    fn the_largest_number_is_a_number_too() {
        with_table(|tx, families| {
            record(tx, families, stamp(1, 0), &Bytes::from_static(b"one")).unwrap();
            record(tx, families, stamp(u64::MAX, 0), &Bytes::from_static(b"last")).unwrap();
            let last = admit(tx, families, stamp(u64::MAX, u64::MAX)).unwrap();
            assert_eq!(last, Admission::Answer(Bytes::from_static(b"last")));
            let gone = admit(tx, families, stamp(1, 0)).unwrap();
            assert_eq!(gone, Admission::Refuse(Refusal::ReplyGone { seq: 1 }));
        });
    }

    #[test]
    fn a_forgotten_session_is_refused_and_leaves_nothing() {
        with_table(|tx, families| {
            record(tx, families, stamp(1, 0), &Bytes::from_static(b"r")).unwrap();
            change(tx, families, SessionChange::Forget(SESSION)).unwrap();
            assert_eq!(admit(tx, families, stamp(1, 0)).unwrap(), Admission::Refuse(Refusal::SessionExpired));
            record(tx, families, stamp(2, 0), &Bytes::from_static(b"r")).unwrap();
            assert!(tx.scan(families.replies, &keys::replies_of(SESSION), 9).unwrap().is_empty());
        });
    }
}
