//! Extended attributes. The limits are Linux's; whether a caller may see "trusted." or write "security." is the kernel's
//! business.

use coord_kv::Read;
use coord_types::InodeId;
use master_model::{Answer, Errno, EventKind, Mutated, RemoveXattr, SetXattr, XattrFlags, XattrName};

use crate::error::{OpResult, corrupt};
use crate::events;
use crate::keys;
use crate::state::{State, read_inode};

/// The largest value (XATTR_SIZE_MAX).
const VALUE_MAX_BYTES: usize = 64 << 10;
/// All names of one inode together, each with its NUL (XATTR_LIST_MAX): listxattr(2) can give no more.
const NAMES_MAX_BYTES: usize = 64 << 10;
/// No inode has more: every name has a byte and a NUL.
const NAMES_MAX: usize = NAMES_MAX_BYTES / 2;
/// Access control lists live here. Storing them without acting on them would be a lie about who may read a file.
const SYSTEM: &[u8] = b"system.";
/// Not stored here but kept with the inode: there is an operation for it.
const FENCE: &[u8] = b"user.pangu.fence";

pub(super) fn set(state: &mut State<'_>, op: &SetXattr) -> OpResult<Mutated> {
    let has_xattrs = state.inode(op.ino)?.attr.has_xattrs;
    if op.value.len() > VALUE_MAX_BYTES {
        return Err(Errno::E2BIG.into());
    }
    if op.name.as_slice().starts_with(SYSTEM) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if op.name.as_slice() == FENCE {
        return Err(Errno::EPERM.into());
    }
    let key = keys::xattr(op.ino, op.name.as_slice());
    let exists = has_xattrs && state.read().get(keys::XATTRS, &key)?.is_some();
    match (op.flags, exists) {
        (XattrFlags::Create, true) => return Err(Errno::EEXIST.into()),
        (XattrFlags::Replace, false) => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    if has_xattrs && !exists {
        let used: usize = names(state.read(), op.ino)?.iter().map(|name| name.len() + 1).sum();
        if used + op.name.as_slice().len() + 1 > NAMES_MAX_BYTES {
            return Err(Errno::ENOSPC.into());
        }
    }
    state.put(keys::XATTRS, key, op.value.to_vec());
    changed(state, op.ino, true)
}

pub(super) fn remove(state: &mut State<'_>, op: &RemoveXattr) -> OpResult<Mutated> {
    if op.name.as_slice() == FENCE {
        return Err(Errno::EPERM.into());
    }
    let has_xattrs = state.inode(op.ino)?.attr.has_xattrs;
    let key = keys::xattr(op.ino, op.name.as_slice());
    if !has_xattrs || state.read().get(keys::XATTRS, &key)?.is_none() {
        return Err(Errno::ENODATA.into());
    }
    let others = state.read().scan(keys::XATTRS, &keys::xattrs(op.ino), 2)?.len() > 1;
    state.delete(keys::XATTRS, key);
    changed(state, op.ino, others)
}

fn changed(state: &mut State<'_>, ino: InodeId, has_xattrs: bool) -> OpResult<Mutated> {
    events::inode_changed(state, ino, EventKind::Attributes)?;
    let now = state.now();
    let attr = &mut state.inode_mut(ino)?.attr;
    attr.has_xattrs = has_xattrs;
    attr.ctime = now;
    Ok(Mutated { attr: Some(attr.clone()), ..Mutated::default() })
}

pub(super) fn get(read: &dyn Read, ino: InodeId, name: &XattrName) -> OpResult<Answer> {
    let inode = read_inode(read, ino)?.ok_or(Errno::ENOENT)?;
    if !inode.attr.has_xattrs {
        return Err(Errno::ENODATA.into());
    }
    let value = read.get(keys::XATTRS, &keys::xattr(ino, name.as_slice()))?.ok_or(Errno::ENODATA)?;
    Ok(Answer { value: value.into(), ..Answer::default() })
}

pub(super) fn list(read: &dyn Read, ino: InodeId) -> OpResult<Answer> {
    let inode = read_inode(read, ino)?.ok_or(Errno::ENOENT)?;
    let names = if inode.attr.has_xattrs { names(read, ino)? } else { Vec::new() };
    Ok(Answer { names, ..Answer::default() })
}

fn names(read: &dyn Read, ino: InodeId) -> OpResult<Vec<bytes::Bytes>> {
    let pairs = read.scan(keys::XATTRS, &keys::xattrs(ino), NAMES_MAX)?;
    let name = |(key, _): (Vec<u8>, Vec<u8>)| {
        let (_, name) = keys::split_xattr(&key).ok_or_else(|| corrupt("the key of an extended attribute"))?;
        Ok(bytes::Bytes::copy_from_slice(name))
    };
    pairs.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use master_model::{Errno, Query, XattrFlags, XattrName};

    use crate::testing::Tree;

    fn value(tree: &Tree, ino: InodeId, name: &'static str) -> Result<Vec<u8>, Errno> {
        let name = XattrName::new(name).unwrap();
        tree.query(&Query::GetXattr { ino, name }).map(|answer| answer.value.to_vec())
    }

    #[test]
    fn set_get_list_remove() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        let (any, create, replace) = (XattrFlags::Any, XattrFlags::Create, XattrFlags::Replace);
        assert_eq!(value(&tree, file, "user.a"), Err(Errno::ENODATA));
        assert_eq!(tree.set_xattr(file, "user.a", b"1", replace).unwrap_err(), Errno::ENODATA);
        let attr = tree.set_xattr(file, "user.a", b"1", create).unwrap().attr.unwrap();
        assert!(attr.has_xattrs && attr.ctime == tree.now());
        assert_eq!(tree.set_xattr(file, "user.a", b"2", create).unwrap_err(), Errno::EEXIST);
        tree.set_xattr(file, "user.a", b"2", replace).unwrap();
        tree.set_xattr(file, "user.b", b"", any).unwrap();
        assert_eq!(value(&tree, file, "user.a"), Ok(b"2".to_vec()));
        assert_eq!(value(&tree, file, "user.b"), Ok(Vec::new()));
        assert_eq!(tree.query(&Query::ListXattr(file)).unwrap().names, ["user.a", "user.b"]);
        assert!(tree.remove_xattr(file, "user.a").unwrap().attr.unwrap().has_xattrs);
        assert_eq!(tree.remove_xattr(file, "user.a").unwrap_err(), Errno::ENODATA);
        assert!(!tree.remove_xattr(file, "user.b").unwrap().attr.unwrap().has_xattrs);
        assert_eq!(value(&tree, file, "user.b"), Err(Errno::ENODATA));
        assert_eq!(value(&tree, InodeId(99), "user.b"), Err(Errno::ENOENT));
        assert_eq!(tree.set_xattr(file, "user.pangu.fence", b"1", any).unwrap_err(), Errno::EPERM);
        assert_eq!(tree.remove_xattr(file, "user.pangu.fence").unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn they_go_with_the_inode() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        tree.set_xattr(file, "user.a", b"1", XattrFlags::Any).unwrap();
        tree.unlink(InodeId::ROOT, "f").unwrap();
        tree.check();
    }

    #[test]
    fn limits() {
        let mut tree = Tree::new();
        let file = tree.create(InodeId::ROOT, "f").unwrap().attr.unwrap().ino;
        let any = XattrFlags::Any;
        tree.set_xattr(file, "user.max", &vec![0; 65536], any).unwrap();
        assert_eq!(tree.set_xattr(file, "user.max", &vec![0; 65537], any).unwrap_err(), Errno::E2BIG);
        let acl = tree.set_xattr(file, "system.posix_acl_access", b"", any).unwrap_err();
        assert_eq!(acl, Errno::EOPNOTSUPP);
        let mut number = 0;
        let full = loop {
            match tree.set_xattr(file, &format!("user.{number:0>250}"), b"", any) {
                Ok(_) => number += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!((full, number), (Errno::ENOSPC, 255));
    }
}
