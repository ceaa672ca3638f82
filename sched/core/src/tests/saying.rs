//! The sentences of `why`, and the numbers in them.

use std::collections::BTreeMap;

use super::fixtures::{World, cpu, node, queue};
use crate::*;

#[test]
fn what_is_short_who_has_it_and_where_the_most_is() {
    let mut world = World::new(Config::default());
    world.tell(Event::NodeUp(node(0, Resources::new(4_000, 65_536, 0))));
    world.tell(Event::NodeUp(node(1, Resources::new(8_000, 4_096, 0))));
    world.run(1, 1, 0, 3, Resources::new(1_000, 16_384, 0));
    world.run(2, 1, 0, 1, Resources::new(1_000, 20_480, 0));
    assert_eq!(
        world.why(2).to_string(),
        "unit 0 waits for 1 of 1 (since 0 ms): one needs 20 GiB memory, and node n0, which comes nearest, has 16 GiB \
         memory free, where job j1 holds 48 GiB memory at priority 0 (the most free anywhere is 16 GiB memory on n0)"
    );
}

#[test]
fn the_impossible_is_called_impossible() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("small", None, Resources::ZERO, cpu(2)));
    world.nodes(2, cpu(4));
    world.run(1, 1, 0, 1, cpu(5));
    world.run(2, 2, 0, 1, cpu(3));
    let why = world.why(1);
    assert!(matches!(why.reason, WaitsFor::TooBigForNodes { .. }));
    assert!(why.to_string().ends_with("one needs 5 cpu and no node is that large: n1 has 4 cpu"), "{why}");
    assert!(world.why(2).to_string().ends_with("one needs 3 cpu and queue small may use at most 2 cpu"));
}

#[test]
fn quota_is_told_with_figures() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("small", None, Resources::ZERO, cpu(5)));
    world.nodes(2, cpu(4));
    world.run(1, 2, 0, 3, cpu(2));
    let text = world.why(1).to_string();
    assert!(
        text.ends_with("queue small is at its maximum, it uses 4 cpu of 5 cpu and one more needs 2 cpu"),
        "{text}"
    );
}

#[test]
fn locality_is_told_with_what_is_left_of_the_time() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(1));
    world.run(9, 1, 0, 1, cpu(1));
    let taken = world.of(9)[0].1.0;
    world.job(1, 1, 0);
    let mut want = world.want(1, cpu(1));
    want.prefer.machines = BTreeMap::from([(MachineId(taken), 1)]);
    world.tell(Event::Request { job: JobId(1), wants: vec![want], release: Vec::new() });
    world.pass(1_000);
    assert!(matches!(world.why(1).reason, WaitsFor::Locality { machines: 1, racks: 0, left_ms: 2_000 }));
}

#[test]
fn nodes_that_may_not_be_used_are_counted() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(1));
    world.job(1, 1, 0);
    world.tell(Event::Avoid { job: JobId(1), nodes: [NodeId(0)].into() });
    world.tell(Event::NodeSilent(NodeId(1)));
    world.request(1, 1, cpu(1));
    let expected = WaitsFor::Unusable { avoided: 1, blacklisted: 0, silent_or_draining: 1 };
    assert_eq!(world.why(1).reason, expected);
}

#[test]
fn what_is_being_freed_is_told() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(2));
    world.run(1, 1, 0, 2, cpu(1));
    world.run(2, 1, 5, 1, cpu(1));
    let text = world.why(2).to_string();
    assert!(text.contains("node n0 is being freed for it, it has 0 cpu of the 1 cpu needed"), "{text}");
    world.obey();
    assert!(world.why(2).to_string().contains("waits for nothing"));
}

#[test]
fn an_empty_cluster_and_an_unknown_unit() {
    let mut world = World::new(Config::default());
    world.run(1, 1, 0, 1, cpu(1));
    assert_eq!(world.why(1).reason, WaitsFor::NoNodes);
    assert_eq!(world.scheduler.why(JobId(1), UnitId(7)), None);
}
