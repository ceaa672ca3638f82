//! What an operation touches, and whether an identity may do it: asked by the server about the leader's state before it
//! proposes or answers. Nothing here knows of capabilities.
//!
//! Three questions, each a pure function:
//! - [`touches`]: the inodes an operation is about, for rights on subtrees (with [`crate::within`]);
//! - [`permit`] and [`permit_data`]: what Linux would say by owner, group and mode, with its errno;
//! - [`act_for`]: the operation as that identity may ask for it.
//!
//! As with NFS, an inode is known by its number: the directories above it are looked at when it is looked up, not when it is
//! used. And between the question and the change another change may come: it is refused from the next one on.

mod act;
mod identity;
mod permit;

use coord_types::InodeId;
use master_model::{Mutation, Query};

pub use act::act_for;
pub use identity::{Identity, NOBODY, Root};
pub use permit::{DataUse, permit, permit_data};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    Query(&'a Query),
    Mutation(&'a Mutation),
}

impl<'a> From<&'a Query> for Op<'a> {
    fn from(query: &'a Query) -> Self {
        Self::Query(query)
    }
}

impl<'a> From<&'a Mutation> for Op<'a> {
    fn from(mutation: &'a Mutation) -> Self {
        Self::Mutation(mutation)
    }
}

/// How an inode is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// The inodes an operation is about, at most two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touches([Option<(InodeId, Access)>; 2]);

impl Touches {
    const NOTHING: Self = Self([None, None]);

    const fn read(ino: InodeId) -> Self {
        Self([Some((ino, Access::Read)), None])
    }

    const fn write(ino: InodeId) -> Self {
        Self([Some((ino, Access::Write)), None])
    }

    const fn write_both(first: InodeId, second: InodeId) -> Self {
        Self([Some((first, Access::Write)), Some((second, Access::Write))])
    }
}

impl IntoIterator for Touches {
    type Item = (InodeId, Access);
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Self::Item>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// What an operation touches. A right on a directory covers it if it covers each of these.
#[must_use]
pub fn touches<'a>(op: impl Into<Op<'a>>) -> Touches {
    match op.into() {
        Op::Query(query) => match query {
            Query::Lookup { parent, .. } => Touches::read(*parent),
            Query::GetAttr(ino) | Query::ReadLink(ino) | Query::ListXattr(ino) => Touches::read(*ino),
            Query::ReadDir(op) => Touches::read(op.ino),
            Query::GetXattr { ino, .. } => Touches::read(*ino),
            Query::StatFs => Touches::NOTHING,
            Query::Resolve(_) => Touches::read(InodeId::ROOT),
        },
        Op::Mutation(mutation) => match mutation {
            Mutation::Create(op) => Touches::write(op.parent),
            Mutation::Mkdir(op) => Touches::write(op.parent),
            Mutation::Mknod(op) => Touches::write(op.parent),
            Mutation::Symlink(op) => Touches::write(op.parent),
            Mutation::Unlink(op) => Touches::write(op.parent),
            Mutation::Rmdir(op) => Touches::write(op.parent),
            Mutation::Rename(op) => Touches::write_both(op.parent, op.new_parent),
            // The inode too: else a link would carry a foreign file into one's own directory.
            Mutation::Link(op) => Touches::write_both(op.ino, op.parent),
            Mutation::SetAttr(op) => Touches::write(op.ino),
            Mutation::CommitWrite(op) => Touches::write(op.ino),
            Mutation::SetXattr(op) => Touches::write(op.ino),
            Mutation::RemoveXattr(op) => Touches::write(op.ino),
            Mutation::RaiseFence(op) => Touches::write(op.ino),
            // A session's own holds: there is nothing else it can let go of.
            Mutation::Forget(_) => Touches::NOTHING,
        },
    }
}

#[cfg(test)]
mod tests;
