//! A fifo, socket, device or regular file.

use master_model::{Mknod, Mutated, mode};

use super::{NewNode, make_node, must_be_free};
use crate::error::OpResult;
use crate::state::State;

pub(super) fn mknod(state: &mut State<'_>, op: &Mknod) -> OpResult<Mutated> {
    must_be_free(state, op.parent, &op.name)?;
    let has_number = matches!(op.mode & mode::TYPE, mode::CHARACTER | mode::BLOCK);
    make_node(
        state,
        &NewNode {
            parent: op.parent,
            name: &op.name,
            mode: op.mode,
            uid: op.uid,
            gid: op.gid,
            rdev: if has_number { op.rdev } else { 0 },
            target: None,
        },
    )
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, mode};

    use crate::testing::Tree;

    #[test]
    fn only_devices_have_numbers_and_only_files_have_data() {
        let mut tree = Tree::new();
        for (name, kind, rdev, has_data) in [
            ("c", mode::CHARACTER, 0x103, false),
            ("b", mode::BLOCK, 0x103, false),
            ("p", mode::FIFO, 0, false),
            ("s", mode::SOCKET, 0, false),
            ("r", mode::REGULAR, 0, true),
        ] {
            let attr = tree.mknod(InodeId::ROOT, name, kind | 0o600, 0x103).unwrap().attr.unwrap();
            assert_eq!(
                (attr.mode, attr.rdev, attr.layout.is_some()),
                (kind | 0o600, rdev, has_data),
                "{name}"
            );
        }
        assert_eq!(tree.mknod(InodeId::ROOT, "p", mode::FIFO, 0).unwrap_err(), Errno::EEXIST);
    }
}
