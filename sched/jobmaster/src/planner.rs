//! From the job file to a plan: which instances there are, and what each reads.
//!
//! What inputs match may change while the job runs, and instances are numbered by it. So it is looked up once and kept in the
//! file `plan` of the job's directory, which every later master of the job reads.

mod describe;
mod inputs;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sched_api::proto;
use sched_job::{Dependency, Plan, TaskId, TaskPlan};
use sched_spec::{JobSpec, TaskKind, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::journal_file::write_durably;
use crate::outputs::Outputs;
use crate::units::{Unit, Units};
use crate::work::Described;

pub(crate) use inputs::Piece;

/// Why a job can not be begun.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Spec(#[from] sched_spec::JobErrors),
    #[error("{} is not what a master of this job wrote", path.display())]
    Plan {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("task {task}: '{pattern}' is no pattern of file names")]
    Pattern {
        task: String,
        pattern: String,
        #[source]
        source: glob::PatternError,
    },
    #[error("task {task}: its inputs match no file with anything in it: {patterns} (relative to {})", mount.display())]
    NoInputs { task: String, patterns: String, mount: PathBuf },
    #[error("task {task}: its inputs are {pieces} pieces, and {most} is the most: make split larger")]
    TooMany { task: String, pieces: usize, most: u32 },
    #[error("task {task}: look at {}", path.display())]
    Look {
        task: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PlanFileError {
    /// Another try may go well: the mount failed, not the job.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Read { .. } => true,
            Self::Spec(_)
            | Self::Plan { .. }
            | Self::Pattern { .. }
            | Self::NoInputs { .. }
            | Self::TooMany { .. }
            | Self::Look { .. } => false,
        }
    }
}

/// All that follows from a job file.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) units: BTreeMap<u32, Unit>,
    pub(crate) tasks: BTreeMap<u32, Described>,
    pub(crate) outputs: Vec<Outputs>,
}

/// What instances read, by task; a list of its own for each instance, or one for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reads {
    tasks: Vec<TaskReads>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TaskReads {
    All(Vec<Piece>),
    Each(Vec<Piece>),
}

/// Reads the job, and what was planned before, if anything was.
///
/// # Errors
/// See [`PlanFileError`].
pub(crate) fn plan(mount: &Path, directory: &Path) -> Result<Planned, PlanFileError> {
    let path = directory.join("spec");
    let text = fs::read_to_string(&path).map_err(|source| PlanFileError::Read { path, source })?;
    let spec = sched_spec::parse(&text)?;
    let path = directory.join("plan");
    let reads: Reads = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| PlanFileError::Plan { path, source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reads = look(mount, &spec)?;
            let bytes = serde_json::to_vec(&reads).expect("numbers and texts are JSON");
            write_durably(&path, &bytes).map_err(|source| PlanFileError::Read { path, source })?;
            reads
        }
        Err(source) => return Err(PlanFileError::Read { path, source }),
    };
    Ok(planned(&spec, &reads))
}

fn look(mount: &Path, spec: &JobSpec) -> Result<Reads, PlanFileError> {
    let mut tasks = Vec::new();
    for task in &spec.tasks {
        if task.inputs.is_empty() {
            tasks.push(TaskReads::All(Vec::new()));
            continue;
        }
        let files = inputs::files(mount, task)?;
        tasks.push(match task.instances {
            Some(_) => TaskReads::All(files),
            None => TaskReads::Each(inputs::split(mount, task, &files)?),
        });
    }
    Ok(Reads { tasks })
}

fn planned(spec: &JobSpec, reads: &Reads) -> Planned {
    let mut units = Units::default();
    let number = |name: &str| spec.tasks.iter().position(|task| task.name == name);
    let instances = |at: usize| match (&spec.tasks[at].instances, reads.tasks.get(at)) {
        (Some(instances), _) => *instances,
        (None, Some(TaskReads::Each(pieces))) => u32::try_from(pieces.len()).unwrap_or(u32::MAX),
        (None, _) => 1,
    };
    let mut planned = Planned {
        plan: Plan { tasks: Vec::new() },
        units: BTreeMap::new(),
        tasks: BTreeMap::new(),
        outputs: Vec::new(),
    };
    for (at, task) in spec.tasks.iter().enumerate() {
        let id = u32::try_from(at).expect("a job has at most thousands of tasks");
        let unit = units.number(Unit { resources: task.resources.clone() });
        let after = task.after.iter().filter_map(|name| number(name));
        let after = after.map(|at| Dependency::Barrier(TaskId(u32::try_from(at).unwrap_or(u32::MAX))));
        planned.plan.tasks.push(TaskPlan {
            id: TaskId(id),
            name: task.name.clone(),
            instances: instances(at),
            unit: sched_job::UnitId(unit),
            after: after.collect(),
            attempts_max: task.attempts,
            failures_allowed: task.failures_allowed,
            timeout_ms: task.timeout_ms,
            backup: task.backup,
            parallel_max: task.parallel_max,
            preferred: None,
        });
        let between = matches!(task.kind, TaskKind::Map(_) | TaskKind::Sample(_));
        planned.outputs.push(Outputs { name: task.name.clone(), between });
        let sources = sources(task).into_iter().filter_map(|name| {
            let source = number(name)?;
            let task = u32::try_from(source).ok()?;
            Some(proto::Source { task, name: name.to_owned(), instances: instances(source) })
        });
        let described = Described {
            spec: describe::task(task).into(),
            sources: sources.collect(),
            pieces: reads.tasks.get(at).cloned().map_or_else(Default::default, pieces),
        };
        planned.tasks.insert(id, described);
    }
    planned.units = units.into_map();
    planned
}

/// The tasks whose outputs it reads by itself.
fn sources(task: &TaskSpec) -> Vec<&str> {
    match &task.kind {
        TaskKind::Reduce(reduce) => vec![&reduce.of],
        TaskKind::Map(map) => map.ranges_of.iter().map(String::as_str).collect(),
        TaskKind::Command(_) | TaskKind::Sample(_) => Vec::new(),
    }
}

fn pieces(reads: TaskReads) -> crate::work::Pieces {
    match reads {
        TaskReads::All(pieces) => {
            crate::work::Pieces::All(pieces.into_iter().map(proto::Piece::from).collect())
        }
        TaskReads::Each(pieces) => {
            crate::work::Pieces::Each(pieces.into_iter().map(proto::Piece::from).collect())
        }
    }
}
