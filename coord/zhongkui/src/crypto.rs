//! Keys, signatures and digests: the only place that knows algorithms. Ed25519 (RFC 8032) by ed25519-dalek; SHA-512, and
//! SHA-512/256 (FIPS 180-4).

use std::fmt;

use ed25519_dalek::{Signature as DalekSignature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha512, Sha512_256};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key, and of the seed of a secret one.
pub const KEY_BYTES: usize = 32;
/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// Before whatever is hashed for a key id: no other digest can be taken for one.
const KEY_ID_DOMAIN: &[u8] = b"feitian key id 1\0";

/// A signature; says nothing until it is verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; SIGNATURE_BYTES]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x?}..)", &self.0[..4])
    }
}

/// Half of a key pair that everybody may know. Any 32 bytes: whether they are a key shows when a signature is verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl PublicKey {
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Sha512::new().chain_update(KEY_ID_DOMAIN).chain_update(self.0).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// Whether this key signed the message. Strict: no weak keys, no second form of a signature. About 45 µs.
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &Signature) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &DalekSignature::from_bytes(&signature.0)))
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Short name of a public key (`docs/capability.md`). Finds a key among those that are trusted; proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

/// Sixteen hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Half of a key pair that only its owner has. Erased from memory when dropped; not printed, not cloned.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key, from the system's random bytes.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        random().map(|seed| Self::from_seed(&seed))
    }

    #[must_use]
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What a file keeps of it.
    #[must_use]
    pub fn seed(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// About 20 µs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

/// Random bytes of the system: for keys, ids and challenges.
///
/// # Errors
/// The system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Stands for the bytes it was made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x?}..)", &self.0[..4])
    }
}

/// SHA-512/256 of the parts, one behind the other: the caller sees to it that they can be told apart.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> Digest {
    let hasher = parts.iter().fold(Sha512_256::new(), |hasher, part| hasher.chain_update(part));
    Digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // Section 7.1, test 2.
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let key = SecretKey::from_seed(&bytes(seed).try_into().unwrap());
        assert_eq!(key.sign(&[0x72]).0.to_vec(), bytes(signature));
        assert!(key.public().signed(&[0x72], &key.sign(&[0x72])));
        assert!(!key.public().signed(&[0x73], &key.sign(&[0x72])));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral element: with a lax check, one signature fits every message.
        let mut neutral = [0; KEY_BYTES];
        neutral[0] = 1;
        let mut signature = [0; SIGNATURE_BYTES];
        signature[0] = 1;
        assert!(!PublicKey(neutral).signed(b"anything", &Signature(signature)));
        assert!(!PublicKey([0xff; KEY_BYTES]).signed(b"anything", &Signature(signature)));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = SecretKey::from_seed(&[7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), format!("SecretKey({})", key.public().id()));
    }
}
