//! A file's fence: who opened the file under a lower one changes neither its length nor its data any more.
//!
//! The number only grows. The master refuses what comes to it (truncations, sizes); the chunkservers refuse data once the client
//! that raises has told them, which it does before its caller is answered (`fs/docs/fences.md`).

use coord_types::Fence;
use master_model::{Attr, Errno, EventKind, Mutated, RaiseFence};

use crate::error::OpResult;
use crate::events;
use crate::state::State;

/// Raising to the fence it has changes nothing and succeeds: a raise that broke off is done again.
pub(super) fn raise(state: &mut State<'_>, op: &RaiseFence) -> OpResult<Mutated> {
    let attr = &state.inode(op.ino)?.attr;
    if attr.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    if !attr.is_regular() {
        return Err(Errno::EINVAL.into());
    }
    check(attr, op.fence)?;
    if op.fence > attr.fence {
        let now = state.now();
        let attr = &mut state.inode_mut(op.ino)?.attr;
        attr.fence = op.fence;
        attr.ctime = now;
        events::inode_changed(state, op.ino, EventKind::Attributes)?;
    }
    Ok(Mutated { attr: Some(state.attr(op.ino)?), ..Mutated::default() })
}

/// ESTALE for who opened the file under a lower fence than it has.
pub(super) fn check(attr: &Attr, opened: Fence) -> OpResult<()> {
    if opened < attr.fence { Err(Errno::ESTALE.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use coord_types::{Fence, InodeId};
    use master_model::{Attr, Changes, CommitWrite, Errno, Mutation, RaiseFence, mode};

    use crate::testing::Tree;

    fn raise(tree: &mut Tree, ino: InodeId, fence: u64) -> Result<Attr, Errno> {
        let raise = RaiseFence { ino, fence: Fence(fence) };
        tree.mutate(Mutation::RaiseFence(raise)).map(|mutated| mutated.attr.unwrap())
    }

    fn commit(file: &Attr, size: u64, fence: Option<u64>) -> Mutation {
        Mutation::CommitWrite(CommitWrite {
            ino: file.ino,
            data: file.data,
            size_at_least_bytes: size,
            allocated_delta_bytes: 0,
            garbage_cleared: false,
            attributes: Some(Changes { fence: fence.map(Fence), ..Changes::default() }),
        })
    }

    #[test]
    fn only_grows_and_the_same_again_changes_nothing() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        assert_eq!(file.fence, Fence::NONE);
        assert_eq!(raise(&mut tree, file.ino, 0).unwrap(), file);
        let raised = raise(&mut tree, file.ino, 7).unwrap();
        assert_eq!((raised.fence, raised.ctime), (Fence(7), tree.now()));
        assert!(raised.change > file.change);
        assert_eq!(raise(&mut tree, file.ino, 7).unwrap(), raised);
        assert_eq!(raise(&mut tree, file.ino, 6).unwrap_err(), Errno::ESTALE);
        assert_eq!(tree.get(file.ino).unwrap(), raised);
        assert_eq!(raise(&mut tree, file.ino, u64::MAX).unwrap().fence, Fence(u64::MAX));
    }

    #[test]
    fn files_alone_have_one() {
        let mut tree = Tree::new();
        let fifo = tree.mknod(InodeId::ROOT, "p", mode::FIFO, 0).unwrap().attr.unwrap().ino;
        assert_eq!(raise(&mut tree, InodeId::ROOT, 1).unwrap_err(), Errno::EISDIR);
        assert_eq!(raise(&mut tree, fifo, 1).unwrap_err(), Errno::EINVAL);
        assert_eq!(raise(&mut tree, InodeId(99), 1).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn who_opened_it_before_changes_no_length_any_more() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        tree.mutate(commit(&file, 100, None)).unwrap();
        raise(&mut tree, file.ino, 7).unwrap();
        let before = tree.get(file.ino).unwrap();
        let size = |size, fence: Option<u64>| Changes {
            size_bytes: Some(size),
            fence: fence.map(Fence),
            ..Changes::default()
        };
        for old in [0, 6] {
            assert_eq!(tree.setattr(file.ino, size(0, Some(old))).unwrap_err(), Errno::ESTALE);
            assert_eq!(tree.mutate(commit(&file, 200, Some(old))).unwrap_err(), Errno::ESTALE);
        }
        assert_eq!(tree.mutate(commit(&file, 200, None)).unwrap_err(), Errno::ESTALE, "opened before fences");
        assert_eq!(tree.get(file.ino).unwrap(), before, "not even a time");
        assert_eq!(tree.mutate(commit(&file, 200, Some(7))).unwrap().attr.unwrap().size_bytes, 200);
        assert_eq!(tree.setattr(file.ino, size(50, Some(7))).unwrap().attr.unwrap().size_bytes, 50);
        assert_eq!(tree.setattr(file.ino, size(40, None)).unwrap().attr.unwrap().size_bytes, 40, "by name");
        tree.chmod(file.ino, 0o600).unwrap();
    }

    #[test]
    fn stays_with_the_file_through_renames_and_truncations() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        raise(&mut tree, file.ino, 7).unwrap();
        let fresh = tree.truncate(file.ino, 0).unwrap().attr.unwrap();
        assert_ne!(fresh.data, file.data);
        tree.rename(InodeId::ROOT, "f", InodeId::ROOT, "g").unwrap();
        assert_eq!(tree.get(file.ino).unwrap().fence, Fence(7));
        let other = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        assert_eq!(other.fence, Fence::NONE, "another file of that name has its own");
    }
}
