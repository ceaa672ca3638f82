//! What is to be written: a queue of byte runs for vectored writes.
//!
//! Headers, messages and short payloads are gathered in buffers of our own, so that many small frames cost one write;
//! longer payloads are held by reference and never copied. The queue itself has no bound: credit bounds a client's,
//! and a server stops reading and polling handlers while its own is long.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::frame::{HEADER_LEN, Header};
use crate::message::PayloadCheck;

/// Byte runs handed to one vectored write. More gain nothing: the kernel's own limit is 1024, and a run is either
/// a long payload or up to `GATHER_MAX` of small frames.
pub const SLICES_MAX: usize = 32;
/// A gathered run grows up to this.
const GATHER_MAX: usize = 64 << 10;
/// Payloads and encoded messages up to this are copied behind their header: cheaper than one more run.
const COPY_MAX: usize = 2 << 10;

/// A message that is encoded already, and a payload.
#[derive(Debug, Default)]
pub struct Body {
    pub message: Bytes,
    pub payload: Bytes,
}

impl Body {
    pub const EMPTY: Self = Self { message: Bytes::new(), payload: Bytes::new() };
}

/// A queue of bytes to write.
#[derive(Debug, Default)]
pub struct Outbound {
    runs: VecDeque<Run>,
    /// Bytes in `runs`.
    len: usize,
    /// An empty buffer to use again.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Run {
    /// Bytes before `start` are written.
    Gathered {
        bytes: Vec<u8>,
        start: usize,
    },
    Shared(Bytes),
}

impl Run {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Gathered { bytes, start } => &bytes[*start..],
            Self::Shared(bytes) => bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Gathered { start, .. } => *start += n,
            Self::Shared(bytes) => bytes.advance(n),
        }
    }
}

impl Outbound {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends a frame; lengths and checksums of `header` are filled in.
    ///
    /// # Panics
    /// If the body is longer than a frame may be: callers check before.
    pub fn push(&mut self, header: Header, body: Body) {
        let Body { message, payload } = body;
        let header = Header {
            message_len: len_u32(message.len()),
            message_crc: crc32c::crc32c(&message),
            ..with_payload(header, &payload)
        };
        let encoded = header.encode();
        self.gather(HEADER_LEN, |out| out.extend_from_slice(&encoded));
        self.push_bytes(message);
        self.push_bytes(payload);
    }

    /// The same, encoding the message in place.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_message<M: Message>(&mut self, header: Header, message: &M, payload: Bytes) {
        let message_len = message.encoded_len();
        let header = Header { message_len: len_u32(message_len), ..with_payload(header, &payload) };
        self.gather(HEADER_LEN + message_len, |out| {
            let at = out.len();
            out.resize(at + HEADER_LEN, 0);
            message.encode_raw(out);
            let message_crc = crc32c::crc32c(&out[at + HEADER_LEN..]);
            out[at..at + HEADER_LEN].copy_from_slice(&Header { message_crc, ..header }.encode());
        });
        self.push_bytes(payload);
    }

    /// Moves everything queued in `other` behind what is queued here.
    pub fn append(&mut self, other: &mut Self) {
        while let Some(run) = other.runs.pop_front() {
            let rest = run.rest();
            if rest.len() <= COPY_MAX {
                self.gather(rest.len(), |out| out.extend_from_slice(rest));
            } else {
                self.len += rest.len();
                self.runs.push_back(run);
            }
        }
        other.len = 0;
    }

    fn push_bytes(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
        } else if bytes.len() <= COPY_MAX {
            self.gather(bytes.len(), |out| out.extend_from_slice(&bytes));
        } else {
            self.len += bytes.len();
            self.runs.push_back(Run::Shared(bytes));
        }
    }

    /// Appends `len` bytes to the last gathered run, or to a new one.
    fn gather(&mut self, len: usize, append: impl FnOnce(&mut Vec<u8>)) {
        self.len += len;
        if let Some(Run::Gathered { bytes, .. }) = self.runs.back_mut()
            && bytes.len() + len <= GATHER_MAX
        {
            append(bytes);
            return;
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.reserve(len);
        append(&mut bytes);
        self.runs.push_back(Run::Gathered { bytes, start: 0 });
    }

    /// What to write next; empty if there is nothing.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        for (slot, run) in out.iter_mut().zip(&self.runs) {
            *slot = IoSlice::new(run.rest());
            count += 1;
        }
        count
    }

    /// `n` bytes were written.
    ///
    /// # Panics
    /// If that is more than there were.
    pub fn advance(&mut self, mut n: usize) {
        self.len = self.len.checked_sub(n).expect("nobody writes more bytes than slices() gave");
        while n > 0 {
            let run = self.runs.front_mut().expect("len counts the bytes of runs");
            let rest = run.rest().len();
            if n < rest {
                run.advance(n);
                return;
            }
            n -= rest;
            if let Some(Run::Gathered { mut bytes, .. }) = self.runs.pop_front()
                && bytes.capacity() <= GATHER_MAX
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

fn with_payload(header: Header, payload: &Bytes) -> Header {
    let payload_crc = match header.payload_check {
        PayloadCheck::Crc => crc32c::crc32c(payload),
        PayloadCheck::ByMessage => 0,
    };
    Header { payload_len: len_u32(payload.len()), payload_crc, ..header }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("bodies are at most 4 MiB")
}
