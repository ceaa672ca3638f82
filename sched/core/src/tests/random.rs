//! Everything at once, in any order: after each event every sum is computed anew, nothing that could be granted waits,
//! and the effects alone, which are all that the world sees, keep every promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::fixtures::{node, queue};
use crate::*;

#[derive(Debug, Clone)]
enum Step {
    Up(u64),
    Lost(u64),
    Silent(u64, bool),
    Drain(u64, bool),
    Remove(u64),
    Resize(u64, u64),
    Queue {
        id: u64,
        parent: u64,
        min: u64,
        max: u64,
    },
    Start {
        job: u64,
        queue: u64,
        priority: i32,
    },
    End(u64),
    Want {
        job: u64,
        unit: u32,
        cpu: u64,
        memory: u64,
        total: u32,
        offset: i32,
        machines: Vec<u64>,
        racks: Vec<u64>,
    },
    Release {
        job: u64,
        which: usize,
    },
    Avoid {
        job: u64,
        nodes: Vec<u64>,
    },
    Finish {
        which: usize,
        outcome: Outcome,
    },
    Obey(usize),
    Holds(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (node, job) = (0u64..12, 0u64..8);
    prop_oneof![
        4 => node.clone().prop_map(Step::Up),
        1 => node.clone().prop_map(Step::Lost),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Step::Silent(node, on)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Step::Drain(node, on)),
        1 => node.clone().prop_map(Step::Remove),
        1 => (node.clone(), 0u64..10).prop_map(|(node, cpu)| Step::Resize(node, cpu)),
        1 => (1u64..6, 0u64..6, 0u64..12, 0u64..40)
            .prop_map(|(id, parent, min, max)| Step::Queue { id, parent, min, max }),
        3 => (job.clone(), 1u64..6, 0i32..4).prop_map(|(job, queue, priority)| Step::Start { job, queue, priority }),
        1 => job.clone().prop_map(Step::End),
        8 => (job.clone(), 0u32..3, 1u64..5, 0u64..5, 0u32..12, -1i32..2,
              prop::collection::vec(0u64..14, 0..3), prop::collection::vec(0u64..3, 0..2))
            .prop_map(|(job, unit, cpu, memory, total, offset, machines, racks)| {
                Step::Want { job, unit, cpu, memory, total, offset, machines, racks }
            }),
        2 => (job.clone(), any::<usize>()).prop_map(|(job, which)| Step::Release { job, which }),
        1 => (job.clone(), prop::collection::vec(0u64..12, 0..4)).prop_map(|(job, nodes)| Step::Avoid { job, nodes }),
        4 => (any::<usize>(), prop_oneof![
                4 => Just(Outcome::Done), 1 => Just(Outcome::WorkerFailed), 1 => Just(Outcome::NodeFailed)])
            .prop_map(|(which, outcome)| Step::Finish { which, outcome }),
        6 => any::<usize>().prop_map(Step::Obey),
        1 => job.prop_map(Step::Holds),
        3 => prop_oneof![Just(100u64), Just(1_000), Just(5_000), Just(40_000), Just(700_000)].prop_map(Step::Pass),
    ]
}

/// What the effects say, and what agents and job masters would know from them.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    version: u64,
    totals: BTreeMap<(JobId, UnitId), u32>,
    live: BTreeMap<GrantId, (JobId, UnitId, NodeId, Resources)>,
    stopping: BTreeMap<GrantId, NodeId>,
    /// Of agents that are lost: what they may still run, until they report again.
    cut_off: BTreeMap<NodeId, BTreeSet<GrantId>>,
    effects: Vec<Effect>,
}

