//! Mutations and their replies.

use coord_types::{DataId, Fence, InodeId};

use super::{Invalid, inode, number, optional_inode};
use crate::Errno;
use crate::proto;
use crate::proto::mutate_request::Op;
use crate::{
    Attr, CommitWrite, Create, Link, Mkdir, Mknod, Mutated, Mutation, Name, RaiseFence, RemoveXattr, Rename,
    RenameFlags, Rmdir, SetAttr, SetXattr, Symlink, SymlinkTarget, Unlink, XattrFlags, XattrName, mode,
};

fn name(field: &'static str, bytes: bytes::Bytes) -> Result<Name, Invalid> {
    Name::new(bytes).map_err(|source| Invalid::Name { field, source })
}

pub(super) fn xattr_name(bytes: bytes::Bytes) -> Result<XattrName, Invalid> {
    XattrName::new(bytes).map_err(|source| Invalid::Name { field: "attribute name", source })
}

impl TryFrom<Op> for Mutation {
    type Error = Invalid;

    fn try_from(op: Op) -> Result<Self, Invalid> {
        Ok(match op {
            Op::Create(op) => Self::Create(Create {
                parent: inode(op.parent),
                name: name("name", op.name)?,
                mode: op.mode,
                uid: op.uid,
                gid: op.gid,
                exclusive: op.exclusive,
            }),
            Op::Mkdir(op) => Self::Mkdir(Mkdir {
                parent: inode(op.parent),
                name: name("name", op.name)?,
                mode: op.mode,
                uid: op.uid,
                gid: op.gid,
            }),
            Op::Mknod(op) => Self::Mknod(mknod(op)?),
            Op::Symlink(op) => Self::Symlink(Symlink {
                parent: inode(op.parent),
                name: name("name", op.name)?,
                target: SymlinkTarget::new(op.target)
                    .map_err(|source| Invalid::Name { field: "target", source })?,
                uid: op.uid,
                gid: op.gid,
            }),
            Op::Link(op) => Self::Link(Link {
                ino: inode(op.ino),
                parent: inode(op.parent),
                name: name("name", op.name)?,
            }),
            Op::Unlink(op) => Self::Unlink(Unlink {
                parent: inode(op.parent),
                name: name("name", op.name)?,
                hold: optional_inode(op.hold),
            }),
            Op::Rmdir(op) => Self::Rmdir(Rmdir { parent: inode(op.parent), name: name("name", op.name)? }),
            Op::Rename(op) => Self::Rename(Rename {
                parent: inode(op.parent),
                name: name("name", op.name)?,
                new_parent: inode(op.new_parent),
                new_name: name("new name", op.new_name)?,
                flags: RenameFlags::from_bits(op.flags)?,
                hold: optional_inode(op.hold),
            }),
            Op::SetAttr(op) => Self::SetAttr(op.try_into()?),
            Op::CommitWrite(op) => Self::CommitWrite(commit_write(op)?),
            Op::SetXattr(op) => Self::SetXattr(SetXattr {
                ino: inode(op.ino),
                name: xattr_name(op.name)?,
                value: op.value,
                flags: XattrFlags::from_bits(op.flags)?,
            }),
            Op::RemoveXattr(op) => {
                Self::RemoveXattr(RemoveXattr { ino: inode(op.ino), name: xattr_name(op.name)? })
            }
            Op::RaiseFence(op) => Self::RaiseFence(RaiseFence { ino: inode(op.ino), fence: Fence(op.fence) }),
            Op::Forget(op) => Self::Forget(op.inos.into_iter().map(InodeId).collect()),
        })
    }
}

fn mknod(op: proto::Mknod) -> Result<Mknod, Invalid> {
    match op.mode & mode::TYPE {
        mode::FIFO | mode::SOCKET | mode::CHARACTER | mode::BLOCK | mode::REGULAR => Ok(Mknod {
            parent: inode(op.parent),
            name: name("name", op.name)?,
            mode: op.mode,
            uid: op.uid,
            gid: op.gid,
            rdev: op.rdev,
        }),
        _ => Err(Invalid::Mode(op.mode)),
    }
}

fn commit_write(op: proto::CommitWrite) -> Result<CommitWrite, Invalid> {
    let attributes = op.attributes.map(SetAttr::try_from).transpose()?.map(|set| set.changes);
    if attributes.is_some_and(|changes| changes.size_bytes.is_some()) {
        return Err(Invalid::HeldSize);
    }
    Ok(CommitWrite {
        ino: inode(op.ino),
        data: DataId(op.data),
        size_at_least_bytes: op.size_at_least_bytes,
        allocated_delta_bytes: op.allocated_delta_bytes,
        garbage_cleared: op.garbage_cleared,
        attributes,
    })
}

