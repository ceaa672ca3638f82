//! rename(2) and renameat2(2): replacing, not replacing, exchanging.

use coord_types::InodeId;
use master_model::{Attr, Errno, EventKind, Mutated, Rename, RenameFlags, mode};

use super::{LINKS_MAX, drop_directory, drop_link, must_exist, tell};
use crate::error::{OpResult, corrupt};
use crate::names::{self, DEPTH_MAX, Place};
use crate::state::{Entry, State};

pub(super) fn rename(state: &mut State<'_>, op: &Rename) -> OpResult<Mutated> {
    let source = must_exist(state, op.parent, &op.name)?;
    state.directory(op.new_parent)?;
    let target = state.entry(op.new_parent, &op.new_name)?;
    match (op.flags, target) {
        (RenameFlags::NoReplace, Some(_)) => return Err(Errno::EEXIST.into()),
        (RenameFlags::Exchange, None) => return Err(Errno::ENOENT.into()),
        _ => {}
    }
    // A directory must not come to lie below itself.
    refuse_loop(state, source, op.new_parent)?;
    if let (RenameFlags::Exchange, Some(target)) = (op.flags, target) {
        refuse_loop(state, target, op.parent)?;
    }
    // Two names of one file, or one name twice: POSIX asks to do nothing, successfully.
    if target.is_some_and(|target| target.ino == source.ino) {
        return done(state, op, None, false);
    }
    match (op.flags, target) {
        (RenameFlags::Exchange, Some(target)) => exchange(state, op, source, target),
        (_, Some(target)) => replace(state, op, source, target),
        (_, None) => {
            relocate(state, source, from(op), to(op))?;
            state.add_entry(op.new_parent, &op.new_name, source)?;
            state.remove_entry(op.parent, &op.name)?;
            tell_moved(state, op, source);
            done(state, op, None, false)
        }
    }
}

fn replace(state: &mut State<'_>, op: &Rename, source: Entry, target: Entry) -> OpResult<Mutated> {
    match (source.kind == mode::DIRECTORY, target.kind == mode::DIRECTORY) {
        (true, false) => return Err(Errno::ENOTDIR.into()),
        (false, true) => return Err(Errno::EISDIR.into()),
        _ => {}
    }
    let (lost, held) = if target.kind == mode::DIRECTORY {
        (drop_directory(state, op.new_parent, target.ino)?, false)
    } else {
        drop_link(state, target.ino, to(op), op.hold)?
    };
    relocate(state, source, from(op), to(op))?;
    state.set_entry(op.new_parent, &op.new_name, source);
    state.directory_changed(op.new_parent)?;
    state.remove_entry(op.parent, &op.name)?;
    tell(state, EventKind::Removed, to(op), target.ino);
    tell_moved(state, op, source);
    done(state, op, Some(lost), held)
}

fn exchange(state: &mut State<'_>, op: &Rename, source: Entry, target: Entry) -> OpResult<Mutated> {
    relocate(state, source, from(op), to(op))?;
    relocate(state, target, to(op), from(op))?;
    state.set_entry(op.new_parent, &op.new_name, source);
    state.set_entry(op.parent, &op.name, target);
    state.directory_changed(op.parent)?;
    state.directory_changed(op.new_parent)?;
    // Both names go before they come, so that who takes one event after the other into a copy of the directory has both in the end.
    tell(state, EventKind::MovedFrom, from(op), source.ino);
    tell(state, EventKind::MovedFrom, to(op), target.ino);
    tell(state, EventKind::MovedTo, to(op), source.ino);
    tell(state, EventKind::MovedTo, from(op), target.ino);
    done(state, op, None, false)
}

fn tell_moved(state: &mut State<'_>, op: &Rename, source: Entry) {
    tell(state, EventKind::MovedFrom, from(op), source.ino);
    tell(state, EventKind::MovedTo, to(op), source.ino);
}

const fn from(op: &Rename) -> Place<'_> {
    Place { parent: op.parent, name: &op.name }
}

const fn to(op: &Rename) -> Place<'_> {
    Place { parent: op.new_parent, name: &op.new_name }
}

/// The renamed inode itself: its time, and its place.
fn relocate(state: &mut State<'_>, entry: Entry, from: Place<'_>, to: Place<'_>) -> OpResult<()> {
    if entry.kind == mode::DIRECTORY {
        move_directory(state, entry.ino, from.parent, to.parent)?;
    } else {
        names::moved(state, entry.ino, from, to)?;
    }
    let now = state.now();
    state.inode_mut(entry.ino)?.attr.ctime = now;
    Ok(())
}

/// A directory changes its parent: ".." is a link to it.
fn move_directory(state: &mut State<'_>, ino: InodeId, from: InodeId, to: InodeId) -> OpResult<()> {
    if from == to {
        return Ok(());
    }
    state.inode_mut(ino)?.parent = Some(to);
    let old = state.inode_mut(from)?;
    old.attr.nlink = old.attr.nlink.saturating_sub(1);
    let new = state.inode_mut(to)?;
    if new.attr.nlink >= LINKS_MAX {
        return Err(Errno::EMLINK.into());
    }
    new.attr.nlink += 1;
    Ok(())
}

/// EINVAL if `entry` is a directory at or above `below`.
fn refuse_loop(state: &mut State<'_>, entry: Entry, below: InodeId) -> OpResult<()> {
    if entry.kind != mode::DIRECTORY {
        return Ok(());
    }
    let mut at = below;
    for _ in 0..DEPTH_MAX {
        if at == entry.ino {
            return Err(Errno::EINVAL.into());
        }
        if at == InodeId::ROOT {
            return Ok(());
        }
        at = state
            .directory(at)?
            .parent
            .ok_or_else(|| corrupt(format_args!("directory {at} has no parent")))?;
    }
    // Deeper than anybody goes; or a loop, which `check` finds. Never an error of the store: it would stop every master.
    Err(Errno::ELOOP.into())
}

fn done(state: &mut State<'_>, op: &Rename, lost: Option<Attr>, held: bool) -> OpResult<Mutated> {
    Ok(Mutated {
        attr: lost,
        made: false,
        held,
        parent: Some(state.attr(op.parent)?),
        new_parent: if op.new_parent == op.parent { None } else { Some(state.attr(op.new_parent)?) },
    })
}

#[cfg(test)]
mod tests;
