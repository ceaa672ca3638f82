//! The figures as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::foreground::Times;

/// What the design asks for: p99 of the programs beside a rebuild against p99 without.
const RATIO_MAX: f64 = 2.0;

/// A stretch of time in which one thing went on beside the programs.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    pub(crate) moved_bytes: u64,
    pub(crate) times: Times,
}

/// Of one kind of operation in one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    operations: usize,
    median: Duration,
    p99: Duration,
    worst: Duration,
}

fn spread(times: &[Duration]) -> Option<Spread> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let worst = *sorted.last()?;
    let at = |share: usize| sorted[(sorted.len() * share / 100).min(sorted.len() - 1)];
    Some(Spread { operations: sorted.len(), median: at(50), p99: at(99), worst })
}

/// All phases; the first is what the others are compared with.
#[derive(Debug, Default)]
pub(crate) struct Report {
    phases: Vec<Phase>,
    wrong: Vec<String>,
    right_bytes: u64,
}

impl Report {
    pub(crate) fn add(&mut self, phase: Phase) {
        self.phases.push(phase);
    }

    pub(crate) fn end(&mut self, wrong: Vec<String>, right_bytes: u64) {
        (self.wrong, self.right_bytes) = (wrong, right_bytes);
    }

    pub(crate) fn whole(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Operation kind, its spread, and its p99 against that of the first phase.
    fn rows(&self, phase: &Phase) -> Vec<(&'static str, Spread, f64)> {
        let Some(first) = self.phases.first() else { return Vec::new() };
        let (now, before) = (&phase.times, &first.times);
        [("read 64 KiB", &now.reads, &before.reads), ("write 64 KiB, synced", &now.writes, &before.writes)]
            .into_iter()
            .filter_map(|(kind, now, before)| {
                let (now, before) = (spread(now)?, spread(before)?);
                Some((kind, now, now.p99.as_secs_f64() / before.p99.as_secs_f64()))
            })
            .collect()
    }

    /// Markdown.
    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "| beside the programs | time | MiB | MiB/s | operation | number | median | p99 | worst | p99 / before (limit {RATIO_MAX}) |\n\
             | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n"
        );
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        for phase in &self.phases {
            let (seconds, mib) = (phase.took.as_secs_f64(), phase.moved_bytes as f64 / (1 << 20) as f64);
            for (kind, spread, ratio) in self.rows(phase) {
                let Spread { operations, median, p99, worst } = spread;
                let (median, p99, worst) = (ms(median), ms(p99), ms(worst));
                writeln!(
                    out,
                    "| {} | {seconds:.1} s | {mib:.0} | {:.0} | {kind} | {operations} | {median} | {p99} | {worst} | {ratio:.2} |",
                    phase.name,
                    mib / seconds,
                )
                .expect("a String grows");
            }
        }
        writeln!(out, "\n{} bytes are right, {} things wrong", self.right_bytes, self.wrong.len())
            .expect("a String grows");
        for line in self.wrong.iter().take(20) {
            writeln!(out, "  {line}").expect("a String grows");
        }
        out
    }

    pub(crate) fn json(&self) -> String {
        let phases = self.phases.iter().map(|phase| {
            let kinds: Vec<Value> = self
                .rows(phase)
                .into_iter()
                .map(|(kind, spread, ratio)| {
                    json!({"operation": kind, "number": spread.operations,
                           "median_s": spread.median.as_secs_f64(), "p99_s": spread.p99.as_secs_f64(),
                           "worst_s": spread.worst.as_secs_f64(), "p99_ratio": ratio})
                })
                .collect();
            json!({"beside": phase.name, "took_s": phase.took.as_secs_f64(), "moved_bytes": phase.moved_bytes,
                   "operations": kinds})
        });
        let phases: Vec<Value> = phases.collect();
        format!("{:#}\n", json!({"phases": phases, "right_bytes": self.right_bytes, "wrong": self.wrong}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &'static str, ms: &[u64]) -> Phase {
        let times =
            Times { reads: ms.iter().copied().map(Duration::from_millis).collect(), writes: Vec::new() };
        Phase { name, took: Duration::from_secs(2), moved_bytes: 200 << 20, times }
    }

    #[test]
    fn each_phase_is_compared_with_the_first() {
        let mut report = Report::default();
        report.add(phase("nothing", &[1, 2, 4, 3]));
        report.add(phase("rebuild", &[6, 1, 1]));
        report.end(Vec::new(), 77);
        let text = report.text();
        assert!(
            text.contains(
                "| rebuild | 2.0 s | 200 | 100 | read 64 KiB | 3 | 1.0 ms | 6.0 ms | 6.0 ms | 1.50 |\n"
            ),
            "{text}"
        );
        assert!(text.contains("77 bytes are right, 0 things wrong") && report.whole(), "{text}");
        report.end(vec!["f1: gone".to_owned()], 0);
        assert!(!report.whole() && report.text().contains("1 things wrong\n  f1: gone\n"));
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["phases"][1]["operations"][0]["p99_ratio"], 1.5);
    }
}
