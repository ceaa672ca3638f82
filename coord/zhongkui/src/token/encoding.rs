//! What a token says, to its leaf and back (`docs/token.md`). One value has one encoding.

use bytes::{Buf as _, BufMut as _};
use coord_types::{DataId, SessionId};

use super::{BATCH_MAX, Claims, DataRights, NotDataRights, Scope, TOKEN_BYTES_MAX};
use crate::crypto::KeyId;
use crate::rights::Rights;
use crate::terms::{BadValidity, Validity};
use crate::time::Timestamp;

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 48;
/// The first bytes of a leaf, and so of a token.
const MAGIC: [u8; 4] = *b"ZKCT";
const VERSION: u8 = 1;

const EVERYTHING: u8 = 0;
const DATA: u8 = 1;

/// Bytes that are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedToken {
    #[error("this is no token: it does not begin with the bytes of one")]
    Magic,
    #[error(
        "the token is of version {found}, this program reads version {VERSION}: it needs to be of the same release"
    )]
    Version { found: u8 },
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("the token is cut off")]
    Short,
    #[error("the token has {bytes} bytes too many")]
    Excess { bytes: usize },
    #[error("the token has a scope this program does not know ({0}): it needs to be of the same release")]
    UnknownScope(u8),
    #[error("the token is for all data, and names data {0}")]
    DataOfEverything(DataId),
    #[error(
        "the token has rights this program does not know (bits {bits:#06x}): it needs to be of the same release"
    )]
    UnknownRights { bits: u16 },
    #[error("the rights of the token cannot be")]
    Rights(#[from] NotDataRights),
    #[error("the times of the token cannot be")]
    Validity(#[from] BadValidity),
    #[error("a batch has 1 to {BATCH_MAX} tokens, this one says to be number {index} of {count}, from 0")]
    Place { index: u16, count: u16 },
}

impl From<bytes::TryGetError> for MalformedToken {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Short
    }
}

pub(super) fn leaf(claims: &Claims) -> [u8; LEAF_BYTES] {
    let Claims { holder, session, scope, rights, cluster_epoch, validity } = claims;
    let (tag, data) = match scope {
        Scope::Everything => (EVERYTHING, 0),
        Scope::Data(data) => (DATA, data.0),
    };
    let mut bytes = [0; LEAF_BYTES];
    let mut out = &mut bytes[..];
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(tag);
    out.put_u16_le(rights.rights().bits());
    out.put_slice(&holder.0);
    out.put_u64_le(session.0);
    out.put_u64_le(data);
    out.put_u64_le(*cluster_epoch);
    out.put_u32_le(validity.not_before().0);
    out.put_u32_le(validity.not_after().0);
    assert!(out.is_empty(), "a leaf is as long as its fields");
    bytes
}

pub(super) fn claims(leaf: &[u8; LEAF_BYTES]) -> Result<Claims, MalformedToken> {
    let mut rest = leaf.strip_prefix(&MAGIC).ok_or(MalformedToken::Magic)?;
    let version = rest.try_get_u8()?;
    if version != VERSION {
        return Err(MalformedToken::Version { found: version });
    }
    let tag = rest.try_get_u8()?;
    let bits = rest.try_get_u16_le()?;
    let rights = Rights::from_bits(bits).ok_or(MalformedToken::UnknownRights { bits })?;
    let holder = KeyId(*take(&mut rest)?);
    let session = SessionId(rest.try_get_u64_le()?);
    let scope = match (tag, DataId(rest.try_get_u64_le()?)) {
        (EVERYTHING, DataId(0)) => Scope::Everything,
        (EVERYTHING, data) => return Err(MalformedToken::DataOfEverything(data)),
        (DATA, data) => Scope::Data(data),
        _ => return Err(MalformedToken::UnknownScope(tag)),
    };
    let cluster_epoch = rest.try_get_u64_le()?;
    let validity = Validity::new(Timestamp(rest.try_get_u32_le()?), Timestamp(rest.try_get_u32_le()?))?;
    Ok(Claims { holder, session, scope, rights: DataRights::new(rights)?, cluster_epoch, validity })
}

pub(super) fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], MalformedToken> {
    let (array, rest) = bytes.split_first_chunk().ok_or(MalformedToken::Short)?;
    *bytes = rest;
    Ok(array)
}
