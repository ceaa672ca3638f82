//! Fences: numbers that tell who may still write a file. Whoever takes a lock gets a number above all given before
//! (Nuwa), raises the file's fence to it, and what is written under a lower one is refused from then on.
//!
//! A group remembers the fence of a file's data in a record of its own: a chunk without bytes, at an index no data has, whose one
//! writer window belongs to [`SessionId::FENCE`]. Its newest sequence number is the fence. So the fence is stored, copied and
//! compared like any chunk (`chunkserver/docs/replication.md`, "Fences").

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkKey, SessionId, Stamp};
use crate::window::WriterWindow;

/// The fence a file has, or that a write was made under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// Of a file that was never fenced. It is below all others.
    pub const NONE: Self = Self(0);

    /// From what people write: decimal digits, and nothing else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(text).ok()?.parse().ok().map(Self)
    }

    /// Names the write that raises a fence record to this fence: who raises it again is recognised as a retry.
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        Stamp { session: SessionId::FENCE, seq: self.0 }
    }

    /// The fence a record holds.
    #[must_use]
    pub fn recorded(windows: &[WriterWindow]) -> Self {
        let of_fences = windows.iter().find(|window| window.session == SessionId::FENCE);
        of_fences.map_or(Self::NONE, |window| Self(window.newest))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ChunkKey {
    /// The index of fence records. No data has it: the largest file ends at the chunk before
    /// ([`Layout::file_size_max_bytes`](crate::Layout::file_size_max_bytes)).
    pub const FENCE_INDEX: u32 = u32::MAX;

    /// Where the group of this chunk remembers the fence of its data.
    #[must_use]
    pub const fn fence_record(self) -> Self {
        Self::new(self.group, self.chunk.data, Self::FENCE_INDEX)
    }

    #[must_use]
    pub const fn is_fence_record(self) -> bool {
        self.chunk.index == Self::FENCE_INDEX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DataId, GroupId};
    use crate::layout::Layout;
    use crate::window::note_stamp;

    #[test]
    fn a_number_and_nothing_else_is_a_fence() {
        assert_eq!(Fence::parse(b"0"), Some(Fence::NONE));
        assert_eq!(Fence::parse(b"18446744073709551615"), Some(Fence(u64::MAX)));
        for not in [&b""[..], b"-1", b"+1", b"1 ", b"1\n", b"x", b"18446744073709551616", b"\xff"] {
            assert_eq!(Fence::parse(not), None, "{not:?}");
        }
    }

    #[test]
    fn a_record_holds_the_highest_fence_it_was_raised_to() {
        let mut windows = Vec::new();
        assert_eq!(Fence::recorded(&windows), Fence::NONE);
        for raised in [7, 7, 500, u64::MAX] {
            note_stamp(&mut windows, Fence(raised).stamp());
            assert_eq!(Fence::recorded(&windows), Fence(raised));
            assert_eq!(windows.len(), 1, "fences have one window, however far apart");
        }
    }

    #[test]
    fn no_data_is_where_the_record_is() {
        let layout = Layout::new(64 << 10, vec![GroupId(3), GroupId(4)]).unwrap();
        let last = layout.chunk_at(DataId(9), layout.file_size_max_bytes() - 1);
        assert!(!last.is_fence_record() && last < last.fence_record());
        assert_eq!(last.fence_record().chunk.data, DataId(9));
    }
}
