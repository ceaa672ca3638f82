//! The desk against a job master that loses replies, repeats itself and sends too much.

use proptest::prelude::*;

use super::*;

fn attempt(instance: u32) -> Attempt {
    Attempt { task: 0, instance, number: 0 }
}

fn described() -> Vec<(u32, Arc<Task>)> {
    vec![(0, Arc::new(Task::default()))]
}

fn work(instances: impl IntoIterator<Item = u32>) -> News {
    let work = instances.into_iter().map(|instance| (attempt(instance), Vec::new())).collect();
    News { tasks: described(), work, ..News::default() }
}

fn done() -> Report {
    Report::never_ran(Outcome::Ok, "")
}

#[test]
fn a_repeated_attempt_is_begun_once() {
    let mut desk = Desk::new(4);
    desk.apply(work([1]));
    desk.apply(work([1]));
    assert_eq!(desk.begin().map(|assignment| assignment.attempt), Some(attempt(1)));
    desk.apply(work([1]));
    assert!(desk.begin().is_none());
    desk.end(attempt(1), done());
    desk.apply(work([1]));
    assert!(desk.begin().is_none(), "it is in the reports, so it was run");
}

#[test]
fn a_report_stays_until_it_is_acknowledged() {
    let mut desk = Desk::new(4);
    desk.apply(work([1, 2]));
    desk.begin();
    desk.end(attempt(1), done());
    desk.apply(News { acknowledged: vec![attempt(2)], ..News::default() });
    assert_eq!(desk.finished().len(), 1);
    desk.apply(News { acknowledged: vec![attempt(1)], ..News::default() });
    assert_eq!(desk.finished().len(), 0);
}

#[test]
fn cancelling_ends_what_runs_and_reports_what_waits() {
    let mut desk = Desk::new(4);
    desk.apply(work([1, 2]));
    desk.begin();
    let todo = desk.apply(News { cancel: vec![attempt(1), attempt(2), attempt(9)], ..News::default() });
    assert_eq!(todo.stop, Some(attempt(1)));
    let finished: Vec<_> = desk.finished().map(|(attempt, report)| (attempt, report.outcome)).collect();
    assert_eq!(finished, [(attempt(2), Outcome::Cancelled)]);
}

#[test]
fn work_of_a_task_nobody_described_is_refused() {
    let mut desk = Desk::new(4);
    let todo = desk.apply(News { work: vec![(attempt(1), Vec::new())], ..News::default() });
    assert_eq!((todo.refused, desk.holds().count()), (1, 0));
}

/// One step of somebody's.
#[derive(Clone, Debug)]
enum Step {
    Work(Vec<u32>),
    Acknowledge(Vec<u32>),
    Cancel(Vec<u32>),
    Begin,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    let some = || proptest::collection::vec(0u32..40, 0..12);
    prop_oneof![
        3 => some().prop_map(Step::Work),
        2 => some().prop_map(Step::Acknowledge),
        1 => some().prop_map(Step::Cancel),
        4 => Just(Step::Begin),
        4 => Just(Step::End),
    ]
}

proptest! {
    /// Nothing is in two places, nothing vanishes but by an acknowledgement, and it never grows beyond its bound.
    #[test]
    fn whatever_happens_nothing_is_lost_or_doubled(steps in proptest::collection::vec(step(), 1..120)) {
        let mut desk = Desk::new(5);
        let mut open: BTreeSet<Attempt> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Work(list) => {
                    let before: BTreeSet<_> = all(&desk).into_iter().collect();
                    desk.apply(work(list.iter().copied()));
                    let after: BTreeSet<_> = all(&desk).into_iter().collect();
                    prop_assert!(after.is_superset(&before));
                    let taken: Vec<_> = after.difference(&before).copied().collect();
                    prop_assert!(taken.iter().all(|taken| list.contains(&taken.instance)));
                    open.extend(taken);
                }
                Step::Acknowledge(list) => {
                    for instance in &list {
                        if desk.finished().any(|(finished, _)| finished == attempt(*instance)) {
                            open.remove(&attempt(*instance));
                        }
                    }
                    let acknowledged = list.into_iter().map(attempt).collect();
                    desk.apply(News { acknowledged, ..News::default() });
                }
                Step::Cancel(list) => {
                    desk.apply(News { cancel: list.into_iter().map(attempt).collect(), ..News::default() });
                }
                Step::Begin => {
                    desk.begin();
                }
                Step::End => {
                    if let Some(running) = desk.running() {
                        desk.end(running, done());
                    }
                }
            }
            let mut here = all(&desk);
            here.sort_unstable();
            let unique: BTreeSet<_> = here.iter().copied().collect();
            prop_assert_eq!(here.len(), unique.len(), "an attempt is in two places");
            prop_assert_eq!(&unique, &open, "an attempt was lost");
            prop_assert!(here.len() <= desk.bound());
            prop_assert!(desk.holds().count() <= 5);
        }
    }
}

fn all(desk: &Desk) -> Vec<Attempt> {
    desk.holds().chain(desk.finished().map(|(attempt, _)| attempt)).collect()
}
