//! The jobs that are simulated.

use sched_job::{Dependency, NodeName, Plan, Preferences, TaskId, TaskPlan, UnitId};

pub(crate) fn task(id: u32, name: &str, instances: u32, after: Vec<Dependency>) -> TaskPlan {
    TaskPlan {
        id: TaskId(id),
        name: name.to_owned(),
        instances,
        unit: UnitId(1),
        after,
        attempts_max: 8,
        failures_allowed: 0,
        timeout_ms: None,
        backup: true,
        parallel_max: None,
        preferred: None,
    }
}

pub(crate) fn node(n: u64) -> NodeName {
    NodeName::new(&format!("node-{n}"))
}

/// Splits with preferences, a gang of two without backups, many short ones, and a last task that needs them all.
pub(crate) fn mixed() -> Plan {
    let mut map = task(0, "map", 60, vec![]);
    let lists: Vec<Vec<NodeName>> = (0..60).map(|i| vec![node(i % 4), node((i + 1) % 4)]).collect();
    map.preferred = Some(Preferences::from_lists(lists.iter().map(|list| list.iter())));
    let mut sort = task(1, "sort", 20, vec![Dependency::Barrier(TaskId(0))]);
    let mut merge = task(2, "merge", 20, vec![Dependency::Pipe(TaskId(1))]);
    sort.backup = false;
    merge.backup = false;
    let mut short = task(3, "short", 300, vec![]);
    short.unit = UnitId(2);
    short.parallel_max = Some(3);
    let none = task(4, "none", 0, vec![Dependency::Barrier(TaskId(3))]);
    let last = task(5, "last", 8, vec![Dependency::Barrier(TaskId(2)), Dependency::Barrier(TaskId(4))]);
    Plan { tasks: vec![map, sort, merge, short, none, last] }
}

pub(crate) fn small() -> Plan {
    let map = task(0, "map", 12, vec![]);
    let sort = task(1, "sort", 6, vec![Dependency::Barrier(TaskId(0))]);
    let merge = task(2, "merge", 6, vec![Dependency::Pipe(TaskId(1))]);
    Plan { tasks: vec![map, sort, merge] }
}

pub(crate) fn long() -> Plan {
    let map = task(0, "map", 600, vec![]);
    Plan { tasks: vec![map] }
}
