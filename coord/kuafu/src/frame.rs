//! Bytes <-> frame header, and the small messages of the protocol itself. Pure. The byte map is in `docs/wire.md`.
//!
//! Invariant: what [`Header::decode`] returns satisfies all rules of the byte map that can be checked on a header
//! alone; nobody checks them again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::message::PayloadCheck;
use crate::status::{Code, Status};

/// Bytes of a header.
pub const HEADER_LEN: usize = 48;
/// Longest message of a frame.
pub const MESSAGE_LEN_MAX: usize = 4 << 20;
/// Longest payload of a frame.
pub const PAYLOAD_LEN_MAX: usize = 4 << 20;
/// The version this side speaks.
pub const VERSION: u8 = 1;

/// Proofs of a connection that can be referred to at one time.
pub const PROOFS_MAX: u8 = 8;
/// Longest proof, and longest introduction of a server.
pub const PROOF_LEN_MAX: usize = 4096;

const MAGIC: [u8; 4] = *b"KUAF";
const FLAG_PAYLOAD_COVERED: u16 = 1;
const PROOF_AT: usize = 40;
const CRC_AT: usize = HEADER_LEN - 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    Request = 2,
    Response = 3,
    Error = 4,
    Cancel = 5,
    Ping = 6,
    Pong = 7,
    GoAway = 8,
    Present = 9,
}

impl Kind {
    const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Request,
            3 => Self::Response,
            4 => Self::Error,
            5 => Self::Cancel,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::GoAway,
            9 => Self::Present,
            _ => return None,
        })
    }

    const fn may_have_payload(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }

    const fn may_have_message(self) -> bool {
        !matches!(self, Self::Cancel | Self::Ping | Self::Pong)
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub payload_check: PayloadCheck,
    pub id: u64,
    /// A request's method, an error's code.
    pub method: u32,
    pub deadline_us: u32,
    pub message_len: u32,
    pub payload_len: u32,
    pub message_crc: u32,
    pub payload_crc: u32,
    /// Which of the proofs that the client presented is meant: 1 to [`PROOFS_MAX`]; 0: none.
    pub proof: u8,
}

/// Why bytes are no frame. After any of these the stream cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("no frame begins with {0:02x?}: the peer does not speak this protocol")]
    Magic([u8; 4]),
    #[error("the header's checksum is {computed:#010x}, it says {stored:#010x}")]
    HeaderCrc { stored: u32, computed: u32 },
    #[error("version {0} of the frame format is not spoken here (only {VERSION})")]
    Version(u8),
    #[error("unknown kind of frame {0}")]
    UnknownKind(u8),
    #[error("unknown flags {0:#06x}")]
    UnknownFlags(u16),
    #[error("reserved bytes are {0:#010x}, not 0")]
    Reserved(u32),
    #[error("a {kind:?} refers to proof {number}")]
    Proof { kind: Kind, number: u8 },
    #[error("a message of {0} bytes is longer than {MESSAGE_LEN_MAX}")]
    MessageTooLong(u32),
    #[error("a payload of {0} bytes is longer than {PAYLOAD_LEN_MAX}")]
    PayloadTooLong(u32),
    #[error("a {kind:?} has {message_len} bytes of message and {payload_len} of payload")]
    UnexpectedBody { kind: Kind, message_len: u32, payload_len: u32 },
    #[error("the message's checksum is {computed:#010x}, the header says {stored:#010x}")]
    MessageCrc { stored: u32, computed: u32 },
    #[error("the stream ends inside a frame")]
    Truncated,
}

impl Header {
    /// A header without a body.
    #[must_use]
    pub const fn bare(kind: Kind, id: u64) -> Self {
        Self {
            kind,
            payload_check: PayloadCheck::Crc,
            id,
            method: 0,
            deadline_us: 0,
            message_len: 0,
            payload_len: 0,
            message_crc: 0,
            payload_crc: 0,
            proof: 0,
        }
    }

