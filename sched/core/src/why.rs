//! Why a unit waits: numbers for programs, one sentence for people.
//!
//! Asked rarely and by people, so it may look at every node. It tells what is in the way *last*: what would still be
//! in the way if everything named before were gone comes first (no node is that large, then quota, then room), because
//! waiting does not help against those.

use std::fmt;
use std::sync::Arc;

use crate::ids::{JobId, Millis, NodeId, Priority, QueueId, UnitId, UnitKey};
use crate::job::Unit;
use crate::node::Node;
use crate::resources::{Dimension, Resources};
use crate::scheduler::Scheduler;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The job.
    pub job: JobId,
    /// Its unit.
    pub unit: UnitId,
    /// How many it wants in all.
    pub wanted: u32,
    /// How many it holds.
    pub held: u32,
    /// How many it waits for.
    pub waiting: u32,
    /// For how long it has not got any.
    pub waiting_ms: u64,
    /// What for.
    pub reason: WaitsFor,
}

/// An amount of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// Of what.
    pub dimension: Dimension,
    /// How much, in its unit.
    pub amount: u64,
    /// For people.
    text: String,
}

/// A node and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub name: Arc<str>,
}

/// What a unit waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing: it has what it wants.
    Nothing,
    /// The new master does not grant yet.
    Recovery {
        /// Agents that have reported.
        reported: usize,
        /// Agents that are expected.
        expected: usize,
        /// It waits no longer than so.
        left_ms: u64,
    },
    /// Its workers failed, and it gets others only after a pause.
    Backoff {
        /// Failures in a row.
        failures: u32,
        /// The rest of the pause.
        left_ms: u64,
    },
    /// There is no node at all.
    NoNodes,
    /// Impossible: no node is that large.
    TooBigForNodes {
        /// What one unit needs.
        wanted: Amount,
        /// The most that any node has.
        largest: Amount,
        /// That node.
        at: Where,
    },
    /// Impossible: one unit is above the maximum of a quota group.
    TooBigForQueue {
        /// What one unit needs.
        wanted: Amount,
        /// The maximum.
        max: Amount,
        /// The group.
        queue: QueueId,
        /// Its name.
        name: Arc<str>,
    },
    /// The quota group is at its maximum.
    Quota {
        /// What one unit needs.
        wanted: Amount,
        /// What the group uses, or keeps for units that wait for others to stop.
        used: Amount,
        /// Its maximum.
        max: Amount,
        /// The group.
        queue: QueueId,
        /// Its name.
        name: Arc<str>,
    },
    /// A node is kept for it and becomes free.
    Freeing {
        /// The node.
        at: Where,
        /// What it needs most.
        wanted: Amount,
        /// What is free of that.
        free: Amount,
        /// How long the node is kept for it.
        left_ms: u64,
    },
    /// It waits for the places it prefers, although others may have room.
    Locality {
        /// Machines.
        machines: usize,
        /// Racks.
        racks: usize,
        /// After that it is content with more places.
        left_ms: u64,
    },
    /// There is room, but only on nodes that may not be used.
    Unusable {
        /// Nodes with room that the job avoids.
        avoided: usize,
        /// That are on the cluster's blacklist.
        blacklisted: usize,
        /// That are silent, or are being emptied.
        silent_or_draining: usize,
    },
    /// There is room, but it is kept for others.
    Kept {
        /// The node.
        at: Where,
    },
    /// Every node is too full.
    Room {
        /// What is short where the least is missing.
        wanted: Amount,
        /// What is free of it there.
        free: Amount,
        /// There.
        at: Where,
        /// The most that any node has free of it.
        most: Amount,
        /// That node.
        most_at: Where,
        /// Who holds most of it where the least is missing.
        holder: Option<Holder>,
    },
    /// It is its turn as soon as the scheduler gets to it.
    Turn,
}

