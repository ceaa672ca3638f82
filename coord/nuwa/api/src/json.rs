//! Entries and events as JSON, the same wherever people and scripts see them.

use nuwa_model::proto::{Entry, Event, EventKind};
use serde_json::{Map, Value, json};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A value is text where it can be, else `value_hex`.
fn add_value(map: &mut Map<String, Value>, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) => map.insert("value".to_owned(), json!(text)),
        Err(_) => {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            map.insert("value_hex".to_owned(), json!(hex))
        }
    };
}

/// Without its value.
#[must_use]
pub fn entry(entry: &Entry) -> Value {
    let mut map = object(json!({
        "path": entry.path, "version": entry.version, "created": entry.created, "modified": entry.modified,
        "modified_unix_nanos": entry.modified_unix_nanos,
    }));
    if entry.owner != 0 {
        map.insert("owner".to_owned(), json!(entry.owner));
    }
    Value::Object(map)
}

#[must_use]
pub fn entry_with_value(found: &Entry) -> Value {
    let mut map = object(entry(found));
    if !found.path.ends_with('/') {
        add_value(&mut map, &found.value);
    }
    Value::Object(map)
}

/// What an event is called.
#[must_use]
pub fn kind(event: &Event) -> &'static str {
    match event.kind() {
        EventKind::Unspecified => "unknown",
        EventKind::Put => "put",
        EventKind::Deleted => "deleted",
        EventKind::Locked => "locked",
        EventKind::Unlocked => "unlocked",
    }
}

#[must_use]
pub fn event(event: &Event) -> Value {
    let mut map = object(json!({
        "revision": event.revision, "number": event.number, "kind": kind(event),
    }));
    if let Some(changed) = &event.entry {
        map.insert("path".to_owned(), json!(changed.path));
        if event.kind() == EventKind::Put {
            map.insert("version".to_owned(), json!(changed.version));
            if !changed.path.ends_with('/') {
                add_value(&mut map, &changed.value);
            }
        }
    }
    if let Some(holder) = &event.holder {
        let holder = json!({
            "session": holder.session, "owner": holder.owner, "shared": holder.shared, "fence": holder.fence,
        });
        map.insert("holder".to_owned(), holder);
    }
    Value::Object(map)
}
