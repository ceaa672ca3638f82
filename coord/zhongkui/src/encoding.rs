//! Blocks to bytes and back (`docs/capability.md`). One value has one encoding: what decodes encodes to the same bytes.

use bytes::{Buf as _, BufMut as _};
use coord_types::InodeId;

use crate::GRANTS_MAX;
use crate::crypto::{KEY_BYTES, KeyId, PublicKey, Signature};
use crate::resource::{Name, Resource};
use crate::rights::Rights;
use crate::terms::{CapabilityId, Grant, Root, Terms, User, UserEpoch, UserName, Validity};
use crate::time::Timestamp;
use crate::unverified::MalformedCapability as Malformed;

const EVERYTHING: u8 = 0;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const NUWA: u8 = 3;
const QUEUE: u8 = 4;
const ACTION: u8 = 5;
const SERVICE: u8 = 6;

/// Lengths are one byte wherever a constructor bounds them to that.
fn length(length: usize) -> u8 {
    u8::try_from(length).expect("a constructor bounded it")
}

pub(crate) fn put_root(root: &Root, out: &mut Vec<u8>) {
    let Root { id, issuer, user } = root;
    out.put_u64_le(id.0);
    out.put_slice(&issuer.0);
    out.put_u32_le(user.epoch.0);
    out.put_u32_le(user.uid);
    out.put_u8(length(user.gids().len()));
    user.gids().iter().for_each(|gid| out.put_u32_le(*gid));
    out.put_u8(length(user.name.as_str().len()));
    out.put_slice(user.name.as_str().as_bytes());
}

pub(crate) fn put_terms(terms: &Terms, out: &mut Vec<u8>) {
    out.put_slice(&terms.holder.0);
    out.put_u32_le(terms.validity.not_before().0);
    out.put_u32_le(terms.validity.not_after().0);
    out.put_u8(length(terms.grants().len()));
    for grant in terms.grants() {
        out.put_u16_le(grant.rights().bits());
        let (tag, number, name) = match grant.resource() {
            Resource::Everything => (EVERYTHING, None, ""),
            Resource::Directory(inode) => (DIRECTORY, Some(inode), ""),
            Resource::File(inode) => (FILE, Some(inode), ""),
            Resource::Nuwa(name) => (NUWA, None, name.as_str()),
            Resource::Queue(name) => (QUEUE, None, name.as_str()),
            Resource::Action(name) => (ACTION, None, name.as_str()),
            Resource::Service(name) => (SERVICE, None, name.as_str()),
        };
        let number = number.map(|inode| inode.0.to_le_bytes());
        let bytes = number.as_ref().map_or(name.as_bytes(), |number| number);
        out.put_u8(tag);
        out.put_u8(length(bytes.len()));
        out.put_slice(bytes);
    }
}

/// A body too long for its length is too long for a capability; whoever makes one refuses it for that.
pub(crate) fn put_block(body: &[u8], signature: &Signature, out: &mut Vec<u8>) {
    out.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
    out.put_slice(body);
    out.put_slice(&signature.0);
}

pub(crate) fn get_root(bytes: &mut &[u8]) -> Result<Root, Malformed> {
    let id = CapabilityId(bytes.try_get_u64_le()?);
    let issuer = KeyId(*take_array(bytes)?);
    let epoch = UserEpoch(bytes.try_get_u32_le()?);
    let uid = bytes.try_get_u32_le()?;
    let gids = bytes.try_get_u8()?;
    let gids = (0..gids).map(|_| bytes.try_get_u32_le()).collect::<Result<_, _>>()?;
    let name = UserName::new(take_text(bytes)?)?;
    Ok(Root { id, issuer, user: User::new(name, epoch, uid, gids)? })
}

pub(crate) fn get_terms(bytes: &mut &[u8]) -> Result<Terms, Malformed> {
    let holder = PublicKey(*take_array::<KEY_BYTES>(bytes)?);
    let not_before = Timestamp(bytes.try_get_u32_le()?);
    let not_after = Timestamp(bytes.try_get_u32_le()?);
    let count = bytes.try_get_u8()?;
    let mut grants = Vec::with_capacity(usize::from(count).min(GRANTS_MAX));
    for _ in 0..count {
        let bits = bytes.try_get_u16_le()?;
        let rights = Rights::from_bits(bits).ok_or(Malformed::UnknownRights { bits })?;
        let tag = bytes.try_get_u8()?;
        grants.push(Grant::new(rights, get_resource(tag, bytes)?)?);
    }
    Ok(Terms::new(holder, Validity::new(not_before, not_after)?, grants)?)
}

fn get_resource(tag: u8, bytes: &mut &[u8]) -> Result<Resource, Malformed> {
    if matches!(tag, NUWA | QUEUE | ACTION | SERVICE) {
        let name = take_text(bytes)?;
        return Ok(match tag {
            NUWA => Resource::nuwa(name)?,
            QUEUE => Resource::Queue(Name::new(name)?),
            ACTION => Resource::Action(Name::new(name)?),
            _ => Resource::Service(Name::new(name)?),
        });
    }
    let mut value = take(bytes)?;
    let resource = match tag {
        EVERYTHING => Resource::Everything,
        DIRECTORY => Resource::Directory(InodeId(value.try_get_u64_le()?)),
        FILE => Resource::File(InodeId(value.try_get_u64_le()?)),
        _ => return Err(Malformed::UnknownResource { tag }),
    };
    if value.is_empty() { Ok(resource) } else { Err(Malformed::Excess { bytes: value.len() }) }
}

/// As many bytes as the one before them says.
fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::from(bytes.try_get_u8()?);
    bytes.split_off(..length).ok_or(Malformed::Short)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    std::str::from_utf8(take(bytes)?).map_err(|_| Malformed::NotText)
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Malformed> {
    let (array, rest) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
    *bytes = rest;
    Ok(array)
}