/// A job that holds what is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// For people; the number if the job has ended and is being stopped.
    pub name: Arc<str>,
    /// How much of the short resource it holds on that node.
    pub amount: Amount,
    /// The lowest priority of what it holds there.
    pub priority: Priority,
}

impl Scheduler {
    /// Why the unit does not get more. `None` if there is no such unit.
    #[must_use]
    pub fn why(&self, job: JobId, unit: UnitId) -> Option<Why> {
        let key = (job, unit);
        let state = self.units.get(&key)?;
        Some(Why {
            job,
            unit,
            wanted: state.total,
            held: state.held,
            waiting: state.waiting,
            waiting_ms: if state.waiting > 0 { self.now.since(state.since) } else { 0 },
            reason: self.reason(key, state),
        })
    }

    fn reason(&self, key: UnitKey, unit: &Unit) -> WaitsFor {
        if unit.waiting == 0 {
            return WaitsFor::Nothing;
        }
        if let Some(impossible) = self.impossible(key, unit) {
            return impossible;
        }
        if let Some(recovering) = &self.recovering {
            return WaitsFor::Recovery {
                reported: recovering.expected.saturating_sub(recovering.missing.len()),
                expected: recovering.expected,
                left_ms: self.left(recovering.until),
            };
        }
        let job = self.jobs.get(&key.0);
        if let Some((job, until)) = job.and_then(|job| Some((job, job.backoff_until?))) {
            return WaitsFor::Backoff { failures: job.failures, left_ms: self.left(until) };
        }
        if self.nodes.iter().all(|(_, node)| node.lost) {
            return WaitsFor::NoNodes;
        }
        (self.kept_for(unit))
            .or_else(|| self.quota(key, unit))
            .or_else(|| self.locality(unit))
            .or_else(|| self.room_elsewhere(key, unit))
            .unwrap_or_else(|| self.room(unit))
    }

    fn impossible(&self, key: UnitKey, unit: &Unit) -> Option<WaitsFor> {
        let wanted = unit.resources;
        let job = self.jobs.get(&key.0)?;
        for level in self.queues.path(job.group) {
            let queue = self.queues.get(*level);
            if let Some(dimension) = wanted.exceeds(&queue.spec.max) {
                return Some(WaitsFor::TooBigForQueue {
                    wanted: self.amount(dimension, &wanted),
                    max: self.amount(dimension, &queue.spec.max),
                    queue: queue.id,
                    name: queue.spec.name.clone(),
                });
            }
        }
        let present = || self.nodes.iter().map(|(_, node)| node).filter(|node| !node.lost);
        // While agents are still being heard, a larger node may come.
        if self.recovering.is_some() || present().any(|node| wanted.fits_in(&node.capacity)) {
            return None;
        }
        // A dimension in which no node suffices, or else the one that fails on the node that comes nearest.
        let nearest = present().min_by_key(|node| wanted.minus(&node.capacity).share_of(&wanted))?;
        let none_has = |dimension: &Dimension| {
            present().all(|node| node.capacity.get(*dimension) < wanted.get(*dimension))
        };
        let dimension = Dimension::all().find(none_has).or_else(|| wanted.exceeds(&nearest.capacity))?;
        let none_anywhere = none_has(&dimension);
        let largest = present().max_by_key(|node| node.capacity.get(dimension))?;
        let at = if none_anywhere { largest } else { nearest };
        Some(WaitsFor::TooBigForNodes {
            wanted: self.amount(dimension, &wanted),
            largest: self.amount(dimension, &at.capacity),
            at: name_of(at),
        })
    }

    fn kept_for(&self, unit: &Unit) -> Option<WaitsFor> {
        let (slot, id) = unit.reservations.first()?;
        let node = self.nodes.get(*slot)?;
        let kept = node.reservations.iter().find(|kept| kept.id == *id)?;
        let free = node.free();
        let dimension = kept.resources.exceeds(&free)?;
        Some(WaitsFor::Freeing {
            at: name_of(node),
            wanted: self.amount(dimension, &kept.resources),
            free: self.amount(dimension, &free),
            left_ms: self.left(kept.until),
        })
    }

