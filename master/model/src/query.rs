//! Every read of the namespace, and what it answers.

use bytes::Bytes;
use coord_types::InodeId;

use super::attr::Attr;
use super::name::{Name, XattrName};

/// One page of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDir {
    pub ino: InodeId,
    /// The cookie of the last entry seen, 0 to begin.
    pub after_cookie: u64,
    pub limit: u32,
    pub with_attributes: bool,
}

/// One linearizable read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Lookup {
        parent: InodeId,
        name: Name,
    },
    GetAttr(InodeId),
    ReadLink(InodeId),
    ReadDir(ReadDir),
    GetXattr {
        ino: InodeId,
        name: XattrName,
    },
    ListXattr(InodeId),
    StatFs,
    /// A slash-separated path from the root, symbolic links not followed.
    Resolve(Bytes),
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Bytes,
    pub ino: InodeId,
    /// st_mode's type bits.
    pub kind: u32,
    pub cookie: u64,
    pub attr: Option<Attr>,
}

/// The whole file system, after replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

/// What a query answers; which fields are set depends on the question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Lookup, get-attr, resolve.
    pub attr: Option<Attr>,
    /// Lookup.
    pub parent: Option<Attr>,
    /// Read-link, get-xattr.
    pub value: Bytes,
    /// List-xattr.
    pub names: Vec<Bytes>,
    /// Read-dir.
    pub entries: Vec<DirEntry>,
    /// Read-dir: nothing follows.
    pub end: bool,
    pub stat_fs: Option<StatFs>,
}
