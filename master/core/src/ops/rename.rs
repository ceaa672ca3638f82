//! rename(2) and renameat2(2): replacing, not replacing, exchanging.

use coord_types::InodeId;
use master_model::{Attr, Errno, Mutated, Rename, RenameFlags, mode};

use super::{LINKS_MAX, drop_directory, drop_link, must_exist};
use crate::error::{OpResult, corrupt};
use crate::inode::Detail;
use crate::state::{Entry, State};

/// Directories above one another. Deeper than any path that can be named in one call; a loop in the store ends here.
const DEPTH_MAX: u32 = 1 << 16;

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
            relocate(state, op, source)?;
            state.add_entry(op.new_parent, &op.new_name, source)?;
            state.remove_entry(op.parent, &op.name)?;
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
        drop_link(state, target.ino, op.hold)?
    };
    relocate(state, op, source)?;
    state.set_entry(op.new_parent, &op.new_name, source);
    state.directory_changed(op.new_parent)?;
    state.remove_entry(op.parent, &op.name)?;
    done(state, op, Some(lost), held)
}

fn exchange(state: &mut State<'_>, op: &Rename, source: Entry, target: Entry) -> OpResult<Mutated> {
    move_directory(state, source, op.parent, op.new_parent)?;
    move_directory(state, target, op.new_parent, op.parent)?;
    let now = state.now();
    for entry in [source, target] {
        state.inode_mut(entry.ino)?.attr.ctime = now;
    }
    state.set_entry(op.new_parent, &op.new_name, source);
    state.set_entry(op.parent, &op.name, target);
    state.directory_changed(op.parent)?;
    state.directory_changed(op.new_parent)?;
    done(state, op, None, false)
}

/// The renamed inode itself: its time, and a directory's place.
fn relocate(state: &mut State<'_>, op: &Rename, source: Entry) -> OpResult<()> {
    move_directory(state, source, op.parent, op.new_parent)?;
    let now = state.now();
    state.inode_mut(source.ino)?.attr.ctime = now;
    Ok(())
}

/// A directory changes its parent: ".." is a link to it.
fn move_directory(state: &mut State<'_>, entry: Entry, from: InodeId, to: InodeId) -> OpResult<()> {
    if entry.kind != mode::DIRECTORY || from == to {
        return Ok(());
    }
    state.inode_mut(entry.ino)?.detail = Detail::Directory { parent: to };
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
            .parent()
            .ok_or_else(|| corrupt(format_args!("directory {at} has no parent")))?;
    }
    Err(corrupt(format_args!("directory {below} is not below the root")))
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