    /// The 48 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let flags = match self.payload_check {
            PayloadCheck::Crc => 0,
            PayloadCheck::ByMessage => FLAG_PAYLOAD_COVERED,
        };
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..20].copy_from_slice(&self.method.to_le_bytes());
        out[20..24].copy_from_slice(&self.deadline_us.to_le_bytes());
        out[24..28].copy_from_slice(&self.message_len.to_le_bytes());
        out[28..32].copy_from_slice(&self.payload_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.message_crc.to_le_bytes());
        out[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[PROOF_AT] = self.proof;
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks and reads the 48 bytes.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let (stored, computed) = (u32_at(bytes, CRC_AT), crc32c::crc32c(&bytes[..CRC_AT]));
        if stored != computed {
            return Err(FrameError::HeaderCrc { stored, computed });
        }
        // After the checksum: a version that is wrong then was meant by the peer.
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        let kind = Kind::from_wire(bytes[5]).ok_or(FrameError::UnknownKind(bytes[5]))?;
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        let payload_check = match flags {
            0 => PayloadCheck::Crc,
            FLAG_PAYLOAD_COVERED => PayloadCheck::ByMessage,
            _ => return Err(FrameError::UnknownFlags(flags)),
        };
        let header = Self {
            kind,
            payload_check,
            id: u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32,
            method: u32_at(bytes, 16),
            deadline_us: u32_at(bytes, 20),
            message_len: u32_at(bytes, 24),
            payload_len: u32_at(bytes, 28),
            message_crc: u32_at(bytes, 32),
            payload_crc: u32_at(bytes, 36),
            proof: bytes[PROOF_AT],
        };
        match u32_at(bytes, PROOF_AT) >> 8 {
            0 => header.check_proof()?.check_lengths(),
            reserved => Err(FrameError::Reserved(reserved)),
        }
    }

    fn check_proof(self) -> Result<Self, FrameError> {
        let allowed = match self.kind {
            Kind::Request => self.proof <= PROOFS_MAX,
            Kind::Present => (1..=PROOFS_MAX).contains(&self.proof),
            _ => self.proof == 0,
        };
        if allowed { Ok(self) } else { Err(FrameError::Proof { kind: self.kind, number: self.proof }) }
    }

    fn check_lengths(self) -> Result<Self, FrameError> {
        let Self { kind, message_len, payload_len, .. } = self;
        let message_len_max = if kind == Kind::Present { PROOF_LEN_MAX } else { MESSAGE_LEN_MAX };
        if message_len as usize > message_len_max {
            return Err(FrameError::MessageTooLong(message_len));
        }
        if payload_len as usize > PAYLOAD_LEN_MAX {
            return Err(FrameError::PayloadTooLong(payload_len));
        }
        let message_fits = message_len == 0 || kind.may_have_message();
        let payload_fits = payload_len == 0 || kind.may_have_payload();
        if message_fits && payload_fits {
            Ok(self)
        } else {
            Err(FrameError::UnexpectedBody { kind, message_len, payload_len })
        }
    }
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The first message of either side.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    #[prost(uint32, tag = "3")]
    pub in_flight_max: u32,
    #[prost(uint64, tag = "4")]
    pub in_flight_bytes_max: u64,
    #[prost(string, tag = "6")]
    pub agent: String,
    /// Drawn for this connection; absent from a server that does not ask who others are, or a client that does not say.
    #[prost(bytes = "bytes", tag = "7")]
    pub nonce: Bytes,
    /// From the server: who it is.
    #[prost(bytes = "bytes", tag = "8")]
    pub introduction: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WireStatus {
    #[prost(string, tag = "1")]
    message: String,
    #[prost(bytes = "bytes", tag = "2")]
    detail: Bytes,
    #[prost(uint64, optional, tag = "3")]
    retry_after_us: Option<u64>,
}

impl WireStatus {
    /// A status as its frame carries it: the code goes into the header.
    pub(crate) fn from_status(status: Status) -> (u32, Self) {
        let retry_after_us =
            status.retry_after.map(|after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        (status.code as u32, Self { message: status.message, detail: status.detail, retry_after_us })
    }

    pub(crate) fn into_status(self, code: u32) -> Status {
        Status {
            code: Code::from_wire(code),
            message: self.message,
            detail: self.detail,
            retry_after: self.retry_after_us.map(Duration::from_micros),
        }
    }
}

/// A deadline as a request carries it: microseconds left, saturating.
#[must_use]
pub fn deadline_to_wire(deadline: Instant, now: Instant) -> u32 {
    u32::try_from(deadline.saturating_duration_since(now).as_micros()).unwrap_or(u32::MAX)
}

/// The deadline a request carries.
#[must_use]
pub fn deadline_from_wire(deadline_us: u32, now: Instant) -> Instant {
    now + Duration::from_micros(u64::from(deadline_us))
}

#[cfg(test)]
mod tests;
