//! Cuts the byte stream into frames. Bytes come in through [`BufMut`]: the decoder says where the next ones shall go,
//! so that a payload is read from the socket straight into its own buffer.
//!
//! Only what a frame's header announced is ever buffered, and lengths are checked first: at most one message, one
//! payload and the scratch buffer a connection.

use bytes::buf::UninitSlice;
use bytes::{BufMut, Bytes, BytesMut};

use super::PayloadState;
use crate::frame::{FrameError, HEADER_LEN, Header};
use crate::message::PayloadCheck;
use crate::payload::{Kind as BufferKind, PayloadBuf};

/// Small frames are gathered here, many a read.
const SCRATCH_LEN: usize = 32 << 10;
/// After a long payload only this much is read ahead: what lies here of the next payload must be copied.
/// Enough for a header and the checksums of 1 MiB.
const SCRATCH_BULK: usize = 2 << 10;
/// From this length on a payload counts as long.
const BULK_PAYLOAD: u32 = 32 << 10;

/// A whole frame; header and message checksums were right.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub message: Bytes,
    pub payload: PayloadState,
}

/// What to do with a payload that is about to come.
#[derive(Debug)]
pub enum Admit {
    Into(PayloadBuf),
    /// Read and forget it.
    Drop,
}

/// What the decoder has.
#[derive(Debug)]
pub enum Step {
    Frame(Frame),
    /// More bytes are needed.
    Read,
}

/// The state of the incoming stream.
#[derive(Debug)]
pub struct Decoder {
    /// `scratch[start..end]` is not decoded yet.
    scratch: Box<[u8]>,
    start: usize,
    end: usize,
    stage: Stage,
    bulk: bool,
}

#[derive(Debug)]
enum Stage {
    Header,
    Message { header: Header, message: BytesMut, admit: Admit },
    Payload { header: Header, message: Bytes, fill: Fill },
}

/// A payload on its way into its buffer.
#[derive(Debug)]
enum Fill {
    Into { buffer: PayloadBuf, filled: usize },
    Drop { left: usize },
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    #[must_use]
    pub fn new() -> Self {
        let scratch = vec![0; SCRATCH_LEN].into_boxed_slice();
        Self { scratch, start: 0, end: 0, stage: Stage::Header, bulk: false }
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.stage, Stage::Header) && self.start == self.end
    }

    /// The next frame, if it is whole. `admit` is asked once for each payload, before it is read.
    ///
    /// # Errors
    /// The stream cannot be used any more.
    pub fn step(&mut self, admit: &mut dyn FnMut(&Header) -> Admit) -> Result<Step, FrameError> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Header) {
                Stage::Header => {
                    let Some(header) = self.take_header()? else { return Ok(Step::Read) };
                    let message = BytesMut::with_capacity(header.message_len as usize);
                    let admit = if header.payload_len == 0 { Admit::Drop } else { admit(&header) };
                    self.stage = Stage::Message { header, message, admit };
                }
                Stage::Message { header, mut message, admit } => {
                    let wanted = header.message_len as usize - message.len();
                    message.extend_from_slice(self.take_scratch(wanted));
                    if message.len() < header.message_len as usize {
                        self.stage = Stage::Message { header, message, admit };
                        return Ok(Step::Read);
                    }
                    check_message(&header, &message)?;
                    let fill = Fill::new(admit, header.payload_len as usize);
                    self.stage = Stage::Payload { header, message: message.freeze(), fill };
                }
                Stage::Payload { header, message, mut fill } => {
                    let wanted = fill.left(&header);
                    let taken = self.take_scratch(wanted);
                    fill.put(taken);
                    if fill.left(&header) > 0 {
                        // All of the scratch buffer was taken; dropped bytes are read into it from its beginning.
                        (self.start, self.end) = (0, 0);
                        self.stage = Stage::Payload { header, message, fill };
                        return Ok(Step::Read);
                    }
                    self.bulk = header.payload_len >= BULK_PAYLOAD;
                    return Ok(Step::Frame(Frame { header, message, payload: fill.finish(&header) }));
                }
            }
        }
    }

    fn take_header(&mut self) -> Result<Option<Header>, FrameError> {
        if self.end - self.start < HEADER_LEN {
            // Room for the rest; rarely moves anything, as reads mostly end at a frame's end.
            self.scratch.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return Ok(None);
        }
        let bytes = self.take_scratch(HEADER_LEN).try_into().expect("at least HEADER_LEN bytes are there");
        Header::decode(bytes).map(Some)
    }

    /// Up to `wanted` bytes that were read ahead.
    fn take_scratch(&mut self, wanted: usize) -> &[u8] {
        let from = self.start;
        self.start = self.end.min(from + wanted);
        &self.scratch[from..self.start]
    }
}

