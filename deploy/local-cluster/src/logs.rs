//! The processes' logs: their ends for error messages, and every line at WARN or above that was not announced.

use std::fmt;
use std::fs;
use std::path::Path;

/// A line that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// Whose log.
    pub name: String,
    /// The line as it stands.
    pub line: String,
}

const PANIC: &str = "panicked at";

impl Offence {
    pub(crate) fn is_panic(&self) -> bool {
        self.line.contains(PANIC)
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.line)
    }
}

/// A line that a human must or should look at: WARN, ERROR, or a panic.
fn is_bad(line: &str) -> bool {
    let mut words = line.split_whitespace();
    // tracing's text format: `TIME LEVEL spans: message`; the level is among the first words.
    words.by_ref().take(3).any(|word| matches!(word, "WARN" | "ERROR")) || line.contains(PANIC)
}

/// The bad lines of one log that contain none of the announced texts.
pub(crate) fn offences(name: &str, log: &str, announced: &[String]) -> Vec<Offence> {
    log.lines()
        .filter(|line| is_bad(line) && !announced.iter().any(|text| line.contains(text.as_str())))
        .map(|line| Offence { name: name.to_owned(), line: line.to_owned() })
        .collect()
}

/// A log as text; empty if it cannot be read.
pub(crate) fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The last `lines` lines.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = read(path);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:00.1Z  INFO master: leader elected
2026-01-01T00:00:00.2Z  WARN raft: slow append
2026-01-01T00:00:00.3Z ERROR disk: gone
2026-01-01T00:00:00.4Z  INFO x: said WARN, which is not its level, ERROR neither
thread 'main' panicked at src/x.rs:1:
";

    #[test]
    fn warnings_errors_and_panics_are_offences() {
        let lines: Vec<String> = offences("m1", LOG, &[]).into_iter().map(|o| o.line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].contains("slow append") && lines[1].contains("gone") && lines[2].contains("panicked")
        );
    }

    #[test]
    fn announced_lines_are_not() {
        let left = offences("m1", LOG, &["slow append".to_owned(), "panicked".to_owned()]);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].to_string(), "m1: 2026-01-01T00:00:00.3Z ERROR disk: gone");
    }
}
