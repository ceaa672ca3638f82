//! One rule a test, by plain calls: what goes in, and which effects come out.

use sched_job::{
    AttemptId, Dependency, Effect, Event, Finished, Job, JobOutcome, NodeName, Outcome, Plan, PlanError,
    Preferences, Promotion, Record, Settings, TaskId, TaskPlan, Time, UnitId, WorkerId,
};

fn task(id: u32, instances: u32, after: Vec<Dependency>) -> TaskPlan {
    TaskPlan {
        id: TaskId(id),
        name: format!("t{id}"),
        instances,
        unit: UnitId(1),
        after,
        attempts_max: 3,
        failures_allowed: 0,
        timeout_ms: None,
        backup: true,
        parallel_max: None,
        preferred: None,
    }
}

fn node(n: u64) -> NodeName {
    NodeName::new(&format!("n{n}"))
}

/// A job whose time stands still until a test moves it.
struct Bench {
    job: Job,
    now: u64,
    records: Vec<Record>,
}

impl Bench {
    fn new(tasks: Vec<TaskPlan>) -> Bench {
        let job = Job::new(Plan { tasks }, Settings::default(), Time(0)).expect("the plan is sound");
        let mut bench = Bench { job, now: 0, records: Vec::new() };
        bench.drain();
        bench
    }

    fn drain(&mut self) -> Vec<Effect> {
        let effects = self.job.drain();
        let first_other = effects.iter().position(|effect| !matches!(effect, Effect::Append(_)));
        for (at, effect) in effects.iter().enumerate() {
            if let Effect::Append(records) = effect {
                assert!(first_other.is_none_or(|other| at < other), "records come first: {effects:?}");
                self.records.extend(records.clone());
            }
        }
        effects
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.job.handle(Time(self.now), event);
        self.drain()
    }

    fn tick(&mut self, after_ms: u64) -> Vec<Effect> {
        self.now += after_ms;
        self.tell(Event::Tick)
    }

    /// Worker `id` on the node joins and has room for one.
    fn worker(&mut self, id: u64, on: u64) -> Vec<AttemptId> {
        self.tell(Event::WorkerJoined { worker: WorkerId(id), unit: UnitId(1), node: node(on) });
        self.pull(id, 1)
    }

    fn pull(&mut self, id: u64, room: u32) -> Vec<AttemptId> {
        given(&self.tell(Event::Pull { worker: WorkerId(id), room }), id)
    }

    fn end(&mut self, id: u64, attempt: AttemptId, outcome: Outcome) -> Vec<Effect> {
        let report = Finished { attempt, outcome, ran_ms: 100, message: "said".to_owned() };
        self.tell(Event::Finished { worker: WorkerId(id), report })
    }

    fn ok(&mut self, id: u64, attempt: AttemptId) -> Vec<Effect> {
        self.end(id, attempt, Outcome::Ok { outputs: 0, bytes: 0 })
    }

    fn recover(&self) -> Job {
        let plan = Plan { tasks: self.plan() };
        Job::recover(plan, Settings::default(), &self.records, Time(self.now)).expect("the records fit")
    }

    fn plan(&self) -> Vec<TaskPlan> {
        self.job
            .progress()
            .iter()
            .map(|p| task(p.task.0, p.waiting + p.running + p.done + p.failed, vec![]))
            .collect()
    }
}

fn given(effects: &[Effect], id: u64) -> Vec<AttemptId> {
    let assigns = effects.iter().filter_map(|effect| match effect {
        Effect::Assign { worker, attempts } if *worker == WorkerId(id) => Some(attempts.clone()),
        _ => None,
    });
    assigns.flatten().collect()
}

fn id(task: u32, instance: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId(task), instance, attempt }
}

fn ended(effects: &[Effect]) -> Option<JobOutcome> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ended { outcome } => Some(outcome.clone()),
        _ => None,
    })
}

