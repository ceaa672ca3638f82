//! The scheduler under the names that people and the other processes use: machines, queues and jobs by name, resources by
//! name, grants as one number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use sched_core::{
    Config, Effect, Event, GrantId, Held, JobId, MachineId, Millis, NodeId, NodeReport, Outcome, Preferences,
    Priority, QueueId, QueueSpec, RackId, Reason, Recovery, Resources, Scheduler, UnitId, Want,
};
use serde_json::json;

use crate::jobs::JOB_MASTER_UNIT;
use crate::quota::Quota;
use crate::spool::{JobName, QueueName};

/// Grants in one term of a master, and so bits of a grant's number; the other 42 are the term's fence. A master that has
/// given so many lets another one lead.
const SEQUENCE_BITS: u32 = 22;
/// What a job's own master takes. It waits for others nearly all the time: no part of a core is kept for it.
const JOB_MASTER_MEMORY_MIB: u64 = 64;
/// A node that nobody has: a new master waits for it, and so the whole time.
const NOBODY: NodeId = NodeId(u64::MAX);

/// What the scheduler decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Granted {
        grant: u64,
        job: JobName,
        unit: u32,
        node: String,
        resources: BTreeMap<String, u64>,
    },
    Revoked {
        grant: u64,
        why: String,
    },
    /// Everybody had time to say what they have.
    Recovered,
}

/// Numbers for names, each once in a term.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<String, u64>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> u64 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u64;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn find(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    fn name(&self, number: u64) -> &str {
        usize::try_from(number).ok().and_then(|number| self.names.get(number)).map_or("", String::as_str)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Scheduling {
    scheduler: Scheduler,
    began: Instant,
    nodes: Names,
    racks: Names,
    queues: Names,
    jobs: Names,
    versions: u64,
    /// All names of resources that were ever used.
    dimensions: Vec<String>,
    /// The last grant's number in this term.
    last_sequence: u64,
}

/// What one unit of a job's wants is.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) unit: u32,
    pub(crate) resources: BTreeMap<String, u64>,
    /// Added to the job's own.
    pub(crate) priority_offset: i32,
    pub(crate) total: u64,
    /// Nodes and racks (/region/rack), and how many there.
    pub(crate) places: BTreeMap<String, u64>,
}

impl Scheduling {
    pub(crate) fn new(fence: u64, now: Instant, recovery_ms: u64) -> Self {
        let recovery = Recovery { expected: BTreeSet::from([NOBODY]), until: Millis(recovery_ms) };
        let config = Config { epoch: fence, recovery: Some(recovery), ..Config::default() };
        Self {
            scheduler: Scheduler::new(config).expect("the default settings are good"),
            began: now,
            nodes: Names::default(),
            racks: Names::default(),
            queues: Names::default(),
            jobs: Names::default(),
            versions: 0,
            dimensions: ["cpu", "memory", "disk"].map(str::to_owned).to_vec(),
            last_sequence: 0,
        }
    }

    fn tell(&mut self, event: Event, now: Instant) {
        let millis = now.saturating_duration_since(self.began).as_millis();
        let millis = Millis(u64::try_from(millis).unwrap_or(u64::MAX));
        if let Err(error) = self.scheduler.handle(millis, event) {
            tracing::warn!(%error, "the scheduler refuses");
        }
    }

    /// Decisions since the last call, and those that time brings.
    pub(crate) fn decide(&mut self, now: Instant) -> Vec<Decision> {
        self.tell(Event::Tick, now);
        while self.scheduler.has_work() && !self.scheduler.is_recovering() {
            self.tell(Event::Tick, now);
        }
        let effects: Vec<Effect> = self.scheduler.drain_effects().collect();
        for effect in &effects {
            if let Effect::Grant { grant, .. } = effect {
                self.last_sequence = self.last_sequence.max(grant.sequence);
            }
        }
        effects.into_iter().filter_map(|effect| self.decision(effect)).collect()
    }

    fn decision(&self, effect: Effect) -> Option<Decision> {
        match effect {
            Effect::Grant { grant, job, unit, node, resources, .. } => Some(Decision::Granted {
                grant: number(grant),
                job: self.jobs.name(job.0).parse().ok()?,
                unit: unit.0,
                node: self.nodes.name(node.0).to_owned(),
                resources: self.amounts(&resources),
            }),
            Effect::Revoke { grant, reason, .. } => {
                let why = match reason {
                    // Whoever asked for it has taken it back already.
                    Reason::Released | Reason::JobEnded | Reason::NodeLost => return None,
                    Reason::Preempted { by } => {
                        format!("job {} needs the room more", self.jobs.name(by.0))
                    }
                    Reason::NodeShrank => "the machine became smaller".to_owned(),
                    Reason::Unknown => "it was given to somebody else meanwhile".to_owned(),
                };
                Some(Decision::Revoked { grant: number(grant), why })
            }
            Effect::NodeBlacklisted { node, jobs, failures, .. } => {
                let node = self.nodes.name(node.0);
                tracing::warn!(node, jobs, failures, "the node is avoided for a while");
                None
            }
            Effect::NodeForgiven(node) => {
                tracing::info!(node = self.nodes.name(node.0), "the node is used again");
                None
            }
            Effect::Recovered { .. } => Some(Decision::Recovered),
        }
    }

