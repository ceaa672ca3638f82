//! The state of the scheduler, and the one door through which events come in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::config::{Config, ConfigError};
use crate::error::EventError;
use crate::event::{Effect, Event};
use crate::ids::{GrantId, JobId, Millis, NodeId, Priority, QueueId, Slot, UnitId, UnitKey};
use crate::job::{Grant, Job, Unit};
use crate::lists::{Lane, Lists};
use crate::node::Nodes;
use crate::queue::Queues;
use crate::recover::Recovering;
use crate::resources::{Dimension, Dimensions, Resources, TooManyDimensions};
use crate::work::{Timer, Timers, Work};

/// Timers that one event may fire; the rest fires with the next ones.
const TIMERS_MAX: usize = 64;

/// Fuxi's scheduler. Feed it events with [`Scheduler::handle`] and do what [`Scheduler::drain_effects`] gives.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) now: Millis,
    pub(crate) nodes: Nodes,
    pub(crate) queues: Queues,
    pub(crate) jobs: IndexMap<JobId, Job>,
    pub(crate) units: IndexMap<UnitKey, Unit>,
    pub(crate) grants: IndexMap<GrantId, Grant>,
    pub(crate) lists: Lists,
    pub(crate) work: Work,
    pub(crate) timers: Timers,
    pub(crate) effects: Vec<Effect>,
    /// Grants that could be preempted, by priority.
    pub(crate) by_priority: BTreeMap<Priority, usize>,
    /// When victims were last looked for, for one kind of request.
    pub(crate) attempts: BTreeMap<(Lane, Resources), Millis>,
    /// Reservations for the starving.
    pub(crate) starved: BTreeSet<(Slot, u64)>,
    /// All reservations.
    pub(crate) kept: BTreeSet<(Slot, u64)>,
    pub(crate) preempt_armed: bool,
    /// The kind of request at which the last look for those that may preempt stopped.
    pub(crate) preempt_cursor: Option<(Lane, Resources)>,
    pub(crate) recovering: Option<Recovering>,
    pub(crate) sequence: u64,
    /// Counts turns, orders and reservations.
    pub(crate) counter: u64,
    /// Decisions left to this event.
    pub(crate) budget: usize,
}

/// A node as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub name: Arc<str>,
    /// What it has.
    pub capacity: Resources,
    /// What is in use, with what is being stopped.
    pub used: Resources,
    /// Grants on it.
    pub grants: usize,
    /// Gets something new.
    pub usable: bool,
    /// Set while it is on the cluster's blacklist.
    pub blacklisted_until: Option<Millis>,
}

/// A quota group as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// The group.
    pub queue: QueueId,
    /// For people.
    pub name: Arc<str>,
    /// What it and its children use, with what is being stopped.
    pub used: Resources,
    /// What is being stopped of it.
    pub stopping: Resources,
    /// What it is guaranteed, the sum of the children's included.
    pub min: Resources,
    /// What it may use.
    pub max: Resources,
}

