//! Chunk tokens: what a master signs for a client, and the client shows to chunkservers with each connection (`docs/token.md`).
//!
//! Masters call [`sign()`]; chunkservers decode an [`UnverifiedToken`], look its signer up, verify it, and ask [`admit()`] for each request.
//!
//! - What a token says was said by its signer: [`Claims`] come from bytes only through [`UnverifiedToken::verify`].
//! - A token has one encoding, of at most [`TOKEN_BYTES_MAX`] bytes.
//! - Capabilities are not looked at: who may sign is for the caller to know.
//!
//! Read in this order: this file (what a token says), [`encoding`], `merkle` (many leaves under one signature), [`sign`](mod@sign),
//! [`unverified`] and [`roots`] (whether it is true), [`admit`](mod@admit) (what it opens).

use std::fmt;

use coord_types::{DataId, SessionId};

use crate::crypto::{DIGEST_BYTES, KeyId, SIGNATURE_BYTES};
use crate::rights::Rights;
use crate::terms::Validity;

pub mod admit;
pub mod encoding;
mod merkle;
pub mod roots;
pub mod sign;
pub mod unverified;

pub use admit::{DataRequest, TokenRefusal, admit};
pub use encoding::MalformedToken;
pub use roots::RootCache;
pub use sign::{BadBatch, sign};
pub use unverified::{ForgedToken, UnverifiedToken};

/// Tokens that are signed together. More would make the longest path longer, and one signature is by then 1/1,000 of the work.
pub const BATCH_MAX: u16 = 1024;
/// Siblings on the way from a leaf to the root.
const PATH_MAX: usize = BATCH_MAX.ilog2() as usize;
/// Signer, index and count, between leaf and path.
const PLACE_BYTES: usize = 8 + 2 + 2;
/// Bytes of the longest token.
pub const TOKEN_BYTES_MAX: usize =
    encoding::LEAF_BYTES + PLACE_BYTES + PATH_MAX * DIGEST_BYTES + SIGNATURE_BYTES;

// A header of a frame has room for so much, and the path of the largest batch for no more.
const _: () = assert!(BATCH_MAX.is_power_of_two() && TOKEN_BYTES_MAX <= 512);

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The key that a connection must have proved.
    pub holder: KeyId,
    /// Whose stamps the writes may bear.
    pub session: SessionId,
    pub scope: Scope,
    pub rights: DataRights,
    /// The signer's cluster epoch.
    pub cluster_epoch: u64,
    pub validity: Validity,
}

/// Which data a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the cluster: for those that copy and repair.
    Everything,
    /// One generation of a file's data.
    Data(DataId),
}

impl Scope {
    #[must_use]
    pub fn covers(self, data: DataId) -> bool {
        match self {
            Self::Everything => true,
            Self::Data(ours) => ours == data,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("all data"),
            Self::Data(data) => write!(f, "data {data}"),
        }
    }
}

/// Reading, writing, or both: what can be done to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRights(Rights);

/// Rights that no token can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is to read, to write, or both, not for: {0}")]
pub struct NotDataRights(pub Rights);

impl DataRights {
    pub const READ: Self = Self(Rights::READ);
    pub const WRITE: Self = Self(Rights::WRITE);
    pub const BOTH: Self = Self(Rights::READ.union(Rights::WRITE));

    /// # Errors
    /// None, or others than read and write.
    pub fn new(rights: Rights) -> Result<Self, NotDataRights> {
        let possible = !rights.is_empty() && Self::BOTH.0.contains(rights);
        if possible { Ok(Self(rights)) } else { Err(NotDataRights(rights)) }
    }

    #[must_use]
    pub fn rights(self) -> Rights {
        self.0
    }
}

impl fmt::Display for DataRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
