//! What no single key shows: names that are used twice, tasks that are not there, circles.

use std::collections::{BTreeMap, BTreeSet};

use crate::TASKS_MAX;
use crate::fields::{Wrong, nearest};
use crate::read::Placed;
use crate::spec::TaskKind;

pub(crate) fn tasks(tasks: &[Placed], wrong: &mut Wrong) {
    if let Some(task) = tasks.get(TASKS_MAX) {
        wrong.add(
            task.at.clone(),
            format!("a job has at most {TASKS_MAX} tasks; this one has {}", tasks.len()),
        );
        return;
    }
    names(tasks, wrong);
    outputs(tasks, wrong);
    if after(tasks, wrong) {
        circles(tasks, wrong);
    }
}

fn names(tasks: &[Placed], wrong: &mut Wrong) {
    let mut seen = BTreeSet::new();
    for task in tasks {
        if !seen.insert(&task.spec.name) {
            wrong.add(
                task.at.clone(),
                format!("there is another task {}: give this one another name", task.spec.name),
            );
        }
    }
}

/// A path that several instances would make is the last one's, whoever that is.
fn outputs(tasks: &[Placed], wrong: &mut Wrong) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for task in tasks {
        let name = &task.spec.name;
        for output in &task.spec.outputs {
            if task.spec.instances != Some(1) && !output.contains("{instance}") {
                wrong.add_with(task.at.clone(), || {
                    format!("out/{output} would be made by every instance of {name}: write {{instance}} into its name")
                });
            }
        }
        // Reduces write into a directory of their own.
        let result = match &task.spec.kind {
            TaskKind::Reduce(reduce) => Some(&reduce.output),
            TaskKind::Command(_) | TaskKind::Sample(_) | TaskKind::Map(_) => None,
        };
        for output in task.spec.outputs.iter().chain(result) {
            if let Some(other) = owners.insert(output, name) {
                wrong.add_with(task.at.clone(), || {
                    if other == name {
                        format!("out/{output} is twice among the outputs of {name}: once is enough")
                    } else {
                        format!("out/{output} is made by {other}, too: only one task may make it")
                    }
                });
            }
        }
    }
}

/// Whether all that tasks wait for is there.
fn after(tasks: &[Placed], wrong: &mut Wrong) -> bool {
    let names: BTreeSet<&str> = tasks.iter().map(|task| task.spec.name.as_str()).collect();
    let mut all = true;
    for task in tasks {
        for other in task.spec.after.iter().filter(|other| !names.contains(other.as_str())) {
            all = false;
            wrong.add_with(task.after_at.clone(), || {
                format!(
                    "{} waits for {other}, and there is no such task ({})",
                    task.spec.name,
                    advice(other, &names)
                )
            });
        }
    }
    all
}

/// A task that was probably meant, or some that there are. Only the first ones are looked at: a job may have a thousand.
fn advice(name: &str, names: &BTreeSet<&str>) -> String {
    let near: Vec<&str> = names.iter().copied().take(100).collect();
    if let Some(near) = nearest(name, &near) {
        return format!("did you mean {near}?");
    }
    let some: Vec<&str> = near.into_iter().take(10).collect();
    let more = if names.len() > some.len() { ", ..." } else { "" };
    format!("there is {}{more}", some.join(", "))
}

/// Takes away tasks that wait for nothing any more (Kahn, Communications of the ACM 5, 1962); what remains waits for itself.
fn circles(tasks: &[Placed], wrong: &mut Wrong) {
    let number: BTreeMap<&str, usize> =
        tasks.iter().enumerate().map(|(at, task)| (task.spec.name.as_str(), at)).collect();
    let needs: Vec<BTreeSet<usize>> = tasks
        .iter()
        .map(|task| task.spec.after.iter().filter_map(|other| number.get(other.as_str()).copied()).collect())
        .collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (at, needs) in needs.iter().enumerate() {
        for need in needs {
            dependents[*need].push(at);
        }
    }
    let mut missing: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut free: Vec<usize> = (0..tasks.len()).filter(|at| missing[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for dependent in &dependents[at] {
            missing[*dependent] -= 1;
            if missing[*dependent] == 0 {
                free.push(*dependent);
            }
        }
    }
    let Some(first) = missing.iter().position(|left| *left > 0) else { return };
    // Each that is left waits for another one that is left: follow until one comes again.
    let mut circle = vec![first];
    while let Some(next) = needs[circle[circle.len() - 1]].iter().copied().find(|need| missing[*need] > 0) {
        let begin = circle.iter().position(|at| *at == next);
        circle.push(next);
        if let Some(begin) = begin {
            circle.drain(..begin);
            break;
        }
    }
    let names: Vec<&str> = circle.iter().map(|at| tasks[*at].spec.name.as_str()).collect();
    let message = format!("tasks wait for each other in a circle: {}", names.join(" after "));
    wrong.add(tasks[circle[0]].after_at.clone(), message);
}
