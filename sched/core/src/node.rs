//! The nodes: what they have, what is on them, and how much of that may be given away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::free_tree::FreeTree;
use crate::ids::{GrantId, JobId, MachineId, Millis, NodeId, Priority, RackId, Slot, UnitKey};
use crate::resources::Resources;

/// Failures remembered of a node; more than any sensible threshold.
pub(crate) const FAILURES_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: Arc<str>,
    pub(crate) machine: MachineId,
    pub(crate) rack: RackId,
    pub(crate) capacity: Resources,
    /// Of all grants on it, those that are being stopped included.
    pub(crate) used: Resources,
    /// Of those that are being stopped.
    pub(crate) dying: Resources,
    pub(crate) grants: BTreeSet<GrantId>,
    /// Of those that could be preempted, by priority: most nodes that cannot help are recognised by these sums.
    pub(crate) by_priority: BTreeMap<Priority, Resources>,
    pub(crate) silent: bool,
    pub(crate) lost: bool,
    pub(crate) draining: bool,
    pub(crate) blacklisted_until: Option<Millis>,
    /// When which job last said it avoids this node.
    pub(crate) votes: BTreeMap<JobId, Millis>,
    pub(crate) failures: VecDeque<Millis>,
    pub(crate) reservations: Vec<Reservation>,
    /// Grants that were withdrawn while it was lost: if it comes back running them, they are to be stopped.
    pub(crate) withdrawn: BTreeSet<GrantId>,
}

/// Room kept for one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) id: u64,
    pub(crate) key: UnitKey,
    pub(crate) priority: Priority,
    pub(crate) resources: Resources,
    pub(crate) until: Millis,
    pub(crate) kind: ReservationKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReservationKind {
    /// Others are being stopped for it.
    Preempted,
    /// It waited too long behind smaller ones.
    Starved,
}

impl Node {
    pub(crate) fn is_usable(&self) -> bool {
        !self.silent && !self.lost && !self.draining && self.blacklisted_until.is_none()
    }

    pub(crate) fn free(&self) -> Resources {
        self.capacity.minus(&self.used)
    }

    /// What is free, or will be when those that are being stopped have gone, and is not kept for anybody.
    pub(crate) fn coming(&self) -> Resources {
        let kept = self.reservations.iter().fold(Resources::ZERO, |sum, kept| sum.plus(&kept.resources));
        self.capacity.minus(&self.used.minus(&self.dying)).minus(&kept)
    }

    /// One more grant that could be preempted.
    pub(crate) fn add_priority(&mut self, priority: Priority, resources: &Resources) {
        let sum = self.by_priority.entry(priority).or_default();
        *sum = sum.plus(resources);
    }

    /// One less. Grants are never empty, so an empty sum has none.
    pub(crate) fn remove_priority(&mut self, priority: Priority, resources: &Resources) {
        if let Some(sum) = self.by_priority.get_mut(&priority) {
            *sum = sum.minus(resources);
            if sum.is_zero() {
                self.by_priority.remove(&priority);
            }
        }
    }

    /// What may be given away now. What is being stopped pays for reservations first.
    pub(crate) fn available(&self) -> Resources {
        if self.is_usable() { self.free().each_min(&self.coming()) } else { Resources::ZERO }
    }
}

#[derive(Debug)]
pub(crate) struct Nodes {
    slots: Vec<Option<Node>>,
    vacant: Vec<Slot>,
    by_id: BTreeMap<NodeId, Slot>,
    pub(crate) tree: FreeTree,
    pub(crate) machines: BTreeMap<MachineId, BTreeSet<Slot>>,
    pub(crate) racks: BTreeMap<RackId, BTreeSet<Slot>>,
    pub(crate) blacklisted: usize,
    /// Where the next search starts: units are spread instead of filling the first nodes, which evens out disks and
    /// networks; large units do not suffer for ever, because they get reservations.
    pub(crate) cursor: Slot,
    /// Where the next scan for victims starts.
    pub(crate) scan: usize,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_id: BTreeMap::new(),
            tree: FreeTree::new(),
            machines: BTreeMap::new(),
            racks: BTreeMap::new(),
            blacklisted: 0,
            cursor: Slot(0),
            scan: 0,
        }
    }

    pub(crate) fn slot(&self, id: NodeId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Node> {
        self.slots.get(slot.0).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        self.slots.get_mut(slot.0).and_then(Option::as_mut)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Node)> {
        self.slots.iter().enumerate().filter_map(|(at, node)| node.as_ref().map(|node| (Slot(at), node)))
    }

    pub(crate) fn insert(&mut self, node: Node) -> Slot {
        let slot = self.vacant.pop().unwrap_or(Slot(self.slots.len()));
        if slot.0 == self.slots.len() {
            self.slots.push(None);
        }
        self.by_id.insert(node.id, slot);
        self.locate(slot, node.machine, node.rack);
        self.slots[slot.0] = Some(node);
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let Some(node) = self.slots.get_mut(slot.0).and_then(Option::take) else { return };
        self.by_id.remove(&node.id);
        self.leave(slot, node.machine, node.rack);
        self.tree.set(slot, Resources::ZERO);
        self.vacant.push(slot);
    }

    /// The node is elsewhere than it was.
    pub(crate) fn relocate(&mut self, slot: Slot, machine: MachineId, rack: RackId) {
        let Some(node) = self.get_mut(slot) else { return };
        let before = (node.machine, node.rack);
        (node.machine, node.rack) = (machine, rack);
        self.leave(slot, before.0, before.1);
        self.locate(slot, machine, rack);
    }

    fn locate(&mut self, slot: Slot, machine: MachineId, rack: RackId) {
        self.machines.entry(machine).or_default().insert(slot);
        self.racks.entry(rack).or_default().insert(slot);
    }

    fn leave(&mut self, slot: Slot, machine: MachineId, rack: RackId) {
        if let Some(slots) = self.machines.get_mut(&machine) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.machines.remove(&machine);
            }
        }
        if let Some(slots) = self.racks.get_mut(&rack) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.racks.remove(&rack);
            }
        }
    }

    /// The rack of a machine, if a node is there.
    pub(crate) fn rack_of(&self, machine: MachineId) -> Option<RackId> {
        let slot = self.machines.get(&machine)?.first()?;
        self.get(*slot).map(|node| node.rack)
    }

    /// What all nodes have that are not lost.
    pub(crate) fn total(&self) -> Resources {
        let present = self.iter().filter(|(_, node)| !node.lost);
        present.fold(Resources::ZERO, |sum, (_, node)| sum.plus(&node.capacity))
    }
}
