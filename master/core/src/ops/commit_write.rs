//! What a writer tells after its chunks are durable: the file's size, its space, and held-back attributes.

use coord_types::Fence;
use master_model::{Changes, CommitWrite, Errno, EventKind, Mutated, TimeSet};

use super::{fence, setattr, truncate};
use crate::error::OpResult;
use crate::events;
use crate::state::State;

pub(super) fn commit_write(state: &mut State<'_>, op: &CommitWrite) -> OpResult<Mutated> {
    let now = state.now();
    let attr = &state.inode(op.ino)?.attr;
    let Some(layout) = &attr.layout else { return Err(Errno::EINVAL.into()) };
    if op.size_at_least_bytes > layout.file_size_max_bytes() {
        return Err(Errno::EFBIG.into());
    }
    let mut changes = op.attributes.unwrap_or_default();
    fence::check(attr, changes.fence.take().unwrap_or(Fence::NONE))?;
    let current = attr.data == op.data;
    if current {
        let allocated_before = attr.allocated_bytes;
        let allocated_bytes = allocated_before.saturating_add_signed(op.allocated_delta_bytes);
        let counters = state.counters_mut()?;
        counters.allocated_bytes =
            counters.allocated_bytes.saturating_sub(allocated_before).saturating_add(allocated_bytes);
        let attr = &mut state.inode_mut(op.ino)?.attr;
        attr.allocated_bytes = allocated_bytes;
        attr.size_bytes = attr.size_bytes.max(op.size_at_least_bytes);
        if op.garbage_cleared {
            attr.garbage_end_bytes = 0;
        }
        truncate::settle_garbage(attr);
        // It was written to, unless the times were set after that.
        changes.mtime = changes.mtime.or(Some(TimeSet::Now));
    }
    // With another generation the file was truncated meanwhile, and what was written is gone with the old one; a chmod
    // held back is not.
    if current || changes != Changes::default() {
        let kind = if current { EventKind::Written } else { EventKind::Attributes };
        events::inode_changed(state, op.ino, kind)?;
        setattr::apply(&mut state.inode_mut(op.ino)?.attr, &changes, now);
    }
    Ok(Mutated { attr: Some(state.attr(op.ino)?), ..Mutated::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::{DataId, InodeId};
    use master_model::{Changes, CommitWrite, Errno, Mutation, Time, TimeSet};

    use crate::testing::Tree;

    #[test]
    fn grows_but_never_shrinks() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        let attr = tree.commit(file.ino, file.data, 5000, 8192).unwrap().attr.unwrap();
        assert_eq!(
            (attr.size_bytes, attr.allocated_bytes, attr.mtime, attr.ctime),
            (5000, 8192, tree.now(), tree.now())
        );
        let attr = tree.commit(file.ino, file.data, 100, -4096).unwrap().attr.unwrap();
        assert_eq!((attr.size_bytes, attr.allocated_bytes), (5000, 4096));
        let attr = tree.commit(file.ino, file.data, 0, -10_000).unwrap().attr.unwrap();
        assert_eq!(attr.allocated_bytes, 0);
        let max = file.layout.unwrap().file_size_max_bytes();
        assert_eq!(tree.commit(file.ino, file.data, max + 1, 0).unwrap_err(), Errno::EFBIG);
    }

    #[test]
    fn another_generation_changes_only_held_attributes() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        let before = tree.truncate(file.ino, 0).unwrap().attr.unwrap();
        assert_eq!(tree.commit(file.ino, file.data, 5000, 8192).unwrap().attr.unwrap(), before);
        let held = Changes { mode: Some(0o600), ..Changes::default() };
        let attr = tree.mutate(commit(file.ino, file.data, Some(held))).unwrap().attr.unwrap();
        assert_eq!((attr.mode & 0o7777, attr.size_bytes, attr.mtime), (0o600, 0, before.mtime));
    }

    #[test]
    fn held_times_win_over_the_write() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        let past = Time::new(5, 0).unwrap();
        let held = Changes { mtime: Some(TimeSet::At(past)), kill_privileges: true, ..Changes::default() };
        tree.chmod(file.ino, 0o6755).unwrap();
        let attr = tree.mutate(commit(file.ino, file.data, Some(held))).unwrap().attr.unwrap();
        assert_eq!((attr.mtime, attr.ctime, attr.mode & 0o7777), (past, tree.now(), 0o755));
    }

    #[test]
    fn cleared_garbage_is_forgotten() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        tree.commit(file.ino, file.data, 1000, 0).unwrap();
        tree.truncate(file.ino, 10).unwrap();
        let cleared = |garbage_cleared| {
            Mutation::CommitWrite(CommitWrite {
                ino: file.ino,
                data: file.data,
                size_at_least_bytes: 0,
                allocated_delta_bytes: 0,
                garbage_cleared,
                attributes: None,
            })
        };
        assert_eq!(tree.mutate(cleared(false)).unwrap().attr.unwrap().garbage_end_bytes, 1000);
        assert_eq!(tree.mutate(cleared(true)).unwrap().attr.unwrap().garbage_end_bytes, 0);
    }

    fn commit(ino: InodeId, data: DataId, attributes: Option<Changes>) -> Mutation {
        Mutation::CommitWrite(CommitWrite {
            ino,
            data,
            size_at_least_bytes: 0,
            allocated_delta_bytes: 0,
            garbage_cleared: false,
            attributes,
        })
    }
}
