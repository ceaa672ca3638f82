//! Clients' sessions: opened, listed, ended. Leases are not here: they are the leader's own, with its own clock.

use coord_kv::{Range, Read};
use coord_types::SessionId;
use master_model::Errno;

use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::ops::forget;
use crate::records::{self, SessionRecord};
use crate::state::State;

/// Orphans freed by one command. A session with more takes several, so that no command holds up all others.
pub const ORPHANS_PER_COMMAND: usize = 1000;

/// Whose a session is: a name and what tells two of one name apart.
pub const OWNER_MAX_BYTES: usize = 128;

/// A session in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub description: String,
    pub opened_nanos: u64,
    /// Empty: it was opened in an older release.
    pub owner: String,
}

/// EINVAL for an owner that is too long.
pub(crate) fn open(state: &mut State<'_>, description: String, owner: String) -> OpResult<SessionId> {
    if owner.len() > OWNER_MAX_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let opened_nanos = state.now_nanos();
    let counters = state.counters_mut()?;
    let id = SessionId(counters.next_session);
    counters.next_session += 1;
    counters.sessions += 1;
    let record = SessionRecord { description, opened_nanos, owner };
    state.put(keys::SESSIONS, keys::session(id), records::encode(&record));
    Ok(id)
}

/// What ending a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is gone, or was never there.
    Gone,
    /// Orphans are left: end it again.
    More,
}

/// Frees what the state's session holds, and forgets it.
pub(crate) fn end(state: &mut State<'_>) -> OpResult<Ended> {
    let id = state.session();
    if state.read().get(keys::SESSIONS, &keys::session(id))?.is_none() {
        return Ok(Ended::Gone);
    }
    let orphans = state.read().scan(keys::ORPHANS, &keys::orphans(id), ORPHANS_PER_COMMAND + 1)?;
    for (key, _) in orphans.iter().take(ORPHANS_PER_COMMAND) {
        let (_, ino) = keys::split_orphan(key).ok_or_else(|| corrupt("the key of an orphan"))?;
        forget::release(state, ino)?;
    }
    if orphans.len() > ORPHANS_PER_COMMAND {
        return Ok(Ended::More);
    }
    state.delete(keys::SESSIONS, keys::session(id));
    let counters = state.counters_mut()?;
    counters.sessions = counters.sessions.saturating_sub(1);
    Ok(Ended::Gone)
}

/// All sessions. There are as many as mounts.
///
/// # Errors
/// A store that failed.
pub fn sessions(read: &dyn Read) -> OpResult<Vec<Session>> {
    let pairs = read.scan(keys::SESSIONS, &Range::prefix(&[]), usize::MAX)?;
    pairs
        .iter()
        .map(|(key, value)| {
            let id = keys::split_id(key).ok_or_else(|| corrupt("the key of a session"))?;
            let record: SessionRecord = records::decode("a session", value)?;
            Ok(Session {
                id: SessionId(id),
                description: record.description,
                opened_nanos: record.opened_nanos,
                owner: record.owner,
            })
        })
        .collect()
}

/// Whether a session is open.
///
/// # Errors
/// A store that failed.
pub fn is_open(read: &dyn Read, id: SessionId) -> OpResult<bool> {
    Ok(read.get(keys::SESSIONS, &keys::session(id))?.is_some())
}

/// Whose a session is; `None` if it is not open, empty if it was opened in an older release.
///
/// # Errors
/// A store that failed.
pub fn owner(read: &dyn Read, id: SessionId) -> OpResult<Option<String>> {
    let Some(record) = read.get(keys::SESSIONS, &keys::session(id))? else { return Ok(None) };
    let record: SessionRecord = records::decode("a session", &record)?;
    Ok(Some(record.owner))
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use super::*;
    use crate::command::{Command, CommandReply};
    use crate::testing::Tree;

    #[test]
    fn a_session_has_an_owner() {
        let mut tree = Tree::new();
        let mut open = |owner: &str| {
            let description = "mount".to_owned();
            tree.apply(&Command::OpenSession { description, owner: owner.to_owned() })
        };
        let longest = "x".repeat(OWNER_MAX_BYTES);
        let CommandReply::SessionOpened(older) = open("") else { panic!("not opened") };
        let CommandReply::SessionOpened(alices) = open("alice") else { panic!("not opened") };
        let CommandReply::SessionOpened(long) = open(&longest) else { panic!("not opened") };
        assert!(matches!(open(&format!("{longest}x")), CommandReply::Refused(_)));
        for (session, expected) in [
            (older, Some("")),
            (alices, Some("alice")),
            (long, Some(longest.as_str())),
            (SessionId(99), None),
        ] {
            assert_eq!(owner(tree.kv(), session).unwrap().as_deref(), expected);
        }
        assert_eq!(sessions(tree.kv()).unwrap().last().unwrap().owner, longest);
        tree.check();
    }

    #[test]
    fn the_end_of_a_session_frees_its_orphans_in_steps() {
        let mut tree = Tree::new();
        let count = ORPHANS_PER_COMMAND + 5;
        let mut last = InodeId(0);
        for number in 0..count {
            let name = format!("f{number}");
            last = tree.create(InodeId::ROOT, &name).unwrap().attr.unwrap().ino;
            tree.unlink_held(InodeId::ROOT, &name, last).unwrap();
        }
        assert_eq!(tree.end_session_once(), Ended::More);
        assert!(tree.get(last).is_ok());
        assert_eq!(sessions(tree.kv()).unwrap().len(), 1);
        assert_eq!(tree.end_session_once(), Ended::Gone);
        assert_eq!(tree.get(last).unwrap_err(), Errno::ENOENT);
        assert!(sessions(tree.kv()).unwrap().is_empty());
        assert_eq!(tree.deletions().len(), count);
        assert_eq!(tree.end_session_once(), Ended::Gone);
        tree.check();
    }
}
