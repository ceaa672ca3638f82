//! Capabilities that were verified, found again by their bytes. Kept by servers, which are shown the same ones with every connection.
//!
//! Only successes are remembered, up to a number; the oldest goes first. Revocation and time are not looked at here: that is asked anew
//! of [`crate::decide()`] for each request.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::bounded::BoundedSet;
use crate::capability::Capability;
use crate::unverified::{Authorities, Forged, MalformedCapability, UnverifiedCapability};

/// Bytes that are no capability of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    #[error(transparent)]
    Malformed(#[from] MalformedCapability),
    #[error(transparent)]
    Forged(#[from] Forged),
}

impl Unproved {
    /// Whether the same bytes may be taken later: the authority's key may be on its way to this server.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Forged(Forged::Issuer { .. }) => true,
            Self::Malformed(_) | Self::Forged(Forged::Signature { .. }) => false,
        }
    }
}

/// A capability under its bytes, of which it has one form only. The bytes themselves, as a digest of them would take longer to make than
/// they take to compare.
#[derive(Clone, Debug)]
struct ByBytes(Arc<Capability>);

impl Borrow<[u8]> for ByBytes {
    fn borrow(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl PartialEq for ByBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes() == other.0.bytes()
    }
}

impl Eq for ByBytes {}

impl Hash for ByBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes().hash(state);
    }
}

/// Verified capabilities. See the module.
#[derive(Debug)]
pub struct VerifiedCache(BoundedSet<ByBytes>);

impl VerifiedCache {
    /// Two for each of a thousand mounts, with room for their tasks; some 8 MB, if they are long ones.
    pub const CAPABILITIES_DEFAULT: usize = 4096;

    /// At least one.
    #[must_use]
    pub fn new(capabilities_max: usize) -> Self {
        Self(BoundedSet::new(capabilities_max))
    }

    /// What is known, or else decoded and verified now.
    ///
    /// # Errors
    /// It is no capability, or was made or changed by somebody who may not.
    pub fn get_or_verify(
        &mut self,
        bytes: &[u8],
        authorities: &Authorities,
    ) -> Result<Arc<Capability>, Unproved> {
        // The issuer is looked up again, so that one who is no authority any more opens nothing though nobody cleared the cache.
        if let Some(ByBytes(known)) = self.0.get(bytes)
            && authorities.find(known.root().issuer).is_some()
        {
            return Ok(Arc::clone(known));
        }
        let capability = Arc::new(UnverifiedCapability::decode(bytes)?.verify(authorities)?);
        self.0.insert(ByBytes(Arc::clone(&capability)));
        Ok(capability)
    }

    /// To be called when the authorities change: nothing of it was verified with the new ones.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for VerifiedCache {
    fn default() -> Self {
        Self::new(Self::CAPABILITIES_DEFAULT)
    }
}
