//! Symbolic links: made, and read.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Answer, Errno, Mutated, Symlink, mode};

use super::{NewNode, make_node, must_be_free};
use crate::error::OpResult;
use crate::state::{State, read_inode};

pub(super) fn symlink(state: &mut State<'_>, op: &Symlink) -> OpResult<Mutated> {
    must_be_free(state, op.parent, &op.name)?;
    make_node(
        state,
        &NewNode {
            parent: op.parent,
            name: &op.name,
            // Nobody looks at a link's permissions; Linux shows them so.
            mode: mode::SYMLINK | 0o777,
            uid: op.uid,
            gid: op.gid,
            rdev: 0,
            target: Some(op.target.as_slice()),
        },
    )
}

pub(super) fn readlink(read: &dyn Read, ino: InodeId) -> OpResult<Answer> {
    let inode = read_inode(read, ino)?.ok_or(Errno::ENOENT)?;
    let value = inode.target.ok_or(Errno::EINVAL)?;
    Ok(Answer { value, ..Answer::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, Query, mode};

    use crate::testing::Tree;

    #[test]
    fn keeps_its_target_and_shows_its_length() {
        let mut tree = Tree::new();
        let target = "x".repeat(4095);
        let link = tree.symlink(InodeId::ROOT, "l", &target).unwrap().attr.unwrap();
        assert_eq!((link.mode, link.size_bytes), (mode::SYMLINK | 0o777, 4095));
        assert_eq!(tree.query(&Query::ReadLink(link.ino)).unwrap().value, target.as_bytes());
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        assert_eq!(tree.query(&Query::ReadLink(file.ino)).unwrap_err(), Errno::EINVAL);
        assert_eq!(tree.query(&Query::ReadLink(InodeId(99))).unwrap_err(), Errno::ENOENT);
        assert_eq!(tree.symlink(InodeId::ROOT, "l", "x").unwrap_err(), Errno::EEXIST);
    }
}
