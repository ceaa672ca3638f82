//! What can be asked of the tree. Whether the store that is asked is current is the caller's business.

use coord_kv::{KvError, Range, Read};
use nuwa_model::Path;
use nuwa_model::proto::{Entry, LockHolder};

use crate::error::corrupt;
use crate::history;
use crate::keys;
use crate::records::{Meta, QuotaRecord, SessionRecord};
use crate::state::{decode, read_entry, read_lock, read_meta, read_session, shown};

pub use crate::history::Page;

/// Counters of the whole tree, the newest revision among them.
///
/// # Errors
/// The store failed.
pub fn meta(read: &dyn Read) -> Result<Meta, KvError> {
    read_meta(read)
}

/// # Errors
/// The store failed.
pub fn get(read: &dyn Read, path: &Path) -> Result<Option<Entry>, KvError> {
    Ok(read_entry(read, path)?.map(|record| shown(path, record)))
}

/// At most `limit` of what is in a directory, by name, from behind `after` (a name, with `/` if it is a directory).
///
/// # Errors
/// The store failed.
pub fn list(
    read: &dyn Read,
    directory: &Path,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Entry>, KvError> {
    let mut range = keys::children(directory);
    if let Some(name) = after {
        let mut key = range.start.clone();
        key.extend_from_slice(name.as_bytes());
        range = range.after(&key);
    }
    entries(read, &range, limit)
}

/// At most `limit` of what is below a directory, at any depth, in the order of the store's keys, from behind `after`.
///
/// # Errors
/// The store failed.
pub fn below(
    read: &dyn Read,
    directory: &Path,
    after: Option<&Path>,
    limit: usize,
) -> Result<Vec<Entry>, KvError> {
    let mut range = keys::below(directory);
    if let Some(path) = after {
        range = range.after(&keys::entry(path));
    }
    entries(read, &range, limit)
}

fn entries(read: &dyn Read, range: &Range, limit: usize) -> Result<Vec<Entry>, KvError> {
    let pairs = read.scan(keys::ENTRIES, range, limit)?;
    let entries = pairs.iter().map(|(key, record)| {
        let path = keys::entry_path(key).ok_or_else(|| corrupt("the key of an entry"))?;
        Ok(shown(&path, decode("an entry", record)?))
    });
    entries.collect()
}

/// Who holds the lock of a file, and how many wait.
///
/// # Errors
/// The store failed.
pub fn lock(read: &dyn Read, path: &Path) -> Result<(Vec<LockHolder>, usize), KvError> {
    let lock = read_lock(read, path)?;
    let holders = lock.holders.iter().map(|claim| LockHolder {
        session: claim.session,
        owner: claim.owner,
        shared: claim.shared,
        fence: claim.fence,
    });
    Ok((holders.collect(), lock.waiters.len()))
}

/// # Errors
/// The store failed.
pub fn session(read: &dyn Read, session: u64) -> Result<Option<SessionRecord>, KvError> {
    read_session(read, session)
}

/// At most `limit` sessions, by number, from behind `after` (0: from the first). For whoever leads, to know their leases.
///
/// # Errors
/// The store failed.
pub fn sessions(read: &dyn Read, after: u64, limit: usize) -> Result<Vec<(u64, SessionRecord)>, KvError> {
    let range = Range::prefix(&[]).after(&keys::session(after));
    let pairs = read.scan(keys::SESSIONS, &range, limit)?;
    let sessions = pairs.iter().map(|(key, record)| {
        let key = key.as_slice().try_into().map_err(|_| corrupt("the key of a session"))?;
        Ok((u64::from_be_bytes(key), decode("a session", record)?))
    });
    sessions.collect()
}

/// # Errors
/// The store failed.
pub fn quota(read: &dyn Read, directory: &Path) -> Result<Option<QuotaRecord>, KvError> {
    let record = read.get(keys::QUOTAS, keys::path(directory))?;
    record.map(|record| decode("a quota", &record)).transpose()
}

/// At most `limit` events from this one (revision, number of its events) on.
///
/// # Errors
/// The store failed.
pub fn events(read: &dyn Read, from: (u64, u32), limit: usize) -> Result<Page, KvError> {
    history::page(read, from, limit)
}
