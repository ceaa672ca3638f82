//! Events in any order, true or not: the job does not panic, its counts fit, records come first, and its journal says what it knows.

use proptest::prelude::*;
use sched_job::{
    AttemptId, Dependency, Effect, Event, Finished, Job, LossReason, NodeName, Outcome, Plan, Promotion,
    Record, Settings, TaskId, TaskPlan, Time, UnitId, WorkerId,
};

fn plan() -> Plan {
    let task = |id: u32, instances, after| TaskPlan {
        id: TaskId(id),
        name: format!("t{id}"),
        instances,
        unit: UnitId(id % 2),
        after,
        attempts_max: 3,
        failures_allowed: 1,
        timeout_ms: Some(20_000),
        backup: true,
        parallel_max: (id == 0).then_some(2),
        preferred: None,
    };
    let barrier = vec![Dependency::Barrier(TaskId(0)), Dependency::Barrier(TaskId(1))];
    let mut piped = task(3, 2, vec![Dependency::Pipe(TaskId(2))]);
    piped.unit = UnitId(0);
    Plan { tasks: vec![task(0, 5, vec![]), task(1, 3, vec![]), task(2, 2, barrier), piped] }
}

fn attempt() -> impl Strategy<Value = AttemptId> {
    (0_u32..5, 0_u32..6, prop_oneof![8 => 0_u32..4, 1 => 10_000_u32..10_004, 1 => any::<u32>()])
        .prop_map(|(task, instance, attempt)| AttemptId { task: TaskId(task), instance, attempt })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        12 => (0_u32..3).prop_map(|outputs| Outcome::Ok { outputs, bytes: u64::from(outputs) }),
        1 => (1..5).prop_map(Outcome::Exit),
        1 => (1..20).prop_map(Outcome::Signal),
        1 => Just(Outcome::Timeout),
        2 => (0_u32..6, 0_u32..6).prop_map(|(task, instance)| Outcome::LostInput { task: TaskId(task), instance }),
        1 => Just(Outcome::OutOfMemory),
        1 => Just(Outcome::Machine),
        2 => Just(Outcome::Cancelled),
    ]
}

fn report() -> impl Strategy<Value = Finished> {
    (attempt(), outcome(), 0_u64..20_000).prop_map(|(attempt, outcome, ran_ms)| Finished {
        attempt,
        outcome,
        ran_ms,
        message: "ü".repeat(600),
    })
}

fn event() -> impl Strategy<Value = Event> {
    let worker = (0_u64..6).prop_map(WorkerId);
    let place = (0_u64..6, 0_u32..2, 0_u32..3)
        .prop_map(|(worker, unit, n)| (WorkerId(worker), UnitId(unit), NodeName::new(&format!("n{n}"))));
    let many = || prop::collection::vec(attempt(), 0..5);
    prop_oneof![
        1 => place.clone().prop_map(|(worker, unit, node)| Event::Granted { worker, unit, node }),
        1 => Just(Event::GrantsComplete),
        1 => worker.clone().prop_map(|worker| Event::Revoked { worker }),
        4 => place.clone().prop_map(|(worker, unit, node)| Event::WorkerJoined { worker, unit, node }),
        1 => worker.clone().prop_map(|worker| Event::WorkerLost { worker, reason: LossReason::NodeLost }),
        2 => (place, many(), prop::collection::vec(report(), 0..4)).prop_map(|((worker, unit, node), running, finished)| {
            Event::Adopted { worker, unit, node, running, finished }
        }),
        2 => (worker.clone(), many()).prop_map(|(worker, attempts)| Event::Holds { worker, attempts }),
        8 => (worker.clone(), 0_u32..4).prop_map(|(worker, room)| Event::Pull { worker, room }),
        3 => (worker.clone(), attempt(), any::<u32>())
            .prop_map(|(worker, attempt, done_ppm)| Event::Progress { worker, attempt, done_ppm }),
        20 => (worker, report()).prop_map(|(worker, report)| Event::Finished { worker, report }),
        10 => (attempt(), any::<bool>()).prop_map(|(attempt, there)| {
            let result = if there { Promotion::Placed } else { Promotion::Missing };
            Event::Promoted { attempt, result }
        }),
        6 => Just(Event::Tick),
        1 => Just(Event::Pause),
        3 => Just(Event::Resume),
    ]
}

/// What the journal must know: what is done or being put in place, and what failed for good.
fn known(job: &Job) -> Vec<(u32, u32)> {
    job.progress().iter().map(|p| (p.done, p.failed)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn nothing_it_is_told_breaks_a_job(events in prop::collection::vec((event(), 0_u64..4_000), 0..250)) {
        let mut job = Job::new(plan(), Settings::default(), Time(0)).expect("the plan is sound");
        let mut records: Vec<Record> = Vec::new();
        let mut now = 0;
        for (event, after_ms) in events {
            now += after_ms;
            job.handle(Time(now), event);
            for (progress, task) in job.progress().iter().zip(plan().tasks) {
                prop_assert_eq!(progress.waiting + progress.running + progress.done + progress.failed, task.instances);
            }
            let mut others = 0;
            for effect in job.drain() {
                match effect {
                    Effect::Append(more) => {
                        prop_assert_eq!(others, 0, "records come first");
                        records.extend(more);
                    }
                    _ => others += 1,
                }
            }
            prop_assert!(!job.why().is_empty());
        }
        let recovered = Job::recover(plan(), Settings::default(), &records, Time(now)).expect("its own records fit");
        prop_assert_eq!(known(&recovered), known(&job));
    }
}
