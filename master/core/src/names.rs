//! Where an inode has its names: kept by the operations, asked by whoever must know what a directory holds ([`within`]).
//!
//! A directory's record has its parent. For an inode that is none:
//! - with one name, the record has the parent, so that a create writes no more than the inode and the entry;
//! - with more names, [`keys::NAMES`] has for each parent how many of them are in it, and the record has one of these parents;
//! - with no name (held by a session), there is neither.
//!
//! Files made by an older release have no parent in their record until [`fill`] came by. While one of them has several
//! names, [`keys::NAMES`] counts those that `fill` has passed, and only those; so with its last entry the count is exact.

mod fill;

use std::collections::BTreeSet;

use coord_kv::Read;
use coord_types::{InodeId, SessionId};
use master_model::{Errno, Name};

pub use fill::{FILL_ENTRIES_MAX, fill_parents_pending};
pub(crate) use fill::{Filled, born_filled, fill};

use crate::error::{OpResult, corrupt};
use crate::inode::Inode;
use crate::keys;
use crate::state::{State, read_inode};

/// Directories above one another. Deeper than any path that can be named in one call; a loop in the store ends here.
pub(crate) const DEPTH_MAX: u32 = 1 << 16;
/// Parents of one inode looked at together.
const PARENTS_PAGE: usize = 256;

/// Where a name is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) parent: InodeId,
    pub(crate) name: &'a Name,
}

/// An inode that is no directory is about to get one more name.
pub(crate) fn added(state: &mut State<'_>, ino: InodeId, place: Place<'_>) -> OpResult<()> {
    let inode = state.inode(ino)?;
    match (inode.parent, inode.attr.nlink) {
        (Some(first), 1) if first == place.parent => put(state, ino, first, 2),
        (Some(first), 1) => {
            put(state, ino, first, 1);
            put(state, ino, place.parent, 1);
        }
        (parent, _) => {
            if parent.is_some() || Filled::read(state.read())?.passed(place) {
                change(state, ino, place.parent, 1)?;
            }
        }
    }
    Ok(())
}

/// An inode that is no directory is about to lose a name.
pub(crate) fn removed(state: &mut State<'_>, ino: InodeId, place: Place<'_>) -> OpResult<()> {
    let inode = state.inode(ino)?;
    let (parent, nlink) = (inode.parent, inode.attr.nlink);
    if nlink <= 1 {
        state.inode_mut(ino)?.parent = None;
        return Ok(());
    }
    let counted = parent.is_some() || Filled::read(state.read())?.passed(place);
    if nlink == 2 {
        let left = take_last_two(state, ino, counted.then_some(place.parent))?;
        state.inode_mut(ino)?.parent = left;
    } else if counted {
        let left = change(state, ino, place.parent, -1)?;
        if left == 0 && parent == Some(place.parent) {
            state.inode_mut(ino)?.parent = parents(state.read(), ino, None, 2)?
                .into_iter()
                .map(|(other, _)| other)
                .find(|other| *other != place.parent);
        }
    }
    Ok(())
}

/// A name of an inode that is no directory moves.
pub(crate) fn moved(state: &mut State<'_>, ino: InodeId, from: Place<'_>, to: Place<'_>) -> OpResult<()> {
    let inode = state.inode(ino)?;
    let (parent, nlink) = (inode.parent, inode.attr.nlink);
    if nlink <= 1 {
        state.inode_mut(ino)?.parent = Some(to.parent);
        return Ok(());
    }
    let (was_counted, is_counted) = if parent.is_some() {
        (true, true)
    } else {
        let filled = Filled::read(state.read())?;
        (filled.passed(from), filled.passed(to))
    };
    if from.parent == to.parent {
        change(state, ino, to.parent, i32::from(is_counted) - i32::from(was_counted))?;
        return Ok(());
    }
    let left = change(state, ino, from.parent, -i32::from(was_counted))?;
    change(state, ino, to.parent, i32::from(is_counted))?;
    if left == 0 && parent == Some(from.parent) {
        state.inode_mut(ino)?.parent = Some(to.parent);
    }
    Ok(())
}

/// One of two names goes, from the directory `gone` if it was counted. Gives the parent of the other, if that was.
fn take_last_two(state: &mut State<'_>, ino: InodeId, gone: Option<InodeId>) -> OpResult<Option<InodeId>> {
    let mut left = None;
    for (parent, count) in parents(state.read(), ino, None, 2)? {
        state.delete(keys::NAMES, keys::name(ino, parent));
        if count > u32::from(gone == Some(parent)) {
            left = Some(parent);
        }
    }
    Ok(left)
}

