//! The journal's frames and its ring: encoding, decoding, and which place the next frame takes. No IO.
//!
//! Byte map and crash argument in docs/disk-format.md. Invariants:
//! - frames are numbered without gaps for the disk's whole life; a number is used once;
//! - a frame never overwrites one the metadata store may still need;
//! - a frame says up to which one all were durable when it was written: one of those that is missing is damage, any
//!   other one that is missing was cut off by a crash, and what lies behind it was never answered;
//! - frames carry a number drawn when the disk was opened: what an earlier life left behind is never taken for them.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use coord_types::BLOCK_SIZE;

use crate::update::Update;

const MAGIC: u32 = u32::from_le_bytes(*b"FTJ1");
const FORMAT: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Updates are gathered into a frame up to about this size; one update larger than it makes a frame of its own.
pub(crate) const FRAME_BYTES_TARGET: usize = 128 << 10;
/// No frame is larger: an install of a 64 MiB chunk scattered over single blocks.
pub(crate) const FRAME_BYTES_MAX: usize = 512 << 10;

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence: u64,
    /// The data of every update up to this frame (perhaps this one) was durable when the frame was written.
    pub(crate) settled: u64,
    /// All frames up to this one were durable when this one was written.
    pub(crate) durable: u64,
    pub(crate) body_bytes: usize,
    pub(crate) updates: u32,
    body_crc: u32,
}

impl Header {
    /// Bytes the frame takes in the journal.
    pub(crate) const fn frame_bytes(&self) -> usize {
        (HEADER_BYTES + self.body_bytes).next_multiple_of(BLOCK_SIZE)
    }

    /// The header at the start of `block`, if there is one of this disk.
    pub(crate) fn decode(block: &[u8], salt: u64) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = block.first_chunk()?;
        let (fields, crc) = header.split_last_chunk::<4>()?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut from: &[u8] = fields;
        if from.get_u32_le() != MAGIC || from.get_u16_le() != FORMAT {
            return None;
        }
        from.advance(2);
        if from.get_u64_le() != salt {
            return None;
        }
        let (sequence, settled, durable) = (from.get_u64_le(), from.get_u64_le(), from.get_u64_le());
        let (body_bytes, updates, body_crc) =
            (from.get_u32_le() as usize, from.get_u32_le(), from.get_u32_le());
        let header = Self { sequence, settled, durable, body_bytes, updates, body_crc };
        (HEADER_BYTES + body_bytes <= FRAME_BYTES_MAX).then_some(header)
    }

    /// The updates, if the body is what was written.
    pub(crate) fn decode_body(&self, body: &[u8]) -> Option<Result<Vec<Update>, &'static str>> {
        if body.len() != self.body_bytes || crc32c::crc32c(body) != self.body_crc {
            return None;
        }
        let mut from = body;
        let mut updates = Vec::new();
        for _ in 0..self.updates {
            match Update::decode(&mut from) {
                Ok(update) => updates.push(update),
                Err(reason) => return Some(Err(reason)),
            }
        }
        Some(if from.is_empty() { Ok(updates) } else { Err("bytes are left over after the last update") })
    }
}

/// What a frame says besides its updates; see [`Header`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) sequence: u64,
    pub(crate) settled: u64,
    pub(crate) durable: u64,
}

/// A frame as it goes to the disk: whole blocks.
pub(crate) fn encode_frame<'a>(
    salt: u64,
    Numbers { sequence, settled, durable }: Numbers,
    updates: impl Iterator<Item = &'a Update>,
) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    let mut count = 0_u32;
    for update in updates {
        update.encode(&mut out);
        count += 1;
    }
    let body_len = u32::try_from(out.len() - HEADER_BYTES).expect("a frame is under FRAME_BYTES_MAX");
    let body_crc = crc32c::crc32c(&out[HEADER_BYTES..]);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_u32_le(MAGIC);
    header.put_u16_le(FORMAT);
    header.put_u16_le(0);
    header.put_u64_le(salt);
    header.put_u64_le(sequence);
    header.put_u64_le(settled);
    header.put_u64_le(durable);
    header.put_u32_le(body_len);
    header.put_u32_le(count);
    header.put_u32_le(body_crc);
    header.resize(HEADER_BYTES - 4, 0);
    let crc = crc32c::crc32c(&header);
    header.put_u32_le(crc);
    out[..HEADER_BYTES].copy_from_slice(&header);
    out.resize(out.len().next_multiple_of(BLOCK_SIZE), 0);
    out
}

/// Which frames the journal must keep, and where the next one goes.
#[derive(Debug)]
pub(crate) struct Ring {
    len_bytes: u64,
    next_sequence: u64,
    end_bytes: u64,
    /// Frames the metadata store may still need, oldest first.
    live: VecDeque<Live>,
    used_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    sequence: u64,
    start_bytes: u64,
    len_bytes: u64,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) end_bytes: u64,
}