#[test]
fn a_barrier_holds_until_outputs_are_in_place() {
    let mut b = Bench::new(vec![task(0, 1, vec![]), task(1, 1, vec![Dependency::Barrier(TaskId(0))])]);
    assert_eq!(b.worker(1, 1), [id(0, 0, 0)]);
    let effects = b.end(1, id(0, 0, 0), Outcome::Ok { outputs: 2, bytes: 5 });
    assert!(effects.contains(&Effect::Promote { attempt: id(0, 0, 0), outputs: 2 }));
    assert!(effects.contains(&Effect::Acknowledge { worker: WorkerId(1), attempts: vec![id(0, 0, 0)] }));
    assert_eq!(b.pull(1, 1), [], "the output is not there yet");
    let effects = b.tell(Event::Promoted { attempt: id(0, 0, 0), result: Promotion::Placed });
    assert!(effects.contains(&Effect::TaskDone { task: TaskId(0) }));
    assert_eq!(given(&effects, 1), [id(1, 0, 0)], "the waiting worker gets it without another call");
    let effects = b.ok(1, id(1, 0, 0));
    assert_eq!(ended(&effects), Some(JobOutcome::Done));
    assert!(effects.contains(&Effect::Release { worker: WorkerId(1) }));
}

#[test]
fn a_failed_instance_waits_and_then_runs_on_another_node() {
    let mut b = Bench::new(vec![task(0, 1, vec![])]);
    b.worker(1, 1);
    b.tell(Event::WorkerJoined { worker: WorkerId(2), unit: UnitId(1), node: node(2) });
    b.end(1, id(0, 0, 0), Outcome::Exit(3));
    assert_eq!(b.job.next_wake(), Some(Time(1_000)));
    assert_eq!(b.pull(1, 1), [], "it waits");
    assert_eq!(given(&b.tick(1_000), 1), [], "node 1 is avoided while there is another");
    assert_eq!(b.pull(2, 1), [id(0, 0, 1)]);
    b.end(2, id(0, 0, 1), Outcome::Signal(11));
    assert_eq!(b.pull(2, 1), []);
    let effects = b.tick(1_999);
    assert_eq!(given(&effects, 2), [], "the second wait is twice as long");
    assert!(effects.contains(&Effect::Release { worker: WorkerId(1) }), "one worker is enough");
    assert_eq!(given(&b.tick(1), 2), [id(0, 0, 2)], "it failed here, but there is no other node any more");
    let effects = b.end(2, id(0, 0, 2), Outcome::Exit(4));
    let Some(JobOutcome::Failed { reason }) = ended(&effects) else { panic!("{effects:?}") };
    assert!(
        reason.contains("instance 0 of t0 on n1: exit code 3: said"),
        "the first failure is told: {reason}"
    );
}

#[test]
fn the_failure_budget_is_of_instances_that_failed_for_good() {
    let mut plan = task(0, 3, vec![]);
    plan.attempts_max = 1;
    plan.failures_allowed = 1;
    let mut b = Bench::new(vec![plan]);
    b.worker(1, 1);
    b.end(1, id(0, 0, 0), Outcome::OutOfMemory);
    assert_eq!(b.pull(1, 1), [id(0, 1, 0)]);
    assert_eq!(b.job.progress()[0].failed, 1);
    b.ok(1, id(0, 1, 0));
    b.pull(1, 1);
    assert!(matches!(ended(&b.end(1, id(0, 2, 0), Outcome::Timeout)), Some(JobOutcome::Failed { .. })));
}

#[test]
fn a_lost_worker_is_no_failure_but_not_for_ever() {
    let mut b = Bench::new(vec![task(0, 1, vec![])]);
    let reason = sched_job::LossReason::Died("signal 9".to_owned());
    for worker in 1..=8 {
        assert_eq!(b.worker(worker, worker), [id(0, 0, worker as u32 - 1)]);
        let effects = b.tell(Event::WorkerLost { worker: WorkerId(worker), reason: reason.clone() });
        assert_eq!(ended(&effects).is_some(), worker == 8, "worker {worker}");
    }
}

