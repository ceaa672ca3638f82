//! The figures as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::fault::Fault;
use crate::round::Stall;
use crate::system::PANGU;

/// What came of one system.
#[derive(Debug)]
pub(crate) struct Outcome {
    system: String,
    stalls: Vec<(Fault, Stall)>,
    errors: Vec<String>,
    wrong: Vec<String>,
    right: usize,
}

impl Outcome {
    pub(crate) fn new(system: &str) -> Self {
        Self {
            system: system.to_owned(),
            stalls: Vec::new(),
            errors: Vec::new(),
            wrong: Vec::new(),
            right: 0,
        }
    }

    pub(crate) fn add(&mut self, fault: Fault, stall: Stall) {
        self.stalls.push((fault, stall));
    }

    /// What the writers met and what was found at the end.
    pub(crate) fn end(&mut self, errors: Vec<String>, wrong: Vec<String>, right: usize) {
        (self.errors, self.wrong, self.right) = (errors, wrong, right);
    }

    fn of(&self, fault: Fault) -> Option<Figures> {
        let of = |which: fn(&Stall) -> Duration| {
            let mut all: Vec<_> =
                self.stalls.iter().filter(|(of, _)| *of == fault).map(|(_, stall)| which(stall)).collect();
            all.sort_unstable();
            all
        };
        let (at_fault, back) = (of(|stall| stall.fault), of(|stall| stall.back));
        let worst = *at_fault.last()?;
        let median = at_fault[at_fault.len() / 2];
        let alone = self.stalls.iter().filter(|(of, stall)| *of == fault && stall.alone).count();
        Some(Figures {
            rounds: at_fault.len(),
            alone,
            median,
            worst,
            back_median: back[back.len() / 2],
            back_worst: back[back.len() - 1],
        })
    }

    /// Within the limits, without errors, and nothing lost.
    fn kept(&self) -> bool {
        let in_time = |fault| {
            self.of(fault)
                .is_none_or(|f| f.alone == f.rounds && f.worst.max(f.back_worst) <= Fault::limit(fault))
        };
        Fault::ALL.into_iter().all(in_time) && self.errors.is_empty() && self.wrong.is_empty()
    }
}

struct Figures {
    rounds: usize,
    /// Rounds in which programs went on without the server.
    alone: usize,
    median: Duration,
    worst: Duration,
    back_median: Duration,
    back_worst: Duration,
}

/// All systems.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Outcome>);

impl Report {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.0.push(outcome);
    }

    /// Whether Pangu did what it promises, if it was measured.
    pub(crate) fn kept(&self) -> bool {
        self.0.iter().filter(|outcome| outcome.system == PANGU).all(Outcome::kept)
    }

    /// Markdown: a table, then what each system lost.
    pub(crate) fn text(&self) -> String {
        let mut out = "| fault | system | rounds | went on without the server | longest operation: median | worst | at the return: median | worst | limit |\n\
                       | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            .to_owned();
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        for fault in Fault::ALL {
            for outcome in &self.0 {
                let Some(found) = outcome.of(fault) else { continue };
                let limit = if outcome.system == PANGU { ms(fault.limit()) } else { "-".to_owned() };
                writeln!(
                    out,
                    "| {fault} | {} | {} | {} | {} | {} | {} | {} | {limit} |",
                    outcome.system,
                    found.rounds,
                    found.alone,
                    ms(found.median),
                    ms(found.worst),
                    ms(found.back_median),
                    ms(found.back_worst),
                )
                .expect("a String grows");
            }
        }
        for Outcome { system, errors, wrong, right, .. } in &self.0 {
            writeln!(
                out,
                "\n{system}: {} errors reached programs; {right} files and blocks that were confirmed are right, {} wrong",
                errors.len(),
                wrong.len()
            )
            .expect("a String grows");
            for line in errors.iter().chain(wrong).take(20) {
                writeln!(out, "  {line}").expect("a String grows");
            }
        }
        out
    }

    pub(crate) fn json(&self) -> String {
        let outcomes = self.0.iter().map(|outcome| {
            let stalls = outcome.stalls.iter().map(|(fault, stall)| {
                json!({"fault": fault.to_string(), "stall_s": stall.fault.as_secs_f64(), "return_s": stall.back.as_secs_f64(),
                       "went_on": stall.alone})
            });
            json!({"system": outcome.system, "rounds": stalls.collect::<Vec<_>>(), "errors": outcome.errors,
                   "wrong": outcome.wrong, "right": outcome.right})
        });
        format!("{:#}\n", json!(outcomes.collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(system: &str, stalls: &[(u64, u64)]) -> Outcome {
        let mut outcome = Outcome::new(system);
        for (fault, back) in stalls {
            let (fault, back) = (Duration::from_millis(*fault), Duration::from_millis(*back));
            outcome.add(Fault::Kill, Stall { fault, back, alone: fault.as_secs() < 30 });
        }
        outcome.end(Vec::new(), Vec::new(), 7);
        outcome
    }

    #[test]
    fn median_and_worst_of_each() {
        let mut report = Report::default();
        report.add(outcome(PANGU, &[(30, 1), (900, 2), (20, 3)]));
        report.add(outcome("other", &[(5000, 0), (32_000, 33_000)]));
        let text = report.text();
        assert!(
            text.contains(
                "| chunkserver killed | pangu | 3 | 3 | 30 ms | 900 ms | 2 ms | 3 ms | 1000 ms |\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "| chunkserver killed | other | 2 | 1 | 32000 ms | 32000 ms | 33000 ms | 33000 ms | - |\n"
            ),
            "{text}"
        );
        assert!(text.contains("other: 0 errors reached programs; 7 files"), "{text}");
        assert!(report.kept(), "the limits are Pangu's");
    }

    #[test]
    fn a_limit_an_error_or_a_loss_fails() {
        let kept = |outcome| {
            let mut report = Report::default();
            report.add(outcome);
            report.kept()
        };
        assert!(kept(outcome(PANGU, &[(1000, 1000)])));
        assert!(!kept(outcome(PANGU, &[(1001, 0)])));
        assert!(!kept(outcome(PANGU, &[(0, 1001)])));
        let mut failed = outcome(PANGU, &[(1, 1)]);
        failed.end(vec!["EIO".to_owned()], Vec::new(), 0);
        assert!(!kept(failed));
        let mut lost = outcome(PANGU, &[(1, 1)]);
        lost.end(Vec::new(), vec!["f1: gone".to_owned()], 0);
        assert!(!kept(lost));
    }
}
