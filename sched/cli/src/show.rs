//! How answers and errors leave the program.

use std::fmt;
use std::io::Write as _;

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
    if json {
        eprintln!("{}", serde_json::json!({"error": what.to_string()}));
    } else {
        eprintln!("fuxi: {what}");
    }
}

/// What others wrote, for a terminal: control characters would move its cursor or change its colours. Lines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
