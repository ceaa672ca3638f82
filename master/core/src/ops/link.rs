//! A further name for a file.

use master_model::{Errno, EventKind, Link, Mutated};

use super::{LINKS_MAX, must_be_free, tell};
use crate::error::OpResult;
use crate::names::{self, Place};
use crate::state::{Entry, State};

pub(super) fn link(state: &mut State<'_>, op: &Link) -> OpResult<Mutated> {
    let attr = &state.inode(op.ino)?.attr;
    if attr.is_directory() {
        return Err(Errno::EPERM.into());
    }
    if attr.nlink == 0 {
        // Unlinked and only held open: Linux does not let such a file come back.
        return Err(Errno::ENOENT.into());
    }
    let (kind, nlink) = (attr.kind(), attr.nlink);
    must_be_free(state, op.parent, &op.name)?;
    if nlink >= LINKS_MAX {
        return Err(Errno::EMLINK.into());
    }
    let place = Place { parent: op.parent, name: &op.name };
    names::added(state, op.ino, place)?;
    let now = state.now();
    let inode = state.inode_mut(op.ino)?;
    inode.attr.nlink += 1;
    inode.attr.ctime = now;
    state.add_entry(op.parent, &op.name, Entry { ino: op.ino, kind })?;
    tell(state, EventKind::Created, place, op.ino);
    Ok(Mutated {
        attr: Some(state.attr(op.ino)?),
        parent: Some(state.attr(op.parent)?),
        ..Mutated::default()
    })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use crate::ops::LINKS_MAX;
    use crate::testing::Tree;

    #[test]
    fn two_names_one_inode() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "a").unwrap().attr.unwrap();
        let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap();
        let linked = tree.link(file.ino, dir.ino, "b").unwrap();
        let attr = linked.attr.unwrap();
        assert_eq!((attr.nlink, attr.ctime, attr.mtime), (2, tree.now(), file.mtime));
        assert_eq!(linked.parent.unwrap().mtime, tree.now());
        assert_eq!(tree.lookup(dir.ino, "b").unwrap(), attr);
        assert_eq!(tree.link(file.ino, dir.ino, "b").unwrap_err(), Errno::EEXIST);
        assert_eq!(tree.link(dir.ino, InodeId::ROOT, "e").unwrap_err(), Errno::EPERM);
        assert_eq!(tree.link(file.ino, file.ino, "e").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(tree.link(InodeId(99), dir.ino, "e").unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn neither_too_many_nor_from_the_dead() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "a").unwrap().attr.unwrap();
        tree.edit(file.ino, |inode| inode.attr.nlink = LINKS_MAX);
        assert_eq!(tree.link(file.ino, InodeId::ROOT, "b").unwrap_err(), Errno::EMLINK);
        tree.edit(file.ino, |inode| inode.attr.nlink = 1);
        assert!(tree.unlink_held(InodeId::ROOT, "a", file.ino).unwrap().held);
        assert_eq!(tree.link(file.ino, InodeId::ROOT, "b").unwrap_err(), Errno::ENOENT);
    }
}
