//! Computes every sum anew and compares: what must hold between two events.
//!
//! For tests and simulations; it looks at everything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::ids::{GrantId, JobId, NodeId, QueueId, UnitId, UnitKey};
use crate::lists::{Lane, Place};
use crate::queue::Usage;
use crate::resources::Resources;
use crate::scheduler::Scheduler;

/// An invariant that does not hold: a bug of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// A node's sums are wrong, or more is on it than it has.
    #[error("node {node}: {what}")]
    Node {
        /// The node.
        node: NodeId,
        /// What does not hold.
        what: &'static str,
    },
    /// A quota group's sums are wrong, or it uses more than it may.
    #[error("queue {queue}: {what}")]
    Queue {
        /// The group.
        queue: QueueId,
        /// What does not hold.
        what: &'static str,
    },
    /// A grant without its job, unit or node.
    #[error("grant {grant}: {what}")]
    Grant {
        /// The grant.
        grant: GrantId,
        /// What does not hold.
        what: &'static str,
    },
    /// A unit's counts or lists are wrong.
    #[error("unit {unit} of job {job}: {what}")]
    Unit {
        /// The job.
        job: JobId,
        /// Its unit.
        unit: UnitId,
        /// What does not hold.
        what: &'static str,
    },
    /// Something of the whole scheduler.
    #[error("scheduler: {what}")]
    Whole {
        /// What does not hold.
        what: &'static str,
    },
}

