//! Why a command or a query came to nothing.

use coord_kv::KvError;
use nuwa_model::{Path, PathError, Refusal};

/// Either the asker's fault, or the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] KvError),
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// A record that cannot be read is damage: the replicas did not write it so.
pub(crate) fn corrupt(what: &str) -> KvError {
    KvError::Corrupt { path: "the tree".to_owned(), reason: format!("{what} cannot be read") }
}

/// The path of a request.
pub(crate) fn path(
    given: &str,
    parse: impl FnOnce(String) -> Result<Path, PathError>,
) -> Result<Path, Refusal> {
    parse(given.to_owned()).map_err(|error| Refusal::BadPath { path: given.to_owned(), error })
}