impl From<Mutation> for Op {
    fn from(mutation: Mutation) -> Self {
        match mutation {
            Mutation::Create(op) => Self::Create(proto::Create {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                mode: op.mode,
                uid: op.uid,
                gid: op.gid,
                exclusive: op.exclusive,
            }),
            Mutation::Mkdir(op) => Self::Mkdir(proto::Mkdir {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                mode: op.mode,
                uid: op.uid,
                gid: op.gid,
            }),
            Mutation::Mknod(op) => Self::Mknod(proto::Mknod {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                mode: op.mode,
                uid: op.uid,
                gid: op.gid,
                rdev: op.rdev,
            }),
            Mutation::Symlink(op) => Self::Symlink(proto::Symlink {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                target: op.target.into_bytes(),
                uid: op.uid,
                gid: op.gid,
            }),
            Mutation::Link(op) => {
                Self::Link(proto::Link { ino: op.ino.0, parent: op.parent.0, name: op.name.into_bytes() })
            }
            Mutation::Unlink(op) => Self::Unlink(proto::Unlink {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                hold: number(op.hold),
            }),
            Mutation::Rmdir(op) => {
                Self::Rmdir(proto::Rmdir { parent: op.parent.0, name: op.name.into_bytes() })
            }
            Mutation::Rename(op) => Self::Rename(proto::Rename {
                parent: op.parent.0,
                name: op.name.into_bytes(),
                new_parent: op.new_parent.0,
                new_name: op.new_name.into_bytes(),
                flags: op.flags.bits(),
                hold: number(op.hold),
            }),
            Mutation::SetAttr(op) => Self::SetAttr(op.into()),
            Mutation::CommitWrite(op) => Self::CommitWrite(proto::CommitWrite {
                ino: op.ino.0,
                data: op.data.0,
                size_at_least_bytes: op.size_at_least_bytes,
                allocated_delta_bytes: op.allocated_delta_bytes,
                garbage_cleared: op.garbage_cleared,
                attributes: op.attributes.map(|changes| SetAttr { ino: op.ino, changes }.into()),
            }),
            Mutation::SetXattr(op) => Self::SetXattr(proto::SetXattr {
                ino: op.ino.0,
                name: op.name.into_bytes(),
                value: op.value,
                flags: op.flags.bits(),
            }),
            Mutation::RemoveXattr(op) => {
                Self::RemoveXattr(proto::RemoveXattr { ino: op.ino.0, name: op.name.into_bytes() })
            }
            Mutation::RaiseFence(op) => {
                Self::RaiseFence(proto::RaiseFence { ino: op.ino.0, fence: op.fence.0 })
            }
            Mutation::Forget(inos) => {
                Self::Forget(proto::Forget { inos: inos.into_iter().map(|ino| ino.0).collect() })
            }
        }
    }
}

impl From<Result<Mutated, Errno>> for proto::MutateReply {
    fn from(result: Result<Mutated, Errno>) -> Self {
        match result {
            Ok(done) => Self {
                errno: 0,
                attr: done.attr.as_ref().map(Into::into),
                made: done.made,
                held: done.held,
                parent: done.parent.as_ref().map(Into::into),
                new_parent: done.new_parent.as_ref().map(Into::into),
            },
            Err(errno) => Self { errno: errno.wire(), ..Self::default() },
        }
    }
}

