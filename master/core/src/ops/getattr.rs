//! What an inode is.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Answer, Errno};

use crate::error::OpResult;
use crate::state::read_inode;

pub(super) fn getattr(read: &dyn Read, ino: InodeId) -> OpResult<Answer> {
    let inode = read_inode(read, ino)?.ok_or(Errno::ENOENT)?;
    Ok(Answer { attr: Some(inode.attr), ..Answer::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, mode};

    use crate::testing::Tree;

    #[test]
    fn the_root_is_there_from_the_start() {
        let tree = Tree::new();
        let root = tree.getattr(InodeId::ROOT);
        assert_eq!((root.mode, root.nlink, root.size_bytes), (mode::DIRECTORY | 0o755, 2, 0));
        assert_eq!(tree.get(InodeId(2)).unwrap_err(), Errno::ENOENT);
    }
}
