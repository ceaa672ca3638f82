//! An empty directory goes.

use master_model::{Errno, EventKind, Mutated, Rmdir, mode};

use super::{drop_directory, must_exist, tell};
use crate::error::OpResult;
use crate::names::Place;
use crate::state::State;

pub(super) fn rmdir(state: &mut State<'_>, op: &Rmdir) -> OpResult<Mutated> {
    let entry = must_exist(state, op.parent, &op.name)?;
    if entry.kind != mode::DIRECTORY {
        return Err(Errno::ENOTDIR.into());
    }
    let attr = drop_directory(state, op.parent, entry.ino)?;
    state.remove_entry(op.parent, &op.name)?;
    tell(state, EventKind::Removed, Place { parent: op.parent, name: &op.name }, entry.ino);
    Ok(Mutated { attr: Some(attr), parent: Some(state.attr(op.parent)?), ..Mutated::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use crate::testing::Tree;

    #[test]
    fn only_empty_directories_go() {
        let mut tree = Tree::new();
        let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap();
        tree.create(dir.ino, "f").unwrap();
        assert_eq!(tree.rmdir(InodeId::ROOT, "d").unwrap_err(), Errno::ENOTEMPTY);
        assert_eq!(tree.rmdir(dir.ino, "f").unwrap_err(), Errno::ENOTDIR);
        tree.unlink(dir.ino, "f").unwrap();
        let gone = tree.rmdir(InodeId::ROOT, "d").unwrap();
        assert_eq!((gone.attr.unwrap().nlink, gone.parent.unwrap().nlink), (0, 2));
        assert_eq!(tree.rmdir(InodeId::ROOT, "d").unwrap_err(), Errno::ENOENT);
        assert_eq!(tree.create(dir.ino, "x").unwrap_err(), Errno::ENOENT);
    }
}
