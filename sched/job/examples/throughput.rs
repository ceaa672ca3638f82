//! How long the state machine takes for one instance of an array, from its assignment to the journal's bytes:
//! `cargo run --release -p sched-job --example throughput [INSTANCES]`, through two workers with batches of 64.

use std::time::Instant;

use sched_job::{
    AttemptId, Effect, Event, Finished, Job, NodeName, Outcome, Plan, Settings, TaskId, TaskPlan, Time,
    UnitId, WorkerId, journal,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instances = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let task = TaskPlan {
        id: TaskId(0),
        name: "array".to_owned(),
        instances,
        unit: UnitId(0),
        after: vec![],
        attempts_max: 3,
        failures_allowed: 0,
        timeout_ms: None,
        backup: true,
        parallel_max: None,
        preferred: None,
    };
    let began = Instant::now();
    let mut job = Job::new(Plan { tasks: vec![task] }, Settings::default(), Time(0))?;
    let mut held: [Vec<AttemptId>; 2] = [vec![], vec![]];
    for worker in 0..2 {
        let node = NodeName::new("n");
        job.handle(Time(0), Event::WorkerJoined { worker: WorkerId(worker), unit: UnitId(0), node });
    }
    let (mut now, mut calls, mut bytes) = (0, 0_u64, 0);
    while job.ended().is_none() {
        for (worker, held) in held.iter_mut().enumerate() {
            now += 1;
            calls += 1;
            let worker = WorkerId(worker as u64);
            for attempt in held.drain(..) {
                let outcome = Outcome::Ok { outputs: 0, bytes: 10 };
                let report = Finished { attempt, outcome, ran_ms: 1, message: String::new() };
                job.handle(Time(now), Event::Finished { worker, report });
            }
            job.handle(Time(now), Event::Holds { worker, attempts: vec![] });
            job.handle(Time(now), Event::Pull { worker, room: 64 });
            for effect in job.drain() {
                match effect {
                    Effect::Append(records) => bytes += journal::frame(0, &records).len(),
                    Effect::Assign { attempts, .. } => held.extend(attempts),
                    _ => {}
                }
            }
        }
    }
    let took = began.elapsed();
    println!(
        "{instances} instances, {calls} calls: {:?} in all, {} ns an instance, {bytes} bytes of journal",
        took,
        took.as_nanos() / u128::from(instances.max(1))
    );
    Ok(())
}
