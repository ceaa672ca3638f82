//! A new directory.

use master_model::{Mkdir, Mutated, mode};

use super::{NewNode, make_node, must_be_free};
use crate::error::OpResult;
use crate::state::State;

pub(super) fn mkdir(state: &mut State<'_>, op: &Mkdir) -> OpResult<Mutated> {
    must_be_free(state, op.parent, &op.name)?;
    make_node(
        state,
        &NewNode {
            parent: op.parent,
            name: &op.name,
            mode: mode::DIRECTORY | op.mode & mode::PERMISSIONS,
            uid: op.uid,
            gid: op.gid,
            rdev: 0,
            target: None,
        },
    )
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use crate::ops::LINKS_MAX;
    use crate::testing::Tree;

    #[test]
    fn counts_in_the_parents_links() {
        let mut tree = Tree::new();
        let made = tree.mkdir(InodeId::ROOT, "d").unwrap();
        assert_eq!((made.attr.unwrap().nlink, made.parent.unwrap().nlink), (2, 3));
        assert_eq!(tree.mkdir(InodeId::ROOT, "d").unwrap_err(), Errno::EEXIST);
    }

    #[test]
    fn links_have_an_end() {
        let mut tree = Tree::new();
        tree.edit(InodeId::ROOT, |root| root.attr.nlink = LINKS_MAX - 1);
        tree.mkdir(InodeId::ROOT, "last").unwrap();
        assert_eq!(tree.mkdir(InodeId::ROOT, "one more").unwrap_err(), Errno::EMLINK);
        tree.create(InodeId::ROOT, "a file is no link").unwrap();
    }
}
