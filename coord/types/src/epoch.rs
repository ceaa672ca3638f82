//! What orders things: a group's epoch, a chunk's version.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A group's version, raised by the master with every change of the group's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A chunk's version: the epoch its newest write was ordered in, and a counter the primary raises by one for
/// each write. Two members whose versions of a chunk are equal hold equal bytes: within an epoch one primary
/// alone counts, and it compares all members before it orders its first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    pub epoch: Epoch,
    pub counter: u64,
}

impl Version {
    /// The version of a chunk nobody has written.
    pub const NONE: Self = Self { epoch: Epoch(0), counter: 0 };

    /// The version the next write in `epoch` gets.
    #[must_use]
    pub const fn next(self, epoch: Epoch) -> Self {
        Self { epoch, counter: self.counter + 1 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}
