//! Fills in where the files of an older release have their names: a walk over all directory entries, some by each
//! command, while everything else goes on. How far it came is in the store, under [`keys::PARENTS_KEY`].
//!
//! The leader proposes it ([`fill_parents_pending`]). A replica that still ran the older release then skipped it and has its own
//! walk before it; it is done when that replica leads, and changes nothing on the others.

use std::collections::BTreeMap;

use coord_kv::{Range, Read};
use coord_types::InodeId;
use master_model::mode;

use super::{Place, change};
use crate::error::{OpResult, corrupt};
use crate::keys;
use crate::state::{Entry, State, read_counters, read_inode};

/// Entries of one command: each costs two reads, and all other commands wait.
pub const FILL_ENTRIES_MAX: u32 = 1000;

/// First byte of the record.
const VERSION: u8 = 1;

/// How far the walk came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The entries up to this key, inclusive; empty if it has not begun.
    Upto(Vec<u8>),
    All,
}

impl Filled {
    pub(crate) fn read(read: &dyn Read) -> OpResult<Self> {
        match read.get(keys::SETTINGS, keys::PARENTS_KEY)?.as_deref() {
            None => Ok(Self::Upto(Vec::new())),
            Some([VERSION, 1]) => Ok(Self::All),
            Some([VERSION, 0, key @ ..]) => Ok(Self::Upto(key.to_vec())),
            Some(_) => Err(corrupt("how far parents are filled in")),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::All => vec![VERSION, 1],
            Self::Upto(key) => [&[VERSION, 0], key.as_slice()].concat(),
        }
    }

    /// Whether it has seen the name there, if there is one.
    pub(crate) fn passed(&self, place: Place<'_>) -> bool {
        self.passed_key(&keys::dentry(place.parent, place.name.as_slice()))
    }

    pub(crate) fn passed_key(&self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Upto(upto) => key <= upto.as_slice(),
        }
    }
}

/// A new store has no file without a parent.
pub(crate) fn born_filled(state: &mut State<'_>) {
    state.put(keys::SETTINGS, keys::PARENTS_KEY, Filled::All.encode());
}

/// Whether there may be files whose parents are not known: `FillParents` is to be proposed.
///
/// # Errors
/// A store that failed.
pub fn fill_parents_pending(read: &dyn Read) -> OpResult<bool> {
    Ok(Filled::read(read)? != Filled::All && read_counters(read)?.is_some())
}

/// The next entries. Inodes that have a parent are left as they are. The change counters stay: nothing that a client sees changes.
pub(crate) fn fill(state: &mut State<'_>, entries: u32) -> OpResult<()> {
    let Filled::Upto(upto) = Filled::read(state.read())? else { return Ok(()) };
    let limit = entries.clamp(1, FILL_ENTRIES_MAX) as usize;
    let page = state.read().scan(keys::DENTRIES, &Range::prefix(&[]).after(&upto), limit)?;
    // Names of one inode may be in one page: each key is written once.
    let mut counts = BTreeMap::new();
    for (key, value) in &page {
        let (parent, ..) = keys::split_dentry(key).ok_or_else(|| corrupt("the key of a directory entry"))?;
        let entry = Entry::decode(value)?;
        if entry.kind != mode::DIRECTORY && has_several(state, entry.ino, parent)? {
            *counts.entry((entry.ino, parent)).or_insert(0) += 1;
        }
    }
    for ((ino, parent), names) in counts {
        change(state, ino, parent, names)?;
    }
    let filled = match page.last() {
        Some((key, _)) if page.len() == limit => Filled::Upto(key.clone()),
        _ => Filled::All,
    };
    state.put(keys::SETTINGS, keys::PARENTS_KEY, filled.encode());
    Ok(())
}

/// Gives an inode that has one name, in `parent`, its parent. True if its names must be counted.
fn has_several(state: &mut State<'_>, ino: InodeId, parent: InodeId) -> OpResult<bool> {
    let Some(mut inode) = read_inode(state.read(), ino)? else { return Ok(false) };
    if inode.parent.is_some() {
        return Ok(false);
    }
    if inode.attr.nlink == 1 {
        inode.parent = Some(parent);
        state.put(keys::INODES, keys::inode(ino), inode.encode());
        return Ok(false);
    }
    Ok(true)
}