#[test]
fn a_revoked_grant_counts_for_nothing_and_its_late_report_is_not_believed() {
    let mut b = Bench::new(vec![task(0, 1, vec![])]);
    for worker in 1..=30 {
        let attempt = b.worker(worker, 1)[0];
        let effects = b.tell(Event::Revoked { worker: WorkerId(worker) });
        assert!(effects.contains(&Effect::Discard { attempt }));
        let effects = b.ok(worker, attempt);
        assert_eq!(effects, [Effect::Release { worker: WorkerId(worker) }]);
        let finished = vec![Finished {
            attempt,
            outcome: Outcome::Ok { outputs: 1, bytes: 0 },
            ran_ms: 1,
            message: String::new(),
        }];
        let (unit, node) = (UnitId(1), node(1));
        let effects =
            b.tell(Event::Adopted { worker: WorkerId(worker), unit, node, running: vec![], finished });
        assert_eq!(effects, [Effect::Release { worker: WorkerId(worker) }], "nor when it comes again");
    }
    assert_eq!(b.job.progress()[0].done, 0);
    assert_eq!(ended(&b.drain()), None);
}

#[test]
fn a_program_that_is_not_there_fails_the_job_at_once() {
    let mut b = Bench::new(vec![task(0, 2, vec![])]);
    b.worker(1, 1);
    b.worker(2, 2);
    let effects = b.end(1, id(0, 0, 0), Outcome::NoSuchProgram);
    assert!(effects.contains(&Effect::Cancel { worker: WorkerId(2), attempt: id(0, 1, 0) }));
    assert_eq!(ended(&effects), None, "worker 2 has not answered");
    let effects = b.end(2, id(0, 1, 0), Outcome::Cancelled);
    let Some(JobOutcome::Failed { reason }) = ended(&effects) else { panic!("{effects:?}") };
    assert!(
        reason.contains("its program is not there") && reason.contains("correct the command"),
        "{reason}"
    );
}

#[test]
fn exactly_the_lost_input_runs_again_and_late_reports_of_it_do_nothing() {
    let mut b = Bench::new(vec![task(0, 2, vec![]), task(1, 2, vec![Dependency::Barrier(TaskId(0))])]);
    b.worker(1, 1);
    b.worker(2, 2);
    b.ok(1, id(0, 0, 0));
    b.ok(2, id(0, 1, 0));
    assert_eq!(b.pull(1, 1), [id(1, 0, 0)]);
    assert_eq!(b.pull(2, 1), [id(1, 1, 0)]);
    b.now += 10;
    b.end(1, id(1, 0, 0), Outcome::LostInput { task: TaskId(0), instance: 1 });
    assert_eq!(b.pull(1, 1), [id(0, 1, 1_000)], "the second life's numbers");
    b.ok(1, id(0, 1, 1_000));
    // Worker 2 began before that, and saw what was there then.
    let effects = b.end(2, id(1, 1, 0), Outcome::LostInput { task: TaskId(0), instance: 1 });
    assert!(
        !effects.iter().any(
            |e| matches!(e, Effect::Append(r) if r.iter().any(|r| matches!(r, Record::Reopened { .. })))
        )
    );
    assert_eq!(b.pull(1, 1).len() + b.pull(2, 1).len(), 2, "both readers run again");
    assert_eq!(b.job.progress()[0].done, 2);
}

#[test]
fn a_slow_instance_gets_a_backup_on_another_node_and_the_first_to_end_wins() {
    let mut b = Bench::new(vec![task(0, 4, vec![])]);
    for worker in 1..=4 {
        b.worker(worker, worker);
    }
    for worker in 1..=3 {
        b.ok(worker, id(0, worker as u32 - 1, 0));
    }
    b.tick(4_000);
    assert_eq!(b.worker(5, 4), []);
    assert_eq!(b.worker(6, 6), [], "it is too young for a backup");
    let effects = b.tick(1_500);
    assert_eq!(given(&effects, 5), [], "worker 5 is on the same node");
    assert_eq!(given(&effects, 6), [id(0, 3, 1)]);
    let effects = b.ok(6, id(0, 3, 1));
    assert!(effects.contains(&Effect::Cancel { worker: WorkerId(4), attempt: id(0, 3, 0) }));
    assert_eq!(ended(&effects), None);
    // It ended well before it heard of it: it lost all the same.
    let effects = b.end(4, id(0, 3, 0), Outcome::Ok { outputs: 1, bytes: 1 });
    assert!(effects.contains(&Effect::Discard { attempt: id(0, 3, 0) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Promote { .. })));
    assert_eq!(ended(&effects), Some(JobOutcome::Done));
}

