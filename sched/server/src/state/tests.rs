//! What the master does about what it hears, by plain calls.

use super::*;
use crate::quota::Quota;
use crate::spool::{Accepted, Owner};

fn with_job() -> (State, JobName, Instant) {
    let now = Instant::now();
    let mut state = State::new(1, now);
    let queue: QueueName = "default".parse().unwrap();
    state.scheduling.queue(&queue, &Quota::default(), now);
    let name = JobName::of("x.toml", 7);
    let spec = sched_spec::parse("name = \"x\"\n[[task]]\nname = \"t\"\ncommand = \"true\"\n").unwrap();
    let owner = Owner { uid: 0, gid: 0 };
    state.job_is_there(Accepted { queue, name: name.clone(), owner, spec }, now);
    (state, name, now)
}

#[test]
fn a_master_that_begins_to_lead_hears_what_ctl_said_before() {
    let (mut state, name, now) = with_job();
    state.ctl_says(&name, "pause", now);
    assert!(state.jobs[&name].pause);
    state.ctl_says(&name, "resume", now);
    assert!(!state.jobs[&name].pause);
    // Nothing new was said: nothing follows, however often it is looked at.
    let version = state.jobs[&name].version;
    state.ctl_says(&name, "resume", now);
    assert_eq!(state.jobs[&name].version, version);
}

#[test]
fn what_ctl_does_not_take_is_told_once() {
    let (mut state, name, now) = with_job();
    state.todo.clear();
    for _ in 0..3 {
        state.ctl_says(&name, "stop", now);
    }
    let told =
        state.todo.iter().filter(|todo| matches!(todo, Todo::Note { event, .. } if event.contains("'stop'")));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_job_that_is_killed_before_it_began_ends() {
    let (mut state, name, now) = with_job();
    state.ctl_says(&name, "kill", now);
    assert_eq!(state.jobs[&name].end, Some(End::Killed));
    assert!(
        state.todo.iter().any(|todo| matches!(todo, Todo::Finish { end: End::Killed, .. })),
        "{:?}",
        state.todo
    );
    state.moved(&name, now);
    assert!(state.jobs.is_empty() && state.grants.is_empty());
    // Its master, if it had one, is told that it may go.
    assert!(state.grants_for(&name).end_noted);
}
