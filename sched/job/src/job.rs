//! The state machine of one job. This file has the state and the way in and out; each concern is a child:
//! `recover` (from a journal), `assign` (what a worker is given), `finish` (how attempts end), `fleet` (workers that come and go),
//! `tick` (what time alone brings), `backup` (slow instances), `close` (how the job ends), `want` (what is asked of the master).

mod assign;
mod backup;
mod close;
mod finish;
mod fleet;
mod recover;
mod tick;
mod want;

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::{Effect, EventKind, JobOutcome};
use crate::event::Event;
use crate::ids::{AttemptId, NodeName, Time, UnitId, WorkerId};
use crate::nodes::{NodeIx, Nodes};
use crate::outbox::Outbox;
use crate::plan::{Plan, PlanError};
use crate::record::Record;
use crate::settings::Settings;
use crate::stage::Stage;
use crate::worker::Worker;

pub use recover::RecoverError;

/// One job.
#[derive(Debug)]
pub struct Job {
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) stages: Vec<Stage>,
    /// Of each task: its stage, and which member it is there.
    stage_of: Vec<(usize, u8)>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Workers that were lost or given back: they do not come again.
    gone: BTreeSet<WorkerId>,
    /// Workers with room, which are given what appears.
    hungry: BTreeSet<WorkerId>,
    /// Joined workers of each unit on each node.
    fleet: BTreeMap<(UnitId, NodeIx), u32>,
    pub(crate) nodes: Nodes,
    /// Instances that wait after a failure.
    sleeping: BTreeSet<(Time, usize, u32)>,
    pub(crate) phase: JobPhase,
    pub(crate) paused: bool,
    /// A new job master waits for what its workers say.
    pub(crate) adopting: Option<Adopting>,
    generation: u32,
    /// Stages that are done.
    announced: usize,
    pub(crate) first_error: Option<String>,
    out: Outbox,
    wanted: BTreeMap<UnitId, want::Said>,
    want_version: u64,
    /// Workers with room may find something now.
    work_appeared: bool,
    /// Demand may have risen.
    demand_changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobPhase {
    Open,
    Closing { outcome: JobOutcome, deadline: Time },
    Ended { outcome: JobOutcome },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Adopting {
    until: Time,
    grants_known: bool,
}

/// Where an attempt belongs, once its id was checked.
#[derive(Clone, Copy, Debug)]
struct Place {
    stage: usize,
    member: u8,
    instance: u32,
    number: u32,
}

impl Job {
    /// A job that did not run before.
    pub fn new(plan: Plan, settings: Settings, now: Time) -> Result<Job, PlanError> {
        let mut job = Job::idle(plan, settings)?;
        job.open(now, 0);
        Ok(job)
    }

    /// As planned, with nothing done and nothing told.
    fn idle(plan: Plan, settings: Settings) -> Result<Job, PlanError> {
        let specs = plan.stages()?;
        let mut stage_of = vec![(0, 0); plan.tasks.len()];
        for (stage, spec) in specs.iter().enumerate() {
            for (member, task) in spec.members.iter().enumerate() {
                stage_of[task.0 as usize] = (stage, member as u8);
            }
        }
        let mut nodes = Nodes::default();
        let stages = specs.into_iter().map(|spec| Stage::new(spec, &plan, &mut nodes)).collect();
        Ok(Job {
            plan,
            settings,
            stages,
            stage_of,
            workers: BTreeMap::new(),
            gone: BTreeSet::new(),
            hungry: BTreeSet::new(),
            fleet: BTreeMap::new(),
            nodes,
            sleeping: BTreeSet::new(),
            phase: JobPhase::Open,
            paused: false,
            adopting: None,
            generation: 0,
            announced: 0,
            first_error: None,
            out: Outbox::default(),
            wanted: BTreeMap::new(),
            want_version: 0,
            work_appeared: false,
            demand_changed: true,
        })
    }

    fn open(&mut self, now: Time, generation: u32) {
        self.generation = generation;
        self.out.record(Record::Opened { generation, at: now });
        let text = match generation {
            0 => "the job begins".to_owned(),
            more => format!("job master number {} goes on with the job", u64::from(more) + 1),
        };
        self.out.tell(now, EventKind::Opened, text);
        self.announce(now);
        self.settle(now);
    }

    /// Takes an event. What is to be done about it is in the next [`Job::drain`]; any number of events may go before it, and their
    /// records are then synced together.
    pub fn handle(&mut self, now: Time, event: Event) {
        if let JobPhase::Ended { .. } = self.phase {
            self.after_the_end(event);
            return;
        }
        match event {
            Event::Granted { worker, unit, node } => self.granted(now, worker, unit, &node),
            Event::GrantsComplete => self.grants_complete(now),
            Event::Revoked { worker } => {
                self.lose(now, worker, fleet::Loss::Uncounted, "its grant was taken back")
            }
            Event::WorkerJoined { worker, unit, node } => {
                self.join(now, worker, unit, &node);
                self.holds(now, worker, &[]);
                self.end_adoption(now);
            }
            Event::WorkerLost { worker, reason } => self.lost(now, worker, &reason),
            Event::Adopted { worker, unit, node, running, finished } => {
                self.adopt(now, worker, unit, &node, &running, finished);
            }
            Event::Holds { worker, attempts } => self.holds(now, worker, &attempts),
            Event::Pull { worker, room } => self.pull(now, worker, room),
            Event::Started { worker, attempt } => self.progress_of(now, worker, attempt, None),
            Event::Progress { worker, attempt, done_ppm } => {
                self.progress_of(now, worker, attempt, Some(done_ppm))
            }
            Event::Finished { worker, report } => self.finished(now, worker, report),
            Event::Promoted { attempt, result } => self.promoted(now, attempt, result),
            Event::Tick => self.tick(now),
            Event::Pause => self.pause(now),
            Event::Resume => self.resume(now),
            Event::Kill { by } => self.close(now, JobOutcome::Killed { by: crate::codec::cut(&by) }),
        }
        self.settle(now);
    }

    /// All effects since the last call, in the order in which they must be carried out.
    pub fn drain(&mut self) -> Vec<Effect> {
        self.out.drain()
    }

    /// Whether the worker has joined. If not, and it holds or finished anything, [`Event::Adopted`] must come first.
    pub fn knows(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.joined)
    }

    /// Counts the job masters of this job from 0.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// When [`Event::Tick`] should come, if that is before the usual second has passed.
    pub fn next_wake(&self) -> Option<Time> {
        let closing = match &self.phase {
            JobPhase::Closing { deadline, .. } => Some(*deadline),
            JobPhase::Open => self.sleeping.first().map(|(until, _, _)| *until),
            JobPhase::Ended { .. } => None,
        };
        [closing, self.adopting.map(|adopting| adopting.until)].into_iter().flatten().min()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<&JobOutcome> {
        match &self.phase {
            JobPhase::Ended { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// What follows from any event.
    fn settle(&mut self, now: Time) {
        if self.phase == JobPhase::Open && self.announced == self.stages.len() {
            self.close(now, JobOutcome::Done);
        }
        self.feed_hungry(now);
        if std::mem::take(&mut self.demand_changed) {
            self.want(want::When::Raised);
        }
        self.try_to_end(now);
    }

    /// Gives what appeared to the workers that have room.
    fn feed_hungry(&mut self, now: Time) {
        if std::mem::take(&mut self.work_appeared) {
            for worker in self.hungry.iter().copied().collect::<Vec<_>>() {
                self.feed(now, worker);
            }
        }
    }

    /// Says which stages became complete.
    fn announce(&mut self, now: Time) {
        // One that has no instances is complete as soon as what it needs is, so one may follow from another.
        while let Some(at) = (0..self.stages.len())
            .find(|at| !self.stages[*at].announced && self.stages[*at].is_complete() && self.is_ready(*at))
        {
            let stage = &mut self.stages[at];
            stage.announced = true;
            self.announced += 1;
            self.work_appeared = true;
            self.demand_changed = true;
            for task in stage.spec.members.clone() {
                let plan = &self.plan.tasks[task.0 as usize];
                let text = format!("{} is done: {} instances", plan.name, plan.instances);
                self.out.effect(Effect::TaskDone { task });
                self.out.tell(now, EventKind::TaskDone, text);
            }
        }
    }

    fn is_ready(&self, stage: usize) -> bool {
        self.stages[stage].spec.needs.iter().all(|need| self.stages[*need].announced)
    }

    /// `None` for an attempt that this job can not have.
    fn place(&self, attempt: AttemptId) -> Option<Place> {
        let (stage, member) = *self.stage_of.get(attempt.task.0 as usize)?;
        let exists = attempt.instance < self.stages[stage].spec.instances;
        exists.then_some(Place { stage, member, instance: attempt.instance, number: attempt.attempt })
    }

    /// Whether attempts are given out now.
    fn gives_out(&self) -> bool {
        self.phase == JobPhase::Open && !self.paused && self.adopting.is_none()
    }

    fn leader(&self, stage: usize) -> crate::TaskId {
        self.stages[stage].spec.members[0]
    }

    pub(crate) fn stage_name(&self, stage: usize) -> &str {
        &self.plan.tasks[self.leader(stage).0 as usize].name
    }

    fn name_of(&mut self, node: &NodeName) -> NodeIx {
        self.nodes.intern(node)
    }
}
