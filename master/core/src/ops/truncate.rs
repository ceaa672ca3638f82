//! A file's size is set.
//!
//! To nothing: a fresh generation of data, so that no byte of the old one can reappear (I8); the old one is freed in the
//! background. Shorter: chunks still hold bytes up to the old size, which `garbage_end` remembers until a client has punched
//! them; whoever makes the file longer must punch [size, garbage end) first. So a crash of the client at any point
//! leaves at worst a range that is still to be punched, never one that nobody knows of.

use coord_types::{DataId, InodeId};
use master_model::{Attr, Errno};

use crate::error::OpResult;
use crate::state::State;

pub(super) fn truncate(state: &mut State<'_>, ino: InodeId, size_bytes: u64) -> OpResult<()> {
    let now = state.now();
    let attr = &state.inode(ino)?.attr;
    if attr.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    let Some(layout) = attr.layout.clone() else { return Err(Errno::EINVAL.into()) };
    if size_bytes > layout.file_size_max_bytes() {
        return Err(Errno::EFBIG.into());
    }
    if size_bytes == 0 {
        // Also if the size is 0 already: a writer that died may have left chunks without telling of them.
        let (data, allocated_bytes) = (attr.data, attr.allocated_bytes);
        let fresh = DataId(state.next_id()?);
        let (fresh, fresh_layout) = state.new_data(fresh)?;
        state.delete_data(data, &layout)?;
        let counters = state.counters_mut()?;
        counters.allocated_bytes = counters.allocated_bytes.saturating_sub(allocated_bytes);
        let attr = &mut state.inode_mut(ino)?.attr;
        attr.data = fresh;
        attr.layout = Some(fresh_layout);
        attr.allocated_bytes = 0;
        attr.garbage_end_bytes = 0;
        attr.size_bytes = 0;
        attr.mtime = now;
    } else {
        let attr = &mut state.inode_mut(ino)?.attr;
        if size_bytes < attr.size_bytes {
            attr.garbage_end_bytes = attr.garbage_end_bytes.max(attr.size_bytes);
        }
        attr.size_bytes = size_bytes;
        attr.mtime = now;
        settle_garbage(attr);
    }
    Ok(())
}

/// Garbage lies beyond the size, or there is none.
pub(super) fn settle_garbage(attr: &mut Attr) {
    if attr.garbage_end_bytes <= attr.size_bytes {
        attr.garbage_end_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Changes, Errno, mode};

    use crate::testing::Tree;

    #[test]
    fn to_nothing_gives_a_fresh_generation() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        tree.commit(file.ino, file.data, 100, 4096).unwrap();
        let attr = tree.truncate(file.ino, 0).unwrap().attr.unwrap();
        assert_ne!(attr.data, file.data);
        assert_eq!((attr.size_bytes, attr.allocated_bytes, attr.garbage_end_bytes), (0, 0, 0));
        assert_eq!((attr.mtime, attr.ctime), (tree.now(), tree.now()));
        assert_eq!(tree.deletions(), [file.data]);
        // Once more: chunks may be there that nobody told of.
        assert_ne!(tree.truncate(file.ino, 0).unwrap().attr.unwrap().data, attr.data);
    }

    #[test]
    fn shorter_remembers_the_garbage_until_it_is_covered() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        tree.commit(file.ino, file.data, 1000, 4096).unwrap();
        let end = |attr: master_model::Mutated| {
            let attr = attr.attr.unwrap();
            (attr.size_bytes, attr.garbage_end_bytes)
        };
        assert_eq!(end(tree.truncate(file.ino, 600).unwrap()), (600, 1000));
        assert_eq!(end(tree.truncate(file.ino, 100).unwrap()), (100, 1000));
        assert_eq!(end(tree.truncate(file.ino, 700).unwrap()), (700, 1000));
        assert_eq!(end(tree.truncate(file.ino, 1000).unwrap()), (1000, 0));
        assert!(tree.deletions().is_empty());
    }

    #[test]
    fn refuses_what_has_no_size_and_sizes_too_large() {
        let mut tree = Tree::new();
        let dir = tree.mkdir(InodeId::ROOT, "d").unwrap().attr.unwrap().ino;
        let fifo = tree.mknod(InodeId::ROOT, "p", mode::FIFO, 0).unwrap().attr.unwrap().ino;
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        assert_eq!(tree.truncate(dir, 0).unwrap_err(), Errno::EISDIR);
        assert_eq!(tree.truncate(fifo, 0).unwrap_err(), Errno::EINVAL);
        let max = file.layout.unwrap().file_size_max_bytes();
        assert_eq!(tree.truncate(file.ino, max + 1).unwrap_err(), Errno::EFBIG);
        assert_eq!(tree.truncate(file.ino, max).unwrap().attr.unwrap().size_bytes, max);
    }

    #[test]
    fn a_truncation_takes_other_changes_along() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        tree.chmod(file, 0o6755).unwrap();
        let changes = Changes { size_bytes: Some(5), kill_privileges: true, ..Changes::default() };
        let attr = tree.setattr(file, changes).unwrap().attr.unwrap();
        assert_eq!((attr.size_bytes, attr.mode & 0o7777), (5, 0o755));
    }
}
