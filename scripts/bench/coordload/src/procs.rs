//! CPU and memory of processes, from /proc.

use std::fs::read_to_string;

/// Of `/proc/PID/stat`; the kernel's interface has had it so for ever.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) struct Procs(pub(crate) Vec<u32>);

impl Procs {
    /// Seconds of CPU (user and system) since each began, summed.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.0.iter().map(|pid| cpu_s(&format!("/proc/{pid}/stat"))).sum()
    }

    /// Resident memory now, summed.
    pub(crate) fn rss_mib(&self) -> f64 {
        self.0.iter().map(|pid| rss_mib(*pid)).sum()
    }
}

/// Of this process.
pub(crate) fn own_cpu_s() -> f64 {
    cpu_s("/proc/self/stat")
}

fn cpu_s(path: &str) -> f64 {
    let stat = read_to_string(path).unwrap_or_default();
    // The second field is the program's name in parentheses; utime and stime are fields 14 and 15.
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = behind_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn rss_mib(pid: u32) -> f64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
