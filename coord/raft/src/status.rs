//! Failures as the callers of a service see them.

use std::time::Duration;

use kuafu::Status;

use crate::error::{Leader, MembershipError, ProposeError, ReadError};

/// A proposal queue that is full empties within a few entries.
const BUSY_DELAY: Duration = Duration::from_millis(10);
/// A change of the members takes a few round trips.
const CHANGE_DELAY: Duration = Duration::from_millis(100);

impl Leader {
    /// NOT_LEADER, and who is, if that is known.
    #[must_use]
    pub fn not_leader(leader: Option<&Self>) -> Status {
        Status::not_leader(leader.map(|leader| leader.address.as_str()))
    }
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        match &error {
            ProposeError::NotLeader { leader } => Leader::not_leader(leader.as_ref()),
            // The client opens a new session on NOT_FOUND.
            ProposeError::SessionExpired => Self::not_found(error.to_string()),
            ProposeError::ReplyGone { .. } | ProposeError::TooLarge { .. } => {
                Self::invalid_argument(error.to_string())
            }
            ProposeError::Timeout => Self::deadline_exceeded(error.to_string()),
            ProposeError::Busy { .. } => Self::busy(error.to_string(), BUSY_DELAY),
            ProposeError::Superseded | ProposeError::Stopped => Self::unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::NotLeader { leader } => Leader::not_leader(leader.as_ref()),
            ReadError::Timeout => Self::deadline_exceeded(error.to_string()),
            ReadError::Stopped => Self::unavailable(error.to_string()),
        }
    }
}

impl From<MembershipError> for Status {
    fn from(error: MembershipError) -> Self {
        match &error {
            MembershipError::NotLeader { leader } => Leader::not_leader(leader.as_ref()),
            MembershipError::InProgress => Self::busy(error.to_string(), CHANGE_DELAY),
            MembershipError::Timeout => Self::deadline_exceeded(error.to_string()),
            MembershipError::Stopped => Self::unavailable(error.to_string()),
            MembershipError::Refused { reason } => Self::invalid_argument(reason),
            MembershipError::AlreadyInitialized => Self::invalid_argument(error.to_string()),
        }
    }
}