#[test]
fn without_leave_there_is_no_backup() {
    let mut plan = task(0, 4, vec![]);
    plan.backup = false;
    let mut b = Bench::new(vec![plan]);
    for worker in 1..=4 {
        b.worker(worker, worker);
    }
    for worker in 1..=3 {
        b.ok(worker, id(0, worker as u32 - 1, 0));
        b.pull(worker, 1);
    }
    assert!(!b.tick(100_000).iter().any(|effect| matches!(effect, Effect::Assign { .. })));
}

#[test]
fn what_prefers_a_node_goes_there_first() {
    let mut plan = task(0, 4, vec![]);
    let lists = [vec![node(1)], vec![node(2)], vec![], vec![node(2), node(1)]];
    plan.preferred = Some(Preferences::from_lists(lists.iter().map(|list| list.iter())));
    let mut b = Bench::new(vec![plan]);
    assert_eq!(b.worker(2, 2), [id(0, 1, 0)]);
    assert_eq!(b.worker(3, 2), [id(0, 3, 0)]);
    assert_eq!(b.worker(4, 2), [id(0, 0, 0)], "then any");
}

#[test]
fn short_instances_come_in_batches_and_the_rest_is_shared() {
    let mut b = Bench::new(vec![task(0, 1_000, vec![])]);
    b.worker(1, 1);
    b.worker(2, 1);
    b.ok(1, id(0, 0, 0));
    assert_eq!(b.pull(1, 64).len(), 5, "half a second's worth of 100 ms");
    assert_eq!(b.pull(2, 3).len(), 3, "no more than it takes");
}

#[test]
fn what_a_lost_reply_carried_comes_again() {
    let mut b = Bench::new(vec![task(0, 2, vec![])]);
    assert_eq!(b.worker(1, 1), [id(0, 0, 0)]);
    let effects = b.tell(Event::Holds { worker: WorkerId(1), attempts: vec![id(0, 1, 7), id(9, 9, 9)] });
    assert_eq!(given(&effects, 1), [id(0, 0, 0)]);
    for strange in [id(0, 1, 7), id(9, 9, 9)] {
        assert!(effects.contains(&Effect::Cancel { worker: WorkerId(1), attempt: strange }));
    }
}

#[test]
fn a_gang_runs_together_and_is_retried_together() {
    let mut b = Bench::new(vec![task(0, 1, vec![]), task(1, 1, vec![Dependency::Pipe(TaskId(0))])]);
    assert_eq!(b.worker(1, 1), [id(0, 0, 0), id(1, 0, 0)]);
    let effects = b.end(1, id(1, 0, 0), Outcome::Exit(1));
    assert!(effects.contains(&Effect::Cancel { worker: WorkerId(1), attempt: id(0, 0, 0) }));
    let effects = b.end(1, id(0, 0, 0), Outcome::Cancelled);
    assert!(effects.contains(&Effect::Discard { attempt: id(1, 0, 0) }));
    b.pull(1, 1);
    assert_eq!(given(&b.tick(1_000), 1), [id(0, 0, 1), id(1, 0, 1)]);
    let effects = b.ok(1, id(0, 0, 1));
    assert_eq!(effects, [], "not acknowledged: only the worker knows of it");
    assert_eq!(b.ok(1, id(0, 0, 1)), [], "nor when it is repeated");
    let effects = b.end(1, id(1, 0, 1), Outcome::Ok { outputs: 1, bytes: 1 });
    assert!(effects.contains(&Effect::Promote { attempt: id(1, 0, 1), outputs: 1 }));
    assert!(
        effects
            .contains(&Effect::Acknowledge { worker: WorkerId(1), attempts: vec![id(0, 0, 1), id(1, 0, 1)] })
    );
}

