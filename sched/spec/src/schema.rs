//! The job file for editors, as a JSON schema.

use serde_json::{Value, json};

use crate::INSTANCES_MAX;

/// JSON schema (draft 2020-12) of a job file.
#[must_use]
pub fn schema() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let command = json!({"oneOf": [text, {"type": "array", "items": text, "minItems": 1}]});
    let amount = json!({"type": ["string", "number"]});
    let resources = json!({"type": "object", "additionalProperties": amount});
    let env = json!({"type": "object", "additionalProperties": text});
    let count = json!({"type": "integer", "minimum": 1, "maximum": INSTANCES_MAX});
    let name = json!({"type": "string", "pattern": "^[a-z0-9_-]{1,63}$"});
    let task = json!({
        "type": "object",
        "required": ["name", "command"],
        "additionalProperties": false,
        "properties": {
            "name": name, "command": command, "instances": count, "inputs": texts, "split": text, "outputs": texts,
            "after": texts, "env": env, "resources": resources, "timeout": text, "attempts": {"type": "integer", "minimum": 1, "maximum": 100},
            "failures_allowed": {"type": "integer", "minimum": 0}, "backup": {"type": "boolean"}, "parallel_max": count,
        },
    });
    let key = json!({"oneOf": [
        {"const": "record"},
        {"type": "object", "additionalProperties": false,
         "properties": {"field": {"type": "integer", "minimum": 1}, "separator": text, "from": {"type": "integer"}, "to": {"type": "integer"}}},
    ]});
    let mapreduce = json!({
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": false,
        "properties": {
            "inputs": texts, "split": text, "mapper": command, "combiner": command, "reducer": command,
            "reducers": {"type": "integer", "minimum": 1, "maximum": 10_000}, "partition": {"enum": ["hash", "range"]},
            "records": {"oneOf": [{"const": "lines"}, {"type": "integer", "minimum": 1}]}, "key": key, "output": text,
            "env": env, "resources": resources, "timeout": text,
        },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Fuxi job file",
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": name, "description": text, "priority": {"type": "integer", "minimum": 0, "maximum": 1000},
            "resources": resources, "env": env, "timeout": text, "task": {"type": "array", "items": task}, "mapreduce": mapreduce,
        },
    })
}
