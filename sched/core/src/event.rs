//! What happens to the scheduler and what it wants done: its whole vocabulary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{GrantId, JobId, MachineId, Millis, NodeId, Priority, QueueId, RackId, UnitId};
use crate::resources::Resources;

/// What the caller tells. All are repeatable: the same event again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed. Give one at [`crate::Scheduler::next_deadline`], and at once while [`crate::Scheduler::has_work`].
    Tick,
    /// An agent registered, for the first time or again, and says all it runs.
    NodeUp(NodeReport),
    /// Nothing was heard of the agent for a while: it keeps what it has and gets nothing new.
    NodeSilent(NodeId),
    /// The silent agent was heard again, without having registered anew.
    NodeHeard(NodeId),
    /// The agent is given up: all its grants are withdrawn.
    NodeLost(NodeId),
    /// It has another size; what does not fit any more is revoked.
    NodeCapacity {
        /// The node.
        node: NodeId,
        /// Its new size.
        capacity: Resources,
    },
    /// It is to become empty: it keeps what it has and gets nothing new, until it is told otherwise.
    NodeDraining {
        /// The node.
        node: NodeId,
        /// False ends it.
        draining: bool,
    },
    /// It does not belong to the cluster any more and is forgotten.
    NodeRemoved(NodeId),
    /// A quota group is new or changed.
    QueueDefined {
        /// The group.
        queue: QueueId,
        /// All about it.
        spec: QueueSpec,
    },
    /// A quota group without jobs and children is forgotten.
    QueueRemoved(QueueId),
    /// A job was accepted.
    JobStarted {
        /// The job.
        job: JobId,
        /// For people.
        name: Arc<str>,
        /// Its quota group.
        queue: QueueId,
        /// Of all its units, which may deviate.
        priority: Priority,
    },
    /// A job is over: all it holds is revoked.
    JobEnded(JobId),
    /// A job says what it wants, and gives back in the same step, so that what it gives back is not granted to it again.
    Request {
        /// The job.
        job: JobId,
        /// The units that changed; others stay as they are.
        wants: Vec<Want>,
        /// Grants it gives back; those that it does not hold are passed over.
        release: Vec<GrantId>,
    },
    /// The nodes that a job does not want, all of them. They decay unless they are told again.
    Avoid {
        /// The job.
        job: JobId,
        /// All it avoids now.
        nodes: BTreeSet<NodeId>,
    },
    /// What a job master believes it holds, after a failover of either side: it is told again what it has missed.
    Holds {
        /// The job.
        job: JobId,
        /// All it holds.
        grants: BTreeMap<GrantId, NodeId>,
    },
    /// The agent saw the end of a grant: its room is free.
    Ended {
        /// The grant.
        grant: GrantId,
        /// How.
        outcome: Outcome,
    },
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The worker left by itself or was stopped.
    Done,
    /// The worker failed: the job waits a moment before it gets another.
    WorkerFailed,
    /// The machine failed the worker, which could not even be started: this counts against the node.
    NodeFailed,
}

/// An agent about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub name: Arc<str>,
    /// Where its data are near.
    pub machine: MachineId,
    /// And nearly near.
    pub rack: RackId,
    /// What Fuxi may use of it.
    pub capacity: Resources,
    /// What it runs.
    pub running: Vec<Held>,
}

/// A grant as an agent knows it, enough for a master that has never heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The grant.
    pub grant: GrantId,
    /// Whose.
    pub job: JobId,
    /// Which of its units.
    pub unit: UnitId,
    /// How large.
    pub resources: Resources,
    /// As it was when granted.
    pub priority: Priority,
    /// Since when, in this master's time; counts as work that would be lost.
    pub since: Millis,
}

/// A quota group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// For people.
    pub name: Arc<str>,
    /// The group it is part of; at the top if `None`.
    pub parent: Option<QueueId>,
    /// What it gets when it needs it, even if others must give back. 0 names no guarantee in that dimension.
    pub min: Resources,
    /// What it never exceeds.
    pub max: Resources,
    /// Above the minimum, shares are in proportion to this; at least 1.
    pub weight: u32,
}

/// How many of one unit a job wants to hold at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The unit.
    pub unit: UnitId,
    /// Above that of the last want of this unit, or this one is old and passed over.
    pub version: u64,
    /// What one needs.
    pub resources: Resources,
    /// Added to the job's priority.
    pub priority_offset: i32,
    /// All it wants to hold, what it has included.
    pub total: u32,
    /// Where those that it does not hold yet would be best; the rest may be anywhere.
    pub prefer: Preferences,
}

/// Where units would be best. Those of a rack are in addition to those of the rack's machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// How many on which machine.
    pub machines: BTreeMap<MachineId, u32>,
    /// How many in which rack.
    pub racks: BTreeMap<RackId, u32>,
}

/// What the caller is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell the agent and the job master. It may be told again after a failover, with the same id.
    Grant {
        /// Its name.
        grant: GrantId,
        /// Whose.
        job: JobId,
        /// Which of its units.
        unit: UnitId,
        /// Where.
        node: NodeId,
        /// How large.
        resources: Resources,
        /// How important.
        priority: Priority,
    },
    /// Tell the agent to stop it, and the job master that it is gone. The room is free when the agent reports the
    /// end; repeated until then.
    Revoke {
        /// The grant.
        grant: GrantId,
        /// Whose.
        job: JobId,
        /// Where.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
    /// A node gets nothing new until then.
    NodeBlacklisted {
        /// The node.
        node: NodeId,
        /// Until when.
        until: Millis,
        /// Jobs that avoided it lately.
        jobs: usize,
        /// Its own failures lately.
        failures: usize,
    },
    /// It gets something again.
    NodeForgiven(NodeId),
    /// The new master has heard enough, and grants from now on.
    Recovered {
        /// Agents that had not reported when it stopped waiting.
        missing: usize,
    },
}

/// Why a grant is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Another job needs the room more.
    Preempted {
        /// That job.
        by: JobId,
    },
    /// The job gave it back.
    Released,
    /// The job is over.
    JobEnded,
    /// The node is lost or was removed.
    NodeLost,
    /// The node became smaller.
    NodeShrank,
    /// This master has no such grant, or had withdrawn it.
    Unknown,
}
