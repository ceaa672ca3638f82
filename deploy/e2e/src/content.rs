//! Bytes made from a seed, and the comparison of what was read with them.

/// An endless stream of bytes that depend on the seed and on their place only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    seed: u64,
}

impl Content {
    /// Different seeds, different bytes, at (nearly) every place.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The eight bytes of word `index` (splitmix64: a word can be made without those before it).
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let word = self.word(at / 8);
            let skip = usize::try_from(at % 8).expect("below eight");
            let take = rest.len().min(8 - skip);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&word[skip..skip + take]);
            rest = later;
            at += u64::try_from(take).expect("at most eight");
        }
    }

    /// `length` bytes from the start.
    #[must_use]
    pub fn bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(0, &mut bytes);
        bytes
    }
}

/// Where two byte strings differ first, in words.
#[must_use]
pub fn first_difference(got: &[u8], wanted: &[u8]) -> Option<String> {
    if let Some(at) = got.iter().zip(wanted).position(|(g, w)| g != w) {
        let zeros = got[at..].iter().take_while(|byte| **byte == 0).count();
        return Some(format!(
            "byte {at}: {:#04x}, wanted {:#04x} ({zeros} zeros follow there)",
            got[at], wanted[at]
        ));
    }
    (got.len() != wanted.len()).then(|| format!("length {}, wanted {}", got.len(), wanted.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let whole = Content::new(7).bytes(100);
        let mut part = vec![0; 40];
        Content::new(7).fill(13, &mut part);
        assert_eq!(part, whole[13..53]);
    }

    #[test]
    fn seeds_and_places_differ() {
        let (a, b) = (Content::new(1).bytes(4096), Content::new(2).bytes(4096));
        assert_ne!(a, b);
        assert_ne!(a[..2048], a[2048..]);
    }

    #[test]
    fn differences_are_found() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert!(first_difference(b"abx", b"abc").unwrap().contains("byte 2"));
        assert!(first_difference(b"ab", b"abc").unwrap().contains("length 2"));
    }
}
