//! What was taken back (`docs/model.md`). A value: whoever keeps the lists hands them in.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::KeyId;
use crate::terms::{CapabilityId, UserEpoch, UserName};

/// What is not followed any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Of users whose epoch was raised: capabilities of an older one are void. Absent: 0.
    pub users: BTreeMap<UserName, UserEpoch>,
    /// Keys that are followed no more, authorities' and holders'.
    pub keys: BTreeSet<KeyId>,
    /// Single capabilities, with all that was handed on from them.
    pub capabilities: BTreeSet<CapabilityId>,
}

impl Revocations {
    /// The epoch that is in force for a user.
    #[must_use]
    pub fn epoch(&self, user: &UserName) -> UserEpoch {
        self.users.get(user).copied().unwrap_or_default()
    }
}
