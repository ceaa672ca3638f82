//! Per-method counters and latency histograms of a server: always on, lock-free, read by snapshot.
//!
//! A histogram has four buckets per doubling from 1 µs to 67 s, so a percentile read from it is at most 25 % off.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::method::Method;
use crate::status::Code;

const STEPS_PER_DOUBLING: usize = 4;
const DOUBLINGS: usize = 26;
const BUCKETS: usize = STEPS_PER_DOUBLING * DOUBLINGS + 1;
const CODES: usize = 15;

/// Names and meanings of everything a server exports.
pub mod defs {
    /// Calls answered, by method and code.
    pub const CALLS: &str = "kuafu_server_calls_total";
    /// Seconds from the frame's arrival to its answer, by method.
    pub const LATENCY: &str = "kuafu_server_latency_seconds";
    /// Message and payload bytes received, by method.
    pub const RECEIVED: &str = "kuafu_server_received_bytes_total";
    /// Message and payload bytes answered, by method.
    pub const SENT: &str = "kuafu_server_sent_bytes_total";
    /// Calls being handled, by method.
    pub const IN_FLIGHT: &str = "kuafu_server_in_flight";
    /// Connections open.
    pub const CONNECTIONS: &str = "kuafu_server_connections";
}

#[derive(Debug)]
pub(crate) struct MethodMetrics {
    codes: [AtomicU64; CODES],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    started: AtomicU64,
    latency_sum_us: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl MethodMetrics {
    pub(crate) fn new() -> Self {
        Self {
            codes: [const { AtomicU64::new(0) }; CODES],
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            started: AtomicU64::new(0),
            latency_sum_us: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    pub(crate) fn start(&self, received_bytes: usize) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(received_bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self, code: Code, sent_bytes: usize, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.codes[code as usize].fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(sent_bytes as u64, Ordering::Relaxed);
        self.latency_sum_us.fetch_add(took_us, Ordering::Relaxed);
        self.latency[bucket(took_us)].fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self, method: Method) -> MethodSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let codes: Vec<u64> = self.codes.iter().map(load).collect();
        MethodSnapshot {
            method,
            received_bytes: load(&self.received_bytes),
            sent_bytes: load(&self.sent_bytes),
            // Read after the codes: never fewer than finished.
            in_flight: load(&self.started).saturating_sub(codes.iter().sum()),
            latency_sum: Duration::from_micros(load(&self.latency_sum_us)),
            latency: self.latency.iter().map(load).collect(),
            codes,
        }
    }
}

/// The bucket of a latency: all of it is at most `bucket_limit_us` of that bucket.
fn bucket(us: u64) -> usize {
    // Below 4 µs a bucket a microsecond; from there on the top three bits of the number choose.
    if us < STEPS_PER_DOUBLING as u64 {
        return us as usize;
    }
    let doubling = us.ilog2() as usize;
    let step = (us >> (doubling - 2)) as usize & (STEPS_PER_DOUBLING - 1);
    (STEPS_PER_DOUBLING * (doubling - 1) + step).min(BUCKETS - 1)
}

/// Exclusive upper end of a bucket.
fn bucket_limit_us(bucket: usize) -> u64 {
    if bucket < STEPS_PER_DOUBLING {
        return bucket as u64 + 1;
    }
    let (doubling, step) = (bucket / STEPS_PER_DOUBLING + 1, bucket % STEPS_PER_DOUBLING);
    ((STEPS_PER_DOUBLING + step + 1) as u64) << (doubling - 2)
}

/// One method's numbers at one moment.
#[derive(Clone, Debug)]
pub struct MethodSnapshot {
    pub method: Method,
    /// Answered calls, indexed by [`Code`].
    pub codes: Vec<u64>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub in_flight: u64,
    pub latency_sum: Duration,
    latency: Vec<u64>,
}

impl MethodSnapshot {
    /// Calls answered.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.codes.iter().sum()
    }

    /// The latency `share` (0 to 1) of the calls stayed below; zero without calls.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let total: u64 = self.latency.iter().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.latency.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(bucket_limit_us(bucket));
            }
        }
        Duration::ZERO
    }
}

/// A server's numbers at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub methods: Vec<MethodSnapshot>,
    pub connections: u64,
}

