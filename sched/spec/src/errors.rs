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

/// Errors of one file that are kept; the others are counted. A file of the largest size can have half a million, and the master reports them.
pub(crate) const ERRORS_MAX: usize = 500;
/// Letters of a message: it may quote what the user wrote, which may be long.
const MESSAGE_MAX: usize = 1_000;
/// Letters of a line that are shown.
const SHOWN_MAX: usize = 160;
/// Letters that are shown before the mark, if the line is longer than what is shown.
const SHOWN_BEFORE: usize = 60;

/// All that is wrong with a file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobErrors {
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    errors: Vec<JobError>,
    more: usize,
}

impl JobErrors {
    /// `more` were found and not kept.
    pub(crate) fn new(text: &str, mut errors: Vec<JobError>, more: usize) -> Self {
        errors.sort_by_key(|error| error.at.start);
        errors.dedup();
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { text: text.to_owned(), lines, errors, more }
    }

    /// In the order of the file; at most 500, and [`more`](Self::more) says how many others there are.
    #[must_use]
    pub fn errors(&self) -> &[JobError] {
        &self.errors
    }

    /// How many were found and are not in [`errors`](Self::errors).
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
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
            // Of a long line, what is around the mark is shown.
            let skipped = if column > SHOWN_MAX { column - 1 - SHOWN_BEFORE } else { 0 };
            // A tab would move the mark, and other control characters the terminal of whoever reads this.
            let shown = source.chars().skip(skipped).take(SHOWN_MAX);
            let shown: String = shown.map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
            let before = column - 1 - skipped;
            let marked = self.text.get(error.at.clone()).unwrap_or_default();
            let width =
                marked.chars().take_while(|letter| !matches!(letter, '\r' | '\n')).take(SHOWN_MAX).count();
            let width = width.clamp(1, SHOWN_MAX - before.min(SHOWN_MAX - 1));
            let number = line.to_string();
            writeln!(
                out,
                "{file}:{line}:{column}: {}\n {number} | {shown}\n {} | {}{}",
                shortened(&error.message),
                " ".repeat(number.len()),
                " ".repeat(before),
                "^".repeat(width)
            )
            .expect("a String grows");
        }
        if self.more > 0 {
            writeln!(out, "{file}: and {} more", self.more).expect("a String grows");
        }
        out
    }

    /// The line with a byte, counted from 1, and where it begins.
    fn line_of(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|begin| *begin <= at).max(1);
        (line, self.lines[line - 1])
    }
}

fn shortened(message: &str) -> String {
    let mut shown: String = message
        .chars()
        .take(MESSAGE_MAX)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if message.chars().nth(MESSAGE_MAX).is_some() {
        shown.push_str(" ...");
    }
    shown
}

impl fmt::Display for JobErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report("job file"))
    }
}

impl std::error::Error for JobErrors {}
