//! The instances of one stage: two bits each, and a map of those that are neither fresh nor done.
//!
//! Every change of an instance's state goes through a method here, for the live job and for one that is read from its journal, so
//! the counts always fit the states. The table of states is in `sched/docs/journal.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::bits::Bits;
use crate::ids::{AttemptId, PER_GENERATION, PER_LIFE, Time, WorkerId};
use crate::locality::Locality;
use crate::median::Durations;
use crate::nodes::{NodeIx, Nodes};
use crate::plan::{Plan, StageSpec};
use crate::record::Outputs;

/// Nodes an instance is remembered to have failed on.
const AVOIDED_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) spec: StageSpec,
    /// Never assigned; none of these is in `live`.
    pub(crate) fresh: Bits,
    pub(crate) done: Bits,
    pub(crate) live: BTreeMap<u32, Live>,
    /// Those of `live` that wait for a worker.
    pub(crate) due: BTreeSet<u32>,
    /// Those of `live` that run and should run once more beside it.
    pub(crate) backups_due: BTreeSet<u32>,
    pub(crate) sleeping: u32,
    pub(crate) running: u32,
    pub(crate) promoting: u32,
    pub(crate) failed: u32,
    pub(crate) backups_running: u32,
    pub(crate) backups_started: u64,
    pub(crate) bytes: u64,
    pub(crate) durations: Durations,
    pub(crate) locality: Option<Locality>,
    /// Workers that hold attempts of this stage, and how many.
    pub(crate) holders: BTreeMap<WorkerId, u32>,
    /// Instances whose output was lost: how often, and when last.
    pub(crate) lives: BTreeMap<u32, (u32, Time)>,
    /// It was said to be done, and nothing was lost since.
    pub(crate) announced: bool,
    /// Failures told to people so far.
    pub(crate) failures_told: u64,
}

/// An instance that is neither fresh nor done.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) phase: Phase,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    /// Attempts this generation gave in this life.
    pub(crate) used: u32,
    /// Where it failed last.
    pub(crate) avoid: Vec<NodeIx>,
    /// Since when it waits, if it does.
    pub(crate) waits_since: Time,
    /// What runs of it: one, or more with backups.
    pub(crate) attempts: Vec<Attempt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for a worker.
    Due,
    /// Waits for the time after a failure.
    Sleeping { until: Time },
    /// At least one attempt is with a worker.
    Running,
    /// Won; these members' outputs (a bit each) are not yet known to be in place.
    Promoting { number: u32, outputs: Outputs, left: u8 },
    /// Failed for good.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) worker: WorkerId,
    pub(crate) node: NodeIx,
    /// Since when it is the one that its worker runs.
    pub(crate) started: Option<Time>,
    pub(crate) done_ppm: u32,
    /// Members that ended well, a bit each, and what they made.
    pub(crate) ok: u8,
    pub(crate) outputs: Outputs,
    pub(crate) bytes: u64,
    pub(crate) ran_ms: u64,
    pub(crate) is_backup: bool,
}

impl Stage {
    pub(crate) fn new(spec: StageSpec, plan: &Plan, nodes: &mut Nodes) -> Stage {
        let preferred = spec.members.iter().find_map(|task| plan.tasks[task.0 as usize].preferred.clone());
        Stage {
            fresh: Bits::full(spec.instances),
            done: Bits::empty(spec.instances),
            live: BTreeMap::new(),
            due: BTreeSet::new(),
            backups_due: BTreeSet::new(),
            sleeping: 0,
            running: 0,
            promoting: 0,
            failed: 0,
            backups_running: 0,
            backups_started: 0,
            bytes: 0,
            durations: Durations::new(),
            locality: preferred.map(|preferred| Locality::new(preferred, nodes)),
            holders: BTreeMap::new(),
            lives: BTreeMap::new(),
            announced: false,
            failures_told: 0,
            spec,
        }
    }

    /// Nothing of it is left to do.
    pub(crate) fn is_complete(&self) -> bool {
        self.done.ones() + self.failed == self.spec.instances
    }

    /// Instances a worker could take now.
    pub(crate) fn waiting(&self) -> u32 {
        self.fresh.ones() + self.due.len() as u32
    }

    /// All members, a bit each.
    pub(crate) fn all_members(&self) -> u8 {
        ((1_u16 << self.spec.members.len()) - 1) as u8
    }

    /// The ids of one attempt's members that are in `mask`.
    pub(crate) fn ids(&self, instance: u32, number: u32, mask: u8) -> impl Iterator<Item = AttemptId> {
        let members = self.spec.members.iter().enumerate();
        members.filter(move |(at, _)| mask & (1 << at) != 0).map(move |(_, task)| AttemptId {
            task: *task,
            instance,
            attempt: number,
        })
    }

    /// The instance's entry, which is made if it is fresh; `None` if it is done.
    pub(crate) fn entry(&mut self, instance: u32) -> Option<&mut Live> {
        if self.fresh.remove(instance) {
            self.insert(instance, Time(0));
        }
        self.live.get_mut(&instance)
    }

    fn insert(&mut self, instance: u32, since: Time) {
        self.due.insert(instance);
        let live = Live {
            phase: Phase::Due,
            failures: 0,
            losses: 0,
            used: 0,
            avoid: Vec::new(),
            waits_since: since,
            attempts: Vec::new(),
        };
        self.live.insert(instance, live);
    }

