//! Requests find room, near their data if they can, and wait for it where they cannot.

use std::collections::BTreeMap;

use super::fixtures::{World, cpu, node};
use crate::*;

#[test]
fn what_fits_is_granted_at_once_and_the_rest_as_room_appears() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(4));
    world.run(1, 1, 0, 10, cpu(1));
    assert_eq!(world.count(1), 8);
    world.tell(Event::NodeUp(node(2, cpu(1))));
    assert_eq!(world.count(1), 9);
    let (first, _) = world.of(1)[0];
    world.request(1, 9, cpu(1));
    world.end(first);
    assert_eq!(world.count(1), 9, "a grant that ended is replaced while as many are wanted");
}

#[test]
fn what_is_given_back_with_a_lower_total_is_not_granted_again() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(4));
    world.run(1, 1, 0, 4, cpu(1));
    let want = world.want(3, cpu(1));
    let (first, _) = world.of(1)[0];
    world.tell(Event::Request { job: JobId(1), wants: vec![want], release: vec![first] });
    world.obey();
    assert_eq!(world.count(1), 3);
    assert_eq!(world.scheduler.totals(), (3, 0));
}

#[test]
fn room_is_free_only_when_the_agent_says_so() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(1));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 1, 0, 1, cpu(1));
    world.tell(Event::JobEnded(JobId(1)));
    assert_eq!(world.count(2), 0);
    world.obey();
    assert_eq!(world.count(2), 1);
}

#[test]
fn an_order_to_stop_is_repeated_until_it_is_obeyed() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(1));
    world.run(1, 1, 0, 1, cpu(1));
    let (grant, _) = world.of(1)[0];
    world.tell(Event::JobEnded(JobId(1)));
    assert_eq!(super::fixtures::revoked(&world.pass(25_000)), vec![(grant, Reason::JobEnded); 2]);
    world.obey();
    assert_eq!(world.pass(60_000), vec![]);
}

#[test]
fn an_old_version_of_a_request_changes_nothing() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(8));
    world.job(1, 1, 0);
    let old = world.want(7, cpu(1));
    world.request(1, 2, cpu(1));
    world.tell(Event::Request { job: JobId(1), wants: vec![old], release: Vec::new() });
    assert_eq!(world.count(1), 2);
}

#[test]
fn units_wait_for_their_machine_then_their_rack_then_go_anywhere() {
    let mut world = World::new(Config::default());
    // Nodes 0 and 1 are in rack 0, node 10 in rack 1.
    for id in [0, 1, 10] {
        world.tell(Event::NodeUp(node(id, cpu(1))));
    }
    world.run(9, 1, 0, 2, cpu(1));
    let taken: Vec<NodeId> = world.of(9).into_iter().map(|(_, node)| node).collect();
    assert_eq!(taken, [NodeId(0), NodeId(1)]);
    world.job(1, 1, 0);
    let mut want = world.want(1, cpu(1));
    want.prefer.machines = BTreeMap::from([(MachineId(0), 1)]);
    world.tell(Event::Request { job: JobId(1), wants: vec![want], release: Vec::new() });
    assert_eq!(world.count(1), 0, "node 10 is free, but far");
    world.pass(3_000);
    assert_eq!(world.count(1), 0, "the rack is waited for next");
    world.pass(3_000);
    assert_eq!(world.of(1)[0].1, NodeId(10));
}

#[test]
fn a_machine_that_frees_room_serves_who_prefers_it() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(1));
    world.run(9, 1, 0, 1, cpu(1));
    world.run(2, 1, 0, 1, cpu(1));
    world.job(1, 1, 0);
    let mut want = world.want(1, cpu(1));
    want.prefer.machines = BTreeMap::from([(MachineId(0), 1)]);
    world.tell(Event::Request { job: JobId(1), wants: vec![want], release: Vec::new() });
    world.tell(Event::JobEnded(JobId(9)));
    world.obey();
    assert_eq!((world.count(1), world.count(2)), (1, 0));
}

#[test]
fn a_silent_node_gets_nothing_new_and_a_lost_one_loses_all() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(2));
    world.run(1, 1, 0, 1, cpu(1));
    world.tell(Event::NodeSilent(NodeId(0)));
    world.request(1, 2, cpu(1));
    assert_eq!(world.count(1), 1);
    world.tell(Event::NodeHeard(NodeId(0)));
    assert_eq!(world.count(1), 2);
    world.tell(Event::NodeLost(NodeId(0)));
    assert_eq!(world.count(1), 0);
    assert_eq!(world.scheduler.totals(), (0, 2));
}

#[test]
fn a_node_being_emptied_keeps_what_it_has() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(2));
    world.run(1, 1, 0, 1, cpu(1));
    world.tell(Event::NodeDraining { node: NodeId(0), draining: true });
    world.request(1, 2, cpu(1));
    assert_eq!(world.count(1), 1);
    world.tell(Event::NodeDraining { node: NodeId(0), draining: false });
    assert_eq!(world.count(1), 2);
}

#[test]
fn a_node_that_shrinks_stops_the_least_important_and_newest() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(3));
    world.run(1, 1, 5, 1, cpu(1));
    world.run(2, 1, 0, 1, cpu(1));
    world.pass(10);
    world.run(3, 1, 0, 1, cpu(1));
    world.tell(Event::NodeCapacity { node: NodeId(0), capacity: cpu(2) });
    assert_eq!((world.count(1), world.count(2), world.count(3)), (1, 1, 0));
}

#[test]
fn a_unit_without_resources_is_refused() {
    let mut world = World::new(Config::default());
    world.job(1, 1, 0);
    let want = world.want(1, Resources::ZERO);
    let refused = world.try_tell(Event::Request { job: JobId(1), wants: vec![want], release: Vec::new() });
    assert_eq!(refused, Err(EventError::EmptyUnit { job: JobId(1), unit: UnitId(0) }));
}

#[test]
fn named_resources_are_counted_like_ours() {
    let mut world = World::new(Config::default());
    let gpu = world.scheduler.intern("gpu").unwrap();
    world.tell(Event::NodeUp(node(0, cpu(8).with(gpu, 2))));
    world.run(1, 1, 0, 5, cpu(1).with(gpu, 1));
    assert_eq!(world.count(1), 2);
    assert!(world.why(1).to_string().contains("1 gpu"), "{}", world.why(1));
}
