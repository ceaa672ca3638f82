//! How many instances of `true` two workers run in a second, beside what two threads of posix_spawn and wait do on the same machine.
//!
//! `cargo bench -p sched-worker --bench spawn_rate -- INSTANCES`. Both are measured in turns, three times, since other load on the machine
//! changes what either can do; the ratio is the figure.
#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::time::Instant;

use common::{Job, Process, Serving};
use sched_api::proto::Outcome;
use sched_worker::spawn::{Start, Strings, reap, spawn, wait_ended};

fn main() {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10_000u32);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..3 {
        let floor = floor(count);
        let (rate, pulls) = runtime.block_on(workers(count));
        println!(
            "{count} x true: floor {floor:.0}/s, two workers {rate:.0}/s, ratio {:.2}, {pulls} requests",
            rate / floor
        );
    }
}

/// Two threads that do nothing but spawn and wait.
fn floor(count: u32) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
                let mut arguments = Strings::default();
                arguments.push(CString::new("true").unwrap());
                let mut environment = Strings::default();
                for _ in 0..count / 2 {
                    let start = Start {
                        program: c"/bin/true",
                        arguments: &mut arguments,
                        environment: &mut environment,
                        directory: None,
                        stdin: null.as_fd(),
                        output: null.as_fd(),
                    };
                    let pid = spawn(start).unwrap();
                    wait_ended(pid).unwrap();
                    reap(pid).unwrap();
                }
            });
        }
    });
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// From the first instance that is given to the last result that is told.
async fn workers(count: u32) -> (f64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::new();
    let spec = serde_json::json!({
        "name": "null", "kind": { "command": ["true"] }, "instances": null, "inputs": [], "split": "file",
        "outputs": [], "resources": {}, "attempts": 3, "failures_allowed": 0, "timeout_ms": null, "env": {},
        "after": [], "backup": false, "parallel_max": null
    });
    job.task(0, &spec.to_string());
    let serving = Serving::job_master(&job, dir.path().join("jm.sock")).await;
    let settings = [("FUXI_JOB_MASTER", serving.address.to_string())];
    let _workers = [1, 2].map(|grant| Process::start(dir.path(), grant, &settings));
    // One for each that nobody counts, so that both are at work.
    job.instances(0, count..count + 2);
    job.results(2).await;
    let begun = Instant::now();
    job.instances(0, 0..count);
    let all = count as usize + 2;
    while job.book.lock().results.len() < all {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    let book = job.book.lock();
    assert!(book.results.values().all(|result| result.outcome() == Outcome::Ok));
    (rate, book.pulls)
}
