//! Bytes that a client sent as a token. They have a form, and say something; whether it is true shows [`UnverifiedToken::verify`].

use bytes::{Buf as _, BufMut as _};

use super::encoding::{LEAF_BYTES, MalformedToken, claims, leaf, take};
use super::merkle::{leaf_hash, path_len, root};
use super::roots::{RootCache, SignedRoot};
use super::{BATCH_MAX, Claims, TOKEN_BYTES_MAX};
use crate::crypto::{Digest, KeyId, PublicKey, Signature};

/// Before what is signed: a signature made for anything else does not fit.
const BATCH_DOMAIN: &[u8] = b"feitian token batch 1\0";

/// What a batch is signed over.
pub(super) fn batch_bytes(root: &Digest, count: u16) -> Vec<u8> {
    [BATCH_DOMAIN, &root.0, &count.to_le_bytes()].concat()
}

/// A token that was not signed by whom it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgedToken {
    #[error("the token is signed by {signer}, which may not sign tokens of this cluster")]
    UnknownSigner { signer: KeyId },
    #[error("the token says to be signed by {signer}, and was to be verified with the key {key}")]
    OtherSigner { signer: KeyId, key: KeyId },
    #[error("the token is not signed by {signer}, as it says: it was changed, or never given")]
    Signature { signer: KeyId },
}

/// A token that has the form of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedToken {
    pub(super) claims: Claims,
    /// The claims as they were sent.
    pub(super) leaf: [u8; LEAF_BYTES],
    pub(super) signer: KeyId,
    pub(super) index: u16,
    pub(super) count: u16,
    pub(super) path: Vec<Digest>,
    pub(super) signature: Signature,
}

impl UnverifiedToken {
    /// # Errors
    /// It has not the form of a token, or of one of another release.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedToken> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(MalformedToken::TooLong(bytes.len()));
        }
        let mut rest = bytes;
        let leaf = *take::<LEAF_BYTES>(&mut rest)?;
        let claims = claims(&leaf)?;
        let signer = KeyId(*take(&mut rest)?);
        let (index, count) = (rest.try_get_u16_le()?, rest.try_get_u16_le()?);
        if count > BATCH_MAX || index >= count {
            return Err(MalformedToken::Place { index, count });
        }
        let path = (0..path_len(index, count)).map(|_| take(&mut rest).map(|hash| Digest(*hash)));
        let path = path.collect::<Result<_, _>>()?;
        let signature = Signature(*take(&mut rest)?);
        if !rest.is_empty() {
            return Err(MalformedToken::Excess { bytes: rest.len() });
        }
        Ok(Self { claims, leaf, signer, index, count, path, signature })
    }

    /// The form that is sent, from what it says. What was decoded encodes to the same bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TOKEN_BYTES_MAX);
        out.put_slice(&leaf(&self.claims));
        out.put_slice(&self.signer.0);
        out.put_u16_le(self.index);
        out.put_u16_le(self.count);
        self.path.iter().for_each(|hash| out.put_slice(&hash.0));
        out.put_slice(&self.signature.0);
        out
    }

    /// Who it says signed it. The caller looks the key up among those that may.
    #[must_use]
    pub fn signer(&self) -> KeyId {
        self.signer
    }

    /// What it says. Nobody vouches for it.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Proves it with the key of a signer that may sign tokens: one hash for each level of its batch, and a signature (about 45 µs)
    /// unless the batch is known.
    ///
    /// # Errors
    /// This key did not sign it.
    pub fn verify(&self, signer: &PublicKey, roots: &mut RootCache) -> Result<Claims, ForgedToken> {
        let root = root(leaf_hash(&self.leaf), self.index, self.count, &self.path);
        let signed = SignedRoot {
            signer: self.signer,
            key: *signer,
            root,
            count: self.count,
            signature: self.signature,
        };
        if !roots.knows(&signed) {
            let key = signer.id();
            if key != self.signer {
                return Err(ForgedToken::OtherSigner { signer: self.signer, key });
            }
            if !signer.signed(&batch_bytes(&root, self.count), &self.signature) {
                return Err(ForgedToken::Signature { signer: key });
            }
            roots.remember(signed);
        }
        Ok(self.claims)
    }

    /// The same, with the look-up: `find` answers the key of a signer that may sign tokens *now*, and nothing for any other.
    ///
    /// # Errors
    /// The signer may not, or did not sign it.
    pub fn verify_with(
        &self,
        find: impl FnOnce(KeyId) -> Option<PublicKey>,
        roots: &mut RootCache,
    ) -> Result<Claims, ForgedToken> {
        let signer = self.signer;
        self.verify(&find(signer).ok_or(ForgedToken::UnknownSigner { signer })?, roots)
    }
}