    fn quota(&self, key: UnitKey, unit: &Unit) -> Option<WaitsFor> {
        let group = self.jobs.get(&key.0)?.group;
        let level = self.queues.room_for(group, &unit.resources).err()?;
        let queue = self.queues.get(level);
        let used = queue.sum.used.plus(&queue.sum.reserved);
        let dimension = used.plus(&unit.resources).exceeds(&queue.spec.max)?;
        Some(WaitsFor::Quota {
            wanted: self.amount(dimension, &unit.resources),
            used: self.amount(dimension, &used),
            max: self.amount(dimension, &queue.spec.max),
            queue: queue.id,
            name: queue.spec.name.clone(),
        })
    }

    fn locality(&self, unit: &Unit) -> Option<WaitsFor> {
        let until = unit.relax_at.filter(|_| unit.loose == 0)?;
        Some(WaitsFor::Locality {
            machines: unit.machines.len(),
            racks: unit.racks.len(),
            left_ms: self.left(until),
        })
    }

    /// Nodes that have room and are not open to it.
    fn room_elsewhere(&self, key: UnitKey, unit: &Unit) -> Option<WaitsFor> {
        let (mut avoided, mut blacklisted, mut silent_or_draining) = (0, 0, 0);
        let mut kept = None;
        let roomy = self.nodes.iter().filter(|(_, node)| !node.lost && unit.resources.fits_in(&node.free()));
        for (slot, node) in roomy {
            if self.avoids(key.0, slot) {
                avoided += 1;
            } else if node.blacklisted_until.is_some() {
                blacklisted += 1;
            } else if !node.is_usable() {
                silent_or_draining += 1;
            } else if unit.resources.fits_in(&node.available()) {
                return Some(WaitsFor::Turn);
            } else {
                kept = Some(name_of(node));
            }
        }
        if let Some(at) = kept {
            return Some(WaitsFor::Kept { at });
        }
        (avoided + blacklisted + silent_or_draining > 0).then_some(WaitsFor::Unusable {
            avoided,
            blacklisted,
            silent_or_draining,
        })
    }

    fn room(&self, unit: &Unit) -> WaitsFor {
        let wanted = unit.resources;
        let usable = || self.nodes.iter().map(|(_, node)| node).filter(|node| node.is_usable());
        let large = usable().filter(|node| wanted.fits_in(&node.capacity));
        let nearest = large.min_by_key(|node| wanted.minus(&node.free()).share_of(&wanted));
        let Some(nearest) = nearest else {
            let unusable = |node: &&Node| !node.lost && !node.is_usable();
            let nodes = || self.nodes.iter().map(|(_, node)| node).filter(unusable);
            let blacklisted = nodes().filter(|node| node.blacklisted_until.is_some()).count();
            let silent_or_draining = nodes().count() - blacklisted;
            return WaitsFor::Unusable { avoided: 0, blacklisted, silent_or_draining };
        };
        let Some(dimension) = wanted.exceeds(&nearest.free()) else { return WaitsFor::Turn };
        let most = usable().max_by_key(|node| node.free().get(dimension)).unwrap_or(nearest);
        WaitsFor::Room {
            wanted: self.amount(dimension, &wanted),
            free: self.amount(dimension, &nearest.free()),
            at: name_of(nearest),
            most: self.amount(dimension, &most.free()),
            most_at: name_of(most),
            holder: self.holder(nearest, dimension),
        }
    }