impl Snapshot {
    pub(crate) fn new<'a>(
        methods: impl Iterator<Item = (Method, &'a MethodMetrics)>,
        connections: u64,
    ) -> Self {
        Self { methods: methods.map(|(method, metrics)| metrics.snapshot(method)).collect(), connections }
    }

    /// In Prometheus' text format. Methods that were never called are left out.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        let called: Vec<_> =
            self.methods.iter().filter(|method| method.calls() + method.in_flight > 0).collect();
        let _ = writeln!(out, "# TYPE {0} gauge\n{0} {1}", defs::CONNECTIONS, self.connections);
        let mut one_each = |name: &str, kind: &str, value: &dyn Fn(&MethodSnapshot) -> u64| {
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for method in &called {
                let _ = writeln!(out, "{name}{{{}}} {}", labels(&method.method), value(method));
            }
        };
        one_each(defs::RECEIVED, "counter", &|method| method.received_bytes);
        one_each(defs::SENT, "counter", &|method| method.sent_bytes);
        one_each(defs::IN_FLIGHT, "gauge", &|method| method.in_flight);
        let _ = writeln!(out, "# TYPE {} counter", defs::CALLS);
        for method in &called {
            for (code, count) in (0..).zip(&method.codes).filter(|(_, count)| **count > 0) {
                let (labels, code) = (labels(&method.method), Code::from_wire(code));
                let _ = writeln!(out, "{}{{{labels},code=\"{code:?}\"}} {count}", defs::CALLS);
            }
        }
        let _ = writeln!(out, "# TYPE {} histogram", defs::LATENCY);
        for method in &called {
            write_histogram(&mut out, method);
        }
        out
    }
}

fn labels(method: &Method) -> String {
    format!("service=\"{}\",method=\"{}\"", method.service, method.name)
}

fn write_histogram(out: &mut String, method: &MethodSnapshot) {
    let (name, labels) = (defs::LATENCY, labels(&method.method));
    let mut sum = 0;
    for (bucket, count) in method.latency.iter().enumerate() {
        sum += count;
        // One line a doubling is enough for graphs.
        if bucket % STEPS_PER_DOUBLING == STEPS_PER_DOUBLING - 1 {
            let limit = bucket_limit_us(bucket) as f64 / 1e6;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{limit}\"}} {sum}");
        }
    }
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {sum}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", method.latency_sum.as_secs_f64());
    let _ = writeln!(out, "{name}_count{{{labels}}} {sum}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_latencies_without_gaps() {
        let mut expected = 0;
        for us in 0..1_000_000u64 {
            let bucket = bucket(us);
            assert!(bucket == expected || bucket == expected + 1, "{us} us: {bucket} after {expected}");
            expected = bucket;
            assert!(us < bucket_limit_us(bucket), "{us} us in bucket {bucket}");
            assert!(
                us == 0 || bucket == 0 || us >= bucket_limit_us(bucket - 1),
                "{us} us in bucket {bucket}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(bucket_limit_us(BUCKETS - 1) > 60_000_000);
    }

    #[test]
    fn snapshot_and_text() {
        let metrics = MethodMetrics::new();
        let method = Method::new("a.B", "C", false);
        for us in 1..=100 {
            metrics.start(10);
            metrics.finish(Code::Ok, 20, Duration::from_micros(us));
        }
        metrics.start(5);
        metrics.finish(Code::Busy, 0, Duration::ZERO);
        metrics.start(0);
        let snapshot = Snapshot::new([(method, &metrics)].into_iter(), 3);
        let of_method = &snapshot.methods[0];
        assert_eq!((of_method.calls(), of_method.in_flight), (101, 1));
        assert_eq!((of_method.received_bytes, of_method.sent_bytes), (1005, 2000));
        let median = of_method.percentile(0.5).as_micros();
        assert!((50..=64).contains(&median), "{median}");
        let text = snapshot.prometheus();
        for line in [
            "kuafu_server_connections 3",
            "kuafu_server_calls_total{service=\"a.B\",method=\"C\",code=\"Ok\"} 100",
            "kuafu_server_calls_total{service=\"a.B\",method=\"C\",code=\"Busy\"} 1",
            "kuafu_server_in_flight{service=\"a.B\",method=\"C\"} 1",
            "kuafu_server_latency_seconds_bucket{service=\"a.B\",method=\"C\",le=\"+Inf\"} 101",
            "kuafu_server_latency_seconds_count{service=\"a.B\",method=\"C\"} 101",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }
}
