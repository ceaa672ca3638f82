//! Who asks, and what the bits of a mode say to that.

use master_model::{Attr, mode};

/// The uid and gid of who has none here.
pub const NOBODY: u32 = 65534;

/// What an inode is wanted for: the bits of a mode's last digit.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;

/// What uid 0 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Superuser,
    /// Like anybody who has no uid here.
    Nobody,
}

/// On whose behalf an operation is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    /// The first is the group of what is made.
    pub gids: Vec<u32>,
    /// Bound by no mode and no owner.
    pub superuser: bool,
}

impl Identity {
    /// With uid 0 replaced by what it means.
    #[must_use]
    pub fn new(uid: u32, gids: Vec<u32>, root: Root) -> Self {
        match (uid, root) {
            (0, Root::Superuser) => Self { uid, gids, superuser: true },
            (0, Root::Nobody) => Self { uid: NOBODY, gids: vec![NOBODY], superuser: false },
            _ => Self { uid, gids, superuser: false },
        }
    }

    /// The group of what is made.
    pub(super) fn gid(&self) -> u32 {
        self.gids.first().copied().unwrap_or(NOBODY)
    }

    pub(super) fn is_in(&self, gid: u32) -> bool {
        self.gids.contains(&gid)
    }

    /// Owns the inode, or may do what its owner may.
    pub(super) const fn owns(&self, attr: &Attr) -> bool {
        self.superuser || self.uid == attr.uid
    }

    /// What the mode says. Owner, group and others are tried in this order, and the first that fits decides: an owner without
    /// a right does not get it as one of the group.
    pub(super) fn may(&self, attr: &Attr, wanted: u32) -> bool {
        if self.superuser {
            return true;
        }
        let bits = if self.uid == attr.uid {
            attr.mode >> 6
        } else if self.is_in(attr.gid) {
            attr.mode >> 3
        } else {
            attr.mode
        };
        bits & wanted == wanted
    }

    /// Whether a set-group-id bit with this group is more than the identity can give.
    pub(super) fn is_foreign_group(&self, gid: u32) -> bool {
        !self.superuser && !self.is_in(gid)
    }
}

/// Set-user-id, or set-group-id where it means that.
pub(super) const fn is_privileged(bits: u32) -> bool {
    let group = mode::SGID | mode::GROUP_EXEC;
    bits & mode::SUID != 0 || bits & group == group
}
