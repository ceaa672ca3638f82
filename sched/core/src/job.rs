//! Jobs, their units, and grants, as the scheduler remembers them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::Reason;
use crate::ids::{Group, JobId, MachineId, Millis, Priority, RackId, Slot, UnitId};
use crate::resources::Resources;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) name: Arc<str>,
    pub(crate) group: Group,
    pub(crate) priority: Priority,
    /// The last time it was served: the one with the smallest is next.
    pub(crate) turn: u64,
    pub(crate) units: BTreeSet<UnitId>,
    /// Those that are in the waiting lists.
    pub(crate) listed: BTreeSet<UnitId>,
    pub(crate) grants: BTreeSet<crate::ids::GrantId>,
    /// Nodes it does not want, and until when.
    pub(crate) avoid: BTreeMap<Slot, Millis>,
    /// Failures of workers in a row, bursts counted once.
    pub(crate) failures: u32,
    pub(crate) backoff_until: Option<Millis>,
    pub(crate) calm_until: Millis,
}

/// One line of a job's wants. `machines`, `racks` and `loose` add up to `waiting`; when time passes, counts move up
/// the tree, from machines to their racks to anywhere.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) resources: Resources,
    pub(crate) priority: Priority,
    pub(crate) version: u64,
    pub(crate) total: u32,
    pub(crate) held: u32,
    pub(crate) waiting: u32,
    pub(crate) machines: BTreeMap<MachineId, u32>,
    pub(crate) racks: BTreeMap<RackId, u32>,
    pub(crate) loose: u32,
    /// Since when it waits without having got anything.
    pub(crate) since: Millis,
    pub(crate) relax_at: Option<Millis>,
    /// A timer for its starving runs.
    pub(crate) watched: bool,
    pub(crate) reservations: Vec<(Slot, u64)>,
    /// Where it stands in the waiting lists; `None` if it is in none.
    pub(crate) listed: Option<Listed>,
}

/// Under which keys a unit is in the lists. All of them are needed to take it out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) group: Group,
    pub(crate) priority: Priority,
    pub(crate) resources: Resources,
    /// In the cluster's list: the job's turn.
    pub(crate) turn: u64,
    /// In lists of machines and racks: when it came. Turns are not kept there, because a unit can be in thousands.
    pub(crate) order: u64,
}

impl Unit {
    pub(crate) fn new(resources: Resources, priority: Priority, now: Millis) -> Self {
        Self {
            resources,
            priority,
            version: 0,
            total: 0,
            held: 0,
            waiting: 0,
            machines: BTreeMap::new(),
            racks: BTreeMap::new(),
            loose: 0,
            since: now,
            relax_at: None,
            watched: false,
            reservations: Vec::new(),
            listed: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) job: JobId,
    pub(crate) unit: UnitId,
    pub(crate) node: Slot,
    /// `None` while the job is not known: a new master hears of grants before it hears of jobs.
    pub(crate) group: Option<Group>,
    pub(crate) resources: Resources,
    pub(crate) priority: Priority,
    pub(crate) since: Millis,
    /// It is being stopped, for this reason; it uses its room until the agent says that it ended.
    pub(crate) dying: Option<Reason>,
}
