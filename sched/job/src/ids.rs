//! Ids and time. Tasks are numbered from 0 in the order of the plan, instances from 0 within their task.

use std::fmt;
use std::sync::Arc;

/// A task of the plan: its position there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u32);

/// A resource unit of the job: what one worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u32);

/// A worker is one grant of one unit, and bears the grant's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// One run of one instance.
///
/// The number also says who gave it: 10,000 numbers belong to each generation of the job master, and within them 1,000 to
/// each life of the instance (a life ends when its output is lost). So a number names one temporary directory and one
/// log file for ever, although assignments are not in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// Its task.
    pub task: TaskId,
    /// Of the task's instances, from 0.
    pub instance: u32,
    /// Never given twice for this instance.
    pub attempt: u32,
}

/// Numbers a generation of the job master may give to the attempts of one instance.
pub(crate) const PER_GENERATION: u32 = 10_000;
/// Of these, the ones for each life of the instance.
pub(crate) const PER_LIFE: u32 = 1_000;
/// Generations, so that a number fits into 32 bits.
pub(crate) const GENERATIONS_MAX: u32 = u32::MAX / PER_GENERATION - 1;

/// A machine's name. Cheap to clone: a job names each machine many times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Any text: the job only compares names.
    pub fn new(name: &str) -> NodeName {
        NodeName(Arc::from(name))
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Milliseconds since 1970. May jump back a little when the job master changes machines: differences saturate at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This much later, in milliseconds.
    pub fn plus_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    pub fn since_ms(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
