//! A task as its workers are told of it, in JSON: `name`, `kind`, `env`, `timeout_ms`, `outputs`; of a program its `command`; of the others
//! what [`sched_spec`] has of them, under the name of the kind, and how much memory they may fill.

use sched_spec::{TaskKind, TaskSpec};
use serde_json::json;

/// Where what a map or a sample makes is, in its own directory.
pub(crate) const BETWEEN: &str = "part";

pub(super) fn task(task: &TaskSpec) -> Vec<u8> {
    let memory_mib = task.resources.get("memory").copied().unwrap_or(0);
    let mut told = json!({
        "name": task.name,
        "kind": kind(&task.kind),
        "env": task.env,
        "timeout_ms": task.timeout_ms,
        "outputs": task.outputs,
        "memory_mib": memory_mib,
    });
    match &task.kind {
        TaskKind::Command(command) => told["command"] = json!(command),
        TaskKind::Sample(sample) => {
            told["sample"] = json!(sample);
            told["outputs"] = json!([BETWEEN]);
        }
        TaskKind::Map(map) => {
            told["map"] = json!(map);
            told["outputs"] = json!([BETWEEN]);
        }
        TaskKind::Reduce(reduce) => {
            told["reduce"] = json!(reduce);
            told["outputs"] = json!([reduce.output]);
        }
    }
    told.to_string().into_bytes()
}

fn kind(kind: &TaskKind) -> &'static str {
    match kind {
        TaskKind::Command(_) => "command",
        TaskKind::Sample(_) => "sample",
        TaskKind::Map(_) => "map",
        TaskKind::Reduce(_) => "reduce",
    }
}
