//! From text to [`JobSpec`]: the file's own table here, `[[task]]` in [`task`], `[mapreduce]` in [`mapreduce`].

mod mapreduce;
mod task;

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::FILE_MAX_BYTES;
use crate::amount::{self, parse_amount};
use crate::check;
use crate::errors::JobErrors;
use crate::fields::{At, Fields, Wrong, kind};
use crate::spec::{JobSpec, TaskSpec};

const NAME_MAX: usize = 63;
/// What an instance gets that asks for nothing.
const CPU_DEFAULT: u64 = 1_000;
const MEMORY_DEFAULT_MIB: u64 = 512;

/// What all tasks have that do not say otherwise.
#[derive(Clone, Debug, Default)]
struct Defaults {
    resources: BTreeMap<String, u64>,
    env: BTreeMap<String, String>,
    timeout_ms: Option<u64>,
}

/// A task, and where the file has it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) spec: TaskSpec,
    pub(crate) at: Range<usize>,
    /// Where it says what it waits for.
    pub(crate) after_at: Range<usize>,
}

/// Reads a job file as it is on a disk: `fuxi check FILE` prints the [report](JobErrors::report) of what is returned.
///
/// # Errors
/// See [`parse`]; it may also be no text.
pub fn parse_bytes(bytes: &[u8]) -> Result<JobSpec, JobErrors> {
    let cut = &bytes[..bytes.len().min(FILE_MAX_BYTES + 1)];
    let wrong_at = match std::str::from_utf8(cut) {
        Ok(text) => return parse(text),
        // A letter that was cut in the middle is no error of the file.
        Err(error) if bytes.len() > FILE_MAX_BYTES && error.error_len().is_none() => {
            return Err(too_large(&String::from_utf8_lossy(cut), bytes.len()));
        }
        Err(error) => error.valid_up_to(),
    };
    let mut wrong = Wrong::default();
    let message = format!("byte {} of the file is no UTF-8: a job file is text (TOML)", wrong_at + 1);
    wrong.add(wrong_at..wrong_at, message);
    // Up to what is wrong, the text is the same as the bytes.
    Err(JobErrors::new(&String::from_utf8_lossy(cut), wrong.errors, 0))
}

/// Reads a job file.
///
/// # Errors
/// All that is wrong with it: what is no TOML, or else every key and value.
pub fn parse(text: &str) -> Result<JobSpec, JobErrors> {
    if text.len() > FILE_MAX_BYTES {
        return Err(too_large(text, text.len()));
    }
    let mut wrong = Wrong::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        wrong.add_with(error.span().unwrap_or(0..0), || format!("this is no TOML: {}", error.message()));
    }
    if errors.is_empty()
        && let Some(job) = job(table.get_ref(), &mut wrong)
        && wrong.is_empty()
    {
        return Ok(job);
    }
    Err(JobErrors::new(text, wrong.errors, wrong.more))
}

fn too_large(text: &str, len: usize) -> JobErrors {
    let mut wrong = Wrong::default();
    wrong.add(0..0, format!("the file is larger than {FILE_MAX_BYTES} bytes, the most a job file may have: it has at least {len}"));
    // Of such a file nothing but the beginning is kept.
    JobErrors::new(text.lines().next().map_or("", |line| line.get(..80).unwrap_or_default()), wrong.errors, 0)
}

fn job(table: &DeTable<'_>, wrong: &mut Wrong) -> Option<JobSpec> {
    let mut fields = Fields::new(table, "the job");
    let name = match fields.text("name", wrong) {
        Some(name) => check_name(&name, "name", wrong),
        None => {
            if fields.at("name").is_none() {
                wrong.add(0..0, "the job has no name: write name = \"...\"");
            }
            None
        }
    };
    let description = fields.text("description", wrong).map(|text| text.value).unwrap_or_default();
    let priority = fields.number("priority", (0, 1_000), wrong).unwrap_or(100);
    let defaults = Defaults {
        resources: resources(&mut fields, &default_resources(), wrong),
        env: fields.named_texts("env", wrong).unwrap_or_default(),
        timeout_ms: time(&mut fields, "timeout", wrong),
    };
    let mut tasks = Vec::new();
    if let Some(list) = fields.value("task") {
        match list.get_ref() {
            DeValue::Array(items) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            tasks.extend(task::read(table, item.span(), &defaults, wrong));
                        }
                        other => wrong
                            .add(item.span(), format!("a task must be a table, and this is {}", kind(other))),
                    }
                }
            }
            other => {
                wrong.add(list.span(), format!("tasks are written as [[task]], and this is {}", kind(other)))
            }
        }
    }
    if let Some(table) = fields.table("mapreduce", wrong) {
        tasks.extend(mapreduce::read(&table, &defaults, wrong));
    }
    let is_empty = fields.at("task").is_none() && fields.at("mapreduce").is_none();
    fields.finish(wrong);
    if is_empty {
        wrong.add(0..0, "the job does nothing: write a [[task]] or a [mapreduce]");
    }
    check::tasks(&tasks, wrong);
    let tasks = tasks.into_iter().map(|task| task.spec).collect();
    Some(JobSpec { name: name?, description, priority: i32::try_from(priority).unwrap_or(0), tasks })
}