impl Scheduler {
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_nodes()?;
        self.check_grants()?;
        self.check_queues()?;
        self.check_units()?;
        self.check_lists()?;
        self.check_reservations()
    }

    fn check_nodes(&self) -> Result<(), Broken> {
        let mut total = Resources::ZERO;
        for (slot, node) in self.nodes.iter() {
            let broken = |what| Err(Broken::Node { node: node.id, what });
            let (mut used, mut dying) = (Resources::ZERO, Resources::ZERO);
            let mut by_priority: BTreeMap<_, Resources> = BTreeMap::new();
            for id in &node.grants {
                let Some(grant) = self.grants.get(id).filter(|grant| grant.node == slot) else {
                    return broken("has a grant that does not exist or is elsewhere");
                };
                used = used.plus(&grant.resources);
                if grant.dying.is_some() {
                    dying = dying.plus(&grant.resources);
                } else {
                    let sum = by_priority.entry(grant.priority).or_default();
                    *sum = sum.plus(&grant.resources);
                }
            }
            if by_priority != node.by_priority {
                return broken("its sums by priority are wrong");
            }
            if used != node.used || dying != node.dying {
                return broken("its usage is not the sum of its grants");
            }
            if !used.minus(&dying).fits_in(&node.capacity) {
                return broken("has more than it can hold");
            }
            if node.lost && !node.grants.is_empty() {
                return broken("is lost and has grants");
            }
            if self.nodes.tree.get(slot) != node.available() {
                return broken("the index does not have what is available");
            }
            if !node.lost {
                total = total.plus(&node.capacity);
            }
        }
        if total != self.queues.total() {
            return Err(Broken::Whole { what: "the total is not the sum of the nodes" });
        }
        let blacklisted = self.nodes.iter().filter(|(_, node)| node.blacklisted_until.is_some()).count();
        if blacklisted != self.nodes.blacklisted {
            return Err(Broken::Whole { what: "the number of blacklisted nodes is wrong" });
        }
        Ok(())
    }

    fn check_grants(&self) -> Result<(), Broken> {
        let mut by_priority = BTreeMap::new();
        for (id, grant) in &self.grants {
            let broken = |what| Err(Broken::Grant { grant: *id, what });
            if self.nodes.get(grant.node).is_none_or(|node| !node.grants.contains(id)) {
                return broken("its node does not have it");
            }
            if grant.dying.is_some() {
                continue;
            }
            match grant.group {
                Some(group) => {
                    *by_priority.entry(grant.priority).or_default() += 1usize;
                    let job = self.jobs.get(&grant.job);
                    if job.is_none_or(|job| !job.grants.contains(id) || job.group != group) {
                        return broken("its job does not have it");
                    }
                    if !self.units.contains_key(&(grant.job, grant.unit)) {
                        return broken("its unit is not known");
                    }
                }
                None if self.recovering.is_none() => return broken("has no job, and the recovery is over"),
                None => {}
            }
        }
        for group in self.queues.groups() {
            let mut counts = BTreeMap::new();
            let below = |group_of: &crate::ids::Group| self.queues.path(*group_of).contains(&group);
            for grant in self.grants.values().filter(|grant| grant.dying.is_none()) {
                if grant.group.as_ref().is_some_and(below) {
                    *counts.entry(grant.priority).or_default() += 1usize;
                }
            }
            let queue = self.queues.get(group);
            if counts != queue.by_priority {
                return Err(Broken::Queue { queue: queue.id, what: "its counts by priority are wrong" });
            }
        }
        if by_priority != self.by_priority {
            return Err(Broken::Whole { what: "the counts by priority are not those of the grants" });
        }
        Ok(())
    }

    fn check_queues(&self) -> Result<(), Broken> {
        let mut sums: BTreeMap<QueueId, Usage> = BTreeMap::new();
        let mut add = |group, usage: Usage| {
            for level in self.queues.path(group) {
                sums.entry(self.queues.get(*level).id).or_default().add(&usage);
            }
        };
        for grant in self.grants.values() {
            let dying = if grant.dying.is_some() { grant.resources } else { Resources::ZERO };
            if let Some(group) = grant.group {
                add(group, Usage { used: grant.resources, dying, reserved: Resources::ZERO });
            }
        }
        for kept in self.nodes.iter().flat_map(|(_, node)| &node.reservations) {
            if let Some(job) = self.jobs.get(&kept.key.0) {
                add(job.group, Usage { reserved: kept.resources, ..Usage::default() });
            }
        }
        for group in self.queues.groups() {
            let queue = self.queues.get(group);
            let broken = |what| Err(Broken::Queue { queue: queue.id, what });
            if sums.get(&queue.id).copied().unwrap_or_default() != queue.sum {
                return broken("its usage is not the sum of its grants and reservations");
            }
            if !queue.sum.used.fits_in(&queue.ceiling) {
                return broken("uses more than its maximum");
            }
            if queue.jobs != self.jobs.values().filter(|job| job.group == group).count() {
                return broken("the number of its jobs is wrong");
            }
        }
        Ok(())
    }

    fn check_units(&self) -> Result<(), Broken> {
        let mut held: BTreeMap<UnitKey, u32> = BTreeMap::new();
        for grant in self.grants.values().filter(|grant| grant.dying.is_none() && grant.group.is_some()) {
            *held.entry((grant.job, grant.unit)).or_default() += 1;
        }
        for (key, unit) in &self.units {
            let broken = |what| Err(Broken::Unit { job: key.0, unit: key.1, what });
            let Some(job) = self.jobs.get(&key.0) else { return broken("its job is not known") };
            if held.get(key).copied().unwrap_or(0) != unit.held {
                return broken("does not hold what it is said to hold");
            }
            if unit.waiting != unit.total.saturating_sub(unit.held) {
                return broken("does not wait for what it wants less what it holds");
            }
            if unit.parts() != u64::from(unit.waiting) {
                return broken("its preferences do not add up to what it waits for");
            }
            if unit.listed.is_some() != (unit.waiting > 0 && job.backoff_until.is_none()) {
                return broken("is in the lists and does not wait, or waits and is not in them");
            }
            if unit.listed.is_some() != job.listed.contains(&key.1) {
                return broken("its job does not know whether it is in the lists");
            }
            if unit.reservations.len() > unit.waiting as usize {
                return broken("more is kept for it than it waits for");
            }
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), Broken> {
        let mut expected: BTreeSet<(Place, Lane, Resources, u64, UnitKey)> = BTreeSet::new();
        let mut shapes: BTreeMap<Resources, usize> = BTreeMap::new();
        for (key, unit) in &self.units {
            let Some(listed) = unit.listed else { continue };
            let lane = Lane { priority: Reverse(unit.priority), group: listed.group };
            *shapes.entry(unit.resources).or_default() += 1;
            let machines = unit.machines.keys().map(|machine| (Place::Machine(*machine), listed.order));
            let racks = unit.racks.keys().map(|rack| (Place::Rack(*rack), listed.order));
            let cluster = (unit.loose > 0).then_some((Place::Cluster, listed.turn));
            for (place, turn) in machines.chain(racks).chain(cluster) {
                expected.insert((place, lane, unit.resources, turn, *key));
            }
        }
        let found =
            self.lists.entries().map(|(place, lane, shape, turn, key)| (place, lane, *shape, turn, key));
        if !found.eq(expected.iter().copied()) {
            return Err(Broken::Whole { what: "the lists do not have exactly the units that wait" });
        }
        if !self.lists.shapes.iter().map(|(shape, state)| (*shape, state.units)).eq(shapes) {
            return Err(Broken::Whole { what: "the sizes are not those of the units that wait" });
        }
        for shape in self.lists.shapes.iter().filter(|(_, state)| state.exhausted).map(|(shape, _)| shape) {
            if self.nodes.iter().any(|(_, node)| shape.fits_in(&node.available())) {
                return Err(Broken::Whole { what: "a size is said to fit nowhere, and fits" });
            }
        }
        Ok(())
    }

    fn check_reservations(&self) -> Result<(), Broken> {
        let mut kept_here = BTreeSet::new();
        for (slot, node) in self.nodes.iter() {
            for kept in &node.reservations {
                kept_here.insert((slot, kept.id));
                let unit = self.units.get(&kept.key);
                if unit.is_none_or(|unit| !unit.reservations.contains(&(slot, kept.id))) {
                    return Err(Broken::Node {
                        node: node.id,
                        what: "keeps room for a unit that does not know it",
                    });
                }
            }
        }
        let of_units: BTreeSet<_> =
            self.units.values().flat_map(|unit| unit.reservations.iter().copied()).collect();
        if kept_here != self.kept || of_units != self.kept || !self.starved.is_subset(&self.kept) {
            return Err(Broken::Whole {
                what: "reservations of nodes, of units and of the scheduler differ",
            });
        }
        Ok(())
    }

    /// That nothing waits which could be granted, when there is no work left.
    ///
    /// # Errors
    /// A unit that could be granted.
    pub fn check_nothing_idle(&self) -> Result<(), Broken> {
        if self.has_work() || self.recovering.is_some() {
            return Ok(());
        }
        for (key, unit) in self.units.iter().filter(|(_, unit)| unit.listed.is_some() && unit.loose > 0) {
            let Some(job) = self.jobs.get(&key.0) else { continue };
            if self.queues.room_for(job.group, &unit.resources).is_err() {
                continue;
            }
            let open = |(slot, _): &(_, _)| !self.avoids(key.0, *slot);
            let mut nodes = self.nodes.iter().filter(open);
            if nodes.any(|(_, node)| unit.resources.fits_in(&node.available())) {
                return Err(Broken::Unit {
                    job: key.0,
                    unit: key.1,
                    what: "waits although a node has room for it",
                });
            }
        }
        Ok(())
    }
}
