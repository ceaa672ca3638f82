//! The answer of a call that did not succeed.

use std::time::Duration;

use bytes::Bytes;

/// What kind of failure; on the wire as its number, so numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Code {
    Ok = 0,
    /// The caller gave up, or the server dropped the call on the caller's behalf.
    Cancelled = 1,
    InvalidArgument = 2,
    NotFound = 3,
    /// The deadline passed. The call may have been executed.
    DeadlineExceeded = 4,
    /// The peer cannot be reached or went away. The call may have been executed, unless `detail` is the byte 1.
    Unavailable = 5,
    /// Too much work; not executed. Come back after `retry_after`.
    Busy = 6,
    /// Not the leader; `detail` is the leader's address if known (UTF-8).
    NotLeader = 7,
    /// The caller's epoch is not the current one; `detail` is the current epoch (8 bytes, little-endian).
    Stale = 8,
    /// A newer version is not committed yet: ask the primary.
    NotCommitted = 9,
    PermissionDenied = 10,
    /// Bytes do not match their checksum.
    DataLoss = 11,
    /// No such method, or a version this side does not speak.
    Unimplemented = 12,
    Internal = 13,
    /// No space left.
    Full = 14,
}

impl Code {
    /// The code a number stands for. Numbers of a newer peer become [`Code::Internal`].
    #[must_use]
    pub const fn from_wire(number: u32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Cancelled,
            2 => Self::InvalidArgument,
            3 => Self::NotFound,
            4 => Self::DeadlineExceeded,
            5 => Self::Unavailable,
            6 => Self::Busy,
            7 => Self::NotLeader,
            8 => Self::Stale,
            9 => Self::NotCommitted,
            10 => Self::PermissionDenied,
            11 => Self::DataLoss,
            12 => Self::Unimplemented,
            14 => Self::Full,
            _ => Self::Internal,
        }
    }

    /// Whether the same call may succeed later without anybody changing it (perhaps at another peer).
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::Unavailable | Self::Busy | Self::NotLeader | Self::Stale | Self::NotCommitted => true,
            Self::Ok
            | Self::Cancelled
            | Self::InvalidArgument
            | Self::NotFound
            | Self::DeadlineExceeded
            | Self::PermissionDenied
            | Self::DataLoss
            | Self::Unimplemented
            | Self::Internal
            | Self::Full => false,
        }
    }
}

/// The detail of [`Code::Unavailable`] that says so.
const NOT_EXECUTED: &[u8] = &[1];

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Status {
    pub code: Code,
    /// For people.
    pub message: String,
    /// For programs; its form depends on the code.
    pub detail: Bytes,
    /// Come back after this, not before.
    pub retry_after: Option<Duration>,
}

macro_rules! constructors {
    ($($name:ident $code:ident),* $(,)?) => {$(
        #[doc = concat!("A status with [`Code::", stringify!($code), "`].")]
        #[must_use]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Code::$code, message)
        }
    )*};
}

impl Status {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: Bytes::new(), retry_after: None }
    }

    constructors! {
        cancelled Cancelled,
        invalid_argument InvalidArgument,
        not_found NotFound,
        deadline_exceeded DeadlineExceeded,
        unavailable Unavailable,
        not_committed NotCommitted,
        permission_denied PermissionDenied,
        data_loss DataLoss,
        unimplemented Unimplemented,
        internal Internal,
        full Full,
    }

    /// Overload: come back after `retry_after`.
    #[must_use]
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::Busy, message) }
    }

    /// As [`unavailable`](Self::unavailable), and the call was certainly not executed.
    #[must_use]
    pub fn not_reached(message: impl Into<String>) -> Self {
        Self { detail: Bytes::from_static(NOT_EXECUTED), ..Self::unavailable(message) }
    }

    /// The call was certainly not executed: it may be sent again, whatever it does.
    #[must_use]
    pub fn was_not_executed(&self) -> bool {
        match self.code {
            Code::Busy | Code::NotLeader => true,
            Code::Unavailable => *self.detail == *NOT_EXECUTED,
            _ => false,
        }
    }

    /// Not the leader; `leader` is its address, if known.
    #[must_use]
    pub fn not_leader(leader: Option<&str>) -> Self {
        let message =
            leader.map_or_else(|| "no leader is known".to_owned(), |at| format!("the leader is {at}"));
        let detail = leader.map_or_else(Bytes::new, |at| Bytes::copy_from_slice(at.as_bytes()));
        Self { detail, ..Self::new(Code::NotLeader, message) }
    }

    /// Wrong epoch; `current` is the right one.
    #[must_use]
    pub fn stale(current: u64) -> Self {
        let detail = Bytes::copy_from_slice(&current.to_le_bytes());
        Self { detail, ..Self::new(Code::Stale, format!("the current epoch is {current}")) }
    }

    /// Where the leader is, if this says so.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        if self.code != Code::NotLeader || self.detail.is_empty() {
            return None;
        }
        std::str::from_utf8(&self.detail).ok()
    }

    /// The current epoch, if this says so.
    #[must_use]
    pub fn current_epoch(&self) -> Option<u64> {
        if self.code != Code::Stale {
            return None;
        }
        Some(u64::from_le_bytes(self.detail.as_ref().try_into().ok()?))
    }

    #[must_use]
    pub fn with_detail(mut self, detail: Bytes) -> Self {
        self.detail = detail;
        self
    }

    /// See [`Code::retryable`].
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.code.retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_numbers() {
        for number in 0..=14 {
            assert_eq!(Code::from_wire(number) as u32, number);
        }
        assert_eq!(Code::from_wire(15), Code::Internal);
    }

    #[test]
    fn details() {
        assert_eq!(Status::not_leader(Some("tcp://a:1")).leader(), Some("tcp://a:1"));
        assert_eq!(Status::not_leader(None).leader(), None);
        assert_eq!(Status::stale(7).current_epoch(), Some(7));
        assert_eq!(Status::internal("x").current_epoch(), None);
        assert!(Status::busy("x", Duration::from_millis(1)).retryable());
        assert!(!Status::data_loss("x").retryable());
    }
}
