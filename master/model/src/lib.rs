//! Pangu master: the domain types, what the wire's messages mean once they are checked.
//!
//! [`attr`] is what a file is, [`mutation`] and [`query`] what can be asked of the namespace, [`table`] where
//! data lives. Nothing outside `master-api` touches a protobuf message of the namespace: its `convert` builds these
//! from messages and refuses what cannot be meant. A crate of its own, so that `master-core` depends on no runtime.

pub mod attr;
pub mod errno;
pub mod mutation;
pub mod name;
pub mod query;
pub mod table;

pub use attr::{Attr, Changes, SetAttr, Time, TimeSet, mode};
pub use errno::Errno;
pub use mutation::{
    CommitWrite, Create, FlagsError, Link, Mkdir, Mknod, Mutated, Mutation, RemoveXattr, Rename, RenameFlags,
    Rmdir, SetXattr, Symlink, Unlink, XattrFlags,
};
pub use name::{Name, NameError, SYMLINK_TARGET_MAX_BYTES, SymlinkTarget, XattrName};
pub use query::{Answer, DirEntry, Query, ReadDir, StatFs};
pub use table::{DiskState, Group, Member, MemberState, Server, Table};
