//! Which directory of the cluster a mount shows as its root.
//!
//! The kernel calls the root of every mount inode 1, which in the cluster is the root of the whole tree. A mount of another directory has
//! that one's number where the kernel says 1. This is the only place that translates: operations on their way in and answers on
//! their way out ([`crate::FileSystem::handle`]), and what control files ask of the masters by themselves. Everything behind it (tables, caches,
//! masters) knows the cluster's numbers only, everything before it the kernel's.
//!
//! - Inwards, 1 is the mount's root. The number that it has in the cluster was told to nobody; it would mean the same.
//! - Outwards, the mount's root is 1, and the parent of the mount's root is itself. The cluster's own 1 is above it, as an operation
//!   can name nothing that is: if it were to be told all the same, the answer is EIO rather than another directory's.

use std::sync::Arc;

use coord_types::InodeId;
use master_api::ClientError;
use master_api::model::Attr;

use crate::{ConnectError, Entry, Errno, Op, OpReply, OpResult};

/// A mount's root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rooted {
    /// `None`: the root of the whole tree, and nothing is translated.
    below: Option<InodeId>,
}

impl Rooted {
    /// `root`: the directory's number in the cluster.
    #[must_use]
    pub fn at(root: InodeId) -> Self {
        Self { below: Some(root).filter(|root| *root != InodeId::ROOT) }
    }

    /// The directory's number in the cluster.
    #[must_use]
    pub fn root(self) -> InodeId {
        self.below.unwrap_or(InodeId::ROOT)
    }

    /// Whether the whole tree is shown.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.below.is_none()
    }

    /// The cluster's number for one of the kernel's.
    #[must_use]
    pub fn inward(self, ino: InodeId) -> InodeId {
        match self.below {
            Some(root) if ino == InodeId::ROOT => root,
            _ => ino,
        }
    }

    /// The kernel's number for one of the cluster's.
    ///
    /// # Errors
    /// EIO: it is the cluster's root, and the mount shows only what is below.
    pub fn outward(self, ino: InodeId) -> Result<InodeId, Errno> {
        match self.below {
            Some(root) if ino == root => Ok(InodeId::ROOT),
            Some(root) if ino == InodeId::ROOT => {
                tracing::error!(%root, "a mount of one directory was told of the cluster's root");
                Err(Errno::EIO)
            }
            _ => Ok(ino),
        }
    }

    /// The operation with the cluster's numbers.
    pub(crate) fn op(self, mut op: Op<'_>) -> Op<'_> {
        if !self.is_whole() {
            for ino in named(&mut op).into_iter().flatten() {
                *ino = self.inward(*ino);
            }
        }
        op
    }

    /// The answer with the kernel's numbers.
    pub(crate) fn reply(self, result: OpResult) -> OpResult {
        let mut reply = result?;
        if self.is_whole() {
            return Ok(reply);
        }
        match &mut reply {
            OpReply::Entry(entry) | OpReply::Created { entry, .. } => self.entry(entry)?,
            OpReply::Attr { attr, .. } => attr.ino = self.outward(attr.ino)?,
            OpReply::Entries(entries) => {
                // Made for this answer, so nothing is copied.
                for listed in Arc::make_mut(entries) {
                    listed.ino = self.outward(listed.ino)?;
                    listed.entry.as_mut().map_or(Ok(()), |entry| self.entry(entry))?;
                }
            }
            OpReply::Ok
            | OpReply::Bytes(_)
            | OpReply::Data(_)
            | OpReply::Written(_)
            | OpReply::Opened { .. }
            | OpReply::StatFs(_)
            | OpReply::Names(_)
            | OpReply::Offset(_)
            | OpReply::Ready(_) => {}
        }
        Ok(reply)
    }

    fn entry(self, entry: &mut Entry) -> Result<(), Errno> {
        entry.attr.ino = self.outward(entry.attr.ino)?;
        Ok(())
    }
}

