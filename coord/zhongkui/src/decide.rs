//! The one function that decides, for every service alike.

use std::time::Duration;

use crate::capability::Capability;
use crate::crypto::KeyId;
use crate::resource::Target;
use crate::revoke::Revocations;
use crate::rights::Rights;
use crate::terms::{CapabilityId, UserEpoch, UserName};
use crate::time::Timestamp;

/// So far clocks may differ: what was granted just now on a machine whose clock is fast is used at once on another. Expiry is not
/// forgiven, as whoever set it chose it.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(60);

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// All of these are needed.
    pub needs: Rights,
    pub target: Target<'a>,
}

/// `Ok`: allowed. Else why not.
pub type Decision = Result<(), Refusal>;

/// Why a request is refused, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "capability {id} is valid from {not_before} on, and here it is {now}: if that is over, this machine's clock is slow, or the one of \
         whoever granted it fast"
    )]
    NotYetValid { id: CapabilityId, not_before: Timestamp, now: Timestamp },
    #[error(
        "capability {id} expired: it was valid until {not_after}, and here it is {now}. Have a new one granted; if that is not over, \
         this machine's clock is fast"
    )]
    Expired { id: CapabilityId, not_after: Timestamp, now: Timestamp },
    #[error("the capabilities of {user} up to epoch {} were revoked, {id} is of epoch {epoch}: have a new one granted", .current.0.saturating_sub(1))]
    UserRevoked { id: CapabilityId, user: UserName, epoch: UserEpoch, current: UserEpoch },
    #[error("capability {id} goes by key {key}, which was revoked: have a new one granted")]
    KeyRevoked { id: CapabilityId, key: KeyId },
    #[error("capability {id} was revoked: have a new one granted")]
    CapabilityRevoked { id: CapabilityId },
    #[error("capability {id} does not allow it (its block {block}): this needs {needs} on {target}")]
    NotGranted { id: CapabilityId, block: usize, needs: Rights, target: String },
}

impl Refusal {
    /// Whether the same capability may be good later, or under another clock.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotYetValid { .. } => true,
            Self::Expired { .. }
            | Self::UserRevoked { .. }
            | Self::KeyRevoked { .. }
            | Self::CapabilityRevoked { .. }
            | Self::NotGranted { .. } => false,
        }
    }
}

/// Whether a request may be served to whoever proved to hold this capability.
///
/// Every block has to allow it by itself, so a narrowing can only take away.
///
/// # Errors
/// The first reason against it, in the order of `docs/capability.md`.
pub fn decide(
    capability: &Capability,
    request: &Request<'_>,
    now: Timestamp,
    revocations: &Revocations,
) -> Decision {
    valid(capability, now)?;
    not_revoked(capability, revocations)?;
    for (block, terms) in capability.terms().enumerate() {
        let allows = terms
            .grants()
            .iter()
            .any(|grant| grant.rights().contains(request.needs) && grant.resource().covers(&request.target));
        if !allows {
            let target = request.target.to_string();
            let id = capability.root().id;
            return Err(Refusal::NotGranted { id, block, needs: request.needs, target });
        }
    }
    Ok(())
}

/// Whether its time has come and is not over: the first rows of the table in `docs/capability.md`.
///
/// # Errors
/// [`Refusal::NotYetValid`], [`Refusal::Expired`].
pub fn valid(capability: &Capability, now: Timestamp) -> Decision {
    let id = capability.root().id;
    for terms in capability.terms() {
        if !terms.validity.has_begun(now) {
            let not_before = terms.validity.not_before();
            return Err(Refusal::NotYetValid { id, not_before, now });
        }
    }
    for terms in capability.terms() {
        if terms.validity.is_over(now) {
            let not_after = terms.validity.not_after();
            return Err(Refusal::Expired { id, not_after, now });
        }
    }
    Ok(())
}

/// Whether nothing of it was taken back.
///
/// # Errors
/// [`Refusal::UserRevoked`], [`Refusal::KeyRevoked`], [`Refusal::CapabilityRevoked`].
pub fn not_revoked(capability: &Capability, revocations: &Revocations) -> Decision {
    let root = capability.root();
    let (id, user) = (root.id, &root.user);
    let current = revocations.epoch(&user.name);
    if user.epoch < current {
        return Err(Refusal::UserRevoked { id, user: user.name.clone(), epoch: user.epoch, current });
    }
    let mut keys = std::iter::once(root.issuer).chain(capability.holder_ids().iter().copied());
    if let Some(key) = keys.find(|key| revocations.keys.contains(key)) {
        return Err(Refusal::KeyRevoked { id, key });
    }
    if revocations.capabilities.contains(&id) { Err(Refusal::CapabilityRevoked { id }) } else { Ok(()) }
}
