//! The domain types: what the wire's messages mean once they are checked.
//!
//! [`attr`] is what a file is, [`mutation`] and [`query`] what can be asked of the namespace, [`table`] where
//! data lives. Nothing outside this crate touches a protobuf message of the namespace: `convert` builds these from
//! messages and refuses what cannot be meant.

pub mod attr;
pub mod mutation;
pub mod name;
pub mod query;
pub mod table;

pub use attr::{Attr, Changes, SetAttr, Time, TimeSet, mode};
pub use mutation::{
    CommitWrite, Create, Link, Mkdir, Mknod, Mutated, Mutation, RemoveXattr, Rename, RenameFlags, Rmdir,
    SetXattr, Symlink, Unlink, XattrFlags,
};
pub use name::{Name, NameError, SYMLINK_TARGET_MAX_BYTES, SymlinkTarget, XattrName};
pub use query::{Answer, DirEntry, Query, ReadDir, StatFs};
pub use table::{DiskState, Group, Member, MemberState, Server, Table};
