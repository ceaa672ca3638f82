//! The disk as the engine sees it: a journal and segments, read and written in whole blocks.

use std::fmt;

/// A file of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    Journal,
    Segment(u32),
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("the journal"),
            Self::Segment(index) => write!(f, "segment {index}"),
        }
    }
}