#[test]
fn pause_gives_nothing_out_and_resume_does() {
    let mut b = Bench::new(vec![task(0, 2, vec![])]);
    b.worker(1, 1);
    b.tell(Event::Pause);
    b.ok(1, id(0, 0, 0));
    assert_eq!(b.pull(1, 1), []);
    assert!(b.job.why().starts_with("paused"), "{}", b.job.why());
    let mut recovered = b.recover();
    assert!(recovered.why().starts_with("paused"), "{}", recovered.why());
    recovered.drain();
    assert_eq!(given(&b.tell(Event::Resume), 1), [id(0, 1, 0)]);
}

#[test]
fn kill_cancels_and_ends_with_the_answers_or_the_deadline() {
    for answers in [true, false] {
        let mut b = Bench::new(vec![task(0, 2, vec![])]);
        b.worker(1, 1);
        let effects = b.tell(Event::Kill { by: "li".to_owned() });
        assert!(effects.contains(&Effect::Cancel { worker: WorkerId(1), attempt: id(0, 0, 0) }));
        assert!(
            matches!(&effects[0], Effect::Append(records) if matches!(records[0], Record::Closing { .. }))
        );
        assert_eq!(ended(&effects), None);
        let effects = match answers {
            true => b.end(1, id(0, 0, 0), Outcome::Cancelled),
            false => {
                assert_eq!(ended(&b.tick(9_999)), None);
                b.tick(1)
            }
        };
        let killed = JobOutcome::Killed { by: "li".to_owned() };
        assert_eq!(ended(&effects), Some(killed.clone()));
        assert_eq!(
            ended(&b.recover().drain()),
            Some(killed),
            "a new job master says it again, and nothing else"
        );
    }
}

#[test]
fn a_new_job_master_takes_over_what_runs_and_numbers_the_rest_anew() {
    let mut b = Bench::new(vec![task(0, 3, vec![])]);
    b.worker(1, 1);
    b.worker(2, 1);
    b.end(1, id(0, 0, 0), Outcome::Ok { outputs: 1, bytes: 0 });
    b.pull(1, 1);
    let mut job = b.recover();
    let effects = job.drain();
    assert!(effects.contains(&Effect::Promote { attempt: id(0, 0, 0), outputs: 1 }));
    assert!(matches!(&effects[0], Effect::Append(r) if matches!(r[0], Record::Opened { generation: 1, .. })));
    let unit = UnitId(1);
    for worker in [1, 2] {
        job.handle(Time(1), Event::Granted { worker: WorkerId(worker), unit, node: node(1) });
    }
    job.handle(Time(1), Event::GrantsComplete);
    let adopted = |worker, running| Event::Adopted {
        worker: WorkerId(worker),
        unit,
        node: node(1),
        running,
        finished: vec![],
    };
    job.handle(Time(2), adopted(2, vec![id(0, 1, 0)]));
    job.handle(Time(2), Event::Pull { worker: WorkerId(2), room: 5 });
    assert!(given(&job.drain(), 2).is_empty(), "worker 1 has not said yet what it runs");
    job.handle(Time(3), adopted(1, vec![]));
    job.handle(Time(3), Event::Pull { worker: WorkerId(1), room: 1 });
    assert_eq!(given(&job.drain(), 1), [id(0, 2, 10_000)]);
    let progress = &job.progress()[0];
    assert_eq!((progress.running, progress.waiting), (3, 0), "{progress:?}");
}