    fn holder(&self, node: &Node, dimension: Dimension) -> Option<Holder> {
        let mut held: std::collections::BTreeMap<JobId, (u64, Priority)> = std::collections::BTreeMap::new();
        for grant in node.grants.iter().filter_map(|id| self.grants.get(id)) {
            let (amount, priority) = held.entry(grant.job).or_insert((0, grant.priority));
            *amount += grant.resources.get(dimension);
            *priority = (*priority).min(grant.priority);
        }
        let (job, (amount, priority)) = held.into_iter().max_by_key(|(job, (amount, _))| (*amount, *job))?;
        let name = self.jobs.get(&job).map_or_else(|| Arc::from(job.to_string()), |job| job.name.clone());
        let amount = self.amount(dimension, &Resources::ZERO.with(dimension, amount));
        Some(Holder { job, name, amount, priority })
    }

    fn amount(&self, dimension: Dimension, of: &Resources) -> Amount {
        let amount = of.get(dimension);
        Amount { dimension, amount, text: self.config.dimensions.say(dimension, amount) }
    }

    fn left(&self, until: Millis) -> u64 {
        until.since(self.now)
    }
}

fn name_of(node: &Node) -> Where {
    Where { node: node.id, name: node.name.clone() }
}

/// Milliseconds as people say them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1_000 => write!(f, "{ms} ms"),
            ms if ms < 120_000 => write!(f, "{}.{} s", ms / 1_000, ms % 1_000 / 100),
            ms => write!(f, "{} min", ms / 60_000),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == WaitsFor::Nothing {
            return write!(f, "unit {} waits for nothing: it holds the {} it wants", self.unit, self.held);
        }
        write!(
            f,
            "unit {} waits for {} of {} (since {}): ",
            self.unit,
            self.waiting,
            self.wanted,
            Span(self.waiting_ms)
        )?;
        self.reason.fmt(f)
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Recovery { reported, expected, left_ms } => write!(
                f,
                "the master has just taken over and has heard from {reported} of {expected} agents; it grants again when all have reported, at the latest in {}",
                Span(*left_ms)
            ),
            Self::Backoff { failures, left_ms } => write!(
                f,
                "its workers failed {failures} times in a row, so the next ones start in {}",
                Span(*left_ms)
            ),
            Self::NoNodes => write!(f, "the cluster has no node"),
            Self::TooBigForNodes { wanted, largest, at } => write!(
                f,
                "it will never run as it is, one needs {wanted} and no node is that large: {} has {largest}",
                at.name
            ),
            Self::TooBigForQueue { wanted, max, name, .. } => write!(
                f,
                "it will never run as it is, one needs {wanted} and queue {name} may use at most {max}"
            ),
            Self::Quota { wanted, used, max, name, .. } => {
                write!(
                    f,
                    "queue {name} is at its maximum, it uses {used} of {max} and one more needs {wanted}"
                )
            }
            Self::Freeing { at, wanted, free, left_ms } => write!(
                f,
                "node {} is being freed for it, it has {free} of the {wanted} needed and is kept for another {}",
                at.name,
                Span(*left_ms)
            ),
            Self::Locality { machines, racks, left_ms } => write!(
                f,
                "the {machines} machines and {racks} racks near its data have no room; it takes farther ones in {}",
                Span(*left_ms)
            ),
            Self::Unusable { avoided, blacklisted, silent_or_draining } => write!(
                f,
                "only nodes that it may not use have room: it avoids {avoided} itself, {blacklisted} are blacklisted, {silent_or_draining} are silent or being emptied"
            ),
            Self::Kept { at } => {
                write!(f, "the only room, on node {}, is kept for a unit that goes before it", at.name)
            }
            Self::Room { wanted, free, at, most, most_at, holder } => {
                write!(f, "one needs {wanted}, and node {}, which comes nearest, has {free} free", at.name)?;
                if let Some(holder) = holder {
                    write!(
                        f,
                        ", where job {} holds {} at priority {}",
                        holder.name, holder.amount, holder.priority
                    )?;
                }
                write!(f, " (the most free anywhere is {most} on {})", most_at.name)
            }
            Self::Turn => write!(f, "there is room and it is about to be decided"),
        }
    }
}
