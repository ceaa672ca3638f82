//! How entries and events look.

use std::io::Write as _;

use nuwa_api::proto::{Entry, Event, EventKind};
use serde_json::{Map, Value, json};

/// To standard output. Whoever reads it may have seen enough: that is no failure.
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

pub(crate) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(format!("{value}\n").as_bytes())
}

/// A value is text where it can be.
pub(crate) fn add_value(map: &mut Map<String, Value>, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) => map.insert("value".to_owned(), json!(text)),
        Err(_) => {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            map.insert("value_hex".to_owned(), json!(hex))
        }
    };
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Without its value.
pub(crate) fn entry(entry: &Entry) -> Map<String, Value> {
    let mut map = object(json!({
        "path": entry.path, "version": entry.version, "created": entry.created, "modified": entry.modified,
        "modified_unix_nanos": entry.modified_unix_nanos,
    }));
    if entry.owner != 0 {
        map.insert("owner".to_owned(), json!(entry.owner));
    }
    map
}

pub(crate) fn entry_with_value(found: &Entry) -> Value {
    let mut map = entry(found);
    if !found.path.ends_with('/') {
        add_value(&mut map, &found.value);
    }
    Value::Object(map)
}

fn kind(event: &Event) -> &'static str {
    match event.kind() {
        EventKind::Unspecified => "unknown",
        EventKind::Put => "put",
        EventKind::Deleted => "deleted",
        EventKind::Locked => "locked",
        EventKind::Unlocked => "unlocked",
    }
}

/// One line of JSON.
pub(crate) fn event_json(event: &Event) -> Value {
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

/// One line for people.
pub(crate) fn event_text(event: &Event) -> String {
    let path = event.entry.as_ref().map_or("", |entry| &entry.path);
    let more = match (event.kind(), &event.entry, &event.holder) {
        (EventKind::Put, Some(entry), _) if !path.ends_with('/') => {
            format!("  version {}  {}", entry.version, shortened(&entry.value))
        }
        (EventKind::Locked, _, Some(holder)) => {
            let shared = if holder.shared { " shared" } else { "" };
            format!("  by session {}{shared}, fence {}", holder.session, holder.fence)
        }
        (EventKind::Unlocked, _, Some(holder)) => format!("  by session {}", holder.session),
        _ => String::new(),
    };
    format!("{}  {}  {path}{more}", event.revision, kind(event))
}

/// What of a value goes into a line.
fn shortened(value: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN)]);
    let more = if value.len() > SHOWN { "..." } else { "" };
    format!("{:?}{more}", text.as_ref())
}
