//! A task as a worker needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use kuafu::Bytes;
use sched_api::proto;
use sched_spec::{TaskKind, TaskSpec};

/// What runs a task's instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    #[default]
    Command,
    Map,
    Reduce,
    Sample,
}

/// A task whose outputs this one reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub task: u32,
    pub name: String,
    pub instances: u32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Task {
    pub name: String,
    pub kind: Kind,
    /// The program and its arguments.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub timeout: Option<Duration>,
    /// Instances make files that become visible together when they succeed.
    pub has_outputs: bool,
    pub sources: Vec<Source>,
    /// The whole description, for executors that need more.
    pub spec: Bytes,
    /// Why it cannot be understood: reported for each of its attempts.
    pub trouble: Option<String>,
}

impl Task {
    /// From what the job's master sent. What cannot be understood becomes [`Task::trouble`]: it is the attempt that fails, in words.
    #[must_use]
    pub fn from_description(description: proto::TaskDescription) -> Self {
        let proto::TaskDescription { task, spec, sources } = description;
        let sources = sources
            .into_iter()
            .map(|source| Source { task: source.task, name: source.name, instances: source.instances })
            .collect();
        match serde_json::from_slice::<TaskSpec>(&spec) {
            Ok(parsed) => {
                let (kind, command) = match parsed.kind {
                    TaskKind::Command(command) => (Kind::Command, command),
                    TaskKind::Sample(_) => (Kind::Sample, Vec::new()),
                    TaskKind::Map(_) => (Kind::Map, Vec::new()),
                    TaskKind::Reduce(_) => (Kind::Reduce, Vec::new()),
                };
                Self {
                    name: parsed.name,
                    kind,
                    command,
                    environment: parsed.env,
                    timeout: parsed.timeout_ms.map(Duration::from_millis),
                    has_outputs: !parsed.outputs.is_empty(),
                    sources,
                    spec,
                    trouble: None,
                }
            }
            Err(error) => Self {
                name: task.to_string(),
                sources,
                spec,
                trouble: Some(error.to_string()),
                ..Self::default()
            },
        }
    }
}
