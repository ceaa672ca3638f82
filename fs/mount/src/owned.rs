//! An operation that owns what it names, for one that cannot be answered while the transport's buffer is ours.

use bytes::Bytes;
use fs_client::Op;

/// An [`Op`] without its borrowed parts, and those parts. No operation has more than two.
#[derive(Debug)]
pub(crate) struct OwnedOp {
    op: Op<'static>,
    first: Bytes,
    second: Bytes,
}

impl OwnedOp {
    /// Copies what `op` borrows: a name or two, or the data of a write.
    pub(crate) fn new(op: Op<'_>) -> Self {
        let (first, second) = parts(&op);
        let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
        Self { op: with_parts(op, &[], &[]), first, second }
    }

    /// The operation as it was.
    pub(crate) fn as_op(&self) -> Op<'_> {
        with_parts(self.op.clone(), &self.first, &self.second)
    }
}

/// What an operation borrows, in the order of its fields.
fn parts<'a>(op: &Op<'a>) -> (&'a [u8], &'a [u8]) {
    match *op {
        Op::Lookup { name, .. }
        | Op::Mknod { name, .. }
        | Op::Mkdir { name, .. }
        | Op::Unlink { name, .. }
        | Op::Rmdir { name, .. }
        | Op::Create { name, .. }
        | Op::GetXattr { name, .. }
        | Op::RemoveXattr { name, .. } => (name, &[]),
        Op::Symlink { name, target, .. } => (name, target),
        Op::Rename { name, new_name, .. } => (name, new_name),
        Op::Link { new_name, .. } => (new_name, &[]),
        Op::Write { data, .. } => (data, &[]),
        Op::SetXattr { name, value, .. } => (name, value),
        Op::Forget { .. }
        | Op::GetAttr { .. }
        | Op::SetAttr { .. }
        | Op::ReadLink { .. }
        | Op::Open { .. }
        | Op::Read { .. }
        | Op::Flush { .. }
        | Op::Release { .. }
        | Op::Fsync { .. }
        | Op::OpenDir { .. }
        | Op::ReadDir { .. }
        | Op::ReleaseDir { .. }
        | Op::FsyncDir { .. }
        | Op::StatFs
        | Op::ListXattr { .. }
        | Op::Fallocate { .. }
        | Op::Seek { .. }
        | Op::Flock { .. }
        | Op::Poll { .. } => (&[], &[]),
    }
}

/// The same operation, borrowing `first` and `second` in place of what it borrowed.
fn with_parts<'b>(op: Op<'_>, first: &'b [u8], second: &'b [u8]) -> Op<'b> {
    match op {
        Op::Lookup { parent, .. } => Op::Lookup { parent, name: first },
        Op::Mknod { parent, mode, rdev, .. } => Op::Mknod { parent, name: first, mode, rdev },
        Op::Mkdir { parent, mode, .. } => Op::Mkdir { parent, name: first, mode },
        Op::Unlink { parent, .. } => Op::Unlink { parent, name: first },
        Op::Rmdir { parent, .. } => Op::Rmdir { parent, name: first },
        Op::Create { parent, mode, flags, .. } => Op::Create { parent, name: first, mode, flags },
        Op::GetXattr { ino, .. } => Op::GetXattr { ino, name: first },
        Op::RemoveXattr { ino, .. } => Op::RemoveXattr { ino, name: first },
        Op::Symlink { parent, .. } => Op::Symlink { parent, name: first, target: second },
        Op::Rename { parent, new_parent, flags, .. } => {
            Op::Rename { parent, name: first, new_parent, new_name: second, flags }
        }
        Op::Link { ino, new_parent, .. } => Op::Link { ino, new_parent, new_name: first },
        Op::Write { ino, handle, offset_bytes, kill_privileges, mapped, .. } => {
            Op::Write { ino, handle, offset_bytes, data: first, kill_privileges, mapped }
        }
        Op::SetXattr { ino, flags, .. } => Op::SetXattr { ino, name: first, value: second, flags },
        Op::Forget { ino, lookups } => Op::Forget { ino, lookups },
        Op::GetAttr { ino, handle } => Op::GetAttr { ino, handle },
        Op::SetAttr { ino, changes } => Op::SetAttr { ino, changes },
        Op::ReadLink { ino } => Op::ReadLink { ino },
        Op::Open { ino, flags } => Op::Open { ino, flags },
        Op::Read { ino, handle, offset_bytes, len_bytes } => {
            Op::Read { ino, handle, offset_bytes, len_bytes }
        }
        Op::Flush { ino, handle } => Op::Flush { ino, handle },
        Op::Release { ino, handle } => Op::Release { ino, handle },
        Op::Fsync { ino, handle, data_only } => Op::Fsync { ino, handle, data_only },
        Op::OpenDir { ino } => Op::OpenDir { ino },
        Op::ReadDir { ino, handle, offset, limit, attributes } => {
            Op::ReadDir { ino, handle, offset, limit, attributes }
        }
        Op::ReleaseDir { ino, handle } => Op::ReleaseDir { ino, handle },
        Op::FsyncDir { ino } => Op::FsyncDir { ino },
        Op::StatFs => Op::StatFs,
        Op::ListXattr { ino } => Op::ListXattr { ino },
        Op::Fallocate { ino, handle, offset_bytes, len_bytes, mode } => {
            Op::Fallocate { ino, handle, offset_bytes, len_bytes, mode }
        }
        Op::Seek { ino, handle, offset_bytes, whence } => Op::Seek { ino, handle, offset_bytes, whence },
        Op::Flock { ino, handle, owner, lock, wait } => Op::Flock { ino, handle, owner, lock, wait },
        Op::Poll { ino, handle, again } => Op::Poll { ino, handle, again },
    }
}

#[cfg(test)]
mod tests {
    use coord_types::InodeId;
    use fs_client::HandleId;

    use super::*;

    #[test]
    fn an_owned_operation_is_the_operation() {
        let (a, b) = (InodeId(7), InodeId(9));
        let handle = HandleId(3);
        let ops = [
            Op::Lookup { parent: a, name: b"name" },
            Op::Mknod { parent: a, name: b"n", mode: 0o10644, rdev: 5 },
            Op::Mkdir { parent: a, name: b"n", mode: 0o755 },
            Op::Symlink { parent: a, name: b"n", target: b"to/there" },
            Op::Unlink { parent: a, name: b"n" },
            Op::Rmdir { parent: a, name: b"n" },
            Op::Rename { parent: a, name: b"old", new_parent: b, new_name: b"new", flags: 2 },
            Op::Link { ino: a, new_parent: b, new_name: b"n" },
            Op::Create { parent: a, name: b"n", mode: 0o600, flags: 66 },
            Op::Write {
                ino: a,
                handle,
                offset_bytes: 11,
                data: b"data",
                kill_privileges: true,
                mapped: true,
            },
            Op::SetXattr { ino: a, name: b"user.a", value: b"v", flags: 1 },
            Op::GetXattr { ino: a, name: b"user.a" },
            Op::RemoveXattr { ino: a, name: b"user.a" },
            Op::Read { ino: a, handle, offset_bytes: 4096, len_bytes: 17 },
            Op::Fallocate { ino: a, handle, offset_bytes: 1, len_bytes: 2, mode: 3 },
            Op::ReadDir { ino: a, handle, offset: 4, limit: 100, attributes: true },
            Op::StatFs,
        ];
        for op in ops {
            let owned = OwnedOp::new(op.clone());
            assert_eq!(format!("{:?}", owned.as_op()), format!("{op:?}"));
        }
    }
}
