//! What a call carries, as callers and handlers see it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::auth::{PeerInfo, Principal};

/// How a payload is protected on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadCheck {
    /// The frame carries the payload's crc32c; the receiver checks it before anybody sees the payload.
    #[default]
    Crc,
    /// The message itself covers the payload (checksums per block): the frame carries none, so that it is not
    /// computed again at each hop. Whoever uses the payload checks it against the message.
    ByMessage,
}

/// A call as its handler sees it.
#[derive(Debug)]
pub struct Request<T> {
    pub message: T,
    pub payload: Bytes,
    pub payload_check: PayloadCheck,
    /// Nobody waits for the answer after this; the server drops the handler then.
    pub deadline: Instant,
    pub peer: PeerInfo,
    /// Who calls; absent on a server that does not ask.
    pub principal: Option<Principal>,
}

impl<T> Request<T> {
    /// Time left until the deadline, zero if it passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Response<T> {
    pub message: T,
    pub payload: Bytes,
    pub payload_check: PayloadCheck,
}

impl<T> Response<T> {
    #[must_use]
    pub const fn new(message: T) -> Self {
        Self { message, payload: Bytes::new(), payload_check: PayloadCheck::Crc }
    }

    /// With raw bytes behind the message, which the frame protects by a crc32c.
    #[must_use]
    pub const fn with_payload(message: T, payload: Bytes) -> Self {
        Self { message, payload, payload_check: PayloadCheck::Crc }
    }

    /// With raw bytes behind the message, which the message itself covers: see [`PayloadCheck::ByMessage`].
    #[must_use]
    pub const fn with_covered_payload(message: T, payload: Bytes) -> Self {
        Self { message, payload, payload_check: PayloadCheck::ByMessage }
    }
}

/// How one call is made.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// The call fails with DEADLINE_EXCEEDED after this.
    pub timeout: Duration,
    /// How the request's payload is protected.
    pub payload_check: PayloadCheck,
}

impl CallOptions {
    #[must_use]
    pub const fn within(timeout: Duration) -> Self {
        Self { timeout, payload_check: PayloadCheck::Crc }
    }

    /// The request's message covers its payload: see [`PayloadCheck::ByMessage`].
    #[must_use]
    pub const fn payload_covered(mut self) -> Self {
        self.payload_check = PayloadCheck::ByMessage;
        self
    }
}

/// A request whose message is still encoded.
#[derive(Debug)]
pub struct RawRequest {
    pub message: Bytes,
    pub payload: Bytes,
    pub payload_check: PayloadCheck,
    pub deadline: Instant,
    pub peer: PeerInfo,
    /// Who calls; absent on a server that does not ask.
    pub principal: Option<Principal>,
}

/// A response whose message is encoded already.
#[derive(Debug)]
pub struct RawResponse {
    pub message: Bytes,
    pub payload: Bytes,
    pub payload_check: PayloadCheck,
}
