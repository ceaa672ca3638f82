//! `[[task]]`: a command and its instances.

use std::ops::Range;

use toml::de::DeTable;

use super::{Defaults, Placed, check_name, command, paths, resources, time};
use crate::INSTANCES_MAX;
use crate::amount;
use crate::fields::{Fields, Wrong};
use crate::spec::{Split, TaskKind, TaskSpec};

const ATTEMPTS_DEFAULT: u32 = 3;
/// The state machine's bound is 500; nobody wants more than this.
const ATTEMPTS_MAX: u32 = 100;

pub(super) fn read(
    table: &DeTable<'_>,
    at: Range<usize>,
    defaults: &Defaults,
    wrong: &mut Wrong,
) -> Option<Placed> {
    let mut fields = Fields::new(table, "a task");
    let name = match fields.text("name", wrong) {
        Some(name) => check_name(&name, "name", wrong),
        None => {
            if fields.at("name").is_none() {
                wrong.add(at.clone(), "the task has no name: write name = \"...\"");
            }
            None
        }
    };
    let program = command(&mut fields, "command", wrong);
    if program.is_none() && fields.at("command").is_none() {
        wrong.add(at.clone(), "the task has no command: write command = \"...\"");
    }
    let instances = fields.number("instances", (1, INSTANCES_MAX), wrong);
    let inputs = fields.texts("inputs", wrong).unwrap_or_default();
    let inputs = paths(inputs, "inputs", "the mount", wrong);
    let split = split(&mut fields, wrong);
    let outputs = fields.texts("outputs", wrong).unwrap_or_default();
    let outputs = paths(outputs, "outputs", "out/", wrong);
    let after_at = fields.at("after").unwrap_or_else(|| at.clone());
    let after = fields.texts("after", wrong).unwrap_or_default();
    let env = fields.named_texts("env", wrong).unwrap_or_default();
    let resources = resources(&mut fields, &defaults.resources, wrong);
    let timeout_ms = time(&mut fields, "timeout", wrong).or(defaults.timeout_ms);
    let attempts = fields.number("attempts", (1, ATTEMPTS_MAX), wrong).unwrap_or(ATTEMPTS_DEFAULT);
    let failures_allowed = fields.number("failures_allowed", (0, INSTANCES_MAX), wrong).unwrap_or(0);
    let backup = fields.flag("backup", wrong).unwrap_or(true);
    let parallel_max = fields.number("parallel_max", (1, INSTANCES_MAX), wrong);
    if let (Some(at), true) = (fields.at("instances"), fields.at("split").is_some()) {
        wrong.add(at, "instances and split exclude each other: the pieces of the inputs are the instances");
    }
    if let (Some(at), true) = (fields.at("split"), inputs.is_empty() && fields.at("inputs").is_none()) {
        wrong.add(at, "split has nothing to split: write inputs = [\"...\"]");
    }
    fields.finish(wrong);
    let mut all_env = defaults.env.clone();
    all_env.extend(env);
    let instances = match (instances, &split) {
        (Some(instances), _) => Some(instances),
        // Inputs that are not split are all read by one instance.
        (None, None) => Some(1),
        (None, Some(_)) => None,
    };
    let spec = TaskSpec {
        name: name?,
        kind: TaskKind::Command(program?),
        instances,
        inputs,
        split: split.unwrap_or(Split::File),
        outputs,
        resources,
        attempts,
        failures_allowed,
        timeout_ms,
        env: all_env,
        after: after.into_iter().map(|task| task.value).collect(),
        backup,
        parallel_max,
    };
    Some(Placed { spec, at, after_at })
}

/// `split = "file"` or `split = "64MiB"`.
pub(super) fn split(fields: &mut Fields<'_, '_>, wrong: &mut Wrong) -> Option<Split> {
    let text = fields.text("split", wrong)?;
    if text.value == "file" {
        return Some(Split::File);
    }
    match amount::bytes(&text.value) {
        Ok(bytes) if bytes >= 1 << 16 => Some(Split::Bytes(bytes)),
        Ok(_) => {
            wrong.add(text.at, "split must be at least 64KiB: smaller pieces cost more to start than to do");
            None
        }
        Err(error) => {
            wrong.add(text.at, format!("split: {error}; or \"file\": one instance a file"));
            None
        }
    }
}
