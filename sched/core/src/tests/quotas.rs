//! Minima, maxima, borrowing and giving back.

use super::fixtures::{World, cpu, queue, revoked};
use crate::*;

#[test]
fn a_maximum_holds_at_every_level() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("parent", None, Resources::ZERO, cpu(3)));
    world.queue(3, queue("a", Some(2), Resources::ZERO, cpu(2)));
    world.queue(4, queue("b", Some(2), Resources::ZERO, Resources::UNLIMITED));
    world.nodes(1, cpu(10));
    world.run(1, 3, 0, 5, cpu(1));
    world.run(2, 4, 0, 5, cpu(1));
    assert_eq!((world.count(1), world.count(2)), (2, 1));
    world.tell(Event::JobEnded(JobId(1)));
    world.obey();
    assert_eq!(world.count(2), 3, "what the sibling freed is used, on any node");
}

#[test]
fn raising_a_maximum_starts_what_waited_for_it() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("q", None, Resources::ZERO, cpu(1)));
    world.nodes(1, cpu(10));
    world.run(1, 2, 0, 5, cpu(1));
    world.queue(2, queue("q", None, Resources::ZERO, cpu(4)));
    assert_eq!(world.count(1), 4);
}

#[test]
fn lowering_a_maximum_stops_nothing() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(10));
    world.run(1, 1, 0, 5, cpu(1));
    world.queue(1, queue("all", None, Resources::ZERO, cpu(2)));
    assert_eq!(world.count(1), 5);
    let (grant, _) = world.of(1)[0];
    world.end(grant);
    assert_eq!(world.count(1), 4, "above the maximum nothing is replaced");
}

#[test]
fn what_was_borrowed_is_given_back_at_equal_priority() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("owner", None, cpu(4), Resources::UNLIMITED));
    world.nodes(2, cpu(4));
    world.run(1, 1, 0, 8, cpu(1));
    assert_eq!(world.count(1), 8);
    world.run(2, 2, 0, 8, cpu(1));
    world.pass(5_000);
    world.obey();
    world.pass(5_000);
    assert_eq!((world.count(1), world.count(2)), (4, 4), "the minimum, and not more");
}

#[test]
fn a_group_keeps_its_minimum_whoever_asks() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("owner", None, cpu(2), Resources::UNLIMITED));
    world.nodes(1, cpu(4));
    world.run(1, 2, 0, 4, cpu(1));
    world.run(2, 1, 9, 4, cpu(1));
    world.pass(5_000);
    world.obey();
    world.pass(60_000);
    assert_eq!((world.count(1), world.count(2)), (2, 2));
}

#[test]
fn what_is_owed_goes_before_priority() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("owner", None, cpu(2), Resources::UNLIMITED));
    world.run(1, 1, 9, 4, cpu(1));
    world.run(2, 2, 0, 4, cpu(1));
    world.nodes(1, cpu(4));
    world.obey();
    assert_eq!((world.count(1), world.count(2)), (2, 2));
}

#[test]
fn giving_back_does_not_swing() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("a", None, cpu(3), Resources::UNLIMITED));
    world.queue(3, queue("b", None, cpu(3), Resources::UNLIMITED));
    world.nodes(1, cpu(5));
    world.run(1, 2, 0, 5, cpu(1));
    world.run(2, 3, 0, 5, cpu(1));
    world.obey();
    let mut stops = 0;
    for _ in 0..50 {
        stops += revoked(&world.pass(10_000)).len();
        world.obey();
    }
    // Five cores cannot give three to both: one has two, and stays there.
    assert_eq!((world.count(1), world.count(2)), (3, 2));
    assert_eq!(stops, 0, "all stops came with the request, none later");
}

#[test]
fn a_queue_that_is_used_or_a_ring_is_refused() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("child", Some(1), Resources::ZERO, Resources::UNLIMITED));
    let ring = queue("all", Some(2), Resources::ZERO, Resources::UNLIMITED);
    let refused = world.try_tell(Event::QueueDefined { queue: QueueId(1), spec: ring });
    assert_eq!(refused, Err(EventError::QueueRing { queue: QueueId(1), parent: QueueId(2) }));
    world.job(1, 2, 0);
    let refused = world.try_tell(Event::QueueRemoved(QueueId(2)));
    assert!(matches!(refused, Err(EventError::QueueInUse { jobs: 1, .. })), "{refused:?}");
    world.tell(Event::JobEnded(JobId(1)));
    world.tell(Event::QueueRemoved(QueueId(2)));
    world.tell(Event::QueueRemoved(QueueId(1)));
}

#[test]
fn usage_moves_with_a_group_that_gets_another_parent() {
    let mut world = World::new(Config::default());
    world.queue(2, queue("a", None, Resources::ZERO, Resources::UNLIMITED));
    world.queue(3, queue("child", Some(1), Resources::ZERO, Resources::UNLIMITED));
    world.nodes(1, cpu(4));
    world.run(1, 3, 0, 2, cpu(1));
    world.queue(3, queue("child", Some(2), Resources::ZERO, Resources::UNLIMITED));
    let used =
        |world: &World, id| world.scheduler.queues().find(|view| view.queue == QueueId(id)).unwrap().used;
    assert_eq!((used(&world, 1), used(&world, 2)), (Resources::ZERO, cpu(2)));
}
