//! What is done to a system, and what Pangu promises for it.

use std::fmt;
use std::time::Duration;

/// A fault, always of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of a chunkserver
    Kill,
    /// A chunkserver's cable is pulled
    Cut,
    /// A chunkserver stands still (SIGSTOP)
    Hang,
    /// A chunkserver is asked to end (SIGTERM)
    Stop,
    /// kill -9 of the master that leads
    KillMaster,
    /// The master that leads is asked to end (SIGTERM)
    StopMaster,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Kill, Self::Cut, Self::Hang, Self::Stop, Self::KillMaster, Self::StopMaster];

    /// The longest a program on a Pangu mount may wait.
    pub(crate) const fn limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Kill => 1000,
            Self::Cut | Self::Hang => 4000,
            Self::Stop => 200,
            Self::KillMaster => 2000,
            Self::StopMaster => 500,
        })
    }

    /// How long the server stays hurt, once programs go on.
    pub(crate) const fn lasts(self) -> Duration {
        Duration::from_millis(match self {
            Self::Cut | Self::Hang => 5000,
            Self::Kill | Self::Stop | Self::KillMaster | Self::StopMaster => 2500,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "chunkserver killed",
            Self::Cut => "chunkserver cut off",
            Self::Hang => "chunkserver hangs",
            Self::Stop => "chunkserver stopped",
            Self::KillMaster => "master killed",
            Self::StopMaster => "master stopped",
        })
    }
}
