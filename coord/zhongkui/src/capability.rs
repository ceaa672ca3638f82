//! Capabilities that were proved: granted here, or verified. Immutable; narrowing makes a new one.

use std::fmt;

use crate::crypto::{KeyId, PublicKey, SecretKey, Signature};
use crate::encoding::{put_block, put_root, put_terms};
use crate::resource::Resource;
use crate::rights::Rights;
use crate::terms::{Grant, Root, Terms, Validity};
use crate::unverified::{HEADER_BYTES, MAGIC, NO_SIGNATURE, VERSION, signed_bytes};
use crate::{BLOCKS_MAX, CAPABILITY_BYTES_MAX};

/// Terms and who signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub terms: Terms,
    pub signature: Signature,
}

/// A capability whose signatures were verified. What it allows is asked of [`crate::decide()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    bytes: Vec<u8>,
    root: Root,
    blocks: Vec<Block>,
    /// Of each block's holder. Kept, as every decision compares them with revoked ones, and each takes a digest.
    holder_ids: Vec<KeyId>,
}

/// A capability that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NarrowError {
    #[error("this key does not hold the capability: it is {key}, the holder is {holder}")]
    NotTheHolder { key: KeyId, holder: KeyId },
    #[error("the capability has been handed on {} times, which is as often as it can be", BLOCKS_MAX - 1)]
    TooManyBlocks,
    #[error(
        "the capability would have {0} bytes, more than {CAPABILITY_BYTES_MAX}: give it fewer grants, or shorter names"
    )]
    TooLong(usize),
    #[error("{grant}: the capability that is narrowed has nothing of that")]
    NothingLeft { grant: String },
    #[error(
        "nothing would be left of the time: the capability that is narrowed is over before this begins, or begins after it is over"
    )]
    NoTimeLeft,
}

impl Capability {
    /// The first block, signed by an authority.
    ///
    /// # Errors
    /// It is too long.
    pub fn grant(authority: &SecretKey, root: Root, terms: Terms) -> Result<Self, NarrowError> {
        let root = Root { issuer: authority.public().id(), ..root };
        let mut body = Vec::new();
        put_root(&root, &mut body);
        put_terms(&terms, &mut body);
        let header = [&MAGIC[..], &[VERSION, 0]].concat();
        Self { bytes: header, root, blocks: Vec::new(), holder_ids: Vec::new() }.with(authority, &body, terms)
    }

    /// One block more, to hand on. The new terms' holder is whoever gets it; rights and time are what both allow.
    ///
    /// # Errors
    /// The key is not the holder's, a grant would allow nothing for certain, or there is no room for another block.
    pub fn narrow(&self, holder: &SecretKey, terms: Terms) -> Result<Self, NarrowError> {
        if holder.public() != *self.holder() {
            return Err(NarrowError::NotTheHolder { key: holder.public().id(), holder: self.holder().id() });
        }
        if self.blocks.len() == BLOCKS_MAX {
            return Err(NarrowError::TooManyBlocks);
        }
        // The chain decides, whatever is said here: this only spares people a capability that opens nothing.
        if let Some(grant) = terms.grants().iter().find(|grant| !self.may_allow(grant)) {
            return Err(NarrowError::NothingLeft { grant: grant.to_string() });
        }
        let mut body = Vec::new();
        put_terms(&terms, &mut body);
        let narrowed = self.clone().with(holder, &body, terms)?;
        if narrowed.validity().is_some() { Ok(narrowed) } else { Err(NarrowError::NoTimeLeft) }
    }

    /// What was verified. Only for whoever did.
    pub(crate) fn proved(bytes: Vec<u8>, root: Root, blocks: Vec<Block>) -> Self {
        let holder_ids = blocks.iter().map(|block| block.terms.holder.id()).collect();
        Self { bytes, root, blocks, holder_ids }
    }

    fn with(mut self, signer: &SecretKey, body: &[u8], terms: Terms) -> Result<Self, NarrowError> {
        let before = self.blocks.last().map_or(NO_SIGNATURE, |block| block.signature);
        let signature = signer.sign(&signed_bytes(&before, body));
        put_block(body, &signature, &mut self.bytes);
        if self.bytes.len() > CAPABILITY_BYTES_MAX {
            return Err(NarrowError::TooLong(self.bytes.len()));
        }
        self.bytes[HEADER_BYTES - 1] += 1;
        self.holder_ids.push(terms.holder.id());
        self.blocks.push(Block { terms, signature });
        Ok(self)
    }

