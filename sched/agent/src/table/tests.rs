//! The table against masters that lose replies, repeat old ones, and are replaced.

use proptest::prelude::*;

use super::*;
use crate::order::Program;

fn order(grant: u64) -> Order {
    Order {
        grant: Grant(grant),
        job: "j".into(),
        limits: BTreeMap::new(),
        uid: 0,
        gid: 0,
        program: Program::Worker,
        directory: "spool/q/run/j".into(),
        job_master: String::new(),
        unit: 1,
    }
}

fn orders(grants: &[u64]) -> Orders {
    Orders { version: 1, orders: grants.iter().map(|grant| order(*grant)).collect(), ..Orders::default() }
}

fn end() -> End {
    End { code: 0, how: "exit code 0".into(), out_of_memory: false }
}

#[test]
fn an_order_is_started_once() {
    let mut table = Table::new(10);
    assert_eq!(table.apply(orders(&[1]), 0, 0), [Action::Start(order(1))]);
    assert_eq!(table.apply(orders(&[1]), 1, 0), []);
    table.ended(Grant(1), end());
    assert_eq!(table.apply(orders(&[1]), 2, 0), [], "it ended, which the master has not heard yet");
}

#[test]
fn what_is_not_ordered_is_told_to_stop_and_then_killed() {
    let mut table = Table::new(10);
    table.apply(orders(&[1, 2]), 0, 0);
    assert_eq!(table.apply(orders(&[2]), 5, 0), [Action::Terminate(Grant(1))]);
    assert_eq!(table.apply(orders(&[2]), 6, 0), []);
    assert_eq!(table.tick(14), []);
    assert_eq!(table.tick(15), [Action::Kill(Grant(1))]);
    assert_eq!(table.tick(16), []);
    assert_eq!(table.tick(25), [Action::Kill(Grant(1))], "as often as it takes");
}

#[test]
fn a_master_that_recovers_stops_nothing() {
    let mut table = Table::new(10);
    table.apply(orders(&[1]), 0, 0);
    let reply = Orders { recovering: true, ..orders(&[2]) };
    assert_eq!(table.apply(reply, 1, 0), [Action::Start(order(2))]);
    let unknown = Orders { not_understood: [Grant(1)].into(), ..orders(&[2]) };
    assert_eq!(table.apply(unknown, 2, 0), [], "an order that is not understood is an order still");
}

#[test]
fn a_master_that_was_replaced_hears_of_an_end_again() {
    let mut table = Table::new(10);
    table.apply(orders(&[1]), 0, 0);
    table.ended(Grant(1), end());
    let noted = Orders { acknowledged: vec![Grant(1)], ..orders(&[]) };
    assert_eq!(table.apply(noted, 1, 0), [Action::Note(Grant(1))]);
    assert_eq!(table.apply(orders(&[1]), 2, 0), [Action::Note(Grant(1))], "and it is not started");
    let again = matches!(table.get(Grant(1)).unwrap().phase, Phase::Ended { acknowledged: false, .. });
    assert!(again);
}

#[test]
fn ends_that_were_told_are_forgotten_from_the_oldest() {
    let mut table = Table::new(10);
    let count = REMEMBERED as u64 + 2;
    for grant in 0..count {
        let mut wanted = orders(&[grant]);
        wanted.recovering = true;
        table.apply(wanted, 0, grant);
        table.ended(Grant(grant), end());
    }
    let acknowledged = (0..count).map(Grant).collect();
    let actions = table.apply(Orders { acknowledged, ..orders(&[]) }, 1, count);
    let forgotten: Vec<_> =
        actions.into_iter().filter(|action| matches!(action, Action::Forget(_))).collect();
    assert_eq!(forgotten, [Action::Forget(Grant(0)), Action::Forget(Grant(1))]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Orders, whether the master recovers, and whether its acknowledgements are in it.
    Reply(BTreeSet<u64>, bool, bool),
    End(u64),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (proptest::collection::btree_set(0u64..8, 0..6), any::<bool>(), any::<bool>())
            .prop_map(|(orders, recovering, acknowledges)| Step::Reply(orders, recovering, acknowledges)),
        2 => (0u64..8).prop_map(Step::End),
        1 => (1u64..30).prop_map(Step::Tick),
    ]
}

proptest! {
    /// Whatever masters say: nothing is started twice, what was started runs or its end is told, and only a master that knows all stops.
    #[test]
    fn started_once_and_never_lost(steps in proptest::collection::vec(step(), 1..80)) {
        let mut table = Table::new(10);
        let mut started = BTreeSet::new();
        let mut now = 0;
        for step in steps {
            let mut before: Vec<Grant> = Vec::new();
            before.extend(table.entries().map(|(grant, _)| grant));
            let (actions, recovering) = match step {
                Step::Reply(grants, recovering, acknowledges) => {
                    let mut reply = orders(&grants.iter().copied().collect::<Vec<_>>());
                    reply.recovering = recovering;
                    if acknowledges {
                        reply.acknowledged = before.clone();
                    }
                    (table.apply(reply, now, now), recovering)
                }
                Step::End(grant) => {
                    table.ended(Grant(grant), end());
                    (Vec::new(), true)
                }
                Step::Tick(later) => {
                    now += later;
                    (table.tick(now), false)
                }
            };
            for action in actions {
                match action {
                    Action::Start(order) => prop_assert!(started.insert(order.grant), "started twice"),
                    Action::Terminate(_) | Action::Kill(_) => prop_assert!(!recovering),
                    Action::Note(_) | Action::Forget(_) => {}
                }
            }
            for grant in &started {
                prop_assert!(table.get(*grant).is_some(), "a grant was forgotten early");
            }
        }
    }
}
