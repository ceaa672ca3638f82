//! A session no longer holds unlinked files open.

use coord_types::InodeId;
use master_model::{Errno, Mutated};

use crate::error::{OpError, OpResult};
use crate::keys;
use crate::state::State;

pub(super) fn forget(state: &mut State<'_>, inos: &[InodeId]) -> OpResult<Mutated> {
    for ino in inos {
        release(state, *ino)?;
    }
    Ok(Mutated::default())
}

/// Lets go of one orphan of the state's session. One it does not hold is left alone: the name may have come back
/// from elsewhere, or another session holds it.
pub(crate) fn release(state: &mut State<'_>, ino: InodeId) -> OpResult<()> {
    let key = keys::orphan(state.session(), ino);
    if state.read().get(keys::ORPHANS, &key)?.is_none() {
        return Ok(());
    }
    state.delete(keys::ORPHANS, key);
    match state.inode(ino).map(|inode| inode.attr.nlink) {
        Ok(0) => state.free_inode(ino).map(|_| ()),
        // Named twice in one request, the second time it is gone.
        Ok(_) | Err(OpError::Errno(Errno::ENOENT)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::Errno;

    use crate::testing::Tree;

    #[test]
    fn frees_only_what_the_session_held() {
        let mut tree = Tree::new();
        let kept = tree.create(InodeId::ROOT, "kept").unwrap().attr.unwrap().ino;
        let held = tree.create(InodeId::ROOT, "held").unwrap().attr.unwrap().ino;
        tree.unlink_held(InodeId::ROOT, "held", held).unwrap();
        tree.forget(&[kept, InodeId(999), held, held]).unwrap();
        assert!(tree.get(kept).is_ok());
        assert_eq!(tree.get(held).unwrap_err(), Errno::ENOENT);
        tree.check();
    }
}
