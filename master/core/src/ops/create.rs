//! A regular file, new or already there: open(2) with O_CREAT.

use master_model::{Create, Errno, Mutated, mode};

use super::{NewNode, make_node};
use crate::error::OpResult;
use crate::state::State;

pub(super) fn create(state: &mut State<'_>, op: &Create) -> OpResult<Mutated> {
    state.directory(op.parent)?;
    let Some(entry) = state.entry(op.parent, &op.name)? else {
        return make_node(
            state,
            &NewNode {
                parent: op.parent,
                name: &op.name,
                mode: mode::REGULAR | op.mode & mode::PERMISSIONS,
                uid: op.uid,
                gid: op.gid,
                rdev: 0,
                target: None,
            },
        );
    };
    if op.exclusive {
        return Err(Errno::EEXIST.into());
    }
    match entry.kind {
        mode::REGULAR => Ok(Mutated {
            attr: Some(state.attr(entry.ino)?),
            parent: Some(state.attr(op.parent)?),
            ..Mutated::default()
        }),
        mode::DIRECTORY => Err(Errno::EISDIR.into()),
        // A link or a device came to be since the kernel looked: told that its look is stale, it looks again.
        _ => Err(Errno::ESTALE.into()),
    }
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, mode};

    use crate::testing::{Tree, name};

    #[test]
    fn makes_a_file_with_times_and_a_layout() {
        let mut tree = Tree::new();
        let before = tree.getattr(InodeId::ROOT);
        let made = tree.create(InodeId::ROOT, "f").unwrap();
        let attr = made.attr.unwrap();
        assert!(made.made);
        assert_eq!((attr.mode, attr.nlink, attr.size_bytes), (mode::REGULAR | 0o644, 1, 0));
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (tree.now(), tree.now(), tree.now()));
        assert_eq!(attr.layout.as_ref().unwrap().groups().len(), 4);
        assert_eq!(attr.data.0, attr.ino.0);
        let parent = made.parent.unwrap();
        assert_eq!((parent.mtime, parent.ctime, parent.size_bytes), (tree.now(), tree.now(), 1));
        assert!(
            parent.change > before.change && parent.nlink == before.nlink && parent.atime == before.atime
        );
        assert_eq!(tree.lookup(InodeId::ROOT, "f").unwrap(), attr);
    }

    #[test]
    fn an_existing_name() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap();
        tree.mkdir(InodeId::ROOT, "d").unwrap();
        tree.symlink(InodeId::ROOT, "l", "f").unwrap();
        assert_eq!(tree.create_exclusive(InodeId::ROOT, "f").unwrap_err(), Errno::EEXIST);
        let again = tree.create(InodeId::ROOT, "f").unwrap();
        assert!(!again.made);
        assert_eq!(again.attr.unwrap(), file);
        assert_eq!(tree.create(InodeId::ROOT, "d").unwrap_err(), Errno::EISDIR);
        assert_eq!(tree.create(InodeId::ROOT, "l").unwrap_err(), Errno::ESTALE);
        assert_eq!(tree.create(file.ino, "x").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(tree.create(InodeId(999), "x").unwrap_err(), Errno::ENOENT);
        assert_eq!(name("f").as_slice(), b"f");
    }

    #[test]
    fn a_set_group_id_directory_gives_its_group() {
        let mut tree = Tree::new();
        let shared = tree.mkdir(InodeId::ROOT, "shared").unwrap().attr.unwrap().ino;
        tree.chown(shared, None, Some(77)).unwrap();
        tree.chmod(shared, 0o2775).unwrap();
        let file = tree.create(shared, "f").unwrap().attr.unwrap();
        assert_eq!((file.gid, file.mode & mode::SGID), (77, 0));
        let inner = tree.mkdir(shared, "d").unwrap().attr.unwrap();
        assert_eq!((inner.gid, inner.mode & mode::SGID), (77, mode::SGID));
    }

    #[test]
    fn waits_for_the_first_group() {
        let mut tree = Tree::without_groups();
        assert_eq!(tree.create(InodeId::ROOT, "f").unwrap_err(), Errno::EAGAIN);
        tree.mkdir(InodeId::ROOT, "d").unwrap();
        assert!(tree.lookup(InodeId::ROOT, "f").is_err());
    }
}
