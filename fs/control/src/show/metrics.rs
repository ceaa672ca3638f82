//! `metrics`: a mount's own numbers, as Prometheus text.

use std::fmt::Write as _;

use fs_client::Usage;

/// Each with its help text; all are gauges but the last two.
const BUDGET: (&str, &str) =
    ("pangu_mount_memory_budget_bytes", "Memory for written data on its way to the chunkservers");
const TAKEN: (&str, &str) = ("pangu_mount_memory_used_bytes", "Of that, taken");
const OPEN: (&str, &str) = ("pangu_mount_open_handles", "Open files and directories");
const PINNED: (&str, &str) = ("pangu_mount_inodes_in_use", "Files that are open or have data on its way");
const DATA_ERRORS: (&str, &str) = ("pangu_mount_data_errors", "Records in the errors file");
const OPS: (&str, &str) = ("pangu_mount_operations_total", "Operations asked for by the kernel, by kind");
const FAILED: (&str, &str) = ("pangu_mount_operations_failed_total", "Of those, answered with an error");

/// `ops`: kind, asked for, failed.
#[must_use]
pub fn metrics(usage: &Usage, data_errors: usize, ops: &[(&str, u64, u64)]) -> String {
    let mut out = String::with_capacity(2048);
    let head = |out: &mut String, (name, help): (&str, &str), kind: &str| {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String grows");
    };
    let gauges = [
        (BUDGET, usage.memory_budget_bytes),
        (TAKEN, usage.memory_used_bytes),
        (OPEN, usage.open_handles),
        (PINNED, usage.inodes_in_use),
        (DATA_ERRORS, data_errors as u64),
    ];
    for (def, value) in gauges {
        head(&mut out, def, "gauge");
        writeln!(out, "{} {value}", def.0).expect("a String grows");
    }
    for (def, which) in [(OPS, 0), (FAILED, 1)] {
        head(&mut out, def, "counter");
        for (kind, asked, failed) in ops {
            let value = if which == 0 { asked } else { failed };
            writeln!(out, "{}{{op=\"{kind}\"}} {value}", def.0).expect("a String grows");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_a_line_for_each_kind() {
        let usage =
            Usage { memory_budget_bytes: 100, memory_used_bytes: 7, open_handles: 2, inodes_in_use: 1 };
        let text = metrics(&usage, 3, &[("read", 5, 1), ("write", 6, 0)]);
        for line in [
            "\npangu_mount_memory_used_bytes 7\n",
            "\npangu_mount_data_errors 3\n",
            "# TYPE pangu_mount_operations_total counter\n",
            "\npangu_mount_operations_total{op=\"write\"} 6\n",
            "\npangu_mount_operations_failed_total{op=\"read\"} 1\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
