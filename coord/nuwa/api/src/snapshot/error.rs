//! What can be wrong with a snapshot.

use std::io;

use nuwa_model::snapshot::RecordError;

use super::VERSION;

/// Why a snapshot cannot be read, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{operation} the snapshot")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("this is no snapshot of Nuwa: it does not begin with NUWASNAP")]
    NotASnapshot,
    #[error("the first 16 bytes of the snapshot are damaged, or cut off")]
    Start,
    #[error(
        "the snapshot is of version {found}, and this program reads version {VERSION}: use a newer program"
    )]
    Version { found: u32 },
    #[error("block {number} of the snapshot, at byte {at}, is wrong: {fault}")]
    Block { number: u64, at: u64, fault: BlockFault },
}

impl SnapshotError {
    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    #[error("the file ends before its end: it is cut off")]
    CutOff,
    #[error("it cannot be {0} bytes long: it is damaged")]
    Length(u32),
    #[error("it does not match its checksum: it is damaged")]
    Checksum,
    #[error("it does not parse")]
    Message,
    #[error("it is block {found} of its snapshot: blocks are missing, or in another order")]
    Number { found: u64 },
    #[error("it does not belong behind the one before it: it is of another snapshot")]
    Previous,
    #[error("the first block, and no other, is the header")]
    Header,
    #[error("it has more than a block may have")]
    TooMuch,
    #[error("the first entry must be the root")]
    NoRoot,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{path} is out of order, or comes twice")]
    Order { path: String },
    #[error("{path} is in a directory that does not come before it")]
    NoDirectory { path: String },
    #[error("{path} is there as a file, too")]
    BothKinds { path: String },
    #[error("the snapshot has {found} records, and says it has {said}")]
    Records { said: u64, found: u64 },
    #[error("something comes behind the end")]
    BehindTheEnd,
}