    pub(crate) fn recovering(&self) -> bool {
        self.scheduler.is_recovering()
    }

    /// Whether this term has given nearly all the numbers it has.
    pub(crate) fn is_used_up(&self) -> bool {
        // A term is left well before: what is granted until then has numbers, too.
        self.last_sequence >= (1 << SEQUENCE_BITS) - 1_000
    }

    // ---- nodes ----

    pub(crate) fn node_up(
        &mut self,
        node: &str,
        location: &str,
        capacity: &BTreeMap<String, u64>,
        running: Vec<(u64, JobName, u32, BTreeMap<String, u64>)>,
        now: Instant,
    ) {
        let id = self.nodes.number(node);
        let rack = RackId(self.racks.number(&crate::state::rack(location)));
        let capacity = self.resources(capacity);
        let since = Millis(0);
        let running = running
            .into_iter()
            .filter_map(|(grant, job, unit, limits)| {
                let job = JobId(self.jobs.find(job.as_str())?);
                let resources = self.resources(&limits);
                let (grant, unit) = (grant_id(grant), UnitId(unit));
                Some(Held { grant, job, unit, resources, priority: Priority(0), since })
            })
            .collect();
        let report = NodeReport {
            node: NodeId(id),
            name: Arc::from(node),
            machine: MachineId(id),
            rack,
            capacity,
            running,
        };
        self.tell(Event::NodeUp(report), now);
    }

    pub(crate) fn node_silent(&mut self, node: &str, now: Instant) {
        let id = NodeId(self.nodes.number(node));
        self.tell(Event::NodeSilent(id), now);
    }

    pub(crate) fn node_lost(&mut self, node: &str, now: Instant) {
        let id = NodeId(self.nodes.number(node));
        self.tell(Event::NodeLost(id), now);
    }

    /// Whether the scheduler knows a grant as held by a job.
    pub(crate) fn holds(&self, job: &JobName, grant: u64) -> bool {
        let Some(job) = self.jobs.find(job.as_str()) else { return false };
        self.scheduler.grants_of(JobId(job)).any(|(id, ..)| number(id) == grant)
    }

    pub(crate) fn used_on(&self, node: &str) -> BTreeMap<String, u64> {
        let Some(id) = self.nodes.find(node) else { return BTreeMap::new() };
        let view = self.scheduler.nodes().find(|view| view.node == NodeId(id));
        view.map(|view| self.amounts(&view.used)).unwrap_or_default()
    }

    // ---- queues ----

    pub(crate) fn queue(&mut self, queue: &QueueName, quota: &Quota, now: Instant) {
        let id = QueueId(self.queues.number(queue.as_str()));
        let parent = quota.parent.as_ref().map(|parent| QueueId(self.queues.number(parent.as_str())));
        let spec = QueueSpec {
            name: Arc::from(queue.as_str()),
            parent,
            min: self.resources(&quota.min),
            max: quota.max.as_ref().map_or(Resources::UNLIMITED, |max| self.limit(max)),
            weight: quota.weight,
        };
        self.tell(Event::QueueDefined { queue: id, spec }, now);
    }

    pub(crate) fn queues(&self) -> Vec<serde_json::Value> {
        self.scheduler
            .queues()
            .map(|queue| {
                json!({
                    "queue": &*queue.name,
                    "used": self.amounts(&queue.used),
                    "min": self.amounts(&queue.min),
                    "max": self.limits(&queue.max),
                })
            })
            .collect()
    }

    // ---- jobs ----

    pub(crate) fn job_begins(&mut self, job: &JobName, queue: &QueueName, priority: i32, now: Instant) {
        let id = JobId(self.jobs.number(job.as_str()));
        let queue = QueueId(self.queues.number(queue.as_str()));
        let name = Arc::from(job.as_str());
        self.tell(Event::JobStarted { job: id, name, queue, priority: Priority(priority) }, now);
    }

    pub(crate) fn job_ends(&mut self, job: &JobName, now: Instant) {
        if let Some(id) = self.jobs.find(job.as_str()) {
            self.tell(Event::JobEnded(JobId(id)), now);
        }
    }

