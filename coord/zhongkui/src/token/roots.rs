//! Batches whose signature was verified, so that it is not verified again with each token of them.

use crate::bounded::BoundedSet;
use crate::crypto::{Digest, KeyId, PublicKey, Signature};

/// That a key signed a root. The signature is a part of it: else a token with any other one would be taken, once the root is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SignedRoot {
    /// The key's id. Kept, as deriving it anew takes longer than the look-up.
    pub(super) signer: KeyId,
    pub(super) key: PublicKey,
    pub(super) root: Digest,
    pub(super) count: u16,
    pub(super) signature: Signature,
}

/// Verified batches, up to a number; the oldest goes first. A refusal is never remembered.
#[derive(Debug)]
pub struct RootCache(BoundedSet<SignedRoot>);

impl RootCache {
    /// Enough for a master that signs ten batches a second, of tokens that last some minutes; 1.2 MB.
    pub const ROOTS_DEFAULT: usize = 4096;

    /// At least one.
    #[must_use]
    pub fn new(roots_max: usize) -> Self {
        Self(BoundedSet::new(roots_max))
    }

    pub(super) fn knows(&self, signed: &SignedRoot) -> bool {
        self.0.get(signed).is_some()
    }

    pub(super) fn remember(&mut self, signed: SignedRoot) {
        self.0.insert(signed);
    }

    /// How many batches it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for RootCache {
    fn default() -> Self {
        Self::new(Self::ROOTS_DEFAULT)
    }
}
