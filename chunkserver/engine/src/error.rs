//! What can go wrong, by layer: one IO ([`IoError`]), one operation ([`EngineError`]), formatting and opening a disk
//! ([`OpenError`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coord_kv::KvError;
use coord_types::{ChunkKey, Version};

use crate::io::FileId;

/// One IO failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {len_bytes} bytes at {offset_bytes} of {file}: {source}")]
pub struct IoError {
    pub operation: &'static str,
    pub file: FileId,
    pub offset_bytes: u64,
    pub len_bytes: usize,
    #[source]
    pub source: Arc<std::io::Error>,
}

impl IoError {
    /// The medium is full, which is no failure of it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::StorageFull
    }

    /// The file is shorter than it must be.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::UnexpectedEof
    }

    /// The medium does not give these bytes back: EIO, or what Linux makes of a bad sector (ENODATA) and of one whose
    /// protection information is wrong (EILSEQ).
    #[must_use]
    pub fn is_medium(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EILSEQ))
    }
}

/// Why a disk was taken out. The first failure stays; everything after it is refused with it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error("the disk was closed")]
    Closed,
}

/// Something on the medium is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error(
        "block {block} of chunk {key:?} (disk block {disk_block}) has crc32c {found:08x}, recorded was {recorded:08x}"
    )]
    Block { key: ChunkKey, block: u32, disk_block: u64, recorded: u32, found: u32 },
    #[error("{what} under key {key} does not decode: {reason}")]
    Record { what: &'static str, key: HexKey, reason: &'static str },
    #[error("disk block {disk_block} is used twice, the second time by block {block} of chunk {key:?}")]
    DoubleUse { disk_block: u64, key: ChunkKey, block: u32 },
    #[error("block {block} of chunk {key:?} points outside the disk, to block {disk_block}")]
    OutOfDisk { disk_block: u64, key: ChunkKey, block: u32 },
    #[error("{file} is {found_bytes} bytes long, {needed_bytes} are needed")]
    Truncated { file: FileId, found_bytes: u64, needed_bytes: u64 },
    #[error("{file} ends before the {len_bytes} bytes at {offset_bytes} that chunk {key:?} has there")]
    CutOff { key: ChunkKey, file: FileId, offset_bytes: u64, len_bytes: usize },
    #[error(
        "the disk cannot read the {len_bytes} bytes at {offset_bytes} of {file} that chunk {key:?} has there"
    )]
    Unreadable { key: ChunkKey, file: FileId, offset_bytes: u64, len_bytes: usize },
    #[error("journal frame {sequence} is missing or damaged, but frame {later} lies behind it")]
    Journal { sequence: u64, later: u64 },
    #[error("journal frame {sequence} has a valid checksum but does not decode: {reason}")]
    JournalRecord { sequence: u64, reason: &'static str },
}

/// A key, shown in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct HexKey(pub Vec<u8>);