    pub(crate) fn want_job_master(&mut self, job: &JobName, total: u64, now: Instant) {
        let resources = BTreeMap::from([("memory".to_owned(), JOB_MASTER_MEMORY_MIB)]);
        let unit = JOB_MASTER_UNIT;
        let wanted = Wanted { unit, resources, priority_offset: 0, total, places: BTreeMap::new() };
        self.want(job, &[wanted], &[], now);
    }

    /// What changed of a job's wants, and what it gives back.
    pub(crate) fn want(&mut self, job: &JobName, wanted: &[Wanted], release: &[u64], now: Instant) {
        let Some(id) = self.jobs.find(job.as_str()) else { return };
        let wants = wanted.iter().map(|wanted| self.wants(wanted)).collect();
        let release = release.iter().map(|grant| grant_id(*grant)).collect();
        self.tell(Event::Request { job: JobId(id), wants, release }, now);
    }

    fn wants(&mut self, wanted: &Wanted) -> Want {
        let mut prefer = Preferences::default();
        for (place, count) in &wanted.places {
            let count = u32::try_from(*count).unwrap_or(u32::MAX);
            if place.starts_with('/') {
                prefer.racks.insert(RackId(self.racks.number(place)), count);
            } else {
                prefer.machines.insert(MachineId(self.nodes.number(place)), count);
            }
        }
        self.versions += 1;
        Want {
            unit: UnitId(wanted.unit),
            version: self.versions,
            resources: self.resources(&wanted.resources),
            priority_offset: wanted.priority_offset,
            total: u32::try_from(wanted.total).unwrap_or(u32::MAX),
            prefer,
        }
    }

    pub(crate) fn avoid(&mut self, job: &JobName, nodes: &BTreeSet<String>, now: Instant) {
        let Some(id) = self.jobs.find(job.as_str()) else { return };
        let nodes = nodes.iter().map(|node| NodeId(self.nodes.number(node))).collect();
        self.tell(Event::Avoid { job: JobId(id), nodes }, now);
    }

    /// A grant's process is no more.
    pub(crate) fn ended(&mut self, grant: u64, failed: bool, now: Instant) {
        let outcome = if failed { Outcome::WorkerFailed } else { Outcome::Done };
        self.tell(Event::Ended { grant: grant_id(grant), outcome }, now);
    }

    /// Why a unit of a job waits, in one sentence; `None` if it has all it wants.
    pub(crate) fn why(&self, job: &JobName, unit: u32) -> Option<String> {
        let id = JobId(self.jobs.find(job.as_str())?);
        self.scheduler.why(id, UnitId(unit)).filter(|why| why.waiting > 0).map(|why| why.to_string())
    }

    // ---- resources ----

    fn resources(&mut self, amounts: &BTreeMap<String, u64>) -> Resources {
        let mut resources = Resources::ZERO;
        self.set(&mut resources, amounts);
        resources
    }

    /// As a limit: what is not named is not limited.
    fn limit(&mut self, amounts: &BTreeMap<String, u64>) -> Resources {
        let mut resources = Resources::UNLIMITED;
        self.set(&mut resources, amounts);
        resources
    }

    fn set(&mut self, resources: &mut Resources, amounts: &BTreeMap<String, u64>) {
        for (name, amount) in amounts {
            match self.scheduler.intern(name) {
                Ok(dimension) => *resources = resources.with(dimension, *amount),
                Err(error) => tracing::warn!(%error, "a resource is not counted"),
            }
            if !self.dimensions.contains(name) {
                self.dimensions.push(name.clone());
            }
        }
    }

    fn amounts(&self, resources: &Resources) -> BTreeMap<String, u64> {
        let names = self.scheduler.dimensions();
        self.dimensions
            .iter()
            .filter_map(|name| Some((name.clone(), resources.get(names.find(name)?))))
            .filter(|(_, amount)| *amount > 0)
            .collect()
    }

    fn limits(&self, resources: &Resources) -> BTreeMap<String, u64> {
        let mut limits = self.amounts(resources);
        limits.retain(|_, amount| *amount < u64::MAX);
        limits
    }
}

fn number(grant: GrantId) -> u64 {
    (grant.epoch << SEQUENCE_BITS) | grant.sequence
}

fn grant_id(number: u64) -> GrantId {
    GrantId { epoch: number >> SEQUENCE_BITS, sequence: number & ((1 << SEQUENCE_BITS) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_and_its_number_are_the_same() {
        for grant in
            [GrantId { epoch: 1, sequence: 1 }, GrantId { epoch: 1_800_000_000_000, sequence: 4_000_000 }]
        {
            assert_eq!(grant_id(number(grant)), grant);
        }
    }
}
