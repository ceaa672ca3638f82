//! Who is stopped for whom: the fewest, the least important, and never in vain.

use super::fixtures::{World, cpu, queue, revoked};
use crate::*;

#[test]
fn the_newest_of_the_lowest_priority_is_stopped_and_the_room_is_kept() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(3));
    world.run(1, 1, 1, 1, cpu(1));
    world.run(2, 1, 0, 1, cpu(1));
    world.pass(10);
    world.run(3, 1, 0, 1, cpu(1));
    let newest = world.of(3)[0].0;
    let effects = world.run(4, 1, 5, 1, cpu(1));
    assert_eq!(revoked(&effects), [(newest, Reason::Preempted { by: JobId(4) })]);
    // Somebody else comes by while the victim is being stopped.
    world.run(5, 1, 5, 1, cpu(1));
    world.end(newest);
    assert_eq!(world.count(4), 1);
}

#[test]
fn nobody_is_stopped_at_equal_priority_in_a_queue() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(1));
    world.run(1, 1, 3, 1, cpu(1));
    assert_eq!(revoked(&world.run(2, 1, 3, 1, cpu(1))), []);
    assert_eq!(revoked(&world.pass(60_000)), []);
}

#[test]
fn nobody_is_stopped_in_vain() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(4));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 1, 9, 3, cpu(1));
    assert_eq!(revoked(&world.run(3, 1, 5, 1, cpu(2))), [], "stopping job 1 frees only one core");
    assert_eq!(revoked(&world.run(4, 1, 9, 1, cpu(50))), [], "no node is that large");
}

#[test]
fn one_large_victim_is_better_than_many_small_ones() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(4));
    world.tell(Event::NodeDraining { node: NodeId(1), draining: true });
    world.run(1, 1, 0, 4, cpu(1));
    world.tell(Event::NodeDraining { node: NodeId(1), draining: false });
    world.run(2, 1, 0, 1, cpu(4));
    let large = world.of(2)[0].0;
    let effects = world.run(3, 1, 5, 1, cpu(2));
    assert_eq!(revoked(&effects), [(large, Reason::Preempted { by: JobId(3) })]);
}

#[test]
fn as_few_as_needed_are_stopped() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(6));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 1, 1, 1, cpu(3));
    world.run(3, 1, 0, 2, cpu(1));
    let effects = world.run(4, 1, 5, 1, cpu(3));
    let large = revoked(&effects);
    assert_eq!(large.len(), 1, "the one of three cores although three of lower priority would do");
}

#[test]
fn a_preempted_job_starts_no_cascade() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(1));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 1, 3, 1, cpu(1));
    world.tell(Event::NodeDraining { node: world.of(1)[0].1, draining: true });
    let effects = world.run(3, 1, 9, 1, cpu(1));
    assert_eq!(revoked(&effects).len(), 1, "job 2 is the only one on a usable node");
    let node = NodeId(if world.of(1)[0].1 == NodeId(0) { 0 } else { 1 });
    let effects = world.tell(Event::NodeDraining { node, draining: false });
    assert_eq!(revoked(&effects), []);
    assert_eq!(
        revoked(&world.pass(9_000))
            .iter()
            .filter(|(_, why)| *why == Reason::Preempted { by: JobId(2) })
            .count(),
        0
    );
}

#[test]
fn the_room_goes_back_when_the_preemptor_goes_away() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(1));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 1, 5, 1, cpu(1));
    world.tell(Event::JobEnded(JobId(2)));
    world.obey();
    assert_eq!(world.count(1), 1);
}

#[test]
fn kept_room_is_given_up_after_a_while() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(2));
    world.run(1, 1, 0, 2, cpu(1));
    world.run(2, 1, 5, 1, cpu(2));
    let stopping: Vec<_> = world.stopping.iter().copied().collect();
    assert_eq!(stopping.len(), 2);
    world.end(stopping[0]);
    assert_eq!((world.count(1), world.count(2)), (0, 0), "the other one does not stop");
    world.tell(Event::NodeSilent(NodeId(0)));
    world.pass(70_000);
    assert!(!world.why(2).to_string().contains("freed for it"), "{}", world.why(2));
}

#[test]
fn room_in_the_queue_s_maximum_is_made_in_that_queue() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("small", None, Resources::ZERO, cpu(1)));
    world.nodes(2, cpu(4));
    world.run(1, 1, 0, 1, cpu(1));
    world.run(2, 2, 0, 1, cpu(1));
    let effects = world.run(3, 2, 5, 1, cpu(1));
    let victims: Vec<_> = revoked(&effects).into_iter().map(|(grant, _)| grant).collect();
    world.obey();
    assert_eq!(victims.len(), 1);
    assert_eq!((world.count(1), world.count(2), world.count(3)), (1, 0, 1));
}

#[test]
fn many_units_preempt_many() {
    let mut world = World::new(Config::default());
    world.nodes(10, cpu(4));
    world.run(1, 1, 0, 40, cpu(1));
    world.run(2, 1, 5, 25, cpu(1));
    world.obey();
    world.pass(5_000);
    world.obey();
    assert_eq!((world.count(1), world.count(2)), (15, 25));
}
