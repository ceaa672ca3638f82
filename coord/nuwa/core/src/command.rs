//! What is applied. Applying is deterministic: the same bytes, time and store give the same batch and reply on every
//! replica. Time comes in with the command.

use bytes::Bytes;
use coord_kv::{Batch, KvError, Read};
use nuwa_model::proto::{
    Command, Compare, Event, Operation, Relation, Reply, Txn, TxnReply, compare, operation, reply,
};
use nuwa_model::{Path, Refusal, proto};
use prost::Message;

use crate::error::{Failure, Outcome, path};
use crate::sessions::Ended;
use crate::state::{State, TOUCHED_MAX, read_lock, read_meta};
use crate::{entries, history, locks, quotas, restore, sessions};

use command::What;
use proto::command;

/// What the results of a transaction have together: more than the largest value, and well below the 4 MiB of a message. A
/// reply is kept until its client has it, so a larger one could be neither sent nor got rid of.
const REPLY_BYTES_MAX: usize = 2 << 20;
/// What a result takes in a reply beyond what it is itself: its tag, and its length.
const RESULT_BYTES: usize = 6;

/// What applying a command gives.
#[derive(Debug)]
pub struct Applied {
    pub batch: Batch,
    /// A [`Reply`].
    pub reply: Bytes,
    /// What it changed, in order, all of one revision.
    pub events: Vec<Event>,
    pub session: SessionEffect,
    /// The tree was replaced by a snapshot's, at this revision. No event tells of it.
    pub restored: Option<u64>,
}

/// What the table of sessions, which is not ours, must learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEffect {
    None,
    Opened {
        session: u64,
        ttl_ms: u32,
    },
    /// It is over for everybody, but owns more: it must be ended again, or what it owns stays for ever.
    Ending(u64),
    /// It is gone.
    Ended(u64),
}

/// Applies a [`Command`].
///
/// # Errors
/// The store failed. A refusal is a reply.
pub fn apply(read: &dyn Read, now_nanos: u64, command: &[u8]) -> Result<Applied, KvError> {
    let mut state = State::new(read, now_nanos)?;
    let outcome = Command::decode(command)
        .ok()
        .and_then(|command| command.what)
        .ok_or_else(|| Refusal::Invalid("this is no command").into())
        .and_then(|what| carry_out(&mut state, what))
        .and_then(|done| Ok((done, state.finish()?)));
    match outcome {
        Ok((Done { what, session, restored }, finished)) => {
            let reply = Reply { revision: finished.revision, what };
            let reply = reply.encode_to_vec().into();
            Ok(Applied { batch: finished.batch, reply, events: finished.events, session, restored })
        }
        Err(Failure::Refused(refusal)) => {
            let what = Some(reply::What::Refused((&refusal).into()));
            let reply = Reply { revision: read_meta(read)?.revision, what };
            let reply = reply.encode_to_vec().into();
            Ok(Applied {
                batch: Batch::new(),
                reply,
                events: Vec::new(),
                session: SessionEffect::None,
                restored: None,
            })
        }
        Err(Failure::Store(error)) => Err(error),
    }
}

/// What a command came to, besides its changes.
struct Done {
    what: Option<reply::What>,
    session: SessionEffect,
    restored: Option<u64>,
}

fn carry_out(state: &mut State<'_>, what: What) -> Outcome<Done> {
    // A session that ends owns nothing, as nothing could be made meanwhile.
    if state.meta.restoring.is_some() && !matches!(what, What::Restore(_) | What::EndSession(_)) {
        return Err(Refusal::Restoring.into());
    }
    let (mut effect, mut restored) = (SessionEffect::None, None);
    let what = match what {
        What::Txn(request) => Some(reply::What::Txn(txn(state, request)?)),
        What::OpenSession(request) => {
            let (session, ttl_ms) = sessions::open(state, request)?;
            effect = SessionEffect::Opened { session, ttl_ms };
            Some(reply::What::Session(session))
        }
        What::EndSession(request) => {
            let ended = sessions::end(state, request.session)?;
            effect = match ended {
                Ended::Never => SessionEffect::None,
                Ended::More => SessionEffect::Ending(request.session),
                Ended::Gone => SessionEffect::Ended(request.session),
            };
            Some(reply::What::More(ended == Ended::More))
        }
        What::Lock(request) => Some(reply::What::Lock(locks::lock(state, request)?)),
        What::Unlock(request) => {
            locks::unlock(state, &request)?;
            None
        }
        What::SetQuota(request) => {
            quotas::set(state, &request)?;
            None
        }
        What::SetHistory(request) => {
            history::set(state, request);
            None
        }
        What::Restore(request) => {
            let reply;
            (reply, restored) = restore::restore(state, request)?;
            Some(reply::What::Restore(reply))
        }
    };
    Ok(Done { what, session: effect, restored })
}

