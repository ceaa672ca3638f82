//! Zhongkui: who may do what. Users are key pairs; what they may do is said by signed capabilities that can be handed on, but
//! only narrower; one pure function decides, for every service alike.
//!
//! Read in this order: [`crypto`] (keys and signatures: the only place that knows algorithms), [`rights`] and [`resource`] (what a grant
//! says), [`terms`] (a block without its signature), [`unverified`] (bytes that somebody sent), [`capability`] (bytes that were
//! proved; granting, narrowing), [`cache`] (so that each is proved once), [`revoke`] and [`decide`](mod@decide) (the answer), [`text`] and [`keyring`] (files). Beside them
//! [`token`]: what masters sign for chunkservers. The bytes are in `docs/capability.md` and `docs/token.md`, what all of it is to
//! protect in `docs/model.md`.
//!
//! Pure but for [`crypto::SecretKey::generate`], which asks the system for random bytes, and [`keyring`], which reads and writes files. Time and
//! revocations come in as values.

mod bounded;
pub mod cache;
pub mod capability;
pub mod crypto;
pub mod decide;
mod encoding;
pub mod keyring;
pub mod resource;
pub mod revoke;
pub mod rights;
pub mod terms;
pub mod text;
pub mod time;
pub mod token;
pub mod unverified;

pub use cache::{Unproved, VerifiedCache};
pub use capability::{Capability, NarrowError};
pub use crypto::{KeyId, PublicKey, SecretKey};
pub use decide::{Decision, Refusal, Request, decide};
pub use resource::{Resource, Target};
pub use revoke::Revocations;
pub use rights::Rights;
pub use terms::{CapabilityId, Grant, Terms, User, UserEpoch, UserName, Validity};
pub use time::Timestamp;
pub use token::{Claims, DataRequest, DataRights, RootCache, Scope, TokenRefusal, UnverifiedToken, admit};
pub use unverified::{Authorities, Forged, MalformedCapability, UnverifiedCapability};

/// Blocks of a capability, the root counted. Bounds what a verifier computes for a stranger: 8 signatures are a third of a millisecond.
pub const BLOCKS_MAX: usize = 8;
/// Bytes of a capability, so that one travels in a frame's header or a line of text.
pub const CAPABILITY_BYTES_MAX: usize = 1024;
/// Grants of a block.
pub const GRANTS_MAX: usize = 16;
/// Groups of a user; the first is the primary one.
pub const GIDS_MAX: usize = 16;
