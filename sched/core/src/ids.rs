//! The names of things in the scheduler. Numbers are chosen by the caller, texts for people come with the events.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// An agent, that is, one share of a machine that Fuxi may fill.
    NodeId, u64);
id!(/// A machine as Pangu's chunk map names it; several nodes may be on one.
    MachineId, u64);
id!(/// A rack, the level of the locality tree above the machine.
    RackId, u64);
id!(/// A job, for as long as its folder is in `run/`.
    JobId, u64);
id!(/// One kind of worker of a job; the job master numbers them.
    UnitId, u32);
id!(/// A quota group.
    QueueId, u64);
id!(/// Higher goes first.
    Priority, i32);

/// Milliseconds of the caller's monotonic clock; only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This time and `millis` later, or the end of time.
    #[must_use]
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this; 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One unit granted on one node. The epoch of the master that granted it is part of the name, so a new master,
/// which does not know yet what the old one granted, cannot give the same name twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId {
    /// The term of the master.
    pub epoch: u64,
    /// Counts in that term, from 1.
    pub sequence: u64,
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// One line of a job's wants.
pub(crate) type UnitKey = (JobId, UnitId);

/// A node's place in the scheduler's table; never leaves the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) usize);

/// A queue's place in the scheduler's table; never leaves the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group(pub(crate) usize);
