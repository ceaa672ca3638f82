//! What a job is to do. The job file is mapped to this elsewhere; here it is checked and compiled into stages.
//!
//! A stage is a set of tasks that are connected by pipes, a gang: instance `i` of all of them is one thing that runs in one worker, succeeds
//! or fails as a whole, and is retried as a whole. A task without pipes is a stage of one.

use thiserror::Error;

use crate::ids::{NodeName, TaskId, UnitId};
use crate::record::GANG_MAX;

/// Instances of one task.
pub const INSTANCES_MAX: u32 = 16_000_000;
/// Tasks of one job.
pub const TASKS_MAX: usize = 10_000;
/// Attempts of an instance that may fail, so that the numbers of one life suffice with what is lost besides.
pub const ATTEMPTS_MAX: u32 = 500;

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their ids.
    pub tasks: Vec<TaskPlan>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// Its position in the plan.
    pub id: TaskId,
    /// For people.
    pub name: String,
    /// How many; 0 is done at once.
    pub instances: u32,
    /// What its workers may use. Piped tasks have the same one, which covers all of them.
    pub unit: UnitId,
    /// What must be done before, or run beside.
    pub after: Vec<Dependency>,
    /// Attempts of an instance that may fail before it failed for good; at least 1.
    pub attempts_max: u32,
    /// Instances that may fail for good before the job fails.
    pub failures_allowed: u32,
    /// Of one attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether two attempts of an instance may run at a time.
    pub backup: bool,
    /// Workers that may run this task at a time.
    pub parallel_max: Option<u32>,
    /// Where instances run best.
    pub preferred: Option<Preferences>,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// All instances of that task are done.
    Barrier(TaskId),
    /// Instance `i` runs together with instance `i` of that task.
    Pipe(TaskId),
}

/// The nodes that each instance prefers: four bytes an instance and four a preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    nodes: Vec<NodeName>,
    ends: Vec<u32>,
    entries: Vec<u32>,
}

impl Preferences {
    /// One list for each instance, in order; an instance may prefer none.
    pub fn from_lists<'a, L>(lists: impl IntoIterator<Item = L>) -> Preferences
    where
        L: IntoIterator<Item = &'a NodeName>,
    {
        let mut made = Preferences::default();
        let mut known = std::collections::BTreeMap::new();
        for list in lists {
            for node in list {
                let entry = *known.entry(node.clone()).or_insert_with(|| {
                    made.nodes.push(node.clone());
                    made.nodes.len() as u32 - 1
                });
                made.entries.push(entry);
            }
            made.ends.push(made.entries.len() as u32);
        }
        made
    }

    /// Of how many instances.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it is of none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All nodes that anything prefers.
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// What the instance prefers, as positions in [`Preferences::nodes`].
    pub fn of(&self, instance: u32) -> &[u32] {
        let at = instance as usize;
        let Some(end) = self.ends.get(at) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start as usize..*end as usize]
    }
}

/// Why a plan can not be carried out.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("the job has {tasks} tasks; give it 1 to {TASKS_MAX}")]
    Tasks { tasks: usize },
    #[error("task {name} has the id {id} and stands at position {position}: these must be the same")]
    Id { name: String, id: u32, position: usize },
    #[error("task {name} has {instances} instances; the most is {INSTANCES_MAX}: make its pieces larger")]
    Instances { name: String, instances: u32 },
    #[error("task {name} has {attempts} attempts; give it 1 to {ATTEMPTS_MAX}")]
    Attempts { name: String, attempts: u32 },
    #[error("task {name} may run on 0 workers at a time; leave the limit out or give it at least 1")]
    Parallel { name: String },
    #[error("task {name} depends on task number {on}, which the job does not have")]
    Unknown { name: String, on: u32 },
    #[error(
        "tasks {name} and {other} are piped, but differ in {what}: instance i of one runs with instance i of the other, in one worker"
    )]
    Pipe { name: String, other: String, what: &'static str },
    #[error("task {name} is piped to {tasks} tasks; the most that run together are {GANG_MAX}")]
    Gang { name: String, tasks: usize },
    #[error("task {name} waits for itself, by way of what it depends on")]
    Cycle { name: String },
    #[error("task {name} has {instances} instances, but preferred nodes for {preferences}")]
    Preferences { name: String, instances: u32, preferences: usize },
}

/// A gang as the scheduler needs it.
#[derive(Clone, Debug)]
pub(crate) struct StageSpec {
    /// Ascending; the first stands for all.
    pub(crate) members: Vec<TaskId>,
    /// Stages that must be complete.
    pub(crate) needs: Vec<usize>,
    pub(crate) unit: UnitId,
    pub(crate) instances: u32,
    pub(crate) attempts_max: u32,
    pub(crate) failures_allowed: u32,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) backup: bool,
    pub(crate) parallel_max: Option<u32>,
}

impl Plan {
    /// Tells apart the plans of different jobs, and of one job whose inputs changed: a journal is of no use for another one.
    pub fn fingerprint(&self) -> u32 {
        let mut crc = 0;
        for task in &self.tasks {
            crc = crc32c::crc32c_append(crc, task.name.as_bytes());
            crc = crc32c::crc32c_append(crc, &[0xff]);
            crc = crc32c::crc32c_append(crc, &task.instances.to_le_bytes());
            for dependency in &task.after {
                let (kind, on) = match dependency {
                    Dependency::Barrier(on) => (1, on),
                    Dependency::Pipe(on) => (2, on),
                };
                crc = crc32c::crc32c_append(crc, &[kind]);
                crc = crc32c::crc32c_append(crc, &on.0.to_le_bytes());
            }
        }
        crc
    }

