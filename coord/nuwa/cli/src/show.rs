//! How entries, events and errors look.

use std::fmt;
use std::io::Write as _;

use nuwa_api::json::kind;
use nuwa_api::proto::{Event, EventKind};
use serde_json::Value;

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

/// Why the program ends without having done what was asked.
pub(crate) fn error(json: bool, what: fmt::Arguments<'_>) {
    complain(json, "error", what);
}

/// What did not keep the program from doing what was asked.
pub(crate) fn warn(json: bool, what: fmt::Arguments<'_>) {
    complain(json, "warning", what);
}

fn complain(json: bool, kind: &str, what: fmt::Arguments<'_>) {
    if json {
        eprintln!("{}", serde_json::json!({kind: what.to_string()}));
    } else {
        eprintln!("nuwa: {what}");
    }
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
pub(crate) fn shortened(value: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN)]);
    let more = if value.len() > SHOWN { "..." } else { "" };
    format!("{:?}{more}", text.as_ref())
}
