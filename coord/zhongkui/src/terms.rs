//! What a block says: who may, what, and how long. Values that cannot be wrong: constructors check.

use std::fmt;

use crate::crypto::{KeyId, PublicKey};
use crate::decide::CLOCK_DIFFERENCE_MAX;
use crate::resource::Resource;
use crate::rights::Rights;
use crate::time::Timestamp;
use crate::{GIDS_MAX, GRANTS_MAX};

/// Bytes of a user's name.
pub const USER_NAME_BYTES_MAX: usize = 64;

/// Names one capability in audit lines and revocations. Narrowings keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapabilityId(pub u64);

/// Sixteen hexadecimal digits.
impl fmt::Display for CapabilityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for CapabilityId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// How often a user's capabilities were taken back. A capability of an older epoch is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserEpoch(pub u32);

impl fmt::Display for UserEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A user's name: 1 to 64 of `a-z 0-9 . _ -`, a letter or digit first. Is a file's name in Nuwa, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

/// What is no user's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no user's name: 1 to {USER_NAME_BYTES_MAX} of a-z, 0-9, '.', '_', '-', and a letter or digit first"
)]
pub struct BadUserName(pub String);

impl UserName {
    /// # Errors
    /// It has other characters, or is too long.
    pub fn new(name: impl Into<String>) -> Result<Self, BadUserName> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = name.len() <= USER_NAME_BYTES_MAX
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
        if fits { Ok(Self(name)) } else { Err(BadUserName(name)) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for UserName {
    type Err = BadUserName;

    fn from_str(text: &str) -> Result<Self, BadUserName> {
        Self::new(text)
    }
}

/// On whose behalf requests are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: UserName,
    pub epoch: UserEpoch,
    pub uid: u32,
    /// The first is the primary group. 1 to [`GIDS_MAX`].
    gids: Vec<u32>,
}

/// A user in so many groups cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user is in 1 to {GIDS_MAX} groups, not {0}")]
pub struct BadGids(pub usize);

impl User {
    /// # Errors
    /// No gid, or more than [`GIDS_MAX`].
    pub fn new(name: UserName, epoch: UserEpoch, uid: u32, gids: Vec<u32>) -> Result<Self, BadGids> {
        if (1..=GIDS_MAX).contains(&gids.len()) {
            Ok(Self { name, epoch, uid, gids })
        } else {
            Err(BadGids(gids.len()))
        }
    }

    #[must_use]
    pub fn gids(&self) -> &[u32] {
        &self.gids
    }
}

/// From when on, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A time that is over before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be valid from {not_before} until {not_after}: the end must come after the beginning")]
pub struct BadValidity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// From `not_before` on, until just before `not_after`.
    ///
    /// # Errors
    /// There is no second in between.
    pub fn new(not_before: Timestamp, not_after: Timestamp) -> Result<Self, BadValidity> {
        if not_before < not_after {
            Ok(Self { not_before, not_after })
        } else {
            Err(BadValidity { not_before, not_after })
        }
    }

    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Excluded, unless it is [`Timestamp::FOREVER`].
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether it is valid already, for a clock that may be [`CLOCK_DIFFERENCE_MAX`] behind the one it was granted by.
    #[must_use]
    pub fn has_begun(&self, now: Timestamp) -> bool {
        now >= self.not_before.saturating_sub(CLOCK_DIFFERENCE_MAX)
    }

    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.not_after && self.not_after != Timestamp::FOREVER
    }
}

/// Rights on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    rights: Rights,
    resource: Resource,
}

/// A grant of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a grant has at least one right")]
pub struct NoRights;

impl Grant {
    /// # Errors
    /// No rights.
    pub fn new(rights: Rights, resource: Resource) -> Result<Self, NoRights> {
        if rights.is_empty() { Err(NoRights) } else { Ok(Self { rights, resource }) }
    }

    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.rights)
    }
}

/// What every block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who may present or narrow it.
    pub holder: PublicKey,
    pub validity: Validity,
    /// 1 to [`GRANTS_MAX`].
    grants: Vec<Grant>,
}

/// So many grants do not fit into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block has 1 to {GRANTS_MAX} grants, not {0}")]
pub struct BadGrants(pub usize);

impl Terms {
    /// # Errors
    /// No grant, or more than [`GRANTS_MAX`].
    pub fn new(holder: PublicKey, validity: Validity, grants: Vec<Grant>) -> Result<Self, BadGrants> {
        if (1..=GRANTS_MAX).contains(&grants.len()) {
            Ok(Self { holder, validity, grants })
        } else {
            Err(BadGrants(grants.len()))
        }
    }

    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// What the first block says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub id: CapabilityId,
    /// The authority that signed.
    pub issuer: KeyId,
    pub user: User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_plain() {
        for name in ["a", "0", "alice", "build-7.x_y", &"n".repeat(64)] {
            assert_eq!(UserName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "-a", ".", "Alice", "a b", "a/b", "ä", &"n".repeat(65)] {
            assert_eq!(UserName::new(name), Err(BadUserName(name.to_owned())));
        }
    }

    #[test]
    fn what_cannot_be_meant_cannot_be_made() {
        let (early, late) = (Timestamp(5), Timestamp(6));
        assert!(Validity::new(early, late).is_ok());
        assert_eq!(Validity::new(late, late), Err(BadValidity { not_before: late, not_after: late }));
        assert_eq!(Grant::new(Rights::empty(), Resource::Everything), Err(NoRights));
        let grant = Grant::new(Rights::READ, Resource::Everything).unwrap();
        let (holder, validity) = (PublicKey([0; 32]), Validity::new(early, late).unwrap());
        assert_eq!(Terms::new(holder, validity, vec![]), Err(BadGrants(0)));
        assert_eq!(Terms::new(holder, validity, vec![grant.clone(); 17]), Err(BadGrants(17)));
        assert!(Terms::new(holder, validity, vec![grant; 16]).is_ok());
        let user = |gids| User::new(UserName::new("a").unwrap(), UserEpoch(0), 1, gids);
        assert_eq!(user(vec![]), Err(BadGids(0)));
        assert_eq!(user(vec![1; 17]), Err(BadGids(17)));
    }
}