impl Ring {
    /// An empty ring that goes on after frame `sequence`, which ended at `end_bytes`.
    pub(crate) fn new(len_bytes: u64, sequence: u64, end_bytes: u64) -> Self {
        Self { len_bytes, next_sequence: sequence + 1, end_bytes, live: VecDeque::new(), used_bytes: 0 }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The place of the next frame, `len_bytes` long; `None` until older frames are released.
    pub(crate) fn place(&mut self, len_bytes: u64) -> Option<Place> {
        let offset_bytes = match self.live.front() {
            None if self.end_bytes + len_bytes <= self.len_bytes => self.end_bytes,
            None => 0,
            Some(oldest) if self.end_bytes > oldest.start_bytes => {
                if self.end_bytes + len_bytes <= self.len_bytes {
                    self.end_bytes
                } else if len_bytes <= oldest.start_bytes {
                    0
                } else {
                    return None;
                }
            }
            Some(oldest) if self.end_bytes + len_bytes <= oldest.start_bytes => self.end_bytes,
            Some(_) => return None,
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.end_bytes = offset_bytes + len_bytes;
        self.used_bytes += len_bytes;
        self.live.push_back(Live { sequence, start_bytes: offset_bytes, len_bytes });
        Some(Place { sequence, offset_bytes, end_bytes: self.end_bytes })
    }

    /// The metadata store holds all up to frame `sequence` durably.
    pub(crate) fn release(&mut self, sequence: u64) {
        while let Some(oldest) = self.live.front()
            && oldest.sequence <= sequence
        {
            self.used_bytes -= oldest.len_bytes;
            self.live.pop_front();
        }
    }

    /// Whether it is time to make the metadata store durable, which holds all up to frame `applied`.
    pub(crate) fn needs_release(&self, applied: u64) -> bool {
        self.used_bytes > self.len_bytes / 2
            && self.live.front().is_some_and(|oldest| oldest.sequence <= applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::tests::updates;
    use proptest::prelude::*;

    /// The header of a frame of two updates, changed and sealed anew, and its body.
    fn forged(change: impl FnOnce(&mut [u8])) -> (Option<Header>, Vec<u8>) {
        let key = coord_types::ChunkKey::new(coord_types::GroupId(1), coord_types::DataId(2), 3);
        let updates = [Update::Remove { key }, Update::Remove { key }];
        let numbers = Numbers { sequence: 2, settled: 1, durable: 1 };
        let mut frame = encode_frame(7, numbers, updates.iter());
        change(&mut frame[..HEADER_BYTES - 4]);
        let crc = crc32c::crc32c(&frame[..HEADER_BYTES - 4]);
        frame[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        let header = Header::decode(&frame, 7);
        let body_bytes = header.map_or(0, |header| header.body_bytes);
        (header, frame[HEADER_BYTES..HEADER_BYTES + body_bytes].to_vec())
    }

    #[test]
    fn a_good_checksum_does_not_make_a_frame() {
        assert!(forged(|header| header[0] = b'X').0.is_none(), "magic");
        assert!(forged(|header| header[4] = 2).0.is_none(), "format");
        let too_long = u32::try_from(FRAME_BYTES_MAX - HEADER_BYTES + 1).unwrap();
        assert!(forged(|header| header[40..44].copy_from_slice(&too_long.to_le_bytes())).0.is_none());
        for (updates, good) in [(1, false), (2, true), (3, false)] {
            let (header, body) = forged(|header| header[44] = updates);
            let decoded = header.unwrap().decode_body(&body).expect("the body is what was written");
            assert_eq!(decoded.is_ok(), good, "{updates} updates");
        }
    }

    proptest! {
        #[test]
        fn frames_come_back_as_written(updates in proptest::collection::vec(updates(), 0..8), flip in any::<prop::sample::Index>()) {
            let frame = encode_frame(7, Numbers { sequence: 42, settled: 41, durable: 40 }, updates.iter());
            prop_assert_eq!(frame.len() % BLOCK_SIZE, 0);
            let header = Header::decode(&frame, 7).unwrap();
            prop_assert_eq!((header.sequence, header.settled, header.durable), (42, 41, 40));
            prop_assert_eq!(header.frame_bytes(), frame.len());
            let body = &frame[HEADER_BYTES..HEADER_BYTES + header.body_bytes];
            prop_assert_eq!(header.decode_body(body).unwrap().unwrap(), updates);
            prop_assert_eq!(Header::decode(&frame, 8), None);

            let bit = flip.index((HEADER_BYTES + header.body_bytes) * 8);
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = Header::decode(&bad, 7).and_then(|h| h.decode_body(&bad[HEADER_BYTES..HEADER_BYTES + h.body_bytes]));
            prop_assert!(found.is_none());
        }

        #[test]
        fn decoder_survives_noise(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(header) = Header::decode(&noise, 7) {
                let _ = header.decode_body(&noise);
            }
        }

        #[test]
        fn live_frames_never_overlap(ops in proptest::collection::vec((1_u64..6, 0_u64..4), 1..200)) {
            let mut ring = Ring::new(20, 0, 0);
            let mut live: VecDeque<Place> = VecDeque::new();
            for (len, release) in ops {
                if let Some(place) = ring.place(len) {
                    prop_assert!(place.end_bytes <= 20 && place.end_bytes == place.offset_bytes + len);
                    for other in &live {
                        prop_assert!(place.end_bytes <= other.offset_bytes || other.end_bytes <= place.offset_bytes);
                    }
                    live.push_back(place);
                } else {
                    prop_assert!(!live.is_empty());
                }
                let upto = live.front().map_or(0, |place| place.sequence) + release;
                if release > 0 {
                    ring.release(upto - 1);
                    live.retain(|place| place.sequence >= upto);
                }
            }
            ring.release(u64::MAX);
            prop_assert!(ring.used_bytes == 0 && ring.place(20).is_some());
        }
    }
}
