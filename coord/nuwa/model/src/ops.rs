//! The operations and compares of a transaction, in short.

use bytes::Bytes;

use crate::proto::compare::With;
use crate::proto::operation::What;
use crate::proto::{Compare, Delete, Existence, Get, MakeDirectory, Operation, Put, Relation, Rename};

/// A file gets a value; it is made if it is not there.
#[must_use]
pub fn put(path: impl Into<String>, value: impl Into<Bytes>) -> Put {
    Put { path: path.into(), value: value.into(), ..Put::default() }
}

/// A file that must not be there yet.
#[must_use]
pub fn create(path: impl Into<String>, value: impl Into<Bytes>) -> Put {
    Put { existence: Existence::MustNotExist.into(), ..put(path, value) }
}

#[must_use]
pub fn make_directory(path: impl Into<String>) -> MakeDirectory {
    MakeDirectory { path: path.into(), ..MakeDirectory::default() }
}

#[must_use]
pub fn delete(path: impl Into<String>) -> Delete {
    Delete { path: path.into(), ..Delete::default() }
}

#[must_use]
pub fn rename(from: impl Into<String>, to: impl Into<String>) -> Rename {
    Rename { from: from.into(), to: to.into(), ..Rename::default() }
}

#[must_use]
pub fn get(path: impl Into<String>) -> Get {
    Get { path: path.into() }
}

/// Holds if the entry (or its absence: 0) stands so to what is given.
#[must_use]
pub fn compare(path: impl Into<String>, relation: Relation, with: With) -> Compare {
    Compare { path: path.into(), relation: relation.into(), with: Some(with) }
}

/// Holds if the entry's version is this one; 0: it does not exist.
#[must_use]
pub fn version_is(path: impl Into<String>, version: u64) -> Compare {
    compare(path, Relation::Equal, With::Version(version))
}

macro_rules! operations {
    ($($message:ident),*) => {$(
        impl From<$message> for Operation {
            fn from(message: $message) -> Self {
                Self { what: Some(What::$message(message)) }
            }
        }
    )*};
}

operations!(Put, MakeDirectory, Delete, Rename, Get);