fn default_resources() -> BTreeMap<String, u64> {
    BTreeMap::from([("cpu".to_owned(), CPU_DEFAULT), ("memory".to_owned(), MEMORY_DEFAULT_MIB)])
}

/// Names stand in paths, and in `TASK.INSTANCE.ATTEMPT`.
fn check_name(name: &At<String>, key: &str, wrong: &mut Wrong) -> Option<String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let text = &name.value;
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(good) {
        wrong.add(name.at.clone(), format!("{key} must be 1 to {NAME_MAX} of a-z, 0-9, '-' and '_'"));
        return None;
    }
    Some(text.clone())
}

/// A `resources` table over what is the case without it.
fn resources(
    fields: &mut Fields<'_, '_>,
    defaults: &BTreeMap<String, u64>,
    wrong: &mut Wrong,
) -> BTreeMap<String, u64> {
    let mut resources = defaults.clone();
    let Some(table) = fields.table("resources", wrong) else { return resources };
    for (name, value) in table.value {
        let key = name.get_ref().to_string();
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            other => {
                wrong.add(value.span(), format!("resources.{key} must be an amount, and is {}", kind(other)));
                continue;
            }
        };
        match parse_amount(&key, &text) {
            Ok(amount) => {
                resources.insert(key, amount);
            }
            Err(error) => wrong.add(value.span(), format!("resources.{key}: {error}")),
        }
    }
    if resources.values().all(|amount| *amount == 0) {
        wrong.add(table.at, "resources must not all be 0: an instance uses something");
    }
    resources
}

fn time(fields: &mut Fields<'_, '_>, key: &'static str, wrong: &mut Wrong) -> Option<u64> {
    let text = fields.text(key, wrong)?;
    match amount::millis(&text.value) {
        Ok(0) => {
            wrong.add(text.at, format!("{key} must not be 0: leave it out if there is to be none"));
            None
        }
        Ok(millis) => Some(millis),
        Err(error) => {
            wrong.add(text.at, format!("{key}: {error}"));
            None
        }
    }
}

/// A command: a text for the shell, or a program and its arguments.
fn command(fields: &mut Fields<'_, '_>, key: &'static str, wrong: &mut Wrong) -> Option<Vec<String>> {
    let value = fields.value(key)?;
    match value.get_ref() {
        DeValue::String(text) if text.trim().is_empty() => {
            wrong.add(value.span(), format!("{key} is empty: name a program"));
            None
        }
        DeValue::String(text) if text.contains('\0') => {
            wrong.add(value.span(), format!("{key} has a NUL byte, and no program can be given one"));
            None
        }
        DeValue::String(text) => Some(["/bin/sh", "-c", text.as_ref()].map(str::to_owned).to_vec()),
        DeValue::Array(_) => {
            let words = fields.texts(key, wrong)?;
            if words.first().is_none_or(|program| program.value.is_empty()) {
                wrong.add(value.span(), format!("{key} is empty: name a program"));
                return None;
            }
            if let Some(word) = words.iter().find(|word| word.value.contains('\0')) {
                wrong.add(word.at.clone(), format!("{key}: no argument can have a NUL byte"));
            }
            Some(words.into_iter().map(|word| word.value).collect())
        }
        other => {
            let message = format!(
                "{key} must be a text for the shell, or a list of a program and its arguments, and is {}",
                kind(other)
            );
            wrong.add(value.span(), message);
            None
        }
    }
}

/// Paths that stay below where they are meant to be, each written in one way: `./a//b/` is `a/b`.
fn paths(texts: Vec<At<String>>, key: &str, below: &str, wrong: &mut Wrong) -> Vec<String> {
    let mut paths = Vec::new();
    for text in texts {
        let parts: Vec<&str> = text.value.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.is_empty()
            || text.value.starts_with('/')
            || parts.contains(&"..")
            || text.value.contains('\0')
        {
            wrong.add(text.at, format!("{key} must be relative to {below}, without '..'"));
        } else {
            paths.push(parts.join("/"));
        }
    }
    paths
}
