//! What is wrong with a job file: all of it, each at its place.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Bytes of the file.
    pub(crate) at: Range<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// All that is wrong with a file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobErrors {
    text: String,
    errors: Vec<JobError>,
}

impl JobErrors {
    pub(crate) fn new(text: &str, mut errors: Vec<JobError>) -> Self {
        errors.sort_by_key(|error| error.at.start);
        errors.dedup();
        Self { text: text.to_owned(), errors }
    }

    /// In the order of the file.
    #[must_use]
    pub fn errors(&self) -> &[JobError] {
        &self.errors
    }

    /// Line and column of an error, counted from 1; the column in characters.
    #[must_use]
    pub fn place(&self, error: &JobError) -> (usize, usize) {
        let (line, begin) = self.line_of(error.at.start);
        let before = self.text.get(begin..error.at.start.min(self.text.len())).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// For people: each with its line, and a mark under what is wrong.
    #[must_use]
    pub fn report(&self, file: &str) -> String {
        use fmt::Write as _;
        let mut out = String::new();
        for error in &self.errors {
            let (line, column) = self.place(error);
            let (_, begin) = self.line_of(error.at.start);
            let source = self.text.get(begin..).unwrap_or_default().lines().next().unwrap_or_default();
            // Long lines are cut: what is wrong is in front.
            let shown: String = source.chars().take(160).collect();
            let marked = self.text.get(error.at.clone()).unwrap_or_default();
            let width = marked.lines().next().unwrap_or_default().chars().count();
            let width = width.clamp(1, 160usize.saturating_sub(column).max(1));
            let number = line.to_string();
            let pad = " ".repeat(number.len());
            writeln!(
                out,
                "{file}:{line}:{column}: {}\n {number} | {shown}\n {pad} | {}{}",
                error.message,
                " ".repeat((column - 1).min(160)),
                "^".repeat(width)
            )
            .expect("a String grows");
        }
        out
    }

    /// The line with a byte, counted from 1, and where it begins.
    fn line_of(&self, at: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        (before.iter().filter(|byte| **byte == b'\n').count() + 1, begin)
    }
}

impl fmt::Display for JobErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report("job file"))
    }
}

impl std::error::Error for JobErrors {}
