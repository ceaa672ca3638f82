//! Limits by the kernel's control groups, version 1 or 2, whichever each controller is in.
//!
//! A control group belongs to whoever made it. The agent makes its own below the one it was started in, and only if that is the machine's
//! (or its container's) root, or was delegated to it: below anybody else's it would change what that one counts and limits.

mod detect;
mod group;

use std::path::{Path, PathBuf};

pub use detect::{Detected, detect};
pub use group::{Group, Wants};

/// Whether control groups are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupUse {
    /// Below the agent's own, if that is a root or was delegated.
    #[default]
    Own,
    /// Below the agent's own, which the administrator says is delegated.
    Delegated,
    Off,
}

/// What limits what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// The two versions have other files for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// Where one controller's groups of this agent are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub controller: Controller,
    pub version: Version,
    /// The agent's own group, in which grants' are made.
    pub base: PathBuf,
}

impl Hierarchy {
    /// Of one grant.
    #[must_use]
    pub fn group(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }
}

/// Writes one of a group's files.
pub(crate) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text).map_err(|error| {
        // The path is what says which limit it was.
        std::io::Error::new(error.kind(), format!("write {text:?} to {}: {error}", path.display()))
    })
}
