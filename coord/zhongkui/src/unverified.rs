//! Bytes that somebody sent. They have a form, and say something; whether it is true shows [`UnverifiedCapability::verify`].

use bytes::Buf as _;

use crate::capability::{Block, Capability};
use crate::crypto::{KeyId, PublicKey, SIGNATURE_BYTES, Signature};
use crate::encoding::{get_root, get_terms, put_block, put_root, put_terms};
use crate::resource::BadName;
use crate::terms::{BadGids, BadGrants, BadUserName, BadValidity, NoRights, Root};
use crate::{BLOCKS_MAX, CAPABILITY_BYTES_MAX};

/// The first bytes of a capability.
pub(crate) const MAGIC: [u8; 4] = *b"ZKCP";
pub(crate) const VERSION: u8 = 1;
/// Magic, version, number of blocks.
pub(crate) const HEADER_BYTES: usize = 6;
/// Before what is signed: a signature made for anything else does not fit.
const BLOCK_DOMAIN: &[u8] = b"feitian capability block 1\0";

/// What a block is signed over: its body, in its place in its chain.
pub(crate) fn signed_bytes(before: &Signature, body: &[u8]) -> Vec<u8> {
    [BLOCK_DOMAIN, &before.0, body].concat()
}

/// In place of the signature before the root.
pub(crate) const NO_SIGNATURE: Signature = Signature([0; SIGNATURE_BYTES]);

/// Bytes that are no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCapability {
    #[error("this is no capability: it does not begin with the bytes of one")]
    Magic,
    #[error(
        "the capability is of version {found}, this program reads version {VERSION}: it needs to be of the same release"
    )]
    Version { found: u8 },
    #[error("a capability has 1 to {BLOCKS_MAX} blocks, this one says {0}")]
    Blocks(u8),
    #[error("a capability has at most {CAPABILITY_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("the capability is cut off")]
    Short,
    #[error("the capability has {bytes} bytes too many")]
    Excess { bytes: usize },
    #[error(
        "the capability grants rights this program does not know (bits {bits:#06x}): it needs to be of the same release"
    )]
    UnknownRights { bits: u16 },
    #[error(
        "the capability is on a kind of resource this program does not know ({tag}): it needs to be of the same release"
    )]
    UnknownResource { tag: u8 },
    #[error("a name in the capability is no text")]
    NotText,
    #[error("a user's name in the capability is none")]
    UserName(#[from] BadUserName),
    #[error("the groups of the capability's user cannot be")]
    Gids(#[from] BadGids),
    #[error("the times of the capability cannot be")]
    Validity(#[from] BadValidity),
    #[error("a resource of the capability cannot be")]
    Resource(#[from] BadName),
    #[error("the grants of the capability cannot be")]
    Grants(#[from] BadGrants),
    #[error("a grant of the capability cannot be")]
    Rights(#[from] NoRights),
}

impl From<bytes::TryGetError> for MalformedCapability {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Short
    }
}

/// A capability that was not made by whom it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    #[error("the capability is signed by {issuer}, which is no authority of this cluster")]
    Issuer { issuer: KeyId },
    #[error(
        "block {block} of the capability is not signed by {signer}, as it says: it was changed, or never granted"
    )]
    Signature { block: usize, signer: KeyId },
}

/// Public keys of those who may grant. More than one while keys are rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities(Vec<(KeyId, PublicKey)>);

impl Authorities {
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&PublicKey> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter().map(|(_, key)| key)
    }
}

impl FromIterator<PublicKey> for Authorities {
    fn from_iter<T: IntoIterator<Item = PublicKey>>(keys: T) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }
}

/// A capability that has the form of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedCapability {
    bytes: Vec<u8>,
    root: Root,
    blocks: Vec<Block>,
    /// Where each block's body is in the bytes, as (begin, end).
    bodies: Vec<(usize, usize)>,
}

impl UnverifiedCapability {
    /// # Errors
    /// It has not the form of a capability, or of one of another release.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedCapability> {
        if bytes.len() > CAPABILITY_BYTES_MAX {
            return Err(MalformedCapability::TooLong(bytes.len()));
        }
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(MalformedCapability::Magic)?;
        let version = rest.try_get_u8()?;
        if version != VERSION {
            return Err(MalformedCapability::Version { found: version });
        }
        let count = rest.try_get_u8()?;
        if !(1..=BLOCKS_MAX).contains(&usize::from(count)) {
            return Err(MalformedCapability::Blocks(count));
        }
        let mut root = None;
        let (mut blocks, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let length = usize::from(rest.try_get_u16_le()?);
            let begin = bytes.len() - rest.len();
            let mut body = rest.split_off(..length).ok_or(MalformedCapability::Short)?;
            if root.is_none() {
                root = Some(get_root(&mut body)?);
            }
            let terms = get_terms(&mut body)?;
            if !body.is_empty() {
                return Err(MalformedCapability::Excess { bytes: body.len() });
            }
            let (signature, behind) = rest.split_first_chunk().ok_or(MalformedCapability::Short)?;
            rest = behind;
            blocks.push(Block { terms, signature: Signature(*signature) });
            bodies.push((begin, begin + length));
        }
        if !rest.is_empty() {
            return Err(MalformedCapability::Excess { bytes: rest.len() });
        }
        let root = root.ok_or(MalformedCapability::Blocks(count))?;
        Ok(Self { bytes: bytes.to_vec(), root, blocks, bodies })
    }

    /// The form that is sent, from what was read. The same bytes again: else there would be two forms of one thing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.blocks.len()).expect("decoding bounded it");
        let mut bytes = [&MAGIC[..], &[VERSION, count]].concat();
        for (number, block) in self.blocks.iter().enumerate() {
            let mut body = Vec::new();
            if number == 0 {
                put_root(&self.root, &mut body);
            }
            put_terms(&block.terms, &mut body);
            put_block(&body, &block.signature, &mut bytes);
        }
        bytes
    }

    /// What it says of itself. Nobody vouches for it.
    #[must_use]
    pub fn claims(&self) -> &Root {
        &self.root
    }

    /// Proves it: about 45 µs for each block. To be done once, and remembered by its bytes.
    ///
    /// # Errors
    /// Somebody made or changed it who may not.
    pub fn verify(self, authorities: &Authorities) -> Result<Capability, Forged> {
        let issuer = self.root.issuer;
        let mut signer = *authorities.find(issuer).ok_or(Forged::Issuer { issuer })?;
        let mut before = NO_SIGNATURE;
        for (number, (block, (begin, end))) in self.blocks.iter().zip(&self.bodies).enumerate() {
            let signed = signed_bytes(&before, &self.bytes[*begin..*end]);
            if !signer.signed(&signed, &block.signature) {
                return Err(Forged::Signature { block: number, signer: signer.id() });
            }
            signer = block.terms.holder;
            before = block.signature;
        }
        Ok(Capability::proved(self.bytes, self.root, self.blocks))
    }
}