fn txn(state: &mut State<'_>, request: Txn) -> Outcome<TxnReply> {
    let Txn { session, compares, then, otherwise } = request;
    if session != 0 {
        state.session(session)?;
    }
    if compares.len().max(then.len()).max(otherwise.len()) as u64 > TOUCHED_MAX {
        return Err(Refusal::Invalid("a command has at most 4096 compares, and operations").into());
    }
    let mut succeeded = true;
    for compare in &compares {
        succeeded &= holds(state, compare)?;
    }
    let mut results = Vec::new();
    let mut bytes = 0;
    for operation in if succeeded { then } else { otherwise } {
        let result = operate(state, session, operation)?;
        bytes += result.encoded_len() + RESULT_BYTES;
        if bytes > REPLY_BYTES_MAX {
            return Err(Refusal::AnswerTooLarge { bytes_max: REPLY_BYTES_MAX as u64 }.into());
        }
        results.push(result);
    }
    Ok(TxnReply { succeeded, results })
}

fn operate(state: &mut State<'_>, session: u64, operation: Operation) -> Outcome<proto::OperationResult> {
    match operation.what.ok_or(Refusal::Invalid("an operation says what to do"))? {
        operation::What::Put(request) => entries::put(state, session, request),
        operation::What::MakeDirectory(request) => entries::make_directory(state, &request),
        operation::What::Delete(request) => entries::delete(state, session, &request),
        operation::What::Rename(request) => entries::rename(state, session, &request),
        operation::What::Get(request) => entries::get(state, &request),
    }
}

fn holds(state: &mut State<'_>, compare: &Compare) -> Outcome<bool> {
    let target = path(&compare.path, Path::new)?;
    let relation = Relation::try_from(compare.relation).map_err(|_| Refusal::Invalid("no such relation"))?;
    let found = state.entry(&target)?;
    state.look_at(&target, found.as_ref().map_or(0, |found| found.value.len()))?;
    let numbers = |found: u64, given: u64| match relation {
        Relation::Equal => found == given,
        Relation::NotEqual => found != given,
        Relation::Less => found < given,
        Relation::Greater => found > given,
    };
    let equal = |is_equal: bool| match relation {
        Relation::Equal => Ok(is_equal),
        Relation::NotEqual => Ok(!is_equal),
        Relation::Less | Relation::Greater => {
            Err(Refusal::Invalid("values are equal or not equal, neither less nor greater"))
        }
    };
    Ok(match compare.with.as_ref().ok_or(Refusal::Invalid("a compare says what with"))? {
        compare::With::Exists(exists) => equal(found.is_some() == *exists)?,
        compare::With::Value(value) => equal(found.is_some_and(|found| found.value == *value))?,
        compare::With::Version(version) => numbers(found.map_or(0, |found| found.version), *version),
        compare::With::Modified(revision) => numbers(found.map_or(0, |found| found.modified), *revision),
        compare::With::Owner(session) => numbers(found.map_or(0, |found| found.owner), *session),
        compare::With::Fence(fence) => {
            let lock = read_lock(state.read(), &target)?;
            state.look_at(&target, lock.encoded_len())?;
            let holder = lock.holders.iter().find(|holder| !holder.shared);
            numbers(holder.map_or(0, |holder| holder.fence), *fence)
        }
    })
}
