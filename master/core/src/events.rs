//! What commands change in directories, as their watchers are told: gathered by the operations, kept for a while by a [`Ring`].
//! `master/docs/events.md` has the table of what each operation tells.
//!
//! Nothing here is part of the state: whoever lost it has lost no file, and says so to those who wait for events.

mod ring;

use coord_types::InodeId;
use master_model::{EventKind, Name};

pub use ring::{EVENTS_MAX, NAMES_BYTES_MAX, Ring, Stored};

use crate::error::OpResult;
use crate::names;
use crate::state::State;

/// Directories that are told of one change of an inode with several names. With more the answer to a write would have to wait for
/// as many reads as there are names; those with the lowest inode numbers are told then.
pub const DIRECTORIES_TOLD_MAX: usize = 64;

/// What a command changed in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub directory: InodeId,
    pub kind: EventKind,
    /// What it happened to.
    pub ino: InodeId,
    pub name: Option<Name>,
}

/// Something happened to an inode itself: the directories that have its names are told. Nobody is told of one without a name, nor, of
/// a file that an older release made, where its names are not known yet ([`names`]).
pub(crate) fn inode_changed(state: &mut State<'_>, ino: InodeId, kind: EventKind) -> OpResult<()> {
    let directories = names::directories(state, ino, DIRECTORIES_TOLD_MAX)?;
    for directory in directories {
        state.tell(Change { directory, kind, ino, name: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