    /// Whether a grant could come to anything beside those of each block.
    fn may_allow(&self, grant: &Grant) -> bool {
        self.blocks.iter().all(|block| {
            block.terms.grants().iter().any(|ours| {
                ours.rights().contains(grant.rights()) && may_meet(ours.resource(), grant.resource())
            })
        })
    }

    /// The form that is sent and kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The root's first.
    pub fn terms(&self) -> impl ExactSizeIterator<Item = &Terms> {
        self.blocks.iter().map(|block| &block.terms)
    }

    /// Who may present it.
    #[must_use]
    pub fn holder(&self) -> &PublicKey {
        &self.blocks.last().expect("a capability has a root").terms.holder
    }

    /// Short name of the key of whoever may present it.
    #[must_use]
    pub fn holder_id(&self) -> KeyId {
        *self.holder_ids.last().expect("a capability has a root")
    }

    /// Short names of all holders, the root's first.
    #[must_use]
    pub fn holder_ids(&self) -> &[KeyId] {
        &self.holder_ids
    }

    /// The name under which its holder owns sessions: the user's; if it was handed on, with the id of the holder's key behind it. So a
    /// narrower capability does not take over what a wider one opened.
    #[must_use]
    pub fn principal(&self) -> String {
        let name = &self.root.user.name;
        if self.blocks.len() == 1 { name.to_string() } else { format!("{name}/{}", self.holder_id()) }
    }

    /// Whether its holder may be a server of something, so far as every block goes. Of what, [`crate::decide()`] says.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.terms().all(|terms| terms.grants().iter().any(|grant| grant.rights().contains(Rights::SERVE)))
    }

    /// From the last beginning to the first end of all blocks. `None`: there is no such time, as somebody narrowed it to nothing.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        let all = || self.terms().map(|terms| terms.validity);
        let begin = all().map(|validity| validity.not_before()).max()?;
        let end = all().map(|validity| validity.not_after()).min()?;
        Validity::new(begin, end).ok()
    }
}

/// Whether something may be within both. Inodes are where the master says they are, which is not known here.
fn may_meet(one: &Resource, other: &Resource) -> bool {
    use Resource::{Action, Directory, Everything, File, Nuwa, Queue, Service};
    let nested = |a: &str, b: &str, end: &str| {
        let within = |outer: &str, inner: &str| {
            outer == inner
                || inner.strip_prefix(outer).is_some_and(|rest| outer.ends_with('/') || rest.starts_with(end))
        };
        within(a, b) || within(b, a)
    };
    match (one, other) {
        (Everything, _) | (_, Everything) => true,
        (Directory(_), Directory(_) | File(_)) | (File(_), Directory(_)) => true,
        (File(a), File(b)) => a == b,
        // A file of Nuwa is below nothing but directories.
        (Nuwa(a), Nuwa(b)) => nested(a.as_str(), b.as_str(), "\0"),
        (Queue(a), Queue(b)) | (Service(a), Service(b)) => nested(a.as_str(), b.as_str(), "/"),
        (Action(a), Action(b)) => a == b,
        (Directory(_) | File(_) | Nuwa(_) | Queue(_) | Action(_) | Service(_), _) => false,
    }
}

/// For people: who, what, how long; a paragraph for each block.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Root { id, issuer, user } = &self.root;
        let gids: Vec<String> = user.gids().iter().map(u32::to_string).collect();
        writeln!(
            f,
            "capability {id} for {}, uid {}, gids {}, epoch {}",
            user.name,
            user.uid,
            gids.join(" "),
            user.epoch
        )?;
        let mut signer = *issuer;
        for (number, terms) in self.terms().enumerate() {
            let what = if number == 0 { "granted by authority" } else { "handed on by" };
            writeln!(f, "  {what} {signer} to {}", terms.holder.id())?;
            writeln!(f, "    from {} until {}", terms.validity.not_before(), terms.validity.not_after())?;
            terms.grants().iter().try_for_each(|grant| writeln!(f, "    {grant}"))?;
            signer = terms.holder.id();
        }
        if self.blocks.len() > 1 {
            writeln!(f, "  what counts is what all of these allow")?;
        }
        Ok(())
    }
}