/// What the master answered a mutation.
///
/// # Errors
/// [`Invalid`] if the reply means nothing; inside, the errno it carries.
pub fn mutated(reply: proto::MutateReply) -> Result<Result<Mutated, Errno>, Invalid> {
    if reply.errno != 0 {
        return Ok(Err(Errno::from_number(reply.errno).ok_or(Invalid::Errno(reply.errno))?));
    }
    let attr = |attr: Option<proto::Attr>| attr.map(Attr::try_from).transpose();
    Ok(Ok(Mutated {
        attr: attr(reply.attr)?,
        made: reply.made,
        held: reply.held,
        parent: attr(reply.parent)?,
        new_parent: attr(reply.new_parent)?,
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Changes, Time, TimeSet};

    fn all() -> Vec<Mutation> {
        let (ino, parent) = (InodeId(9), InodeId(1));
        let name = Name::new("n").unwrap();
        let changes = Changes {
            mode: Some(0o600),
            mtime: Some(TimeSet::At(Time::new(-5, 7).unwrap())),
            atime: Some(TimeSet::Now),
            kill_privileges: true,
            fence: Some(Fence(11)),
            ..Changes::default()
        };
        let xattr = XattrName::new("user.a").unwrap();
        vec![
            Mutation::Create(Create {
                parent,
                name: name.clone(),
                mode: 0o644,
                uid: 1,
                gid: 2,
                exclusive: true,
            }),
            Mutation::Mkdir(Mkdir { parent, name: name.clone(), mode: 0o755, uid: 1, gid: 2 }),
            Mutation::Mknod(Mknod { parent, name: name.clone(), mode: mode::FIFO, uid: 1, gid: 2, rdev: 3 }),
            Mutation::Symlink(Symlink {
                parent,
                name: name.clone(),
                target: SymlinkTarget::new("../x").unwrap(),
                uid: 1,
                gid: 2,
            }),
            Mutation::Link(Link { ino, parent, name: name.clone() }),
            Mutation::Unlink(Unlink { parent, name: name.clone(), hold: Some(ino) }),
            Mutation::Rmdir(Rmdir { parent, name: name.clone() }),
            Mutation::Rename(Rename {
                parent,
                name: name.clone(),
                new_parent: ino,
                new_name: name,
                flags: RenameFlags::Exchange,
                hold: None,
            }),
            Mutation::SetAttr(SetAttr { ino, changes: Changes { size_bytes: Some(4), ..changes } }),
            Mutation::CommitWrite(CommitWrite {
                ino,
                data: DataId(5),
                size_at_least_bytes: 6,
                allocated_delta_bytes: -7,
                garbage_cleared: true,
                attributes: Some(changes),
            }),
            Mutation::SetXattr(SetXattr {
                ino,
                name: xattr.clone(),
                value: Bytes::from_static(b"v"),
                flags: XattrFlags::Replace,
            }),
            Mutation::RemoveXattr(RemoveXattr { ino, name: xattr }),
            Mutation::RaiseFence(RaiseFence { ino, fence: Fence(12) }),
            Mutation::Forget(vec![ino, parent]),
        ]
    }

    #[test]
    fn every_mutation_survives_the_wire() {
        for mutation in all() {
            let wire = Op::from(mutation.clone());
            assert_eq!(Mutation::try_from(wire), Ok(mutation));
        }
    }

    #[test]
    fn refuses_what_means_nothing() {
        let errno = |op| Mutation::try_from(op).map_err(|invalid: Invalid| invalid.errno()).err();
        let rename = |flags, new_name: &'static [u8]| {
            Op::Rename(proto::Rename {
                name: "a".into(),
                new_name: new_name.into(),
                flags,
                ..proto::Rename::default()
            })
        };
        assert_eq!(errno(rename(3, b"b")), Some(Errno::EINVAL));
        assert_eq!(errno(rename(4, b"b")), Some(Errno::EINVAL));
        assert_eq!(errno(rename(0, &[b'b'; 256])), Some(Errno::ENAMETOOLONG));
        assert_eq!(errno(rename(0, b"b")), None);
        let mknod = |mode| Op::Mknod(proto::Mknod { name: "a".into(), mode, ..proto::Mknod::default() });
        assert_eq!(errno(mknod(mode::DIRECTORY | 0o755)), Some(Errno::EINVAL));
        assert_eq!(errno(mknod(mode::SOCKET | 0o755)), None);
        let held = proto::SetAttr { size_bytes: Some(1), ..proto::SetAttr::default() };
        let commit = proto::CommitWrite { attributes: Some(held), ..proto::CommitWrite::default() };
        assert_eq!(errno(Op::CommitWrite(commit)), Some(Errno::EINVAL));
        let mtime = |mtime| Op::SetAttr(proto::SetAttr { mtime: Some(mtime), ..proto::SetAttr::default() });
        assert_eq!(errno(mtime(proto::TimeSet { value: None })), Some(Errno::EINVAL));
        let at = |nanos| proto::time_set::Value::At(proto::Time { seconds: 0, nanos });
        assert_eq!(errno(mtime(proto::TimeSet { value: Some(at(1_000_000_000)) })), Some(Errno::EINVAL));
        assert_eq!(errno(mtime(proto::TimeSet { value: Some(at(999_999_999)) })), None);
        let xattr = |flags| {
            Op::SetXattr(proto::SetXattr { name: "user.a".into(), flags, ..proto::SetXattr::default() })
        };
        assert_eq!([0, 1, 2].map(|flags| errno(xattr(flags))), [None; 3]);
        assert_eq!([3, 4].map(|flags| errno(xattr(flags))), [Some(Errno::EINVAL); 2]);
    }

    #[test]
    fn a_reply_is_an_errno_or_the_rest() {
        assert_eq!(mutated(Err(Errno::ENOTEMPTY).into()), Ok(Err(Errno::ENOTEMPTY)));
        let done = Mutated {
            attr: Some(super::super::tests::attr(1)),
            made: true,
            held: true,
            parent: Some(super::super::tests::attr(2)),
            new_parent: Some(super::super::tests::attr(3)),
        };
        assert_eq!(mutated(Ok(done.clone()).into()), Ok(Ok(done)));
        let broken = proto::MutateReply { errno: 70_000, ..proto::MutateReply::default() };
        assert_eq!(mutated(broken), Err(Invalid::Errno(70_000)));
    }
}