#[test]
fn plans_that_can_not_be_carried_out_are_refused() {
    let refuse = |tasks| Job::new(Plan { tasks }, Settings::default(), Time(0)).err();
    let cycle =
        vec![task(0, 1, vec![Dependency::Barrier(TaskId(1))]), task(1, 1, vec![Dependency::Pipe(TaskId(0))])];
    assert!(matches!(refuse(cycle), Some(PlanError::Cycle { .. })));
    let uneven = vec![task(0, 1, vec![]), task(1, 2, vec![Dependency::Pipe(TaskId(0))])];
    assert!(matches!(refuse(uneven), Some(PlanError::Pipe { .. })));
    assert!(matches!(refuse(vec![]), Some(PlanError::Tasks { tasks: 0 })));
    assert!(matches!(refuse(vec![task(1, 1, vec![])]), Some(PlanError::Id { .. })));
    let unknown = vec![task(0, 1, vec![Dependency::Barrier(TaskId(5))])];
    assert!(matches!(refuse(unknown), Some(PlanError::Unknown { on: 5, .. })));
}

#[test]
fn a_report_before_its_worker_is_adopted_waits_for_that() {
    let mut b = Bench::new(vec![task(0, 1, vec![])]);
    let attempt = b.worker(1, 1)[0];
    let mut job = b.recover();
    job.handle(Time(0), Event::Granted { worker: WorkerId(1), unit: UnitId(1), node: node(1) });
    job.drain();
    let report = Finished {
        attempt,
        outcome: Outcome::Ok { outputs: 1, bytes: 0 },
        ran_ms: 1,
        message: String::new(),
    };
    job.handle(Time(0), Event::Finished { worker: WorkerId(1), report: report.clone() });
    assert_eq!(job.drain(), [], "neither acknowledged nor discarded");
    let (unit, node) = (UnitId(1), node(1));
    let finished = vec![report];
    job.handle(Time(0), Event::Adopted { worker: WorkerId(1), unit, node, running: vec![], finished });
    let effects = job.drain();
    assert!(effects.contains(&Effect::Promote { attempt, outputs: 1 }), "{effects:?}");
}

#[test]
fn outputs_that_are_nowhere_make_the_instance_run_again() {
    let mut b = Bench::new(vec![task(0, 1, vec![])]);
    b.worker(1, 1);
    b.end(1, id(0, 0, 0), Outcome::Ok { outputs: 1, bytes: 0 });
    let effects = b.tell(Event::Promoted { attempt: id(0, 0, 0), result: Promotion::Missing });
    assert!(
        matches!(&effects[0], Effect::Append(r) if r == &[Record::Reopened { task: TaskId(0), instance: 0 }])
    );
    assert_eq!(b.pull(1, 1), [id(0, 0, 1_000)]);
}

#[test]
fn a_node_that_fails_different_instances_is_avoided_and_told_to_the_master() {
    let mut b = Bench::new(vec![task(0, 20, vec![])]);
    b.tell(Event::WorkerJoined { worker: WorkerId(9), unit: UnitId(1), node: node(9) });
    b.worker(1, 1);
    for instance in 0..3 {
        b.end(1, id(0, instance, 0), Outcome::Machine);
        let next = b.pull(1, 1);
        assert_eq!(next.is_empty(), instance == 2, "after {instance}: {next:?}");
    }
    assert_eq!(b.pull(9, 1).len(), 1, "the other node goes on");
    let effects = b.tick(600_000);
    assert!(!effects.contains(&Effect::AvoidNodes { nodes: vec![node(1)] }), "only the task avoided it");

    let mut b = Bench::new(vec![task(0, 9, vec![]), task(1, 9, vec![])]);
    b.tell(Event::WorkerJoined { worker: WorkerId(9), unit: UnitId(1), node: node(9) });
    let mut attempts = b.worker(1, 1);
    let mut told = Vec::new();
    while let Some(attempt) = attempts.pop() {
        told.extend(b.end(1, attempt, Outcome::Exit(1)));
        attempts = b.pull(1, 1);
    }
    assert!(told.contains(&Effect::AvoidNodes { nodes: vec![node(1)] }));
    let effects = b.tick(3_000);
    assert!(effects.contains(&Effect::Release { worker: WorkerId(1) }), "its worker is given back");
    let effects = b.tick(600_000);
    assert!(effects.contains(&Effect::AvoidNodes { nodes: vec![] }), "failures are forgotten");
}
