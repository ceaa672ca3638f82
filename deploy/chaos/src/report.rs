//! The result as a table and as JSON.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::nemesis::Event;

/// A check, with what is wrong; nothing: it passed.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) wrong: Vec<String>,
}

/// A fault that was done, and what programs saw of it.
#[derive(Debug)]
pub(crate) struct Seen<F> {
    pub(crate) event: Event<F>,
    pub(crate) stall: Duration,
    pub(crate) errors: usize,
}

#[derive(Debug)]
pub(crate) struct Report<F> {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) faults: Vec<Seen<F>>,
    pub(crate) left_out: Vec<String>,
    /// How much was done and looked at, in words.
    pub(crate) sentences: Vec<String>,
    /// The same for machines, by name.
    pub(crate) figures: Map<String, Value>,
    pub(crate) checks: Vec<Check>,
}

impl<F: Display + Copy + PartialEq> Report<F> {
    pub(crate) fn new(seed: u64, seconds: u64, left_out: Vec<String>) -> Self {
        let (faults, sentences) = (Vec::new(), Vec::new());
        Self { seed, seconds, faults, left_out, sentences, figures: Map::new(), checks: Vec::new() }
    }

    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    pub(crate) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.wrong.is_empty()).count()
    }

    fn of(&self, fault: F) -> Option<(usize, Duration, usize)> {
        let these: Vec<&Seen<F>> = self.faults.iter().filter(|seen| seen.event.fault == fault).collect();
        let stall = these.iter().map(|seen| seen.stall).max()?;
        Some((these.len(), stall, these.iter().map(|seen| seen.errors).sum()))
    }

    /// Says it all to people, and to machines in a file. `keep` keeps what explains a failure, and says where. Answers whether every
    /// check passed.
    pub(crate) fn tell(
        &self,
        kinds: &[F],
        json: Option<&Path>,
        keep: impl FnOnce() -> String,
    ) -> anyhow::Result<bool> {
        print!("{}", self.text(kinds));
        if self.failed() > 0 {
            println!("logs and histories: {}", keep());
        }
        if let Some(path) = json {
            std::fs::write(path, format!("{:#}\n", self.json()))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(self.failed() == 0)
    }

    /// Markdown: a table of these kinds of fault, figures, checks.
    pub(crate) fn text(&self, kinds: &[F]) -> String {
        let mut out =
            String::from("| fault | times | longest operation | errors |\n| --- | ---: | ---: | ---: |\n");
        for fault in kinds {
            let Some((times, stall, errors)) = self.of(*fault) else { continue };
            line(&mut out, &format!("| {fault} | {times} | {:.2} s | {errors} |", stall.as_secs_f64()));
        }
        line(&mut out, &format!("\nseed {}, {} s", self.seed, self.seconds));
        for sentence in &self.sentences {
            line(&mut out, sentence);
        }
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
        let mut all = self.figures.clone();
        for (name, value) in [
            ("seed", json!(self.seed)),
            ("seconds", json!(self.seconds)),
            ("faults", json!(faults.collect::<Vec<_>>())),
            ("left_out", json!(self.left_out)),
            ("checks", json!(checks.collect::<Vec<_>>())),
            ("passed", json!(self.checks.len() - self.failed())),
            ("failed", json!(self.failed())),
        ] {
            all.insert(name.to_owned(), value);
        }
        Value::Object(all)
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
    use crate::plan::Fault;

    #[test]
    fn the_worst_of_each_kind_and_what_failed() {
        let seen = |fault, stall_s, errors| Seen {
            event: Event { fault, whom: "x".to_owned(), span: Span { called_ns: 0, returned_ns: 5 } },
            stall: Duration::from_secs(stall_s),
            errors,
        };
        let check =
            |name, wrong: &[&str]| Check { name, wrong: wrong.iter().map(|w| (*w).to_owned()).collect() };
        let mut report = Report {
            faults: vec![seen(Fault::Kill, 1, 0), seen(Fault::Kill, 3, 2), seen(Fault::Full, 0, 1)],
            checks: vec![check("one", &[]), check("two", &["lost"])],
            ..Report::new(7, 60, Vec::new())
        };
        report.figure("operations", 12);
        let text = report.text(&Fault::ALL);
        assert!(text.contains("| chunkserver killed | 2 | 3.00 s | 2 |"), "{text}");
        assert!(text.contains("FAILED two\n         lost\n"), "{text}");
        assert!(text.ends_with("1 passed, 1 failed\n"), "{text}");
        assert_eq!((&report.json()["failed"], &report.json()["operations"]), (&1.into(), &12.into()));
        assert_eq!(report.json()["faults"].as_array().unwrap().len(), 3);
    }
}
