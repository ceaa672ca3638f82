//! What a job remembers over a crash of its master. Bytes: `codec` and [`crate::journal`]; meaning: `sched/docs/journal.md`.

use crate::effect::JobOutcome;
use crate::ids::{TaskId, Time};

/// Tasks that run together by pipes, at most: a report of each is kept in one bit of a `u8`.
pub const GANG_MAX: usize = 8;

/// One thing that happened and must not be forgotten. `task` is always a gang's first task, which stands for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A job master began. The first of a new one, before it assigns anything: its attempts' numbers depend on it.
    Opened { generation: u32, at: Time },
    /// These instances have a winner, the attempt of that number. They are half-open ranges, ascending.
    Won { task: TaskId, attempt: u32, outputs: Outputs, ranges: Vec<(u32, u32)>, bytes: u64, mean_ms: u64 },
    /// The winners' outputs of these instances are in place. Only spares the next job master to look.
    Placed { task: TaskId, ranges: Vec<(u32, u32)> },
    /// An attempt failed. `text` is only there for the job's first.
    Failed { task: TaskId, instance: u32, cause: Cause, for_good: bool, text: String },
    /// An attempt ended for no fault of its own, and counts against the bound on such ends.
    Lost { task: TaskId, instance: u32, for_good: bool },
    /// The output of an instance that was won is not there: it waits to run again.
    Reopened { task: TaskId, instance: u32 },
    /// No new attempts.
    Paused,
    /// New attempts again.
    Resumed,
    /// How the job is going to end: everything is being cancelled.
    Closing { outcome: JobOutcome },
    /// It ended so.
    Ended { outcome: JobOutcome },
}

/// How an attempt failed, where that counts against its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Exit code.
    Exit(i32),
    /// Signal.
    Signal(i32),
    /// Too long.
    Timeout,
    /// Too much memory.
    OutOfMemory,
    /// No program.
    NoSuchProgram,
    /// It claims that an input is lost which it does not read.
    Nonsense,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Exit(code) => write!(f, "exit code {code}"),
            Cause::Signal(signal) => write!(f, "signal {signal}"),
            Cause::Timeout => f.write_str("it ran longer than its timeout"),
            Cause::OutOfMemory => f.write_str("it needed more memory than its unit has"),
            Cause::NoSuchProgram => f.write_str("its program is not there or can not be executed"),
            Cause::Nonsense => f.write_str("it reported the loss of an input that it does not read"),
        }
    }
}

/// How many outputs each member of a gang has; a task that is not piped is a gang of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outputs {
    counts: [u32; GANG_MAX],
    members: u8,
}

impl Outputs {
    /// None yet, of so many members; `None` if these are more than [`GANG_MAX`].
    pub fn none(members: usize) -> Option<Outputs> {
        let members = u8::try_from(members).ok().filter(|n| usize::from(*n) <= GANG_MAX)?;
        Some(Outputs { counts: [0; GANG_MAX], members })
    }

    /// None yet, of a gang that was checked to be no larger than [`GANG_MAX`].
    pub(crate) fn of_gang(members: usize) -> Outputs {
        Outputs { counts: [0; GANG_MAX], members: members.min(GANG_MAX) as u8 }
    }

    /// In the gang's order.
    pub fn as_slice(&self) -> &[u32] {
        &self.counts[..usize::from(self.members)]
    }

    /// Of a member the gang does not have: ignored.
    pub fn set(&mut self, member: usize, outputs: u32) {
        if let Some(count) = self.counts[..usize::from(self.members)].get_mut(member) {
            *count = outputs;
        }
    }
}
