//! A small cluster in a test: events go in, effects come out checked, agents obey when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::*;

/// A scheduler, its clock, and what its effects so far add up to.
pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: u64,
    /// Granted and not revoked: whose, which unit, where.
    pub(super) held: BTreeMap<GrantId, (JobId, UnitId, NodeId)>,
    /// Revoked, and not ended yet.
    pub(super) stopping: BTreeSet<GrantId>,
    versions: u64,
}

pub(super) fn cpu(cores: u64) -> Resources {
    Resources::new(cores * 1000, cores * 1024, 0)
}

pub(super) fn queue(name: &str, parent: Option<u64>, min: Resources, max: Resources) -> QueueSpec {
    QueueSpec { name: Arc::from(name), parent: parent.map(QueueId), min, max, weight: 1 }
}

pub(super) fn node(id: u64, capacity: Resources) -> NodeReport {
    NodeReport {
        node: NodeId(id),
        name: Arc::from(format!("n{id}")),
        machine: MachineId(id),
        rack: RackId(id / 10),
        capacity,
        running: Vec::new(),
    }
}

impl World {
    /// One queue, number 1, without limits.
    pub(super) fn new(config: Config) -> Self {
        let scheduler = Scheduler::new(config).unwrap();
        let mut world =
            Self { scheduler, now: 1_000, held: BTreeMap::new(), stopping: BTreeSet::new(), versions: 0 };
        world.queue(1, queue("all", None, Resources::ZERO, Resources::UNLIMITED));
        world
    }

    /// The event and all that follows from it.
    pub(super) fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.try_tell(event).unwrap()
    }

    pub(super) fn try_tell(&mut self, event: Event) -> Result<Vec<Effect>, EventError> {
        let mut effects = Vec::new();
        let result = self.scheduler.handle(Millis(self.now), event);
        effects.extend(self.scheduler.drain_effects());
        self.scheduler.check().unwrap();
        while self.scheduler.has_work() {
            self.scheduler.handle(Millis(self.now), Event::Tick).unwrap();
            effects.extend(self.scheduler.drain_effects());
            self.scheduler.check().unwrap();
        }
        self.scheduler.check_nothing_idle().unwrap();
        for effect in &effects {
            match effect {
                Effect::Grant { grant, job, unit, node, .. } => {
                    self.held.insert(*grant, (*job, *unit, *node));
                }
                Effect::Revoke { grant, .. } => {
                    self.held.remove(grant);
                    self.stopping.insert(*grant);
                }
                _ => {}
            }
        }
        result.map(|()| effects)
    }

    /// Time passes, with every deadline kept.
    pub(super) fn pass(&mut self, millis: u64) -> Vec<Effect> {
        let end = self.now + millis;
        let mut effects = Vec::new();
        while let Some(Millis(at)) = self.scheduler.next_deadline().filter(|at| at.0 <= end) {
            self.now = at.max(self.now);
            effects.extend(self.tell(Event::Tick));
        }
        self.now = end;
        effects.extend(self.tell(Event::Tick));
        effects
    }

    pub(super) fn queue(&mut self, id: u64, spec: QueueSpec) -> Vec<Effect> {
        self.tell(Event::QueueDefined { queue: QueueId(id), spec })
    }

    pub(super) fn nodes(&mut self, count: u64, capacity: Resources) {
        for id in 0..count {
            self.tell(Event::NodeUp(node(id, capacity)));
        }
    }

    pub(super) fn job(&mut self, id: u64, queue: u64, priority: i32) {
        self.tell(Event::JobStarted {
            job: JobId(id),
            name: Arc::from(format!("j{id}")),
            queue: QueueId(queue),
            priority: Priority(priority),
        });
    }

    pub(super) fn want(&mut self, total: u32, resources: Resources) -> Want {
        self.versions += 1;
        Want {
            unit: UnitId(0),
            version: self.versions,
            resources,
            priority_offset: 0,
            total,
            prefer: Preferences::default(),
        }
    }

    pub(super) fn request(&mut self, job: u64, total: u32, resources: Resources) -> Vec<Effect> {
        let want = self.want(total, resources);
        self.tell(Event::Request { job: JobId(job), wants: vec![want], release: Vec::new() })
    }

    /// A job of its own that wants so much.
    pub(super) fn run(
        &mut self,
        job: u64,
        queue: u64,
        priority: i32,
        total: u32,
        each: Resources,
    ) -> Vec<Effect> {
        self.job(job, queue, priority);
        self.request(job, total, each)
    }

    pub(super) fn end(&mut self, grant: GrantId) -> Vec<Effect> {
        self.held.remove(&grant);
        self.stopping.remove(&grant);
        self.tell(Event::Ended { grant, outcome: Outcome::Done })
    }

    /// Agents stop what they were told to stop, until there is nothing more of that.
    pub(super) fn obey(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(grant) = self.stopping.pop_first() {
            effects.extend(self.end(grant));
        }
        effects
    }

    pub(super) fn of(&self, job: u64) -> Vec<(GrantId, NodeId)> {
        self.held
            .iter()
            .filter(|(_, (owner, ..))| *owner == JobId(job))
            .map(|(id, (.., node))| (*id, *node))
            .collect()
    }

    pub(super) fn count(&self, job: u64) -> usize {
        self.of(job).len()
    }

    pub(super) fn why(&self, job: u64) -> Why {
        self.scheduler.why(JobId(job), UnitId(0)).unwrap()
    }
}

pub(super) fn revoked(effects: &[Effect]) -> Vec<(GrantId, Reason)> {
    let of = |effect: &Effect| match effect {
        Effect::Revoke { grant, reason, .. } => Some((*grant, *reason)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}
