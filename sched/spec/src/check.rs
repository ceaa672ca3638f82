//! What no single key shows: names that are used twice, tasks that are not there, circles.

use std::collections::{BTreeMap, BTreeSet};

use crate::TASKS_MAX;
use crate::fields::Wrong;
use crate::read::Placed;

pub(crate) fn tasks(tasks: &[Placed], wrong: &mut Wrong) {
    if let Some(task) = tasks.get(TASKS_MAX) {
        wrong.add(
            task.at.clone(),
            format!("a job has at most {TASKS_MAX} tasks; this one has {}", tasks.len()),
        );
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
        for output in &task.spec.outputs {
            if let Some(other) = owners.insert(output, &task.spec.name) {
                let message = format!("out/{output} is made by {other}, too: only one task may make it");
                wrong.add(task.at.clone(), message);
            }
            if task.spec.instances != Some(1) && !output.contains("{instance}") {
                let message = format!(
                    "out/{output} would be made by every instance of {}: write {{instance}} into its name",
                    task.spec.name
                );
                wrong.add(task.at.clone(), message);
            }
        }
    }
}

/// Whether all that tasks wait for is there.
fn after(tasks: &[Placed], wrong: &mut Wrong) -> bool {
    let names: BTreeSet<&str> = tasks.iter().map(|task| task.spec.name.as_str()).collect();
    let mut all = true;
    for task in tasks {
        for other in &task.spec.after {
            if !names.contains(other.as_str()) {
                all = false;
                let known: Vec<&str> = names.iter().copied().collect();
                let message = format!(
                    "{} waits for {other}, and there is no such task (there is {})",
                    task.spec.name,
                    known.join(", ")
                );
                wrong.add(task.after_at.clone(), message);
            }
        }
    }
    all
}

/// Takes away tasks that wait for nothing any more; what remains waits for itself.
fn circles(tasks: &[Placed], wrong: &mut Wrong) {
    let mut left: BTreeMap<&str, &Placed> =
        tasks.iter().map(|task| (task.spec.name.as_str(), task)).collect();
    loop {
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, task)| !task.spec.after.iter().any(|other| left.contains_key(other.as_str())))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    let Some((first, task)) = left.iter().next() else { return };
    // Follow what is waited for until a name comes again.
    let mut circle = vec![*first];
    while let Some(next) =
        left[circle[circle.len() - 1]].spec.after.iter().find(|other| left.contains_key(other.as_str()))
    {
        if let Some(begin) = circle.iter().position(|name| name == next) {
            circle.drain(..begin);
            circle.push(next);
            break;
        }
        circle.push(next);
    }
    wrong.add(
        task.after_at.clone(),
        format!("tasks wait for each other in a circle: {}", circle.join(" after ")),
    );
}
