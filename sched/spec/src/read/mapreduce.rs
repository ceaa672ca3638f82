//! `[mapreduce]`: becomes the tasks `sample` (if keys are cut into ranges), `map` and `reduce`.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::task::split;
use super::{Defaults, Placed, command, paths, resources, time};
use crate::fields::{At, Fields, Wrong, kind};
use crate::spec::{Key, MapKind, Records, ReduceKind, SampleKind, Split, TaskKind, TaskSpec};

/// A piece that one instance maps without more than a sort in memory.
const SPLIT_DEFAULT: Split = Split::Bytes(64 << 20);
const PARTITIONS_MAX: u32 = 10_000;
const RECORD_MAX: u32 = 1 << 20;

/// What the tasks have in common.
struct Common {
    resources: BTreeMap<String, u64>,
    env: BTreeMap<String, String>,
    timeout_ms: Option<u64>,
    at: Range<usize>,
}

impl Common {
    fn task(&self, name: &str, kind: TaskKind) -> Placed {
        let spec = TaskSpec {
            name: name.to_owned(),
            kind,
            instances: None,
            inputs: Vec::new(),
            split: SPLIT_DEFAULT,
            outputs: Vec::new(),
            resources: self.resources.clone(),
            attempts: 3,
            failures_allowed: 0,
            timeout_ms: self.timeout_ms,
            env: self.env.clone(),
            after: Vec::new(),
            backup: true,
            parallel_max: None,
        };
        Placed { spec, at: self.at.clone(), after_at: self.at.clone() }
    }
}

pub(super) fn read(table: &At<&DeTable<'_>>, defaults: &Defaults, wrong: &mut Wrong) -> Vec<Placed> {
    let at = table.at.clone();
    let mut fields = Fields::new(table.value, "[mapreduce]");
    let inputs = fields.texts("inputs", wrong).unwrap_or_default();
    if inputs.is_empty() {
        let at = fields.at("inputs").unwrap_or_else(|| at.clone());
        wrong.add(at, "[mapreduce] reads nothing: write inputs = [\"...\"]");
    }
    let inputs = paths(inputs, "inputs", "the mount", wrong);
    let split = split(&mut fields, wrong).unwrap_or(SPLIT_DEFAULT);
    let mapper = command(&mut fields, "mapper", wrong);
    let combiner = command(&mut fields, "combiner", wrong);
    let reducer = command(&mut fields, "reducer", wrong);
    let partitions = fields.number("reducers", (1, PARTITIONS_MAX), wrong).unwrap_or(1);
    let is_ranges = match fields.text("partition", wrong) {
        None => false,
        Some(text) if text.value == "hash" => false,
        Some(text) if text.value == "range" => true,
        Some(text) => {
            wrong.add(text.at, "partition must be \"hash\" or \"range\"");
            false
        }
    };
    let records = records(&mut fields, wrong);
    let key = key(&mut fields, records, wrong);
    let output = fields.text("output", wrong);
    let output = match output {
        Some(output) => paths(vec![output], "output", "out/", wrong).pop().unwrap_or_default(),
        None => "result".to_owned(),
    };
    let mut env = defaults.env.clone();
    env.extend(fields.named_texts("env", wrong).unwrap_or_default());
    let common = Common {
        resources: resources(&mut fields, &defaults.resources, wrong),
        env,
        timeout_ms: time(&mut fields, "timeout", wrong).or(defaults.timeout_ms),
        at,
    };
    fields.finish(wrong);
    let cuts = is_ranges && partitions > 1;
    let mut tasks = Vec::new();
    if cuts {
        // One instance looks into all inputs, here and there.
        let mut sample =
            common.task("sample", TaskKind::Sample(SampleKind { records, key: key.clone(), partitions }));
        sample.spec.instances = Some(1);
        sample.spec.inputs.clone_from(&inputs);
        tasks.push(sample);
    }
    let ranges_of = cuts.then(|| "sample".to_owned());
    let map =
        MapKind { mapper, combiner, records, key: key.clone(), partitions, ranges_of: ranges_of.clone() };
    let mut map = common.task("map", TaskKind::Map(map));
    map.spec.inputs = inputs;
    map.spec.split = split;
    map.spec.after.extend(ranges_of);
    tasks.push(map);
    let reduce = ReduceKind { reducer, of: "map".to_owned(), records, key, output };
    let mut reduce = common.task("reduce", TaskKind::Reduce(reduce));
    reduce.spec.instances = Some(partitions);
    reduce.spec.after.push("map".to_owned());
    tasks.push(reduce);
    tasks
}

/// `records = "lines"` or `records = 100` (bytes).
fn records(fields: &mut Fields<'_, '_>, wrong: &mut Wrong) -> Records {
    let Some(value) = fields.value("records") else { return Records::Lines };
    match value.get_ref() {
        DeValue::String(text) if text.as_ref() == "lines" => Records::Lines,
        DeValue::Integer(_) => {
            fields.number("records", (1, RECORD_MAX), wrong).map_or(Records::Lines, Records::Fixed)
        }
        other => {
            let message = format!(
                "records must be \"lines\", or the number of bytes that each record has, and is {}",
                kind(other)
            );
            wrong.add(value.span(), message);
            Records::Lines
        }
    }
}

/// `key = "record"`, `key = { field = 2, separator = "," }` or `key = { from = 0, to = 10 }`.
fn key(fields: &mut Fields<'_, '_>, records: Records, wrong: &mut Wrong) -> Key {
    let Some(value) = fields.value("key") else { return Key::Record };
    let table = match value.get_ref() {
        DeValue::String(text) if text.as_ref() == "record" => return Key::Record,
        DeValue::Table(table) => table,
        other => {
            let message = format!(
                "key must be \"record\", {{ field = N, separator = \",\" }} or {{ from = BYTE, to = BYTE }}, and is {}",
                kind(other)
            );
            wrong.add(value.span(), message);
            return Key::Record;
        }
    };
    let mut parts = Fields::new(table, "key");
    let field = parts.number("field", (1, 10_000), wrong);
    let separator = parts.text("separator", wrong);
    let from = parts.number("from", (0, RECORD_MAX), wrong);
    let to = parts.number("to", (1, RECORD_MAX), wrong);
    let key = match (field, from, to) {
        (Some(number), None, None) => {
            let mut letters = separator.as_ref().map_or("\t", |text| text.value.as_str()).chars();
            match (letters.next(), letters.next()) {
                (Some(separator), None) if separator.is_ascii() && separator != '\n' => {
                    Key::Field { number, separator }
                }
                _ => {
                    let at = separator.map_or_else(|| value.span(), |text| text.at);
                    wrong.add(at, "separator must be one ASCII letter, and not the end of the line");
                    Key::Record
                }
            }
        }
        (None, from, Some(to)) if from.unwrap_or(0) < to => {
            if let Records::Fixed(len) = records
                && to > len
            {
                wrong.add(value.span(), format!("key ends at byte {to}, and records have {len} bytes"));
            }
            Key::Bytes { from: from.unwrap_or(0), to }
        }
        _ => {
            wrong.add(value.span(), "key must name a field, or bytes from .. to with from below to");
            Key::Record
        }
    };
    parts.finish(wrong);
    key
}
