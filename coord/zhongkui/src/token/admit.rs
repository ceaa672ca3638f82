//! What a token opens: one pure function, asked by chunkservers for each request.

use coord_types::{DataId, SessionId};

use super::{Claims, Scope};
use crate::crypto::KeyId;
use crate::rights::Rights;
use crate::time::Timestamp;

/// What somebody wants to do to data.
#[derive(Clone, Copy, Debug)]
pub struct DataRequest {
    /// The key that this connection proved.
    pub holder: KeyId,
    /// Of the write's stamp; reads have none.
    pub session: Option<SessionId>,
    pub data: DataId,
    /// All of these are needed.
    pub needs: Rights,
    /// The newest cluster epoch this server knows: what was signed before is not followed.
    pub epoch_min: u64,
}

/// Why a request is refused that came with a token, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error(
        "the token for {scope} is valid from {not_before} on, and here it is {now}: if that is over, this machine's clock is slow, or \
         the master's fast"
    )]
    NotYetValid { scope: Scope, not_before: Timestamp, now: Timestamp },
    #[error(
        "the token for {scope} expired: it was valid until {not_after}, and here it is {now}. The master gives a new one; if that is \
         not over, this machine's clock is fast, or the master's slow"
    )]
    Expired { scope: Scope, not_after: Timestamp, now: Timestamp },
    #[error(
        "the token for {scope} is for the holder of key {holder}, and this connection proved key {proved}: ask the master for one of \
         your own"
    )]
    OtherHolder { scope: Scope, holder: KeyId, proved: KeyId },
    #[error(
        "the token for {scope} is for session {session}, and the write is stamped by session {stamped}: ask the master for one of that \
         session"
    )]
    OtherSession { scope: Scope, session: SessionId, stamped: SessionId },
    #[error("the token is for {scope}, and this is about data {data}: ask the master for one for these")]
    OtherData { scope: Scope, data: DataId },
    #[error("the token for {scope} is to {has}, and this needs: {needs}")]
    RightMissing { scope: Scope, has: Rights, needs: Rights },
    #[error(
        "the token for {scope} was signed in cluster epoch {epoch}, and this server knows of epoch {epoch_min}: ask the masters of that \
         epoch for one"
    )]
    OlderEpoch { scope: Scope, epoch: u64, epoch_min: u64 },
}

impl TokenRefusal {
    /// Whether the same token may be good later, or under another clock.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotYetValid { .. } => true,
            Self::Expired { .. }
            | Self::OtherHolder { .. }
            | Self::OtherSession { .. }
            | Self::OtherData { .. }
            | Self::RightMissing { .. }
            | Self::OlderEpoch { .. } => false,
        }
    }
}

/// Whether a request may be served that came with a token that says this.
///
/// # Errors
/// The first reason against it, in the order of `docs/token.md`.
pub fn admit(claims: &Claims, request: &DataRequest, now: Timestamp) -> Result<(), TokenRefusal> {
    let Claims { holder, session, scope, rights, cluster_epoch: epoch, validity } = *claims;
    let DataRequest { holder: proved, session: stamped, data, needs, epoch_min } = *request;
    let has = rights.rights();
    if !validity.has_begun(now) {
        return Err(TokenRefusal::NotYetValid { scope, not_before: validity.not_before(), now });
    }
    if validity.is_over(now) {
        return Err(TokenRefusal::Expired { scope, not_after: validity.not_after(), now });
    }
    if holder != proved {
        return Err(TokenRefusal::OtherHolder { scope, holder, proved });
    }
    if let Some(stamped) = stamped.filter(|stamped| *stamped != session) {
        return Err(TokenRefusal::OtherSession { scope, session, stamped });
    }
    if !scope.covers(data) {
        return Err(TokenRefusal::OtherData { scope, data });
    }
    if !has.contains(needs) {
        return Err(TokenRefusal::RightMissing { scope, has, needs });
    }
    if epoch < epoch_min {
        return Err(TokenRefusal::OlderEpoch { scope, epoch, epoch_min });
    }
    Ok(())
}
