//! What a name means.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Answer, Errno, Name};

use crate::error::{OpResult, corrupt};
use crate::state::{read_entry, read_inode};

pub(super) fn lookup(read: &dyn Read, parent: InodeId, name: &Name) -> OpResult<Answer> {
    let directory = read_inode(read, parent)?.ok_or(Errno::ENOENT)?;
    if !directory.attr.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    let entry = read_entry(read, parent, name.as_slice())?.ok_or(Errno::ENOENT)?;
    let inode = read_inode(read, entry.ino)?
        .ok_or_else(|| corrupt(format_args!("{name} in directory {parent} names no inode")))?;
    Ok(Answer { attr: Some(inode.attr), parent: Some(directory.attr), ..Answer::default() })
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, Query};

    use crate::testing::{Tree, name};

    #[test]
    fn gives_the_inode_and_its_parent() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap();
        let answer = tree.query(&Query::Lookup { parent: InodeId::ROOT, name: name("f") }).unwrap();
        assert_eq!((answer.attr.clone(), answer.parent), (file.attr, file.parent));
        assert_eq!(tree.lookup(InodeId::ROOT, "g").unwrap_err(), Errno::ENOENT);
        assert_eq!(tree.lookup(answer.attr.unwrap().ino, "g").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(tree.lookup(InodeId(99), "g").unwrap_err(), Errno::ENOENT);
    }
}
