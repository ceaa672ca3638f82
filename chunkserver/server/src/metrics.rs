//! The names of all metrics of a chunkserver, and their text for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use chunkserver_core::Stage;

use crate::node::Node;

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) writes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) punches: Counter,
    pub(crate) raises: Counter,
    pub(crate) reads: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) reads_without_lease: Counter,
    pub(crate) replicated: Counter,
    pub(crate) installs: Counter,
    pub(crate) fills: Counter,
    pub(crate) filled_bytes: Counter,
    pub(crate) forwards: Counter,
    pub(crate) activations: Counter,
    pub(crate) deleted: Counter,
    pub(crate) scrubs: Counter,
    pub(crate) scrubbed_bytes: Counter,
    pub(crate) damaged_blocks: Counter,
    pub(crate) repaired_blocks: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) heartbeats_failed: Counter,
}

impl Metrics {
    fn counters(&self) -> [(&'static str, &'static str, &Counter); 20] {
        [
            ("pangu_chunkserver_writes_total", "client writes committed here as primary", &self.writes),
            ("pangu_chunkserver_written_bytes_total", "bytes of them", &self.written_bytes),
            ("pangu_chunkserver_punches_total", "client punches committed here as primary", &self.punches),
            ("pangu_chunkserver_raises_total", "fences of files' data raised here as primary", &self.raises),
            ("pangu_chunkserver_reads_total", "client reads answered", &self.reads),
            ("pangu_chunkserver_read_bytes_total", "bytes of them, whole blocks", &self.read_bytes),
            (
                "pangu_chunkserver_reads_without_lease_total",
                "reads for which the other members were asked",
                &self.reads_without_lease,
            ),
            ("pangu_chunkserver_replicated_total", "writes taken as secondary", &self.replicated),
            ("pangu_chunkserver_installs_total", "chunks copied to members that differed", &self.installs),
            ("pangu_chunkserver_fills_total", "chunks copied to syncing members", &self.fills),
            ("pangu_chunkserver_filled_bytes_total", "bytes of them", &self.filled_bytes),
            ("pangu_chunkserver_forwards_total", "committed writes sent to syncing members", &self.forwards),
            ("pangu_chunkserver_activations_total", "groups activated as primary", &self.activations),
            ("pangu_chunkserver_deleted_total", "data generations deleted, once per group", &self.deleted),
            ("pangu_chunkserver_scrubs_total", "passes over all data of a disk that ended", &self.scrubs),
            ("pangu_chunkserver_scrubbed_bytes_total", "bytes read by them", &self.scrubbed_bytes),
            ("pangu_chunkserver_damaged_blocks_total", "blocks found damaged", &self.damaged_blocks),
            (
                "pangu_chunkserver_repaired_blocks_total",
                "blocks written anew with what another member has",
                &self.repaired_blocks,
            ),
            ("pangu_chunkserver_heartbeats_total", "heartbeats a master answered", &self.heartbeats),
            (
                "pangu_chunkserver_heartbeats_failed_total",
                "heartbeats none answered",
                &self.heartbeats_failed,
            ),
        ]
    }
}

/// All metrics as text.
pub(crate) fn text(node: &Node) -> String {
    let mut out = String::with_capacity(4096);
    for (name, help, counter) in node.metrics.counters() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", counter.get());
    }
    let mut gauge = |name: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let mut by_disk = |name: &str, help: &str, value: &dyn Fn(&crate::disks::Disk) -> u64| {
        let values: Vec<_> = node
            .disks
            .iter()
            .map(|disk| (format!("{{disk=\"{}\"}}", disk.id().map_or(0, |id| id.0)), value(disk)))
            .collect();
        gauge(name, help, &values);
    };
    by_disk("pangu_chunkserver_disk_capacity_bytes", "bytes of data the disk may hold", &|disk| {
        disk.engine.usage().capacity_bytes
    });
    by_disk("pangu_chunkserver_disk_used_bytes", "bytes held by chunks", &|disk| {
        disk.engine.usage().used_bytes
    });
    by_disk("pangu_chunkserver_disk_chunks", "chunks on the disk", &|disk| disk.engine.chunk_count());
    by_disk("pangu_chunkserver_disk_damaged_chunks", "chunks known to be damaged here", &|disk| {
        disk.id().map_or(0, |id| node.repairs.damaged(id) as u64)
    });
    by_disk(
        "pangu_chunkserver_disk_unreadable_total",
        "reads of data that the disk did not give back",
        &|disk| disk.engine.stats().unreadable,
    );
    by_disk("pangu_chunkserver_disk_scrub_began_seconds", "when the pass began, since 1970", &|disk| {
        disk.scrub.get().began_ms / 1000
    });
    by_disk(
        "pangu_chunkserver_disk_scrub_ended_seconds",
        "when the last pass ended, since 1970; 0: none has",
        &|disk| disk.scrub.get().last_ended_ms / 1000,
    );
    by_disk(
        "pangu_chunkserver_disk_write_latency_microseconds",
        "what a durable write takes, of late; 0: nothing was written",
        &|disk| {
            disk.engine.write_latency().map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
        },
    );
    by_disk(
        "pangu_chunkserver_disk_errors",
        "blocks found damaged and repaired within the last day",
        &|disk| disk.errors.recent(),
    );
    by_disk("pangu_chunkserver_disk_failed", "1 if the disk is out", &|disk| u64::from(disk.failed()));
    let replicas = node.replicas();
    let count = |wanted: &dyn Fn(&crate::group::Group) -> bool| {
        replicas.iter().filter(|group| wanted(group)).count() as u64
    };
    let label = |state: &str| format!("{{state=\"{state}\"}}");
    let states = [
        (label("active"), count(&|group| group.stage() == Stage::Active)),
        (label("syncing"), count(&|group| group.stage() == Stage::Syncing)),
        (label("preparing"), count(&|group| group.stage() == Stage::Preparing)),
        (label("primary"), count(&|group| group.is_primary())),
    ];
    gauge("pangu_chunkserver_groups", "groups with a member here; primary ones are counted twice", &states);
    let backlog = replicas.iter().map(|group| group.backlog() as u64).sum();
    let behind = replicas.iter().map(|group| group.behind() as u64).sum();
    let help = "chunks that members filled from here are known to be behind";
    gauge("pangu_chunkserver_chunks_behind", help, &[(String::new(), behind)]);
    gauge("pangu_chunkserver_writes_in_flight", "writes ordered or waiting", &[(String::new(), backlog)]);
    out
}
