//! What people mean by a name: they leave out the final `/` of a directory.

use nuwa_api::model::{Path, Refusal};
use nuwa_api::ops;
use nuwa_api::proto::compare::With;
use nuwa_api::proto::{Compare, Relation};

/// A name that may be a file's or a directory's.
#[derive(Debug)]
pub(crate) struct Name {
    given: Path,
    /// The same as the other kind; `None` if there cannot be one: of the root, and of what is as long as it may be.
    other: Option<Path>,
}

impl Name {
    /// Checked here: otherwise the refusal could be about a name that nobody has given.
    pub(crate) fn new(path: &str) -> anyhow::Result<Self> {
        let given = Path::new(path).map_err(|error| Refusal::BadPath { path: path.to_owned(), error })?;
        let other = given.other_kind().and_then(|other| Path::new(other).ok());
        Ok(Self { given, other })
    }

    pub(crate) fn given(&self) -> &str {
        self.given.as_str()
    }

    pub(crate) fn other(&self) -> Option<&str> {
        self.other.as_ref().map(Path::as_str)
    }

    /// Whether it was given as a directory's.
    pub(crate) fn is_directory(&self) -> bool {
        self.given.is_directory()
    }

    /// Holds if there is one of the other kind, and so none of the given.
    pub(crate) fn other_exists(&self) -> Vec<Compare> {
        let exists = |other| ops::compare(other, Relation::Equal, With::Exists(true));
        // If there cannot be one, something that never holds: without any compare a transaction takes its first branch.
        vec![self.other().map_or_else(|| ops::compare("/", Relation::Equal, With::Exists(false)), exists)]
    }
}

/// A directory, where nothing else can be meant.
pub(crate) fn directory(path: &str) -> String {
    if path.ends_with('/') { path.to_owned() } else { format!("{path}/") }
}
