//! A master that takes over knows in the end what the one before it knew, and nothing that runs is stopped.

use std::collections::BTreeMap;

use super::fixtures::{World, cpu, node, revoked};
use crate::*;

fn successor(expected: &[u64]) -> World {
    let expected = expected.iter().map(|id| NodeId(*id)).collect();
    let recovery = Some(Recovery { expected, until: Millis(61_000) });
    World::new(Config { epoch: 2, recovery, ..Config::default() })
}

fn report(old: &World, id: u64, capacity: Resources) -> Event {
    let of_node = old.held.iter().filter(|(_, (.., at))| *at == NodeId(id));
    let running = of_node
        .map(|(grant, (job, unit, _))| Held {
            grant: *grant,
            job: *job,
            unit: *unit,
            resources: cpu(1),
            priority: Priority(0),
            since: Millis(0),
        })
        .collect();
    Event::NodeUp(NodeReport { running, ..node(id, capacity) })
}

type Picture = (Vec<NodeView>, Vec<QueueView>, (usize, u64), Vec<(u32, u32)>);

fn picture(world: &World) -> Picture {
    let units = [1, 2].map(|job| world.why(job)).map(|why| (why.held, why.waiting)).to_vec();
    let mut nodes: Vec<NodeView> = world.scheduler.nodes().collect();
    nodes.sort_by_key(|node| node.node);
    (nodes, world.scheduler.queues().collect(), world.scheduler.totals(), units)
}

fn before() -> World {
    let mut old = World::new(Config::default());
    old.nodes(3, cpu(4));
    old.run(1, 1, 0, 7, cpu(1));
    old.run(2, 1, 0, 9, cpu(1));
    old
}

#[test]
fn the_new_master_has_the_same_picture_in_whatever_order_it_is_told() {
    let old = before();
    for order in 0..4 {
        let mut new = successor(&[0, 1, 2]);
        let mut effects = Vec::new();
        if order == 0 {
            for id in 0..3 {
                effects.extend(new.tell(report(&old, id, cpu(4))));
                assert_eq!(new.scheduler.is_recovering(), id < 2);
                if id == 1 {
                    new.job(1, 1, 0);
                    new.job(2, 1, 0);
                }
            }
            effects.extend(new.request(1, 7, cpu(1)));
            effects.extend(new.request(2, 9, cpu(1)));
        } else {
            new.job(1, 1, 0);
            new.job(2, 1, 0);
            if order == 1 {
                effects.extend(new.request(1, 7, cpu(1)));
                effects.extend(new.request(2, 9, cpu(1)));
            }
            for id in [1, 0, 2] {
                effects.extend(new.tell(report(&old, id, cpu(4))));
            }
            if order > 1 {
                effects.extend(new.request(1, 7, cpu(1)));
                effects.extend(new.request(2, 9, cpu(1)));
            }
        }
        assert_eq!(picture(&new), picture(&old));
        assert_eq!(effects, [Effect::Recovered { missing: 0 }], "nothing is granted and nothing stopped");
    }
}

#[test]
fn nothing_is_granted_until_agents_have_reported_or_time_is_up() {
    let mut new = successor(&[0, 1]);
    new.run(1, 1, 0, 4, cpu(1));
    new.tell(Event::NodeUp(node(0, cpu(4))));
    assert_eq!(new.count(1), 0);
    assert!(new.why(1).to_string().contains("1 of 2 agents"), "{}", new.why(1));
    let effects = new.pass(60_000);
    assert_eq!(effects[0], Effect::Recovered { missing: 1 });
    assert_eq!(new.count(1), 4);
}

#[test]
fn an_agent_that_reports_late_keeps_what_is_still_wanted() {
    let old = before();
    let mut new = successor(&[0, 1, 2]);
    new.run(1, 1, 0, 7, cpu(1));
    new.run(2, 1, 0, 9, cpu(1));
    for id in [0, 1] {
        new.tell(report(&old, id, cpu(4)));
    }
    new.pass(60_000);
    let effects = new.tell(report(&old, 2, cpu(4)));
    assert_eq!(revoked(&effects), []);
    assert_eq!(new.scheduler.totals().0, 12);
}

#[test]
fn what_belongs_to_no_job_is_stopped_after_the_recovery() {
    let old = before();
    let mut new = successor(&[0, 1, 2]);
    new.run(2, 1, 0, 9, cpu(1));
    let mut effects = Vec::new();
    for id in 0..3 {
        effects.extend(new.tell(report(&old, id, cpu(4))));
    }
    let stopped = revoked(&effects);
    assert_eq!(stopped.len(), old.count(1));
    assert!(stopped.iter().all(|(_, reason)| *reason == Reason::Unknown));
}

#[test]
fn a_lost_node_that_comes_back_is_told_to_stop_what_was_withdrawn() {
    let mut world = before();
    let report = report(&world, 0, cpu(4));
    let Event::NodeUp(NodeReport { running, .. }) = &report else { unreachable!() };
    let there: Vec<GrantId> = running.iter().map(|held| held.grant).collect();
    world.tell(Event::NodeLost(NodeId(0)));
    let stopped: Vec<GrantId> = revoked(&world.tell(report)).into_iter().map(|(grant, _)| grant).collect();
    assert_eq!(stopped, there);
}

#[test]
fn an_agent_that_lost_an_order_is_told_again() {
    let mut world = before();
    let effects = world.tell(Event::NodeUp(node(0, cpu(4))));
    let told =
        effects.iter().filter(|effect| matches!(effect, Effect::Grant { node: NodeId(0), .. })).count();
    assert_eq!(told, 4);
    assert_eq!(world.scheduler.totals().0, 12, "it is the same grants");
}

#[test]
fn a_job_master_that_was_restarted_learns_what_it_has_and_what_not() {
    let mut world = before();
    let mut known: BTreeMap<GrantId, NodeId> = world.of(1).into_iter().collect();
    let (missed, _) = known.pop_first().unwrap();
    let gone = GrantId { epoch: 1, sequence: 999 };
    known.insert(gone, NodeId(0));
    let effects = world.tell(Event::Holds { job: JobId(1), grants: known });
    assert_eq!(revoked(&effects), [(gone, Reason::Unknown)]);
    assert!(matches!(effects[0], Effect::Grant { grant, .. } if grant == missed));
}

#[test]
fn a_claim_waits_for_its_agent() {
    let old = before();
    let mut new = successor(&[0, 1, 2]);
    new.job(1, 1, 0);
    new.job(2, 1, 0);
    let known: BTreeMap<GrantId, NodeId> = old.of(1).into_iter().collect();
    let effects = new.tell(Event::Holds { job: JobId(1), grants: known });
    assert_eq!(effects, [], "no agent has been heard, so nothing is known to be gone");
    let mut effects = Vec::new();
    for id in [0, 1, 2] {
        effects.extend(new.tell(report(&old, id, cpu(4))));
    }
    assert_eq!(revoked(&effects), []);
}
