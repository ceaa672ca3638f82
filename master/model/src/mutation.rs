//! Every change of the namespace, and what it answers.

use bytes::Bytes;
use coord_types::{DataId, Fence, InodeId};

use super::attr::{Attr, Changes, SetAttr};
use super::name::{Name, SymlinkTarget, XattrName};

/// A new regular file. `mode` has permission bits only, the umask taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub parent: InodeId,
    pub name: Name,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Fail with EEXIST if the name is taken; otherwise the existing file is returned.
    pub exclusive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkdir {
    pub parent: InodeId,
    pub name: Name,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A fifo, socket, device, or a regular file: `mode` says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mknod {
    pub parent: InodeId,
    pub name: Name,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    pub parent: InodeId,
    pub name: Name,
    pub target: SymlinkTarget,
    pub uid: u32,
    pub gid: u32,
}

/// A further name for an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ino: InodeId,
    pub parent: InodeId,
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlink {
    pub parent: InodeId,
    pub name: Name,
    /// The caller has this inode open: if this was its last name, keep it for the caller's session until Forget.
    pub hold: Option<InodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rmdir {
    pub parent: InodeId,
    pub name: Name,
}

/// What renameat2(2) can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameFlags {
    /// What is at the new name goes.
    #[default]
    Replace,
    /// EEXIST if there is something at the new name.
    NoReplace,
    /// The two change places.
    Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    pub parent: InodeId,
    pub name: Name,
    pub new_parent: InodeId,
    pub new_name: Name,
    pub flags: RenameFlags,
    /// As in [`Unlink`], for the file that is replaced.
    pub hold: Option<InodeId>,
}

/// What a writer tells after its chunks are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitWrite {
    pub ino: InodeId,
    /// The generation written to; with another one now, the file was truncated meanwhile: only `attributes` count.
    pub data: DataId,
    pub size_at_least_bytes: u64,
    pub allocated_delta_bytes: i64,
    /// [size, garbage end) was zeroed.
    pub garbage_cleared: bool,
    /// Changes held back while the file was being written; no size.
    pub attributes: Option<Changes>,
}

/// What setxattr(2) can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrFlags {
    #[default]
    Any,
    /// EEXIST if it is there.
    Create,
    /// ENODATA if it is not there.
    Replace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetXattr {
    pub ino: InodeId,
    pub name: XattrName,
    pub value: Bytes,
    pub flags: XattrFlags,
}

/// Refuses what was opened under a lower fence, from now on. ESTALE if the file's is higher already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaiseFence {
    pub ino: InodeId,
    pub fence: Fence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveXattr {
    pub ino: InodeId,
    pub name: XattrName,
}

/// One change of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    Create(Create),
    Mkdir(Mkdir),
    Mknod(Mknod),
    Symlink(Symlink),
    Link(Link),
    Unlink(Unlink),
    Rmdir(Rmdir),
    Rename(Rename),
    SetAttr(SetAttr),
    CommitWrite(CommitWrite),
    SetXattr(SetXattr),
    RemoveXattr(RemoveXattr),
    RaiseFence(RaiseFence),
    /// The session no longer holds these unlinked inodes open.
    Forget(Vec<InodeId>),
}

/// What a mutation that succeeded answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutated {
    /// The inode made, linked or changed; for unlink, rmdir and rename the one that lost a name, if any
    /// (with nlink 0 if it is gone or only held).
    pub attr: Option<Attr>,
    /// Create: the file was made by this call.
    pub made: bool,
    /// Unlink, rename: `attr` is now held for the session.
    pub held: bool,
    /// The parents after the change: the first named, and the second if there are two.
    pub parent: Option<Attr>,
    pub new_parent: Option<Attr>,
}

const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;

/// Flags of a system call that mean nothing, or contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("flags {flags:#x} of {call} are not known")]
pub struct FlagsError {
    pub call: &'static str,
    pub flags: u32,
}

impl RenameFlags {
    /// From what renameat2(2) takes.
    ///
    /// # Errors
    /// Unknown or contradictory flags.
    pub const fn from_bits(flags: u32) -> Result<Self, FlagsError> {
        match flags {
            0 => Ok(Self::Replace),
            RENAME_NOREPLACE => Ok(Self::NoReplace),
            RENAME_EXCHANGE => Ok(Self::Exchange),
            _ => Err(FlagsError { call: "rename", flags }),
        }
    }

    /// What renameat2(2) takes.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Replace => 0,
            Self::NoReplace => RENAME_NOREPLACE,
            Self::Exchange => RENAME_EXCHANGE,
        }
    }
}

impl XattrFlags {
    /// From what setxattr(2) takes.
    ///
    /// # Errors
    /// Unknown or contradictory flags.
    pub const fn from_bits(flags: u32) -> Result<Self, FlagsError> {
        match flags {
            0 => Ok(Self::Any),
            XATTR_CREATE => Ok(Self::Create),
            XATTR_REPLACE => Ok(Self::Replace),
            _ => Err(FlagsError { call: "setxattr", flags }),
        }
    }

    /// What setxattr(2) takes.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Create => XATTR_CREATE,
            Self::Replace => XATTR_REPLACE,
        }
    }
}
