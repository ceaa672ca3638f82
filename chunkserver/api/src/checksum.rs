//! crc32c of a payload's pieces. A payload is cut at the block boundaries of its chunk, so only the first and the
//! last piece may be shorter than a block; a disk then stores the checksum of every whole block as it came.

use coord_types::BLOCK_SIZE;

/// How many pieces `len_bytes` bytes at `offset_bytes` are cut into.
#[must_use]
pub const fn piece_count(offset_bytes: u32, len_bytes: usize) -> usize {
    (offset_bytes as usize % BLOCK_SIZE + len_bytes).div_ceil(BLOCK_SIZE)
}

/// The pieces of `data`, which begins at `offset_bytes` of its chunk.
pub fn pieces(offset_bytes: u32, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first_len = (BLOCK_SIZE - offset_bytes as usize % BLOCK_SIZE).min(data.len());
    let (first, rest) = data.split_at(first_len);
    std::iter::once(first).filter(|piece| !piece.is_empty()).chain(rest.chunks(BLOCK_SIZE))
}

/// The checksum of each piece, as a write carries them.
#[must_use]
pub fn piece_crcs(offset_bytes: u32, data: &[u8]) -> Vec<u32> {
    pieces(offset_bytes, data).map(crc32c::crc32c).collect()
}

/// The chunk offset of the first piece whose checksum is not the one given, if any. `crcs` and pieces must be
/// equally many; where one is missing, that is a mismatch too.
#[must_use]
pub fn first_mismatch(offset_bytes: u32, data: &[u8], crcs: &[u32]) -> Option<u32> {
    let mut at = offset_bytes;
    let mut expected = crcs.iter();
    for piece in pieces(offset_bytes, data) {
        if expected.next() != Some(&crc32c::crc32c(piece)) {
            return Some(at);
        }
        at += u32::try_from(piece.len()).expect("a piece is at most a block");
    }
    expected.next().map(|_| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_the_blocks_of_the_chunk() {
        let data = vec![7; 2 * BLOCK_SIZE];
        let lens = |offset, len: usize| pieces(offset, &data[..len]).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lens(0, 2 * BLOCK_SIZE), [BLOCK_SIZE, BLOCK_SIZE]);
        assert_eq!(lens(100, 2 * BLOCK_SIZE), [BLOCK_SIZE - 100, BLOCK_SIZE, 100]);
        assert_eq!(lens(100, 7), [7]);
        assert_eq!(lens(4096 * 3, 1), [1]);
        assert!(lens(5, 0).is_empty());
        for (offset, len) in [(0, 1), (0, 4096), (1, 4096), (4095, 2), (4095, 1), (8192, 8192)] {
            assert_eq!(piece_count(offset, len), lens(offset, len).len(), "{offset} {len}");
        }
    }

    #[test]
    fn finds_the_piece_that_changed() {
        let mut data = (0..9000u32).map(|i| i as u8).collect::<Vec<_>>();
        let crcs = piece_crcs(10, &data);
        assert_eq!(first_mismatch(10, &data, &crcs), None);
        data[5000] ^= 1;
        assert_eq!(first_mismatch(10, &data, &crcs), Some(4096));
        data[5000] ^= 1;
        assert_eq!(first_mismatch(10, &data, &crcs[..2]), Some(8192));
        assert_eq!(first_mismatch(10, &data[..4086], &crcs), Some(4096));
    }
}
