//! Nodes that jobs or the whole cluster avoid.

use std::collections::BTreeSet;

use super::fixtures::{World, cpu};
use crate::*;

fn avoid(world: &mut World, job: u64, nodes: &[u64]) -> Vec<Effect> {
    let nodes: BTreeSet<NodeId> = nodes.iter().map(|node| NodeId(*node)).collect();
    world.tell(Event::Avoid { job: JobId(job), nodes })
}

fn listed(world: &World) -> Vec<NodeId> {
    let nodes = world.scheduler.nodes().filter(|node| node.blacklisted_until.is_some());
    nodes.map(|node| node.node).collect()
}

#[test]
fn a_job_is_not_placed_where_it_does_not_want_to_be() {
    let mut world = World::new(Config::default());
    world.nodes(2, cpu(2));
    world.job(1, 1, 0);
    avoid(&mut world, 1, &[0]);
    world.request(1, 4, cpu(1));
    assert!(world.of(1).iter().all(|(_, node)| *node == NodeId(1)));
    assert_eq!(world.count(1), 2);
    world.run(2, 1, 0, 1, cpu(1));
    assert_eq!(world.of(2)[0].1, NodeId(0), "others may");
    avoid(&mut world, 1, &[]);
    assert_eq!(world.count(1), 3, "what is not named any more is used at once");
}

#[test]
fn a_job_s_list_decays() {
    let mut world = World::new(Config::default());
    world.nodes(1, cpu(2));
    world.job(1, 1, 0);
    avoid(&mut world, 1, &[0]);
    world.request(1, 1, cpu(1));
    assert_eq!(world.count(1), 0);
    world.pass(1_800_000);
    assert_eq!(world.count(1), 1);
}

#[test]
fn several_different_jobs_blacklist_a_node_for_all_and_it_is_forgiven() {
    let mut world = World::new(Config::default());
    world.nodes(20, cpu(1));
    for job in 1..=3 {
        world.job(job, 1, 0);
    }
    for _ in 0..5 {
        avoid(&mut world, 1, &[7]);
        avoid(&mut world, 2, &[7]);
    }
    assert_eq!(listed(&world), [], "two jobs, however often they say it");
    let effects = avoid(&mut world, 3, &[7]);
    assert!(matches!(effects[..], [Effect::NodeBlacklisted { node: NodeId(7), jobs: 3, .. }]), "{effects:?}");
    world.run(4, 1, 0, 20, cpu(1));
    assert_eq!(world.count(4), 19);
    world.pass(1_800_000);
    assert_eq!((listed(&world), world.count(4)), (vec![], 20));
}

#[test]
fn jobs_that_say_so_far_apart_do_not_count_together() {
    let mut world = World::new(Config::default());
    world.nodes(20, cpu(1));
    for job in 1..=3 {
        world.job(job, 1, 0);
        avoid(&mut world, job, &[7]);
        world.pass(400_000);
    }
    assert_eq!(listed(&world), []);
}

#[test]
fn bad_jobs_cannot_empty_the_cluster() {
    let mut world = World::new(Config::default());
    world.nodes(20, cpu(1));
    let all: Vec<u64> = (0..20).collect();
    for job in 1..=9 {
        world.job(job, 1, 0);
        avoid(&mut world, job, &all);
    }
    assert_eq!(listed(&world).len(), 2);
}

#[test]
fn a_node_that_fails_again_and_again_is_blacklisted() {
    let mut world = World::new(Config::default());
    world.nodes(10, cpu(1));
    world.run(1, 1, 0, 10, cpu(1));
    for _ in 0..3 {
        let (grant, _) = world.of(1).into_iter().find(|(_, node)| *node == NodeId(4)).unwrap();
        world.held.remove(&grant);
        world.tell(Event::Ended { grant, outcome: Outcome::NodeFailed });
    }
    assert_eq!(listed(&world), [NodeId(4)]);
    assert_eq!(world.count(1), 9);
}
