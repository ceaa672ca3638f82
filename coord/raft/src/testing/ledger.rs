//! A service for tests: counters that show how often and in which order commands were applied.

use bytes::Bytes;
use coord_kv::{Family, FamilySpec, KvError, Pair, Range, Read};
use coord_types::SessionId;

use crate::{ApplyContext, StateMachine, Transaction};

const COUNTERS: Family = Family(0);
const HISTORY: Family = Family(1);

/// Counters and the history of all changes. Commands are made by the functions of this type.
#[derive(Debug, Default)]
pub struct Ledger;

impl Ledger {
    /// Adds to a counter; the reply is its new value ([`Self::value`]).
    #[must_use]
    pub fn add(counter: &str, amount: u64) -> Bytes {
        let mut command = vec![b'+'];
        command.extend_from_slice(&amount.to_le_bytes());
        command.extend_from_slice(counter.as_bytes());
        command.into()
    }

    #[must_use]
    pub fn register(session: SessionId) -> Bytes {
        [b"r".as_slice(), &session.0.to_le_bytes()].concat().into()
    }

    #[must_use]
    pub fn forget(session: SessionId) -> Bytes {
        [b"f".as_slice(), &session.0.to_le_bytes()].concat().into()
    }

    /// A reply, or a stored counter.
    ///
    /// # Panics
    /// If it is neither.
    #[must_use]
    pub fn value(reply: &[u8]) -> u64 {
        u64::from_le_bytes(reply.try_into().expect("a reply of the ledger has eight bytes"))
    }

    /// # Errors
    /// If the store failed.
    pub fn counter(state: &dyn Read, counter: &str) -> Result<u64, KvError> {
        Ok(state.get(COUNTERS, counter.as_bytes())?.map_or(0, |value| Self::value(&value)))
    }

    /// Every change there was, in order: (index of its entry and place in it, command).
    ///
    /// # Errors
    /// If the store failed.
    pub fn history(state: &dyn Read) -> Result<Vec<Pair>, KvError> {
        state.scan(HISTORY, &Range::prefix(b""), usize::MAX >> 1)
    }
}

fn apply(tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Result<Bytes, KvError> {
    let number = |bytes: &[u8]| bytes.get(..8).map_or(0, Ledger::value);
    let (&kind, rest) = command.split_first().unwrap_or((&b'?', &[]));
    let reply = match kind {
        b'+' => {
            let counter = rest.get(8..).unwrap_or_default();
            let before = tx.get(COUNTERS, counter)?.map_or(0, |value| Ledger::value(&value));
            let after = before + number(rest);
            tx.put(COUNTERS, counter, after.to_le_bytes());
            after
        }
        b'r' => {
            tx.register_session(SessionId(number(rest)));
            0
        }
        b'f' => {
            tx.forget_session(SessionId(number(rest)));
            0
        }
        _ => u64::MAX,
    };
    let place = tx.get(COUNTERS, b"\0changes")?.map_or(0, |value| Ledger::value(&value)) + 1;
    tx.put(COUNTERS, b"\0changes".as_slice(), place.to_le_bytes());
    let mut key = place.to_be_bytes().to_vec();
    key.extend_from_slice(&context.index.to_be_bytes());
    key.extend_from_slice(&context.time_nanos.to_be_bytes());
    tx.put(HISTORY, key, command.to_vec());
    Ok(reply.to_le_bytes().to_vec().into())
}

impl StateMachine for Ledger {
    fn families(&self) -> &'static [FamilySpec] {
        &[
            FamilySpec { name: "counters", bloom: true, prefix_len_bytes: None },
            FamilySpec { name: "history", bloom: false, prefix_len_bytes: None },
        ]
    }

    fn apply(&self, tx: &mut Transaction<'_>, context: ApplyContext, command: &[u8]) -> Bytes {
        apply(tx, context, command).expect("the store of a test does not fail")
    }
}
