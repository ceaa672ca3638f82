//! Names of things. Each is a type of its own, so that a disk cannot be passed where a group is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// An inode. The top 16 bits are the volume, so that many Raft groups can share the tree later;
    /// the root of volume 0 is inode 1, as FUSE demands.
    InodeId(u64), "ino#"
);
id!(
    /// One generation of a file's data. Truncating a file to nothing gives it a fresh one, so that no byte of
    /// the old generation can ever reappear (I8). Drawn from the same counter as inodes.
    DataId(u64), "data#"
);
id!(
    /// A replica group: an ordered set of disks in different racks that hold the same chunks.
    GroupId(u32), "group#"
);
id!(
    /// A disk, as the master numbered it when the disk first registered. Never used again.
    DiskId(u32), "disk#"
);
id!(
    /// A chunkserver process's identity, as the master numbered it. Survives restarts.
    ServerId(u32), "cs#"
);
id!(
    /// A client session with the master. Never used again.
    SessionId(u64), "session#"
);

impl InodeId {
    /// The root directory of volume 0.
    pub const ROOT: Self = Self(1);
    /// Bits below the volume number.
    pub const VOLUME_SHIFT: u32 = 48;

    /// The volume this inode lives in.
    #[must_use]
    pub const fn volume(self) -> u16 {
        (self.0 >> Self::VOLUME_SHIFT) as u16
    }
}

impl SessionId {
    /// Of no client: the one whose sequence numbers are fences ([`crate::fence`]). The master counts from 1.
    pub const FENCE: Self = Self(u64::MAX);
}

/// A fixed-size piece of a file: which data, which piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId {
    pub data: DataId,
    pub index: u32,
}

/// A chunk as a disk files it: by group first, so that one group's chunks lie together and can be listed and
/// compared; then by data, so that a deleted file goes by prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkKey {
    pub group: GroupId,
    pub chunk: ChunkId,
}

impl ChunkKey {
    /// Bytes of the encoded key.
    pub const LEN: usize = 16;

    #[must_use]
    pub const fn new(group: GroupId, data: DataId, index: u32) -> Self {
        Self { group, chunk: ChunkId { data, index } }
    }

    /// Big-endian group, data, index: byte order is key order.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&self.group.0.to_be_bytes());
        out[4..12].copy_from_slice(&self.chunk.data.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.chunk.index.to_be_bytes());
        out
    }

    /// The inverse of [`encode`](Self::encode); `None` if the length is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (group, rest) = bytes.split_first_chunk::<4>()?;
        let (data, rest) = rest.split_first_chunk::<8>()?;
        let (index, _) = rest.split_first_chunk::<4>()?;
        Some(Self::new(
            GroupId(u32::from_be_bytes(*group)),
            DataId(u64::from_be_bytes(*data)),
            u32::from_be_bytes(*index),
        ))
    }
}

/// Names one write of one client, so that a retry of it is recognised (I5). `seq` counts per session and chunk
/// and only grows; a client has at most [`Stamp::WINDOW`] writes to one chunk in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    pub session: SessionId,
    pub seq: u64,
}

impl Stamp {
    /// Writes to one chunk a session may have unanswered. Half of the 64 a chunk's record can tell apart.
    pub const WINDOW: u64 = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_key_order_is_byte_order() {
        let mut keys = vec![
            ChunkKey::new(GroupId(1), DataId(1), 0),
            ChunkKey::new(GroupId(1), DataId(1), 256),
            ChunkKey::new(GroupId(1), DataId(300), 1),
            ChunkKey::new(GroupId(258), DataId(0), 0),
        ];
        keys.reverse();
        keys.sort_by_key(|key| key.encode());
        assert!(keys.is_sorted());
        for key in keys {
            assert_eq!(ChunkKey::decode(&key.encode()), Some(key));
        }
        assert_eq!(ChunkKey::decode(&[0; 15]), None);
    }

    #[test]
    fn volume_is_the_top_of_the_inode() {
        assert_eq!(InodeId::ROOT.volume(), 0);
        assert_eq!(InodeId((7 << 48) | 1).volume(), 7);
    }
}