    /// The stages, in the order of their first tasks.
    pub(crate) fn stages(&self) -> Result<Vec<StageSpec>, PlanError> {
        if self.tasks.is_empty() || self.tasks.len() > TASKS_MAX {
            return Err(PlanError::Tasks { tasks: self.tasks.len() });
        }
        for (position, task) in self.tasks.iter().enumerate() {
            self.check_task(position, task)?;
        }
        let gang_of = self.gangs();
        let mut specs: Vec<StageSpec> = Vec::new();
        let mut stage_of = vec![usize::MAX; self.tasks.len()];
        for (at, task) in self.tasks.iter().enumerate() {
            if gang_of[at] == at {
                stage_of[at] = specs.len();
                specs.push(StageSpec {
                    members: vec![task.id],
                    needs: Vec::new(),
                    unit: task.unit,
                    instances: task.instances,
                    attempts_max: task.attempts_max,
                    failures_allowed: task.failures_allowed,
                    timeout_ms: task.timeout_ms,
                    backup: task.backup,
                    parallel_max: task.parallel_max,
                });
            } else {
                stage_of[at] = stage_of[gang_of[at]];
                self.join(&mut specs[stage_of[at]], task)?;
            }
        }
        for (at, task) in self.tasks.iter().enumerate() {
            for dependency in &task.after {
                let Dependency::Barrier(on) = dependency else { continue };
                let need = stage_of[on.0 as usize];
                let spec = &mut specs[stage_of[at]];
                if !spec.needs.contains(&need) {
                    spec.needs.push(need);
                }
            }
        }
        self.check_order(&specs)?;
        Ok(specs)
    }

    fn check_task(&self, position: usize, task: &TaskPlan) -> Result<(), PlanError> {
        let name = || task.name.clone();
        if task.id.0 as usize != position {
            return Err(PlanError::Id { name: name(), id: task.id.0, position });
        }
        if task.instances > INSTANCES_MAX {
            return Err(PlanError::Instances { name: name(), instances: task.instances });
        }
        if task.attempts_max == 0 || task.attempts_max > ATTEMPTS_MAX {
            return Err(PlanError::Attempts { name: name(), attempts: task.attempts_max });
        }
        if task.parallel_max == Some(0) {
            return Err(PlanError::Parallel { name: name() });
        }
        if let Some(preferred) = &task.preferred
            && preferred.len() != task.instances as usize
        {
            return Err(PlanError::Preferences {
                name: name(),
                instances: task.instances,
                preferences: preferred.len(),
            });
        }
        for dependency in &task.after {
            let (Dependency::Barrier(on) | Dependency::Pipe(on)) = dependency;
            if on.0 as usize >= self.tasks.len() {
                return Err(PlanError::Unknown { name: name(), on: on.0 });
            }
            if *on == task.id {
                return Err(PlanError::Cycle { name: name() });
            }
        }
        Ok(())
    }

    /// For each task the first task of its gang.
    fn gangs(&self) -> Vec<usize> {
        let mut first: Vec<usize> = (0..self.tasks.len()).collect();
        fn root(first: &mut [usize], mut at: usize) -> usize {
            while first[at] != at {
                first[at] = first[first[at]];
                at = first[at];
            }
            at
        }
        for (at, task) in self.tasks.iter().enumerate() {
            for dependency in &task.after {
                if let Dependency::Pipe(on) = dependency {
                    let (a, b) = (root(&mut first, at), root(&mut first, on.0 as usize));
                    first[a.max(b)] = a.min(b);
                }
            }
        }
        (0..first.len()).map(|at| root(&mut first, at)).collect()
    }

    fn join(&self, spec: &mut StageSpec, task: &TaskPlan) -> Result<(), PlanError> {
        let other = &self.tasks[spec.members[0].0 as usize];
        let differs = |what| PlanError::Pipe { name: task.name.clone(), other: other.name.clone(), what };
        if task.instances != spec.instances {
            return Err(differs("the number of their instances"));
        }
        if task.unit != spec.unit {
            return Err(differs("their resources"));
        }
        spec.members.push(task.id);
        if spec.members.len() > GANG_MAX {
            return Err(PlanError::Gang { name: other.name.clone(), tasks: spec.members.len() });
        }
        // What one member does not bear, the gang does not.
        spec.attempts_max = spec.attempts_max.min(task.attempts_max);
        spec.failures_allowed = spec.failures_allowed.min(task.failures_allowed);
        spec.backup &= task.backup;
        spec.timeout_ms = [spec.timeout_ms, task.timeout_ms].into_iter().flatten().min();
        spec.parallel_max = [spec.parallel_max, task.parallel_max].into_iter().flatten().min();
        Ok(())
    }

    /// Takes away stages that need nothing any more; what remains needs itself.
    fn check_order(&self, specs: &[StageSpec]) -> Result<(), PlanError> {
        let mut missing: Vec<usize> = specs.iter().map(|spec| spec.needs.len()).collect();
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); specs.len()];
        for (at, spec) in specs.iter().enumerate() {
            for need in &spec.needs {
                dependents[*need].push(at);
            }
        }
        let mut free: Vec<usize> = (0..specs.len()).filter(|at| missing[*at] == 0).collect();
        let mut seen = 0;
        while let Some(at) = free.pop() {
            seen += 1;
            for dependent in &dependents[at] {
                missing[*dependent] -= 1;
                if missing[*dependent] == 0 {
                    free.push(*dependent);
                }
            }
        }
        if seen == specs.len() {
            return Ok(());
        }
        let stuck = missing.iter().position(|left| *left > 0).unwrap_or(0);
        Err(PlanError::Cycle { name: self.tasks[specs[stuck].members[0].0 as usize].name.clone() })
    }
}
