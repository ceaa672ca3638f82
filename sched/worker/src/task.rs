//! A task as a worker needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use sched_api::proto;
use sched_spec::{MapKind, ReduceKind, SampleKind, TaskKind};
use serde::Deserialize;

/// What runs a task's instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// What the kinds other than a command need.
    pub sample: Option<SampleKind>,
    pub map: Option<MapKind>,
    pub reduce: Option<ReduceKind>,
    /// Memory that one instance may fill, in MiB; 0: nobody said.
    pub memory_mib: u64,
    /// Why it cannot be understood: reported for each of its attempts.
    pub trouble: Option<String>,
}

/// What is told of a task's kind: its name, with the rest beside it, or all of it in one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Name(Kind),
    Whole(TaskKind),
}

/// The part of a task's description that is read here.
#[derive(Debug, Deserialize)]
struct Spec {
    name: String,
    kind: Said,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    memory_mib: u64,
    sample: Option<SampleKind>,
    map: Option<MapKind>,
    reduce: Option<ReduceKind>,
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
        let parsed = match serde_json::from_slice::<Spec>(&spec) {
            Ok(parsed) => parsed,
            Err(error) => {
                return Self {
                    name: task.to_string(),
                    sources,
                    trouble: Some(error.to_string()),
                    ..Self::default()
                };
            }
        };
        let mut task = Self {
            name: parsed.name,
            command: parsed.command,
            environment: parsed.env,
            timeout: parsed.timeout_ms.map(Duration::from_millis),
            has_outputs: !parsed.outputs.is_empty(),
            sources,
            sample: parsed.sample,
            map: parsed.map,
            reduce: parsed.reduce,
            memory_mib: parsed.memory_mib,
            ..Self::default()
        };
        match parsed.kind {
            Said::Name(kind) => task.kind = kind,
            Said::Whole(TaskKind::Command(command)) => task.command = command,
            Said::Whole(TaskKind::Sample(sample)) => (task.kind, task.sample) = (Kind::Sample, Some(sample)),
            Said::Whole(TaskKind::Map(map)) => (task.kind, task.map) = (Kind::Map, Some(map)),
            Said::Whole(TaskKind::Reduce(reduce)) => (task.kind, task.reduce) = (Kind::Reduce, Some(reduce)),
        }
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(spec: &serde_json::Value) -> Task {
        let spec = spec.to_string().into();
        Task::from_description(proto::TaskDescription { task: 7, spec, sources: Vec::new() })
    }

    #[test]
    fn both_forms_say_the_same() {
        let named = task(&serde_json::json!({"name": "t", "kind": "command", "command": ["a", "b"]}));
        let whole = task(&serde_json::json!({"name": "t", "kind": {"command": ["a", "b"]}, "inputs": []}));
        assert_eq!((named.kind, &named.command), (Kind::Command, &whole.command));
        assert_eq!(named.trouble, None);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let task = task(&serde_json::json!({"name": "t", "kind": "dream"}));
        assert!(task.trouble.is_some());
        assert_eq!(task.name, "7");
    }
}
