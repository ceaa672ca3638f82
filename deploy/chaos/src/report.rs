//! The result as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::nemesis::Event;
use crate::plan::Fault;

/// A check, with what is wrong; nothing: it passed.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) wrong: Vec<String>,
}

/// A fault that was done, and what programs saw of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) event: Event,
    pub(crate) stall: Duration,
    pub(crate) errors: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) faults: Vec<Seen>,
    pub(crate) left_out: Vec<String>,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
    /// Files and blocks that were compared with what was confirmed.
    pub(crate) right: usize,
    pub(crate) register_operations: usize,
    pub(crate) name_operations: usize,
    pub(crate) unknown: usize,
    pub(crate) checks: Vec<Check>,
}

impl Report {
    pub(crate) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.wrong.is_empty()).count()
    }

    fn of(&self, fault: Fault) -> Option<(usize, Duration, usize)> {
        let these: Vec<&Seen> = self.faults.iter().filter(|seen| seen.event.fault == fault).collect();
        let stall = these.iter().map(|seen| seen.stall).max()?;
        Some((these.len(), stall, these.iter().map(|seen| seen.errors).sum()))
    }

    /// Markdown: a table, figures, checks.
    pub(crate) fn text(&self) -> String {
        let mut out =
            String::from("| fault | times | longest operation | errors |\n| --- | ---: | ---: | ---: |\n");
        for fault in Fault::ALL {
            let Some((times, stall, errors)) = self.of(fault) else { continue };
            line(&mut out, &format!("| {fault} | {times} | {:.2} s | {errors} |", stall.as_secs_f64()));
        }
        let mib = |bytes: u64| bytes >> 20;
        line(
            &mut out,
            &format!(
                "\nseed {}, {} s: {} MiB written and confirmed, {} MiB read on another mount and right, {} files and blocks right at the end",
                self.seed,
                self.seconds,
                mib(self.written_bytes),
                mib(self.read_bytes),
                self.right
            ),
        );
        line(
            &mut out,
            &format!(
                "checked for linearizability: {} operations on registers, {} on names, {} of unknown outcome",
                self.register_operations, self.name_operations, self.unknown
            ),
        );
        for what in &self.left_out {
            line(&mut out, &format!("left out: {what}"));
        }
        out.push('\n');
        for Check { name, wrong } in &self.checks {
            line(&mut out, &format!("{} {name}", if wrong.is_empty() { "ok    " } else { "FAILED" }));
            for what in wrong.iter().take(20) {
                line(&mut out, &format!("         {what}"));
            }
            if wrong.len() > 20 {
                line(&mut out, &format!("         and {} more", wrong.len() - 20));
            }
        }
        line(&mut out, &format!("{} passed, {} failed", self.checks.len() - self.failed(), self.failed()));
        out
    }

    pub(crate) fn json(&self) -> Value {
        let faults = self.faults.iter().map(|Seen { event, stall, errors }| {
            json!({"fault": event.fault.to_string(), "whom": event.whom,
                   "began_s": seconds(event.span.called_ns), "ended_s": seconds(event.span.returned_ns),
                   "longest_operation_s": stall.as_secs_f64(), "errors": errors})
        });
        let checks = self.checks.iter().map(|check| json!({"name": check.name, "wrong": check.wrong}));
        json!({"seed": self.seed, "seconds": self.seconds, "faults": faults.collect::<Vec<_>>(),
               "left_out": self.left_out, "written_bytes": self.written_bytes, "read_bytes": self.read_bytes,
               "right": self.right, "register_operations": self.register_operations,
               "name_operations": self.name_operations, "unknown": self.unknown,
               "checks": checks.collect::<Vec<_>>(),
               "passed": self.checks.len() - self.failed(), "failed": self.failed()})
    }
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crew::Span;

    #[test]
    fn the_worst_of_each_kind_and_what_failed() {
        let seen = |fault, stall_s, errors| Seen {
            event: Event { fault, whom: "x".to_owned(), span: Span { called_ns: 0, returned_ns: 5 } },
            stall: Duration::from_secs(stall_s),
            errors,
        };
        let check =
            |name, wrong: &[&str]| Check { name, wrong: wrong.iter().map(|w| (*w).to_owned()).collect() };
        let report = Report {
            faults: vec![seen(Fault::Kill, 1, 0), seen(Fault::Kill, 3, 2), seen(Fault::Full, 0, 1)],
            checks: vec![check("one", &[]), check("two", &["lost"])],
            ..Report::default()
        };
        let text = report.text();
        assert!(text.contains("| chunkserver killed | 2 | 3.00 s | 2 |"), "{text}");
        assert!(text.contains("FAILED two\n         lost\n"), "{text}");
        assert!(text.ends_with("1 passed, 1 failed\n"), "{text}");
        assert_eq!(report.json()["failed"], 1);
        assert_eq!(report.json()["faults"].as_array().unwrap().len(), 3);
    }
}