    /// Of an instance that is in `live`; nothing else changes its phase.
    pub(crate) fn set_phase(&mut self, instance: u32, phase: Phase) {
        let Some(live) = self.live.get_mut(&instance) else { return };
        let before = std::mem::replace(&mut live.phase, phase);
        self.uncount(instance, before);
        match phase {
            Phase::Due => {
                self.due.insert(instance);
            }
            Phase::Sleeping { .. } => self.sleeping += 1,
            Phase::Running => self.running += 1,
            Phase::Promoting { .. } => self.promoting += 1,
            Phase::Failed => self.failed += 1,
        }
        if phase != Phase::Running {
            self.backups_due.remove(&instance);
        }
    }

    fn uncount(&mut self, instance: u32, phase: Phase) {
        match phase {
            Phase::Due => {
                self.due.remove(&instance);
            }
            Phase::Sleeping { .. } => self.sleeping -= 1,
            Phase::Running => self.running -= 1,
            Phase::Promoting { .. } => self.promoting -= 1,
            Phase::Failed => self.failed -= 1,
        }
    }

    /// The instance has a winner. Its other attempts are returned: they are to be cancelled.
    pub(crate) fn won(&mut self, instance: u32, number: u32, outputs: Outputs) -> Vec<Attempt> {
        let Some(live) = self.entry(instance) else { return Vec::new() };
        let mut others = std::mem::take(&mut live.attempts);
        if let Some(at) = others.iter().position(|attempt| attempt.number == number) {
            let winner = others.remove(at);
            self.backups_running -= u32::from(winner.is_backup);
        }
        self.backups_running -= others.iter().map(|attempt| u32::from(attempt.is_backup)).sum::<u32>();
        let made = outputs.as_slice().iter().enumerate().filter(|(_, count)| **count > 0);
        let left = made.fold(0_u8, |mask, (member, _)| mask | 1 << member);
        if left == 0 {
            self.placed(instance);
        } else {
            self.set_phase(instance, Phase::Promoting { number, outputs, left });
        }
        others
    }

    /// All its outputs are in place: it is done.
    pub(crate) fn placed(&mut self, instance: u32) {
        if let Some(live) = self.live.remove(&instance) {
            self.uncount(instance, live.phase);
            self.backups_due.remove(&instance);
            self.done.insert(instance);
        }
    }

    /// The output of an instance that was won is not there: it waits again.
    pub(crate) fn reopen(&mut self, instance: u32, now: Time) {
        if self.done.remove(instance) {
            self.insert(instance, now);
        } else if let Some(live) = self.live.get_mut(&instance)
            && matches!(live.phase, Phase::Promoting { .. })
        {
            live.used = 0;
            live.waits_since = now;
            self.set_phase(instance, Phase::Due);
        } else {
            return;
        }
        self.announced = false;
        let life = self.lives.entry(instance).or_default();
        *life = (life.0 + 1, now);
    }

    /// The next number for an attempt of an instance in `live`; `None` if all are used.
    pub(crate) fn next_number(&mut self, instance: u32, generation: u32) -> Option<u32> {
        let life = self.lives.get(&instance).map_or(0, |life| life.0).min(PER_GENERATION / PER_LIFE - 1);
        let live = self.live.get_mut(&instance)?;
        if live.used >= PER_LIFE {
            return None;
        }
        live.used += 1;
        Some(generation * PER_GENERATION + life * PER_LIFE + live.used - 1)
    }

    pub(crate) fn attempt_mut(&mut self, instance: u32, number: u32) -> Option<&mut Attempt> {
        self.live.get_mut(&instance)?.attempts.iter_mut().find(|attempt| attempt.number == number)
    }

    /// Takes an attempt off its instance, whose phase is the caller's to decide.
    pub(crate) fn take_attempt(&mut self, instance: u32, number: u32) -> Option<Attempt> {
        let live = self.live.get_mut(&instance)?;
        let at = live.attempts.iter().position(|attempt| attempt.number == number)?;
        let attempt = live.attempts.remove(at);
        self.backups_running -= u32::from(attempt.is_backup);
        Some(attempt)
    }

    pub(crate) fn hold(&mut self, worker: WorkerId) {
        *self.holders.entry(worker).or_default() += 1;
    }

    pub(crate) fn unhold(&mut self, worker: WorkerId) {
        if let Some(held) = self.holders.get_mut(&worker) {
            *held -= 1;
            if *held == 0 {
                self.holders.remove(&worker);
            }
        }
    }

    /// Whether the worker may hold attempts of this stage, by the task's limit of workers.
    pub(crate) fn may_hold(&self, worker: WorkerId) -> bool {
        let most = self.spec.parallel_max.map_or(usize::MAX, |most| most as usize);
        self.holders.len() < most || self.holders.contains_key(&worker)
    }
}

impl Live {
    pub(crate) fn failed_on(&mut self, node: NodeIx) {
        self.avoid.retain(|other| *other != node);
        if self.avoid.len() == AVOIDED_MAX {
            self.avoid.remove(0);
        }
        self.avoid.push(node);
    }
}
