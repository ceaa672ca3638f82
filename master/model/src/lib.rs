//! Pangu master: the wire's messages, the domain types they become once they are checked, and the way between.
//!
//! [`attr`] is what a file is, [`mutation`] and [`query`] what can be asked of the namespace, [`event`] what happens in it, [`table`] where
//! data lives. [`proto`] is the wire; [`convert`] builds domain types from messages and refuses what cannot be meant. A
//! crate of its own, without services and client, so that `master-core` depends on no runtime.

pub mod attr;
pub mod convert;
pub mod errno;
pub mod event;
pub mod lineage;
pub mod mutation;
pub mod name;
pub mod query;
pub mod table;

/// The messages of `master/api/proto/master/v1/master.proto`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/feitian.master.v1.rs"));
}

pub use attr::{Attr, Changes, SetAttr, Time, TimeSet, mode};
pub use errno::Errno;
pub use event::{DirectoryEvent, EventKind, EventPlace, Position, Watch, Watched};
pub use lineage::{Lineage, NotFollowed};
pub use mutation::{
    CommitWrite, Create, FlagsError, Link, Mkdir, Mknod, Mutated, Mutation, RaiseFence, RemoveXattr, Rename,
    RenameFlags, Rmdir, SetXattr, Symlink, Unlink, XattrFlags,
};
pub use name::{Name, NameError, SYMLINK_TARGET_MAX_BYTES, SymlinkTarget, XattrName};
pub use query::{Answer, DirEntry, Query, ReadDir, StatFs};
pub use table::{DiskState, Group, Member, MemberState, Pace, Scrub, Server, Table, Vitals};
