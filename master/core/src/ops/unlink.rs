//! A name of a file goes; with the last one the file, unless it is held open.

use master_model::{Errno, EventKind, Mutated, Unlink, mode};

use super::{drop_link, must_exist, tell};
use crate::error::OpResult;
use crate::names::Place;
use crate::state::State;

pub(super) fn unlink(state: &mut State<'_>, op: &Unlink) -> OpResult<Mutated> {
    let entry = must_exist(state, op.parent, &op.name)?;
    if entry.kind == mode::DIRECTORY {
        return Err(Errno::EISDIR.into());
    }
    state.remove_entry(op.parent, &op.name)?;
    let place = Place { parent: op.parent, name: &op.name };
    let (attr, held) = drop_link(state, entry.ino, place, op.hold)?;
    tell(state, EventKind::Removed, place, entry.ino);
    Ok(Mutated { attr: Some(attr), held, parent: Some(state.attr(op.parent)?), ..Mutated::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use crate::testing::Tree;

    #[test]
    fn the_last_name_takes_the_data_along() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "a").unwrap().attr.unwrap();
        tree.link(file.ino, InodeId::ROOT, "b").unwrap();
        let first = tree.unlink(InodeId::ROOT, "a").unwrap();
        assert_eq!(first.attr.as_ref().unwrap().nlink, 1);
        assert_eq!(first.attr.unwrap().ctime, tree.now());
        assert!(tree.deletions().is_empty());
        let second = tree.unlink(InodeId::ROOT, "b").unwrap();
        assert_eq!((second.attr.unwrap().nlink, second.held), (0, false));
        assert_eq!(second.parent.unwrap().mtime, tree.now());
        assert_eq!(tree.deletions(), [file.data]);
        assert_eq!(tree.get(file.ino).unwrap_err(), Errno::ENOENT);
        assert_eq!(tree.unlink(InodeId::ROOT, "b").unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn directories_are_not_unlinked() {
        let mut tree = Tree::new();
        tree.mkdir(InodeId::ROOT, "d").unwrap();
        assert_eq!(tree.unlink(InodeId::ROOT, "d").unwrap_err(), Errno::EISDIR);
    }

    #[test]
    fn an_open_file_stays_until_it_is_forgotten() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "a").unwrap().attr.unwrap();
        let held = tree.unlink_held(InodeId::ROOT, "a", file.ino).unwrap();
        assert!(held.held);
        assert_eq!(tree.get(file.ino).unwrap().nlink, 0);
        assert!(tree.deletions().is_empty());
        tree.truncate(file.ino, 10).unwrap();
        tree.forget(&[file.ino]).unwrap();
        assert_eq!(tree.get(file.ino).unwrap_err(), Errno::ENOENT);
        assert_eq!(tree.deletions(), [file.data]);
    }

    #[test]
    fn holding_another_inode_means_nothing() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "a").unwrap().attr.unwrap();
        assert!(!tree.unlink_held(InodeId::ROOT, "a", InodeId(file.ino.0 + 1)).unwrap().held);
        assert_eq!(tree.get(file.ino).unwrap_err(), Errno::ENOENT);
    }
}
