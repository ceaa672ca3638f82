//! Waiting for a job's end, by looking where it is.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use sched_spec::QueueName;
use serde_json::json;

use crate::progress::Counts;
use crate::spool::{Entry, Part, Spool};
use crate::{files, show};

/// Between two looks. What is looked at is written at most once a second.
pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// A job that is nowhere so often has been removed. Not after one look: what another machine moved may be seen late.
const ABSENT_MAX: u32 = 6;

/// Says how far the job is until it ends, and then how: with 0 if it is done.
pub(crate) fn until_ended(
    spool: &Spool,
    queue: &QueueName,
    id: &str,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut line = Line { is_terminal: std::io::stderr().is_terminal(), quiet: json, last: String::new() };
    let mut absent = 0;
    loop {
        match spool.locate(queue, id)? {
            Some(entry) if entry.part.has_ended() => {
                line.end();
                return told(&entry, json);
            }
            Some(entry) => {
                absent = 0;
                line.show(&far(&entry)?);
            }
            None => absent += 1,
        }
        if absent >= ABSENT_MAX {
            line.end();
            anyhow::bail!("job {id} is not in queue {queue} any more: somebody removed it");
        }
        sleep(EVERY);
    }
}

/// How far a job is, in a line.
fn far(entry: &Entry) -> anyhow::Result<String> {
    let state = entry.state()?;
    let progress = files::text(&entry.path.join("progress"));
    // A file in new/ has none, and a directory that was moved just now neither: the next look says more.
    let counts = progress.ok().flatten().and_then(|text| Counts::parse(&text));
    let why = entry.why().unwrap_or_default();
    let mut line = state;
    if let Some(counts) = counts {
        line.push_str(&format!(", {} of {} done", counts.done, counts.instances));
    }
    if !why.is_empty() {
        line.push_str(&format!(": {why}"));
    }
    Ok(line)
}

fn told(entry: &Entry, json: bool) -> anyhow::Result<ExitCode> {
    let (state, why) = (entry.state()?, entry.why()?);
    if json {
        show::print_json(&json!({
            "job": entry.id, "queue": entry.queue.as_str(), "state": state, "why": why, "directory": entry.path,
        }))?;
    } else {
        let said = show::harmless(&format!("{}: {why}", entry.id));
        eprintln!("{state}  {said}");
    }
    Ok(if entry.part == Part::Done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The line that says how far the job is: over and over in a terminal, else once for each change.
struct Line {
    is_terminal: bool,
    quiet: bool,
    last: String,
}

impl Line {
    const WIDTH_MAX: usize = 100;

    fn show(&mut self, text: &str) {
        let text: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(Self::WIDTH_MAX).collect();
        if self.quiet || text == self.last {
            return;
        }
        if self.is_terminal {
            eprint!("\r\x1b[2K{text}");
            // What can not be shown is not missed.
            let _shown = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
        self.last = text;
    }

    fn end(&self) {
        if self.is_terminal && !self.last.is_empty() {
            eprint!("\r\x1b[2K");
        }
    }
}
