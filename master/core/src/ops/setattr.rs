//! Changes of attributes: chmod, chown, utimensat, truncate.

use master_model::{Attr, Changes, EventKind, Mutated, SetAttr, Time, TimeSet, mode};

use super::{fence, truncate};
use crate::error::OpResult;
use crate::events;
use crate::state::State;

pub(super) fn setattr(state: &mut State<'_>, op: &SetAttr) -> OpResult<Mutated> {
    if let Some(opened) = op.changes.fence {
        fence::check(&state.inode(op.ino)?.attr, opened)?;
    }
    if let Some(size_bytes) = op.changes.size_bytes {
        truncate::truncate(state, op.ino, size_bytes)?;
    }
    let kind = if op.changes.size_bytes.is_some() { EventKind::Written } else { EventKind::Attributes };
    events::inode_changed(state, op.ino, kind)?;
    let now = state.now();
    let inode = state.inode_mut(op.ino)?;
    apply(&mut inode.attr, &op.changes, now);
    Ok(Mutated { attr: Some(inode.attr.clone()), ..Mutated::default() })
}

/// All but the size. The change time moves even if nothing else does, as on other Linux file systems.
pub(super) fn apply(attr: &mut Attr, changes: &Changes, now: Time) {
    let changes_owner = changes.uid.is_some() || changes.gid.is_some();
    if let Some(permissions) = changes.mode {
        attr.mode = attr.kind() | permissions & mode::PERMISSIONS;
    } else if changes_owner || changes.kill_privileges {
        kill_privileges(attr);
    }
    attr.uid = changes.uid.unwrap_or(attr.uid);
    attr.gid = changes.gid.unwrap_or(attr.gid);
    let time = |set| match set {
        TimeSet::Now => now,
        TimeSet::At(time) => time,
    };
    attr.atime = changes.atime.map_or(attr.atime, time);
    attr.mtime = changes.mtime.map_or(attr.mtime, time);
    attr.ctime = now;
}

/// What a change of owner, a write or a truncation takes from a program: set-user-id, and set-group-id where it
/// means that (without execution by the group it once meant mandatory locking, and stays).
fn kill_privileges(attr: &mut Attr) {
    if attr.is_directory() {
        return;
    }
    attr.mode &= !mode::SUID;
    if attr.mode & mode::GROUP_EXEC != 0 {
        attr.mode &= !mode::SGID;
    }
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Changes, Errno, Time, TimeSet};

    use crate::testing::Tree;

    #[test]
    fn chmod_keeps_the_type_and_moves_the_change_time() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        let changed = tree.chmod(file.ino, 0o4755).unwrap().attr.unwrap();
        assert_eq!((changed.mode & 0o7777, changed.kind()), (0o4755, file.kind()));
        assert_eq!((changed.ctime, changed.mtime), (tree.now(), file.mtime));
        assert!(changed.change > file.change);
        assert_eq!(tree.chmod(InodeId(99), 0).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn a_change_of_owner_takes_privileges() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        let mut after = |mode, changes| {
            tree.chmod(file, mode).unwrap();
            tree.setattr(file, changes).unwrap().attr.unwrap().mode & 0o7777
        };
        let owner = Changes { uid: Some(5), ..Changes::default() };
        assert_eq!(after(0o6555, owner), 0o555);
        assert_eq!(after(0o6544, owner), 0o2544);
        assert_eq!(after(0o6555, Changes { mode: Some(0o6555), ..owner }), 0o6555);
        assert_eq!(after(0o6555, Changes { kill_privileges: true, ..Changes::default() }), 0o555);
        assert_eq!(after(0o6555, Changes::default()), 0o6555);
        let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap().ino;
        tree.chmod(dir, 0o2775).unwrap();
        assert_eq!(tree.chown(dir, Some(1), Some(2)).unwrap().attr.unwrap().mode & 0o7777, 0o2775);
    }

    #[test]
    fn times_are_set_or_are_now() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        let past = Time::new(-86_400, 5).unwrap();
        let changes =
            Changes { atime: Some(TimeSet::At(past)), mtime: Some(TimeSet::Now), ..Changes::default() };
        let attr = tree.setattr(file, changes).unwrap().attr.unwrap();
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (past, tree.now(), tree.now()));
        assert_eq!(tree.get(file).unwrap(), attr);
    }
}