impl Scheduler {
    /// # Errors
    /// If the configuration would stop everything.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut timers = Timers::default();
        let recovering = config.recovery.clone().map(Recovering::new);
        if let Some(recovering) = &recovering {
            timers.arm(recovering.until, Timer::Recovery);
        }
        Ok(Self {
            config,
            now: Millis::default(),
            nodes: Nodes::new(),
            queues: Queues::default(),
            jobs: IndexMap::new(),
            units: IndexMap::new(),
            grants: IndexMap::new(),
            lists: Lists::default(),
            work: Work::default(),
            timers,
            effects: Vec::new(),
            by_priority: BTreeMap::new(),
            attempts: BTreeMap::new(),
            starved: BTreeSet::new(),
            kept: BTreeSet::new(),
            preempt_armed: false,
            preempt_cursor: None,
            recovering,
            sequence: 0,
            counter: 0,
            budget: 0,
        })
    }

    /// Takes one event and decides what follows from it. `now` never goes back: an earlier one counts as the last.
    ///
    /// # Errors
    /// If the event makes no sense; it has then changed nothing.
    pub fn handle(&mut self, now: Millis, event: Event) -> Result<(), EventError> {
        self.now = self.now.max(now);
        self.budget = self.config.decisions_max;
        let result = self.apply(event);
        for _ in 0..TIMERS_MAX {
            let Some((at, timer)) = self.timers.due(self.now) else { break };
            self.fire(at, timer);
        }
        self.decide();
        result
    }

    /// What is to be done because of the events so far, in this order.
    pub fn drain_effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// More follows from the events so far than one call may do: give a [`Event::Tick`] at once.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let decidable = self.recovering.is_none() && !self.work.is_empty();
        decidable || self.timers.next().is_some_and(|at| at <= self.now)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// True while a new master waits for what there is.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// The place of a resource's name, a new one if needed.
    ///
    /// # Errors
    /// If all places have names.
    pub fn intern(&mut self, name: &str) -> Result<Dimension, TooManyDimensions> {
        self.config.dimensions.intern(name)
    }

    /// The names of resources.
    #[must_use]
    pub fn dimensions(&self) -> &Dimensions {
        &self.config.dimensions
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView> {
        self.nodes.iter().map(|(_, node)| NodeView {
            node: node.id,
            name: node.name.clone(),
            capacity: node.capacity,
            used: node.used,
            grants: node.grants.len(),
            usable: node.is_usable(),
            blacklisted_until: node.blacklisted_until,
        })
    }

    /// All quota groups.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        self.queues.groups().map(|group| {
            let queue = self.queues.get(group);
            QueueView {
                queue: queue.id,
                name: queue.spec.name.clone(),
                used: queue.sum.used,
                stopping: queue.sum.dying,
                min: queue.floor,
                max: queue.spec.max,
            }
        })
    }

    /// The grants of a job that are not being stopped: which unit, where.
    pub fn grants_of(&self, job: JobId) -> impl Iterator<Item = (GrantId, UnitId, NodeId)> {
        let grants = self.jobs.get(&job).map(|job| job.grants.iter()).into_iter().flatten();
        grants.filter_map(|id| {
            let grant = self.grants.get(id)?;
            Some((*id, grant.unit, self.nodes.get(grant.node)?.id))
        })
    }

    /// All grants, and how many units wait in all.
    #[must_use]
    pub fn totals(&self) -> (usize, u64) {
        (self.grants.len(), self.units.values().map(|unit| u64::from(unit.waiting)).sum())
    }

    fn apply(&mut self, event: Event) -> Result<(), EventError> {
        match event {
            Event::Tick => Ok(()),
            Event::NodeUp(report) => self.node_up(report),
            Event::NodeSilent(node) => self.node_silent(node, true),
            Event::NodeHeard(node) => self.node_silent(node, false),
            Event::NodeLost(node) => self.node_lost(node),
            Event::NodeCapacity { node, capacity } => self.node_capacity(node, capacity),
            Event::NodeDraining { node, draining } => self.node_draining(node, draining),
            Event::NodeRemoved(node) => self.node_removed(node),
            Event::QueueDefined { queue, spec } => self.queue_defined(queue, spec),
            Event::QueueRemoved(queue) => self.queues.remove(queue),
            Event::JobStarted { job, name, queue, priority } => self.job_started(job, name, queue, priority),
            Event::JobEnded(job) => self.job_ended(job),
            Event::Request { job, wants, release } => self.request(job, wants, &release),
            Event::Avoid { job, nodes } => self.avoid(job, &nodes),
            Event::Holds { job, grants } => self.holds(job, grants),
            Event::Ended { grant, outcome } => {
                self.ended(grant, outcome);
                Ok(())
            }
        }
    }

    fn fire(&mut self, at: Millis, timer: Timer) {
        match timer {
            Timer::Recovery => self.recovery_timed_out(),
            Timer::Relax(key) => self.relax(key, at),
            Timer::Starving(key) => self.starving(key),
            Timer::Reservation(slot, id) => self.drop_reservation(slot, id),
            Timer::Blacklist(slot) => self.forgive(slot),
            Timer::Avoid(job, slot) => self.avoid_ends(job, slot),
            Timer::Backoff(job) => self.backoff_ends(job),
            Timer::RevokeAgain(grant) => self.revoke_again(grant),
            Timer::Preempt => self.preempt_waiting(),
        }
    }

    pub(crate) fn next_count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}