/// The inodes that an operation names.
fn named<'o>(op: &'o mut Op<'_>) -> [Option<&'o mut InodeId>; 2] {
    match op {
        Op::Lookup { parent: ino, .. }
        | Op::Mknod { parent: ino, .. }
        | Op::Mkdir { parent: ino, .. }
        | Op::Symlink { parent: ino, .. }
        | Op::Unlink { parent: ino, .. }
        | Op::Rmdir { parent: ino, .. }
        | Op::Create { parent: ino, .. }
        | Op::Forget { ino, .. }
        | Op::GetAttr { ino, .. }
        | Op::SetAttr { ino, .. }
        | Op::ReadLink { ino }
        | Op::Open { ino, .. }
        | Op::Read { ino, .. }
        | Op::Write { ino, .. }
        | Op::Flush { ino, .. }
        | Op::Release { ino, .. }
        | Op::Fsync { ino, .. }
        | Op::OpenDir { ino }
        | Op::ReadDir { ino, .. }
        | Op::ReleaseDir { ino, .. }
        | Op::FsyncDir { ino }
        | Op::SetXattr { ino, .. }
        | Op::GetXattr { ino, .. }
        | Op::ListXattr { ino }
        | Op::RemoveXattr { ino, .. }
        | Op::Fallocate { ino, .. }
        | Op::Seek { ino, .. }
        | Op::Flock { ino, .. }
        | Op::Poll { ino, .. } => [Some(ino), None],
        Op::Rename { parent: one, new_parent: two, .. } | Op::Link { ino: one, new_parent: two, .. } => {
            [Some(one), Some(two)]
        }
        Op::StatFs => [None, None],
    }
}

/// What the masters said of a mount's root: whether it can be one.
///
/// # Errors
/// It cannot.
pub(crate) fn check(root: InodeId, said: Result<Attr, ClientError>) -> Result<(), ConnectError> {
    match said {
        Ok(attr) if attr.is_directory() => Ok(()),
        Ok(_) => Err(ConnectError::RootNotADirectory(root)),
        Err(ClientError::Errno(master_api::Errno::ENOENT)) => Err(ConnectError::RootGone(root)),
        Err(error) if error.errno() == master_api::Errno::EACCES => {
            Err(ConnectError::RootDenied { root, source: error })
        }
        Err(error) => Err(ConnectError::Master(error)),
    }
}

#[cfg(test)]
mod tests {
    use kuafu::Status;

    use super::*;

    const ROOT: InodeId = InodeId(77);

    #[test]
    fn the_root_of_the_mount_is_the_kernels_root() {
        let rooted = Rooted::at(ROOT);
        assert_eq!((rooted.root(), rooted.is_whole()), (ROOT, false));
        for (inside, outside) in [(ROOT, InodeId::ROOT), (InodeId(5), InodeId(5))] {
            assert_eq!((rooted.inward(outside), rooted.outward(inside)), (inside, Ok(outside)));
        }
        assert_eq!(rooted.outward(InodeId::ROOT), Err(Errno::EIO), "what is above is not shown");
        let rename = Op::Rename {
            parent: InodeId::ROOT,
            name: b"a",
            new_parent: InodeId(5),
            new_name: b"b",
            flags: 0,
        };
        let Op::Rename { parent, new_parent, .. } = rooted.op(rename) else { panic!("another operation") };
        assert_eq!((parent, new_parent), (ROOT, InodeId(5)));
        let link = Op::Link { ino: InodeId(5), new_parent: InodeId::ROOT, new_name: b"b" };
        let Op::Link { ino, new_parent, .. } = rooted.op(link) else { panic!("another operation") };
        assert_eq!((ino, new_parent), (InodeId(5), ROOT));
    }

    #[test]
    fn of_the_whole_tree_nothing_is_translated() {
        let rooted = Rooted::at(InodeId::ROOT);
        assert_eq!((rooted, rooted.is_whole()), (Rooted::default(), true));
        for ino in [InodeId::ROOT, ROOT] {
            assert_eq!((rooted.inward(ino), rooted.outward(ino)), (ino, Ok(ino)));
        }
    }

    #[test]
    fn what_cannot_be_a_root_is_said_with_what_to_do() {
        let directory = crate::known::tests::attr(ROOT.0, 1);
        let file = Attr { mode: libc::S_IFREG, ..directory.clone() };
        check(ROOT, Ok(directory)).unwrap();
        let refused = ClientError::Refused {
            address: "tcp://m:1".to_owned(),
            status: Status::permission_denied("alice may not"),
        };
        for (said, word) in [
            (Ok(file), "no directory"),
            (Err(ClientError::Errno(master_api::Errno::ENOENT)), "no directory has inode number 77"),
            (Err(refused), "a directory that it covers"),
            (Err(ClientError::Closed), "reach the masters"),
        ] {
            let error = check(ROOT, said).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