impl fmt::Display for HexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An operation failed or was refused. Nothing of it is visible, now or after a restart, except where
/// [`EngineError::Failed`] says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("chunk {key:?} is at version {current}, the operation expected {expected}")]
    VersionMismatch { key: ChunkKey, expected: Version, current: Version },
    #[error("{needed_bytes} bytes do not fit: {available_bytes} available besides the reserve")]
    Full { needed_bytes: u64, available_bytes: u64 },
    #[error("piece {piece} of the payload for chunk {key:?} does not match its crc32c")]
    PayloadChecksum { key: ChunkKey, piece: usize },
    #[error("bad request for chunk {key:?}: {reason}")]
    Invalid { key: ChunkKey, reason: &'static str },
    #[error("chunk {key:?} has size {recorded_bytes}, the operation says {given_bytes}")]
    ChunkSize { key: ChunkKey, recorded_bytes: u32, given_bytes: u32 },
    #[error("setting {name:?} is {len_bytes} bytes long, at most {max_bytes} fit")]
    SettingTooLong { name: String, len_bytes: usize, max_bytes: usize },
    /// This data is lost here; other replicas have it. The disk goes on.
    #[error("damaged: {0}")]
    Damaged(#[from] Damage),
    /// The disk is out. Whether operations then in flight took effect is known only after it is opened again.
    #[error("the disk failed: {0}")]
    Failed(Arc<Failure>),
}

impl EngineError {
    /// The chunk whose data is damaged, if that is what this says: other members have it, see [`Engine::heal`].
    ///
    /// [`Engine::heal`]: crate::Engine::heal
    #[must_use]
    pub const fn damaged_chunk(&self) -> Option<ChunkKey> {
        match self {
            Self::Damaged(
                Damage::Block { key, .. } | Damage::CutOff { key, .. } | Damage::Unreadable { key, .. },
            ) => Some(*key),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::VersionMismatch { .. }
            | Self::PayloadChecksum { .. }
            | Self::Invalid { .. }
            | Self::ChunkSize { .. }
            | Self::SettingTooLong { .. }
            | Self::Damaged(_)
            | Self::Failed(_) => false,
        }
    }
}

/// A disk could not be formatted or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is not a formatted disk: it has no superblock")]
    NotFormatted { path: PathBuf },
    #[error("{path} is formatted already (disk {uuid}); remove it first if its data is not wanted")]
    AlreadyFormatted { path: PathBuf, uuid: HexKey },
    #[error("{path} holds other files; a disk is formatted in an empty directory")]
    NotEmpty { path: PathBuf },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error(
        "the metadata of {path} is damaged again, and what was set aside the first time is still in {path}/set-aside: \
         look at the medium; delete set-aside if all groups are whole without this disk (`pangu status`)"
    )]
    SetAside { path: PathBuf },
    #[error("both superblocks of {path} are damaged: {reason}")]
    Superblock { path: PathBuf, reason: &'static str },
    #[error("{path} has format {found}, this program reads formats up to {supported}; use a newer program")]
    Format { path: PathBuf, found: u32, supported: u32 },
    #[error("capacity {capacity_bytes} is below the least a disk can have, {min_bytes} bytes")]
    TooSmall { capacity_bytes: u64, min_bytes: u64 },
    #[error("bad layout for a disk: {reason}")]
    Layout { reason: &'static str },
    #[error("{operation} {path}: {source}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("open the metadata store: {0}")]
    Meta(#[source] coord_kv_rocks::OpenError),
    #[error("io_uring was asked for, but the kernel refuses it: {0}")]
    Uring(#[source] std::io::Error),
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl OpenError {
    /// Whether the disk's metadata is not what was written, or a part of it is gone: nothing of the disk can be relied on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Superblock { .. } | Self::Meta(coord_kv_rocks::OpenError::Corrupt { .. }) => true,
            Self::Failed(failure) => failure.is_damage(),
            Self::Io { operation, path, source } => {
                *operation == "open"
                    && path.ends_with(crate::io::files::JOURNAL)
                    && source.kind() == std::io::ErrorKind::NotFound
            }
            _ => false,
        }
    }
}

impl Failure {
    /// As [`OpenError::is_damage`].
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damage(_) | Self::Kv(KvError::Corrupt { .. }))
    }

    /// Something else took the room on its file system that the disk needed beside its data. When there is room again, it works
    /// again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io(error) => error.is_full(),
            // RocksDB tells by its words alone; these are strerror's.
            Self::Kv(KvError::Io { reason, .. }) => reason.contains("No space left on device"),
            Self::Kv(KvError::Corrupt { .. }) | Self::Damage(_) | Self::Closed => false,
        }
    }
}

impl From<KvError> for OpenError {
    fn from(error: KvError) -> Self {
        Self::Failed(Failure::Kv(error))
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Failed(Failure::Damage(damage))
    }
}

impl From<IoError> for OpenError {
    fn from(error: IoError) -> Self {
        Self::Failed(Failure::Io(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_is_told_from_a_failed_disk() {
        let kv = |reason: &str| {
            let (operation, path) = ("write", "/disk/meta".to_owned());
            Failure::Kv(KvError::Io { operation, path, reason: reason.to_owned() })
        };
        let full = "IO error: No space left on device: While appending to file: /disk/meta/000029.sst";
        assert!(kv(full).is_full() && !kv(full).is_damage());
        assert!(
            !kv("IO error: Input/output error: While appending to file: /disk/meta/000029.sst").is_full()
        );
        let io = |errno| {
            let source = Arc::new(std::io::Error::from_raw_os_error(errno));
            Failure::Io(IoError {
                operation: "write",
                file: FileId::Journal,
                offset_bytes: 0,
                len_bytes: 0,
                source,
            })
        };
        assert!(io(libc::ENOSPC).is_full() && !io(libc::EIO).is_full());
        assert!(!Failure::Closed.is_full());
    }
}
