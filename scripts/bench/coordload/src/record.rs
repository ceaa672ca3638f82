//! What a measurement found, as a line of JSON.

use std::fs::read_to_string;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::closed::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreName {
    Nuwa,
    Etcd,
    Zookeeper,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub(crate) enum Record {
    Closed(Closed),
    Watch(Watch),
    Kill(Kill),
}

/// A closed loop of one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) op: Op,
    pub(crate) in_flight: usize,
    pub(crate) connections: usize,
    pub(crate) value_bytes: usize,
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) failed: u64,
    /// Keys that did not have what was acknowledged.
    pub(crate) lost: u64,
    pub(crate) server_cpu_s_per_1000: f64,
    pub(crate) server_cores: f64,
    pub(crate) client_cores: f64,
    pub(crate) rss_mib: f64,
}

/// One writer, many watchers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) watchers: usize,
    pub(crate) connections: usize,
    pub(crate) puts: usize,
    pub(crate) lost: u64,
    /// Until the last watcher has a change, from when it was sent.
    pub(crate) last_p50_ms: f64,
    pub(crate) last_p99_ms: f64,
    /// The same from when it was acknowledged.
    pub(crate) last_after_ack_p50_ms: f64,
    pub(crate) last_after_ack_p99_ms: f64,
    pub(crate) put_p99_ms: f64,
    pub(crate) server_cpu_s_per_million: f64,
    pub(crate) server_cores: f64,
    pub(crate) client_cores: f64,
    pub(crate) rss_mib: f64,
}

/// One kill of the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kill {
    /// The longest time without an acknowledgement to anybody.
    pub(crate) gap_ms: f64,
    /// To the client that had the longest.
    pub(crate) worst_client_gap_ms: f64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) store: StoreName,
    #[serde(flatten)]
    pub(crate) record: Record,
}

impl Record {
    pub(crate) fn print(self, store: StoreName) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(&Line { store, record: self })?);
        Ok(())
    }
}

pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in files {
        let text = read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line);
            lines.push(line.with_context(|| format!("{}:{}", file.display(), number + 1))?);
        }
    }
    Ok(lines)
}

/// Latencies.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // Microseconds up to two minutes, three digits.
        Self(Histogram::new_with_bounds(1, 120_000_000, 3).expect("these bounds are valid"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}
