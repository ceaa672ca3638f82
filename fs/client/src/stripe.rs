//! A file's range as requests to chunks: reading, zeroing and asking for holes, several chunks at a time.

use bytes::Bytes;
use coord_types::{ChunkSlice, DataId, Fence, Layout, WRITE_SIZE_MAX};
use futures::StreamExt as _;

use crate::chunks::{ChunkPunch, ChunkRead, Chunks, DataError};

/// Chunks asked at once for one operation.
const PARALLEL: usize = 16;
/// Above this many chunks a zeroed range is looked at first: a long hole then stays without records on the disks.
const PUNCH_BLINDLY_MAX: u64 = 4;

static ZEROS: [u8; WRITE_SIZE_MAX] = [0; WRITE_SIZE_MAX];

/// So many zero bytes.
pub(crate) fn zeros(len: usize) -> impl Iterator<Item = Bytes> {
    (0..len).step_by(ZEROS.len()).map(move |at| Bytes::from_static(&ZEROS[..(len - at).min(ZEROS.len())]))
}

/// One generation of a file's data.
#[derive(Clone, Debug)]
pub(crate) struct Stripes {
    pub(crate) layout: Layout,
    pub(crate) data: DataId,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<Bytes>,
    /// Some of it was never written, or its data is no more.
    pub(crate) holes: bool,
}

impl Stripes {
    /// Reads a range that lies within the largest file.
    pub(crate) async fn read(&self, chunks: &dyn Chunks, offset: u64, len: u64) -> Result<Piece, DataError> {
        let requests = self.layout.slices(self.data, offset, len).flat_map(|slice| {
            (0..slice.len_bytes).step_by(WRITE_SIZE_MAX).map(move |at| ChunkRead {
                key: slice.key,
                offset_bytes: slice.offset_bytes + at,
                len_bytes: (slice.len_bytes - at).min(WRITE_SIZE_MAX as u32),
            })
        });
        let mut piece = Piece::default();
        let mut requests = requests.peekable();
        let Some(first) = requests.next() else { return Ok(piece) };
        if requests.peek().is_none() {
            piece.add(first.len_bytes, chunks.read(first).await?);
            return Ok(piece);
        }
        let mut answers = futures::stream::iter(std::iter::once(first).chain(requests))
            .map(|request| async move { (request.len_bytes, chunks.read(request).await) })
            .buffered(PARALLEL);
        while let Some((len, answer)) = answers.next().await {
            piece.add(len, answer?);
        }
        Ok(piece)
    }

    /// Makes a range zero, under a fence; nothing of it may be in flight. Returns how much more (or less) space the file takes.
    pub(crate) async fn zero(
        &self,
        chunks: &dyn Chunks,
        (start, end): (u64, u64),
        fence: Fence,
    ) -> Result<i64, DataError> {
        if end <= start {
            return Ok(0);
        }
        let look_first = (end - start) / u64::from(self.layout.chunk_size_bytes()) > PUNCH_BLINDLY_MAX;
        let chunk_size_bytes = self.layout.chunk_size_bytes();
        let mut answers = futures::stream::iter(self.layout.slices(self.data, start, end - start))
            .map(|slice| async move {
                if look_first && !has_data(&chunks.map(slice.key).await?, &slice) {
                    return Ok(0);
                }
                let ChunkSlice { key, offset_bytes, len_bytes, .. } = slice;
                chunks.punch(ChunkPunch { key, offset_bytes, len_bytes, chunk_size_bytes, fence }).await
            })
            .buffer_unordered(PARALLEL);
        let mut delta = 0;
        while let Some(answer) = answers.next().await {
            delta += answer?;
        }
        Ok(delta)
    }

    /// The first byte of [offset, end) that is data (or that is not), if there is one.
    pub(crate) async fn find(
        &self,
        chunks: &dyn Chunks,
        (offset, end): (u64, u64),
        data: bool,
    ) -> Result<Option<u64>, DataError> {
        let mut answers = futures::stream::iter(self.layout.slices(self.data, offset, end - offset))
            .map(|slice| async move { (slice, chunks.map(slice.key).await) })
            .buffered(PARALLEL);
        while let Some((slice, ranges)) = answers.next().await {
            if let Some(at) = first_in(&ranges?, &slice, data) {
                return Ok(Some(slice.file_offset_bytes + u64::from(at - slice.offset_bytes)));
            }
        }
        Ok(None)
    }
}

impl Piece {
    fn add(&mut self, len: u32, answer: Option<Bytes>) {
        match answer {
            Some(bytes) => self.bytes.push(bytes),
            None => {
                self.holes = true;
                self.bytes.extend(zeros(len as usize));
            }
        }
    }
}

fn has_data(ranges: &[(u32, u32)], slice: &ChunkSlice) -> bool {
    first_in(ranges, slice, true).is_some()
}

/// The first chunk offset within `slice` that is data, or that is not.
fn first_in(ranges: &[(u32, u32)], slice: &ChunkSlice, data: bool) -> Option<u32> {
    let end = slice.offset_bytes + slice.len_bytes;
    let mut at = slice.offset_bytes;
    for &(start, len) in ranges {
        let range_end = start + len;
        if range_end <= at {
            continue;
        }
        if data {
            return Some(at.max(start)).filter(|at| *at < end);
        }
        if start > at {
            break;
        }
        at = range_end;
    }
    (!data && at < end).then_some(at)
}

#[cfg(test)]
mod tests {
    use coord_types::{ChunkKey, GroupId};

    use super::*;

    #[test]
    fn finds_data_and_holes_between_ranges() {
        let slice = |offset, len| ChunkSlice {
            key: ChunkKey::new(GroupId(1), DataId(1), 0),
            offset_bytes: offset,
            len_bytes: len,
            file_offset_bytes: 0,
        };
        let ranges = [(4096, 4096), (8192, 4096), (40960, 4096)];
        assert_eq!(first_in(&ranges, &slice(0, 65536), true), Some(4096));
        assert_eq!(first_in(&ranges, &slice(5000, 60536), true), Some(5000));
        assert_eq!(first_in(&ranges, &slice(12288, 65536), true), Some(40960));
        assert_eq!(first_in(&ranges, &slice(45056, 100), true), None);
        assert_eq!(first_in(&ranges, &slice(12288, 10), true), None);
        assert_eq!(first_in(&ranges, &slice(0, 100), false), Some(0));
        assert_eq!(first_in(&ranges, &slice(4096, 65536), false), Some(12288));
        assert_eq!(first_in(&ranges, &slice(4096, 8192), false), None);
        assert_eq!(first_in(&[], &slice(7, 1), false), Some(7));
    }

    #[test]
    fn zeros_of_any_length() {
        for len in [0, 1, WRITE_SIZE_MAX, WRITE_SIZE_MAX * 2 + 5] {
            assert_eq!(zeros(len).map(|part| part.len()).sum::<usize>(), len);
        }
    }
}