fn check_message(header: &Header, message: &[u8]) -> Result<(), FrameError> {
    let (stored, computed) = (header.message_crc, crc32c::crc32c(message));
    if stored == computed { Ok(()) } else { Err(FrameError::MessageCrc { stored, computed }) }
}

impl Fill {
    fn new(admit: Admit, payload_len: usize) -> Self {
        match admit {
            Admit::Into(mut buffer) => {
                match &mut buffer.0 {
                    BufferKind::Heap(heap) => heap.reserve(payload_len),
                    BufferKind::Custom(custom) => {
                        assert_eq!(
                            custom.as_mut_slice().len(),
                            payload_len,
                            "an allocator gives what is asked for"
                        );
                    }
                }
                Self::Into { buffer, filled: 0 }
            }
            Admit::Drop => Self::Drop { left: payload_len },
        }
    }

    fn left(&self, header: &Header) -> usize {
        match self {
            Self::Into { filled, .. } => header.payload_len as usize - filled,
            Self::Drop { left } => *left,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self {
            Self::Into { buffer, filled } => {
                match &mut buffer.0 {
                    BufferKind::Heap(heap) => heap.extend_from_slice(bytes),
                    BufferKind::Custom(custom) => {
                        custom.as_mut_slice()[*filled..*filled + bytes.len()].copy_from_slice(bytes);
                    }
                }
                *filled += bytes.len();
            }
            Self::Drop { left } => *left -= bytes.len(),
        }
    }

    fn finish(self, header: &Header) -> PayloadState {
        let buffer = match self {
            Self::Into { buffer, .. } => buffer,
            Self::Drop { .. } if header.payload_len == 0 => return PayloadState::Received(Bytes::new()),
            Self::Drop { .. } => return PayloadState::Dropped,
        };
        let payload = match buffer.0 {
            BufferKind::Heap(heap) => heap.freeze(),
            BufferKind::Custom(custom) => custom.freeze(),
        };
        let right = match header.payload_check {
            PayloadCheck::Crc => crc32c::crc32c(&payload) == header.payload_crc,
            PayloadCheck::ByMessage => true,
        };
        if right { PayloadState::Received(payload) } else { PayloadState::Damaged }
    }
}

// SAFETY: `advance_mut(n)` only moves positions inside the buffer `chunk_mut` gave, which the caller promises to have
// filled with `n` bytes; each arm's bound is the length of that buffer. `remaining_mut` is never zero unless a frame
// is complete, in which case `step` must be called first.
unsafe impl BufMut for Decoder {
    fn remaining_mut(&self) -> usize {
        match &self.stage {
            Stage::Message { header, message, .. } => header.message_len as usize - message.len(),
            Stage::Payload { header, fill: fill @ Fill::Into { .. }, .. } => fill.left(header),
            Stage::Header | Stage::Payload { fill: Fill::Drop { .. }, .. } => self.scratch_limit() - self.end,
        }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let remaining = self.remaining_mut();
        match &mut self.stage {
            Stage::Message { message, .. } => {
                // Memory was reserved when the header came, so this never grows the buffer.
                &mut message.chunk_mut()[..remaining]
            }
            Stage::Payload { fill: Fill::Into { buffer, filled }, .. } => match &mut buffer.0 {
                BufferKind::Heap(heap) => &mut heap.chunk_mut()[..remaining],
                BufferKind::Custom(custom) => UninitSlice::new(&mut custom.as_mut_slice()[*filled..]),
            },
            Stage::Header | Stage::Payload { fill: Fill::Drop { .. }, .. } => {
                UninitSlice::new(&mut self.scratch[self.end..self.end + remaining])
            }
        }
    }

    unsafe fn advance_mut(&mut self, n: usize) {
        assert!(n <= self.remaining_mut(), "more bytes than there was room for");
        match &mut self.stage {
            Stage::Message { message, .. } => {
                // SAFETY: the caller wrote `n` bytes into `chunk_mut`, which is this buffer's spare room.
                unsafe { message.advance_mut(n) }
            }
            Stage::Payload { fill: Fill::Into { buffer, filled }, .. } => {
                if let BufferKind::Heap(heap) = &mut buffer.0 {
                    // SAFETY: as above.
                    unsafe { heap.advance_mut(n) }
                }
                *filled += n;
            }
            Stage::Header | Stage::Payload { fill: Fill::Drop { .. }, .. } => self.end += n,
        }
    }
}

impl Decoder {
    /// Up to where the scratch buffer is filled. Only at a header, or when dropping: then nothing of it is in use but
    /// the beginning of a header.
    fn scratch_limit(&self) -> usize {
        match self.stage {
            Stage::Header if self.bulk => SCRATCH_BULK,
            _ => SCRATCH_LEN,
        }
    }
}

#[cfg(test)]
mod tests;
