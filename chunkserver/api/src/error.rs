//! How a call to a chunkserver fails, and what the caller does then. One place maps Kuafu's codes to it.

use std::time::Duration;

use coord_types::{Epoch, Fence};
use kuafu::{Code, Status};

use crate::convert::{Invalid, parse_fenced_detail, parse_stale_detail};

/// Why a chunkserver did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChunkError {
    /// The sender's table is older (or newer) than the member's: fetch the table, then ask again.
    #[error("the chunkserver is at epoch {epoch}, the request is not")]
    Stale { epoch: Epoch },
    /// The member is not this group's primary: fetch the table, then ask the primary.
    #[error("this chunkserver is not the group's primary")]
    NotPrimary,
    /// The member holds a newer write that is not known to be on all members yet: ask the primary.
    #[error("the chunk has a write that is not committed; the primary knows")]
    NotCommitted,
    /// The file was fenced after the writer opened it: never again.
    #[error("the file has the fence {fence}, the writer a lower one")]
    Fenced { fence: Fence },
    /// A disk of the group is full.
    #[error("no space: {message}")]
    NoSpace { message: String },
    /// The member's copy is damaged: ask another one.
    #[error("damaged data: {message}")]
    Damaged { message: String },
    /// The server is away, starting, or waits for another member.
    #[error("unavailable: {message}")]
    Unavailable { message: String },
    /// The server has too much to do: wait at least this long.
    #[error("busy, try again after {retry_after:?}")]
    Busy { retry_after: Duration },
    /// Not done within the call's time. A write may or may not have happened: retry with the same stamp.
    #[error("no answer in time")]
    Deadline,
    /// The server was shown no token for these data, or it has run out: show one, then ask again.
    #[error("no token: {message}")]
    NeedsToken { message: String },
    #[error("refused: {message}")]
    Refused { code: Code, message: String },
    #[error("the chunkserver's answer is not valid: {0}")]
    Answer(#[from] Invalid),
}

/// The detail of a PERMISSION_DENIED that a token would help against.
pub const NEEDS_TOKEN_DETAIL: [u8; 1] = [1];

/// Waits at least this long after `BUSY` if the server does not say.
const BUSY_DELAY_DEFAULT: Duration = Duration::from_millis(20);

impl ChunkError {
    /// Whether the same request can succeed later or at another member. A write is retried with its stamp.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Stale { .. }
            | Self::NotPrimary
            | Self::NotCommitted
            | Self::Unavailable { .. }
            | Self::Busy { .. }
            | Self::Deadline => true,
            // Another member may have it whole, but not for a write.
            Self::Damaged { .. } => false,
            Self::Fenced { .. }
            | Self::NoSpace { .. }
            | Self::NeedsToken { .. }
            | Self::Refused { .. }
            | Self::Answer(_) => false,
        }
    }

    /// Whether a *read* should be tried at another member.
    #[must_use]
    pub const fn try_other_member(&self) -> bool {
        match self {
            Self::Stale { .. }
            | Self::NotPrimary
            | Self::NotCommitted
            | Self::Unavailable { .. }
            | Self::Busy { .. }
            | Self::Deadline
            | Self::Damaged { .. }
            | Self::Answer(_) => true,
            Self::Fenced { .. } | Self::NoSpace { .. } | Self::NeedsToken { .. } | Self::Refused { .. } => {
                false
            }
        }
    }

    /// Whether the caller's table of groups may be out of date.
    #[must_use]
    pub const fn refresh_table(&self) -> bool {
        matches!(self, Self::Stale { .. } | Self::NotPrimary | Self::Unavailable { .. })
    }
}

impl From<Status> for ChunkError {
    fn from(status: Status) -> Self {
        match status.code {
            Code::Stale => {
                Self::Stale { epoch: parse_stale_detail(&status.detail).map_or(Epoch(0), |(epoch, _)| epoch) }
            }
            Code::NotLeader => Self::NotPrimary,
            Code::NotCommitted => Self::NotCommitted,
            Code::Full => Self::NoSpace { message: status.message },
            Code::DataLoss => Self::Damaged { message: status.message },
            Code::Unavailable => Self::Unavailable { message: status.message },
            Code::Busy => Self::Busy { retry_after: status.retry_after.unwrap_or(BUSY_DELAY_DEFAULT) },
            Code::DeadlineExceeded => Self::Deadline,
            // `Ok` does not come as an error; the rest is a mistake of one of the two programs.
            code @ (Code::Ok
            | Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented
            | Code::Internal) => Self::Refused { code, message: status.message },
            Code::PermissionDenied if status.detail[..] == NEEDS_TOKEN_DETAIL => {
                Self::NeedsToken { message: status.message }
            }
            Code::PermissionDenied => match parse_fenced_detail(&status.detail) {
                Some(fence) => Self::Fenced { fence },
                None => Self::Refused { code: Code::PermissionDenied, message: status.message },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> ChunkError {
        Status::new(code, "why").into()
    }

    /// What the client does next hangs on it: ask another member, ask the primary, fetch the table, or give up.
    #[test]
    fn each_code_is_told_as_what_it_means() {
        let full = error(Code::Full);
        assert!(matches!(&full, ChunkError::NoSpace { message } if message == "why") && !full.retryable());
        assert!(!full.try_other_member(), "the group is full, whoever is asked");
        let damaged = error(Code::DataLoss);
        assert!(matches!(&damaged, ChunkError::Damaged { message } if message == "why"));
        assert!(!damaged.retryable() && damaged.try_other_member());
        let not_committed = error(Code::NotCommitted);
        assert!(matches!(not_committed, ChunkError::NotCommitted) && not_committed.try_other_member());
        assert!(!not_committed.refresh_table(), "the primary is known");
        assert!(matches!(error(Code::NotLeader), ChunkError::NotPrimary));
        assert!(
            matches!(error(Code::Stale), ChunkError::Stale { epoch: Epoch(0) }),
            "it does not say its epoch"
        );
        for moved in [error(Code::NotLeader), error(Code::Stale), error(Code::Unavailable)] {
            assert!(moved.retryable() && moved.refresh_table(), "{moved}");
        }
        assert!(matches!(error(Code::Unavailable), ChunkError::Unavailable { .. }));
        let busy = error(Code::Busy);
        assert!(matches!(busy, ChunkError::Busy { retry_after: BUSY_DELAY_DEFAULT }) && busy.retryable());
        let detail = crate::convert::fenced_detail(Fence(7));
        let fenced: ChunkError = Status::new(Code::PermissionDenied, "why").with_detail(detail).into();
        assert!(matches!(fenced, ChunkError::Fenced { fence: Fence(7) }), "{fenced}");
        assert!(!fenced.retryable() && !fenced.try_other_member() && !fenced.refresh_table());
        let late = error(Code::DeadlineExceeded);
        assert!(matches!(late, ChunkError::Deadline) && late.retryable() && !late.refresh_table());
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Internal, Code::Unimplemented] {
            let refused = error(code);
            assert!(matches!(&refused, ChunkError::Refused { code: told, .. } if *told == code));
            assert!(!refused.retryable() && !refused.try_other_member(), "{refused}");
        }
    }
}
