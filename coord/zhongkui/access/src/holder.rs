//! What a handler asks about its caller.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use kuafu::{PeerInfo, Principal, Request, Status};
use zhongkui::{Capability, KeyId, Rights, Target, Timestamp, User};

use crate::audit::{Audit, Event};
use crate::revoked::Revoked;

/// Whoever proved to hold a capability on a connection. What he may do is decided anew for each request.
pub struct Holder {
    capability: Arc<Capability>,
    key: KeyId,
    name: String,
    peer: PeerInfo,
    revoked: Arc<Revoked>,
    audit: Audit,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("name", &self.name).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Holder {
    pub(crate) fn new(
        capability: Arc<Capability>,
        peer: PeerInfo,
        revoked: Arc<Revoked>,
        audit: Audit,
    ) -> Self {
        let (key, name) = (capability.holder().id(), capability.principal());
        Self { capability, key, name, peer, revoked, audit }
    }

    /// Who made a request.
    ///
    /// # Errors
    /// PERMISSION_DENIED: nobody said.
    pub fn of<T>(request: &Request<T>) -> Result<Arc<Self>, Status> {
        Self::from_principal(request.principal.as_ref())
    }

    /// The same from what Kuafu handed on.
    ///
    /// # Errors
    /// PERMISSION_DENIED: nobody said.
    pub fn from_principal(principal: Option<&Principal>) -> Result<Arc<Self>, Status> {
        #[cfg(feature = "unchecked-for-measurement")]
        if principal.is_none() {
            return Ok(crate::guard::anybody());
        }
        principal.and_then(Principal::downcast::<Self>).ok_or_else(nobody)
    }

    /// On whose behalf requests are made that do not say otherwise.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.capability.root().user
    }

    /// The name under which it owns sessions: another one for whoever a narrower capability was handed on to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that was proved.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.key
    }

    #[must_use]
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// Whether it may do this now. A refusal is written into the audit log.
    ///
    /// # Errors
    /// PERMISSION_DENIED, with the reason and what to do.
    pub fn check(&self, needs: Rights, target: &Target<'_>) -> Result<(), Status> {
        match self.decide(needs, target) {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let what = format!("{needs} on {target}");
                self.audit.note(Event::refused(&self.peer, Some(&self.capability), &what, &refusal));
                Err(Status::permission_denied(format!("{} may not: {refusal}", self.name)))
            }
        }
    }

    /// The same as a question, which nobody is told of.
    #[must_use]
    pub fn may(&self, needs: Rights, target: &Target<'_>) -> bool {
        self.decide(needs, target).is_ok()
    }

    /// Whether the capability is good at all now.
    ///
    /// # Errors
    /// PERMISSION_DENIED: expired, not yet valid, or revoked.
    pub fn check_valid(&self) -> Result<(), Status> {
        if !crate::CHECKS {
            return Ok(());
        }
        let valid = zhongkui::decide::valid(&self.capability, now()).and_then(|()| {
            self.revoked.read(|revocations| zhongkui::decide::not_revoked(&self.capability, revocations))
        });
        valid.map_err(|refusal| {
            self.audit.note(Event::refused(&self.peer, Some(&self.capability), "any request", &refusal));
            Status::permission_denied(format!("{} may not: {refusal}", self.name))
        })
    }

    /// A service refused for a reason of its own (another's session, another's token): into the audit log.
    pub fn refused(&self, what: &str, why: &dyn fmt::Display) -> Status {
        self.audit.note(Event::refused(&self.peer, Some(&self.capability), what, why));
        Status::permission_denied(format!("{} may not: {why}", self.name))
    }

    fn decide(&self, needs: Rights, target: &Target<'_>) -> zhongkui::Decision {
        if !crate::CHECKS {
            return Ok(());
        }
        let request = zhongkui::Request { needs, target: *target };
        self.revoked.read(|revocations| zhongkui::decide(&self.capability, &request, now(), revocations))
    }
}

/// The time here, as capabilities name it.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

pub(crate) fn nobody() -> Status {
    Status::permission_denied(
        "no capability was presented: name a key and its capability (--keys, or --key and --cap)",
    )
}
