//! Measurements as Markdown: a row for each thing, medians, and how Nuwa stands to the better of the others.

use std::fmt::Write as _;

use crate::closed::Op;
use crate::record::{Closed, Kill, Line, Record, StoreName, Watch};

const STORES: [(StoreName, &str); 3] =
    [(StoreName::Nuwa, "Nuwa"), (StoreName::Etcd, "etcd"), (StoreName::Zookeeper, "ZooKeeper")];

/// Puts with that many in flight or more are to be [`PUTS_GOAL`] times as many as the better peer's.
const MANY_IN_FLIGHT: usize = 64;
const PUTS_GOAL: f64 = 2.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

/// One thing that was measured.
struct Row {
    name: String,
    better: Better,
    /// How many times as good as the better peer Nuwa is to be.
    goal: Option<f64>,
    digits: usize,
    /// As in [`STORES`].
    values: [Vec<f64>; 3],
}

pub(crate) fn markdown(lines: &[Line]) -> String {
    let mut page = String::from(
        "| | Nuwa | etcd | ZooKeeper | Nuwa to the better peer | goal |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let mut rows = closed_rows(lines);
    rows.extend(watch_rows(lines));
    rows.extend(kill_rows(lines));
    for row in rows.iter().filter(|row| row.goal.is_some()) {
        row.write(&mut page);
    }
    page += "\nBeside them:\n\n| | Nuwa | etcd | ZooKeeper | Nuwa to the better peer |\n| --- | ---: | ---: | ---: | ---: |\n";
    for row in rows.iter().filter(|row| row.goal.is_none()) {
        row.write(&mut page);
    }
    page += "\n| checked | Nuwa | etcd | ZooKeeper |\n| --- | ---: | ---: | ---: |\n";
    for (name, count) in sums() {
        let cells = STORES.map(|(store, _)| grouped(of(lines, store).map(count).sum::<u64>() as f64, 0));
        writeln!(page, "| {name} | {} |", cells.join(" | ")).expect("a string takes all");
    }
    page
}

fn closed_rows(lines: &[Line]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (op, name) in
        [(Op::Put, "durable puts"), (Op::Get, "linearizable reads"), (Op::GetStale, "stale reads")]
    {
        let mut in_flight: Vec<usize> = closed(lines, op).map(|(_, found)| found.in_flight).collect();
        in_flight.sort_unstable();
        in_flight.dedup();
        for count in in_flight {
            let row = |what: &str, better, goal, digits, value: fn(&Closed) -> f64| Row {
                name: what.replace("{}", name) + &format!(", {count} in flight"),
                better,
                goal,
                digits,
                values: STORES.map(|(store, _)| {
                    let found =
                        closed(lines, op).filter(|(of, found)| *of == store && found.in_flight == count);
                    found.map(|(_, found)| value(found)).collect()
                }),
            };
            let puts = op == Op::Put;
            let goal = if puts && count >= MANY_IN_FLIGHT { PUTS_GOAL } else { 1.0 };
            rows.push(row("{}/s", Better::Higher, Some(goal), 0, |found| found.per_s));
            let cpu_goal = puts.then_some(1.0);
            let cpu = |found: &Closed| found.server_cpu_s_per_1000;
            rows.push(row("CPU-s of the servers per 1,000 {}", Better::Lower, cpu_goal, 4, cpu));
            rows.push(row("{}: p50 ms", Better::Lower, None, 2, |found| found.p50_ms));
            rows.push(row("{}: p99 ms", Better::Lower, None, 2, |found| found.p99_ms));
            if puts {
                rows.push(row("{}: memory of the servers, MiB", Better::Lower, None, 0, |found| {
                    found.rss_mib
                }));
            }
        }
    }
    rows
}

fn watch_rows(lines: &[Line]) -> Vec<Row> {
    let watches = || {
        lines.iter().filter_map(|line| match &line.record {
            Record::Watch(found) => Some((line.store, found)),
            Record::Closed(_) | Record::Kill(_) => None,
        })
    };
    let mut connections: Vec<usize> = watches().map(|(_, found)| found.connections).collect();
    connections.sort_unstable();
    connections.dedup();
    let mut rows = Vec::new();
    for count in connections {
        let watchers = watches().map(|(_, found)| found.watchers).max().unwrap_or_default();
        let row = |what: &str, goal, digits, value: fn(&Watch) -> f64| Row {
            name: format!(
                "{} watchers on {} connections: {what}",
                grouped(watchers as f64, 0),
                grouped(count as f64, 0)
            ),
            better: Better::Lower,
            goal,
            digits,
            values: STORES.map(|(store, _)| {
                let found = watches().filter(|(of, found)| *of == store && found.connections == count);
                found.map(|(_, found)| value(found)).collect()
            }),
        };
        rows.push(row("last delivery p99 ms", Some(1.0), 2, |found| found.last_p99_ms));
        rows.push(row("last delivery p50 ms", None, 2, |found| found.last_p50_ms));
        rows.push(row("last delivery after the acknowledgement, p50 ms", None, 2, |found| {
            found.last_after_ack_p50_ms
        }));
        rows.push(row("last delivery after the acknowledgement, p99 ms", None, 2, |found| {
            found.last_after_ack_p99_ms
        }));
        rows.push(row("put p99 ms", None, 2, |found| found.put_p99_ms));
        rows.push(row("CPU-s of the servers per 1,000,000 deliveries", None, 2, |found| {
            found.server_cpu_s_per_million
        }));
        rows.push(row("cores of the servers", None, 2, |found| found.server_cores));
        rows.push(row("cores of the load", None, 2, |found| found.client_cores));
    }
    rows
}

fn kill_rows(lines: &[Line]) -> Vec<Row> {
    let row = |name: &str, goal, value: fn(&Kill) -> f64| Row {
        name: name.to_owned(),
        better: Better::Lower,
        goal,
        digits: 0,
        values: STORES.map(|(store, _)| {
            let kills = of(lines, store).filter_map(|record| match record {
                Record::Kill(found) => Some(found),
                Record::Closed(_) | Record::Watch(_) => None,
            });
            kills.map(value).collect()
        }),
    };
    let rows = [
        row("gap in acknowledged writes after kill -9 of the leader, ms", Some(1.0), |found| found.gap_ms),
        row("the same for the client that felt it most, ms", None, |found| found.worst_client_gap_ms),
        row("writes that failed, a kill", None, |found| found.failed as f64),
    ];
    rows.into_iter().filter(|row| row.values.iter().any(|values| !values.is_empty())).collect()
}

type Count = fn(&Record) -> u64;

fn sums() -> [(&'static str, Count); 5] {
    [
        ("kills", |record| u64::from(matches!(record, Record::Kill(_)))),
        ("acknowledged writes read back after kills", |record| match record {
            Record::Kill(found) => found.acknowledged,
            Record::Closed(_) | Record::Watch(_) => 0,
        }),
        ("acknowledged writes lost", |record| match record {
            Record::Kill(found) => found.lost,
            Record::Closed(found) => found.lost,
            Record::Watch(_) => 0,
        }),
        ("events lost by watchers", |record| match record {
            Record::Watch(found) => found.lost,
            Record::Kill(_) | Record::Closed(_) => 0,
        }),
        ("calls that failed while nothing was killed", |record| match record {
            Record::Closed(found) => found.failed,
            Record::Kill(_) | Record::Watch(_) => 0,
        }),
    ]
}

fn of(lines: &[Line], store: StoreName) -> impl Iterator<Item = &Record> {
    lines.iter().filter(move |line| line.store == store).map(|line| &line.record)
}

fn closed(lines: &[Line], op: Op) -> impl Iterator<Item = (StoreName, &Closed)> {
    lines.iter().filter_map(move |line| match &line.record {
        Record::Closed(found) if found.op == op => Some((line.store, found)),
        Record::Closed(_) | Record::Watch(_) | Record::Kill(_) => None,
    })
}

impl Row {
    fn write(&self, page: &mut String) {
        let cells = self.values.each_ref().map(|values| self.cell(values));
        let ratio = self.ratio();
        let ratio_cell = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
        write!(page, "| {} | {} | {ratio_cell} |", self.name, cells.join(" | ")).expect("a string takes all");
        match self.goal {
            Some(goal) if ratio.is_some_and(|ratio| ratio < goal) => {
                *page += &format!(" {goal}x: **missed** |\n")
            }
            Some(goal) => *page += &format!(" {goal}x |\n"),
            None => *page += "\n",
        }
    }

    fn cell(&self, values: &[f64]) -> String {
        let Some(middle) = median(values) else { return "-".to_owned() };
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let text = |value| grouped(value, self.digits);
        if values.len() == 1 {
            text(middle)
        } else {
            format!("{} ({}-{})", text(middle), text(low), text(high))
        }
    }

    /// How many times as good as the better peer Nuwa is.
    fn ratio(&self) -> Option<f64> {
        let [ours, etcd, zookeeper] = self.values.each_ref().map(|values| median(values));
        let peers = etcd.into_iter().chain(zookeeper);
        match self.better {
            Better::Higher => Some(ours? / peers.reduce(f64::max)?),
            Better::Lower => Some(peers.reduce(f64::min)? / ours?),
        }
        .filter(|ratio| ratio.is_finite())
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// With a comma between thousands.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or_else(|| grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts(store: &str, per_s: f64) -> Line {
        let line = format!(
            r#"{{"store":"{store}","mode":"closed","op":"put","in_flight":64,"connections":12,"value_bytes":256,
            "per_s":{per_s},"p50_ms":1.0,"p99_ms":2.0,"failed":1,"lost":0,"server_cpu_s_per_1000":0.5,
            "server_cores":1.0,"client_cores":0.5,"rss_mib":100.0}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn compares_medians_with_the_better_peer() {
        let nuwa = [3900.0, 1000.0, 4100.0].map(|per_s| puts("nuwa", per_s));
        let peers = [puts("etcd", 1000.0), puts("zookeeper", 2000.0), puts("zookeeper", 2100.0)];
        let page = markdown(&[nuwa.as_slice(), &peers].concat());
        let row = "| durable puts/s, 64 in flight | 3,900 (1,000-4,100) | 1,000 | 2,050 (2,000-2,100) | 1.90x | 2x: **missed** |";
        assert!(page.contains(row), "{page}");
        let row = "| CPU-s of the servers per 1,000 durable puts, 64 in flight | 0.5000 (0.5000-0.5000) | 0.5000 | 0.5000 (0.5000-0.5000) | 1.00x | 1x |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("| calls that failed while nothing was killed | 3 | 1 | 2 |"), "{page}");
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        let page = markdown(&[puts("nuwa", 5.0)]);
        assert!(page.contains("| durable puts/s, 64 in flight | 5 | - | - | - | 2x |"), "{page}");
    }

    #[test]
    fn numbers() {
        assert_eq!((grouped(1_234_567.0, 0), grouped(999.0, 0)), ("1,234,567".to_owned(), "999".to_owned()));
        assert_eq!((grouped(1234.5, 2), grouped(0.1234, 4)), ("1,234.50".to_owned(), "0.1234".to_owned()));
        assert_eq!(
            (median(&[3.0, 1.0]), median(&[]), median(&[5.0, 1.0, 2.0])),
            (Some(2.0), None, Some(2.0))
        );
    }
}
