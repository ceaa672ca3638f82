//! Where a file's bytes live: chunk `k` of a file is in `groups[k mod width]`.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ChunkKey, DataId, GroupId};
use crate::units::BLOCK_SIZE;

/// A file's layout. Constant for one generation of its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    chunk_size_bytes: u32,
    groups: Vec<GroupId>,
}

/// Why a layout was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("chunk size {0} is not a power of two between 64 KiB and 64 MiB")]
    ChunkSize(u32),
    #[error("a layout names between 1 and {max} groups, not {0}", max = Layout::WIDTH_MAX)]
    Width(usize),
}

/// The part of a byte range that falls into one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSlice {
    pub key: ChunkKey,
    /// Where in the chunk it begins.
    pub offset_bytes: u32,
    pub len_bytes: u32,
    /// Where in the file it begins.
    pub file_offset_bytes: u64,
}

impl Layout {
    /// The most groups a file is striped over: keeps the inode record small.
    pub const WIDTH_MAX: usize = 16;

    /// # Errors
    /// See [`LayoutError`].
    pub fn new(chunk_size_bytes: u32, groups: Vec<GroupId>) -> Result<Self, LayoutError> {
        if !chunk_size_bytes.is_power_of_two() || !(64 << 10..=64 << 20).contains(&chunk_size_bytes) {
            return Err(LayoutError::ChunkSize(chunk_size_bytes));
        }
        if groups.is_empty() || groups.len() > Self::WIDTH_MAX {
            return Err(LayoutError::Width(groups.len()));
        }
        Ok(Self { chunk_size_bytes, groups })
    }

    #[must_use]
    pub const fn chunk_size_bytes(&self) -> u32 {
        self.chunk_size_bytes
    }

    #[must_use]
    pub const fn blocks_per_chunk(&self) -> u32 {
        self.chunk_size_bytes / BLOCK_SIZE as u32
    }

    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// The largest file this layout can hold: chunk indexes are 32 bits wide.
    #[must_use]
    pub const fn file_size_max_bytes(&self) -> u64 {
        self.chunk_size_bytes as u64 * u32::MAX as u64
    }

    /// The chunk that holds byte `offset_bytes`, which must be below [`file_size_max_bytes`](Self::file_size_max_bytes).
    #[must_use]
    pub fn chunk_at(&self, data: DataId, offset_bytes: u64) -> ChunkKey {
        let index = u32::try_from(offset_bytes / u64::from(self.chunk_size_bytes))
            .expect("the offset is below file_size_max_bytes");
        let group = self.groups[index as usize % self.groups.len()];
        ChunkKey { group, chunk: ChunkId { data, index } }
    }

    /// Cuts `len_bytes` bytes at `offset_bytes` at chunk boundaries, in order.
    pub fn slices(
        &self,
        data: DataId,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> impl Iterator<Item = ChunkSlice> + '_ {
        let end_exclusive = offset_bytes + len_bytes;
        let chunk_size = u64::from(self.chunk_size_bytes);
        let mut at = offset_bytes;
        std::iter::from_fn(move || {
            if at >= end_exclusive {
                return None;
            }
            let within = at % chunk_size;
            let len = (chunk_size - within).min(end_exclusive - at);
            let slice = ChunkSlice {
                key: self.chunk_at(data, at),
                offset_bytes: within as u32,
                len_bytes: len as u32,
                file_offset_bytes: at,
            };
            at += len;
            Some(slice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(1 << 20, vec![GroupId(5), GroupId(9)]).unwrap()
    }

    #[test]
    fn slices_cover_the_range_once_and_in_order() {
        let layout = layout();
        let slices: Vec<_> = layout.slices(DataId(7), (1 << 20) - 10, (1 << 20) + 20).collect();
        assert_eq!(
            slices.iter().map(|s| (s.key.chunk.index, s.offset_bytes, s.len_bytes)).collect::<Vec<_>>(),
            [(0, (1 << 20) - 10, 10), (1, 0, 1 << 20), (2, 0, 10)]
        );
        assert_eq!(slices.iter().map(|s| s.key.group.0).collect::<Vec<_>>(), [5, 9, 5]);
        assert_eq!(layout.slices(DataId(7), 3, 0).count(), 0);
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        assert_eq!(Layout::new(3 << 20, vec![GroupId(1)]), Err(LayoutError::ChunkSize(3 << 20)));
        assert_eq!(Layout::new(1 << 20, vec![]), Err(LayoutError::Width(0)));
        assert_eq!(Layout::new(1 << 20, vec![GroupId(1); 17]), Err(LayoutError::Width(17)));
    }
}