/// Gives how many names there are now. Reads the store: once a key and command.
fn change(state: &mut State<'_>, ino: InodeId, parent: InodeId, by: i32) -> OpResult<u32> {
    let record = state.read().get(keys::NAMES, &keys::name(ino, parent))?;
    let before = record.as_deref().map_or(Ok(0), count)?;
    let after = before.saturating_add_signed(by);
    if after != before {
        put(state, ino, parent, after);
    }
    Ok(after)
}

fn put(state: &mut State<'_>, ino: InodeId, parent: InodeId, count: u32) {
    let key = keys::name(ino, parent);
    if count == 0 {
        state.delete(keys::NAMES, key);
    } else {
        state.put(keys::NAMES, key, count.to_be_bytes());
    }
}

/// The record in [`keys::NAMES`].
pub(crate) fn count(record: &[u8]) -> OpResult<u32> {
    Ok(u32::from_be_bytes(record.try_into().map_err(|_| corrupt("the number of names in a directory"))?))
}

/// The directories that have names of an inode, or hold it as a directory: at most `limit`, those with the lowest numbers.
pub(crate) fn directories(state: &mut State<'_>, ino: InodeId, limit: usize) -> OpResult<Vec<InodeId>> {
    let inode = state.inode(ino)?;
    let (parent, nlink) = (inode.parent, inode.attr.nlink);
    if inode.attr.is_directory() || nlink <= 1 {
        return Ok(parent.into_iter().collect());
    }
    Ok(parents(state.read(), ino, None, limit)?.into_iter().map(|(parent, _)| parent).collect())
}

/// Some of the parents of an inode with several names, and how many are in each.
fn parents(
    read: &dyn Read,
    ino: InodeId,
    after: Option<InodeId>,
    limit: usize,
) -> OpResult<Vec<(InodeId, u32)>> {
    let mut range = keys::names(ino);
    if let Some(after) = after {
        range = range.after(&keys::name(ino, after));
    }
    let pairs = read.scan(keys::NAMES, &range, limit)?;
    pairs
        .iter()
        .map(|(key, value)| {
            let (_, parent) = keys::split_name(key).ok_or_else(|| corrupt("the key of a parent"))?;
            Ok((parent, count(value)?))
        })
        .collect()
}

/// Whether an inode is `directory`, or below it by any of its names. One without a name is everywhere for the session that
/// holds it, and nowhere for others. Until [`fill_parents_pending`] is over, the answer for an older release's file may be no
/// where yes is right.
///
/// # Errors
/// ENOENT if there is no such inode; a store that failed.
pub fn within(
    read: &dyn Read,
    ino: InodeId,
    directory: InodeId,
    session: Option<SessionId>,
) -> OpResult<bool> {
    if ino == directory {
        return Ok(true);
    }
    let inode = read_inode(read, ino)?.ok_or(Errno::ENOENT)?;
    if inode.attr.nlink == 0 {
        let held = |session| read.get(keys::ORPHANS, &keys::orphan(session, ino));
        return Ok(session.map_or(Ok(None), held)?.is_some());
    }
    if directory == InodeId::ROOT {
        return Ok(true);
    }
    Climb { read, directory, seen: BTreeSet::new() }.from(ino, &inode)
}

/// The way up from one inode's names: each directory is looked at once.
struct Climb<'a> {
    read: &'a dyn Read,
    directory: InodeId,
    seen: BTreeSet<InodeId>,
}

impl Climb<'_> {
    fn from(mut self, ino: InodeId, inode: &Inode) -> OpResult<bool> {
        if inode.attr.is_directory() || inode.attr.nlink == 1 {
            return inode.parent.map_or(Ok(false), |parent| self.reaches(parent));
        }
        let mut after = None;
        loop {
            let page = parents(self.read, ino, after, PARENTS_PAGE)?;
            for (parent, _) in &page {
                if self.reaches(*parent)? {
                    return Ok(true);
                }
            }
            after = page.last().map(|(parent, _)| *parent);
            if page.len() < PARENTS_PAGE {
                return Ok(false);
            }
        }
    }

    fn reaches(&mut self, from: InodeId) -> OpResult<bool> {
        let mut at = from;
        for _ in 0..DEPTH_MAX {
            if at == self.directory {
                return Ok(true);
            }
            if at == InodeId::ROOT || !self.seen.insert(at) {
                return Ok(false);
            }
            at = read_inode(self.read, at)?
                .and_then(|inode| inode.parent)
                .ok_or_else(|| corrupt(format_args!("directory {at} has no parent")))?;
        }
        // Refused rather than walked for ever; nothing is wrong with so deep a tree.
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