impl Model {
    fn see(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            match effect {
                Effect::Grant { grant, job, unit, node, resources, .. } => {
                    self.live.insert(*grant, (*job, *unit, *node, *resources));
                    let held = self.live.values().filter(|(j, u, ..)| (j, u) == (job, unit)).count();
                    let wanted = self.totals.get(&(*job, *unit)).copied().unwrap_or(0) as usize;
                    assert!(held <= wanted, "job {job} holds {held} of unit {unit} and wants {wanted}");
                }
                Effect::Revoke { grant, node, reason, .. } => {
                    let was = self.live.remove(grant);
                    assert!(
                        was.is_some() || self.stopping.contains_key(grant) || *reason == Reason::Unknown,
                        "{grant} is revoked ({reason:?}) and was not granted"
                    );
                    if *reason == Reason::NodeLost {
                        self.cut_off.entry(*node).or_default().insert(*grant);
                        self.stopping.remove(grant);
                    } else {
                        self.stopping.insert(*grant, *node);
                    }
                }
                _ => {}
            }
        }
        self.effects.extend(effects);
    }

    fn event(&mut self, step: &Step) -> Option<Event> {
        Some(match step.clone() {
            Step::Up(id) => {
                let running = self.live.iter().filter(|(_, (.., at, _))| *at == NodeId(id));
                let mut running: Vec<Held> = running
                    .map(|(grant, (job, unit, _, resources))| held(*grant, *job, *unit, *resources))
                    .collect();
                let back = self.cut_off.remove(&NodeId(id)).into_iter().flatten();
                running.extend(back.map(|grant| held(grant, JobId(0), UnitId(0), Resources::new(1, 1, 0))));
                self.stopping.retain(|_, at| *at != NodeId(id));
                Event::NodeUp(NodeReport { running, ..node(id, Resources::new(8, 8, 0)) })
            }
            Step::Lost(id) => Event::NodeLost(NodeId(id)),
            Step::Silent(id, true) => Event::NodeSilent(NodeId(id)),
            Step::Silent(id, false) => Event::NodeHeard(NodeId(id)),
            Step::Drain(id, draining) => Event::NodeDraining { node: NodeId(id), draining },
            Step::Remove(id) => Event::NodeRemoved(NodeId(id)),
            Step::Resize(id, cpu) => {
                Event::NodeCapacity { node: NodeId(id), capacity: Resources::new(cpu, 8, 0) }
            }
            Step::Queue { id, parent, min, max } => {
                let parent = (parent > 0).then_some(parent);
                let max = if max == 0 { Resources::UNLIMITED } else { Resources::new(max, u64::MAX, 0) };
                let spec = queue("q", parent, Resources::new(min, 0, 0), max);
                Event::QueueDefined { queue: QueueId(id), spec }
            }
            Step::Start { job, queue, priority } => Event::JobStarted {
                job: JobId(job),
                name: Arc::from("j"),
                queue: QueueId(queue),
                priority: Priority(priority),
            },
            Step::End(job) => Event::JobEnded(JobId(job)),
            Step::Want { job, unit, cpu, memory, total, offset, machines, racks } => {
                self.version += 1;
                let want = Want {
                    unit: UnitId(unit),
                    version: self.version,
                    resources: Resources::new(cpu, memory, 0),
                    priority_offset: offset,
                    total,
                    prefer: Preferences {
                        machines: machines.into_iter().map(|id| (MachineId(id), 2)).collect(),
                        racks: racks.into_iter().map(|id| (RackId(id), 2)).collect(),
                    },
                };
                Event::Request { job: JobId(job), wants: vec![want], release: Vec::new() }
            }
            Step::Release { job, which } => {
                let own: Vec<GrantId> = self
                    .live
                    .iter()
                    .filter(|(_, (owner, ..))| *owner == JobId(job))
                    .map(|(id, _)| *id)
                    .collect();
                let release = vec![*own.get(which.checked_rem(own.len())?)?];
                Event::Request { job: JobId(job), wants: Vec::new(), release }
            }
            Step::Avoid { job, nodes } => {
                Event::Avoid { job: JobId(job), nodes: nodes.into_iter().map(NodeId).collect() }
            }
            Step::Finish { which, outcome } => {
                let grant = *self.live.keys().nth(which.checked_rem(self.live.len())?)?;
                self.live.remove(&grant);
                Event::Ended { grant, outcome }
            }
            Step::Obey(which) => {
                let grant = *self.stopping.keys().nth(which.checked_rem(self.stopping.len())?)?;
                self.stopping.remove(&grant);
                Event::Ended { grant, outcome: Outcome::Done }
            }
            Step::Holds(job) => {
                let own = self.live.iter().filter(|(_, (owner, ..))| *owner == JobId(job));
                Event::Holds { job: JobId(job), grants: own.map(|(id, (.., at, _))| (*id, *at)).collect() }
            }
            Step::Pass(millis) => {
                self.now += millis;
                Event::Tick
            }
        })
    }
}

fn held(grant: GrantId, job: JobId, unit: UnitId, resources: Resources) -> Held {
    Held { grant, job, unit, resources, priority: Priority(0), since: Millis(0) }
}

fn play(steps: &[Step], config: Config) -> Vec<Effect> {
    let mut scheduler = Scheduler::new(config).unwrap();
    let mut model = Model::default();
    for step in steps {
        let Some(event) = model.event(step) else { continue };
        let told = event.clone();
        let result = scheduler.handle(Millis(model.now), event);
        match told {
            Event::Request { job, wants, .. } if result.is_ok() => {
                for want in wants {
                    model.totals.insert((job, want.unit), want.total);
                }
            }
            Event::JobEnded(job) if result.is_ok() => model.totals.retain(|(owner, _), _| *owner != job),
            _ => {}
        }
        let mut rounds = 0;
        loop {
            let effects: Vec<Effect> = scheduler.drain_effects().collect();
            model.see(effects);
            if let Err(broken) = scheduler.check() {
                panic!("after {step:?}: {broken}");
            }
            if !scheduler.has_work() {
                break;
            }
            rounds += 1;
            assert!(rounds < 10_000, "after {step:?} the work never ends");
            scheduler.handle(Millis(model.now), Event::Tick).unwrap();
        }
        if let Err(broken) = scheduler.check_nothing_idle() {
            panic!("after {step:?}: {broken}");
        }
        let granted: usize = (0..8).map(|job| scheduler.grants_of(JobId(job)).count()).sum();
        assert_eq!(granted, model.live.len(), "after {step:?}: the effects do not add up to the state");
        for job in 0..8 {
            for unit in 0..3 {
                if let Some(why) = scheduler.why(JobId(job), UnitId(unit)) {
                    assert!(!why.to_string().contains('\n'));
                    assert!(why.reason != WaitsFor::Turn, "after {step:?}: {why}");
                }
            }
        }
    }
    model.effects
}

fn start() -> Vec<Step> {
    (1..6).map(|id| Step::Queue { id, parent: 0, min: 0, max: 0 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn promises_are_kept_and_the_same_events_give_the_same_effects(
        steps in prop::collection::vec(step(), 1..120),
        decisions_max in prop_oneof![Just(2usize), Just(7), Just(128)],
    ) {
        let config = Config { decisions_max, ..Config::default() };
        let steps: Vec<Step> = start().into_iter().chain(steps).collect();
        let once = play(&steps, config.clone());
        prop_assert_eq!(once, play(&steps, config));
    }
}
