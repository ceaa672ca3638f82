//! The thread that leads the job: takes inputs, asks [`sched_job::Job`] what follows, and does it in order.
//!
//! What a crash between two steps leaves is argued in `sched/docs/journal.md`; what this file adds is the order: records are
//! durable ([`JournalFile::append`]) before anything that follows from them is told to anybody.

mod from_master;
mod from_worker;
mod tell;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sched_api::proto;
use sched_job::{Effect, Event, Job, JobOutcome, Time, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::desired::Desired;
use crate::input::Input;
use crate::journal_file::{JournalFile, JournalFileError};
use crate::mailbox::Mailboxes;
use crate::outputs;
use crate::units::Unit;

/// Inputs of which the effects are drained, and so made durable, together.
const BATCH_MAX: usize = 256;
/// The job is told the time at least so often.
const TICK: Duration = Duration::from_millis(500);

/// What the thread works with.
pub(crate) struct Parts {
    pub(crate) job: Job,
    pub(crate) journal: JournalFile,
    pub(crate) units: BTreeMap<u32, Unit>,
    pub(crate) mail: Arc<Mailboxes>,
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) inputs: SyncSender<Input>,
    /// The job's directory in the mount.
    pub(crate) directory: PathBuf,
    pub(crate) places: Arc<outputs::Places>,
    pub(crate) runtime: Handle,
}

/// See the module.
pub(crate) struct Driver {
    parts: Parts,
    /// Grants as the master told them.
    granted: BTreeMap<WorkerId, proto::Granted>,
    /// Requests of workers whose grants were not heard of yet.
    early: Vec<(Box<proto::PullRequest>, oneshot::Sender<()>)>,
    grants_complete: bool,
    kill_told: bool,
    paused: bool,
    outcome: Option<JobOutcome>,
    teller: tell::Teller,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let teller = tell::Teller::new(parts.directory.clone(), parts.runtime.clone());
        Self {
            parts,
            granted: BTreeMap::new(),
            early: Vec::new(),
            grants_complete: false,
            kill_told: false,
            paused: false,
            outcome: None,
            teller,
        }
    }

    /// Leads the job until it has ended and everything is told, or this process is to stop.
    ///
    /// # Errors
    /// The journal can not be written: the process must stop, and another one goes on with what is on the disk.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) -> Result<Option<JobOutcome>, JournalFileError> {
        self.carry_out()?;
        loop {
            let mut answered = Vec::new();
            let first = inputs.recv_timeout(self.until_wake());
            let mut next = match first {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
            let mut count = 0;
            while let Some(input) = next {
                match input {
                    Input::Pull(request, answer) => self.pull(request, answer, &mut answered),
                    Input::Master(reply) => self.master_said(&reply, &mut answered),
                    Input::Promoted(attempt, result) => self.handle(Event::Promoted { attempt, result }),
                    Input::Stop => return Ok(None),
                }
                count += 1;
                next = if count < BATCH_MAX { inputs.try_recv().ok() } else { None };
            }
            self.handle(Event::Tick);
            self.carry_out()?;
            for answer in answered {
                // Whoever asked may have given up.
                let _gone = answer.send(());
            }
            if let Some(outcome) = &self.outcome {
                let outcome = outcome.clone();
                self.teller.finish(&self.parts.job);
                return Ok(Some(outcome));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.parts.job.handle(now(), event);
    }

    fn until_wake(&self) -> Duration {
        let wake = self.parts.job.next_wake().map(|at| Duration::from_millis(at.since_ms(now())));
        wake.unwrap_or(TICK).min(TICK)
    }

    /// Does what the job wants done, in order.
    fn carry_out(&mut self) -> Result<(), JournalFileError> {
        for effect in self.parts.job.drain() {
            match effect {
                Effect::Append(records) => self.parts.journal.append(&records)?,
                Effect::Acknowledge { worker, attempts } => {
                    self.parts.mail.put(worker, |news| news.acknowledged.extend(attempts));
                }
                Effect::Assign { worker, attempts } => {
                    self.parts.mail.put(worker, |news| news.assigned.extend(attempts));
                }
                Effect::Cancel { worker, attempt } => {
                    self.parts.mail.put(worker, |news| {
                        news.cancelled.insert(attempt);
                    });
                }
                Effect::Promote { attempt, outputs } => self.promote(attempt, outputs),
                Effect::Discard { attempt } => {
                    let places = Arc::clone(&self.parts.places);
                    self.parts.runtime.spawn_blocking(move || places.discard(attempt));
                }
                Effect::Want(want) => self.want(want),
                Effect::Release { worker } => {
                    self.parts.mail.put(worker, |news| news.exit = true);
                    self.parts.desired.send_modify(|desired| {
                        desired.releases.insert(worker.0);
                    });
                }
                Effect::AvoidNodes { nodes } => {
                    let nodes = nodes.iter().map(|node| node.as_str().to_owned()).collect();
                    self.parts.desired.send_modify(|desired| desired.avoid = nodes);
                }
                Effect::TaskDone { .. } => {}
                Effect::Tell(event) => self.teller.event(&event),
                Effect::Ended { outcome } => self.outcome = Some(outcome),
            }
        }
        self.teller.progress(&self.parts.job, self.paused);
        self.say_how_far();
        Ok(())
    }

    fn promote(&self, attempt: sched_job::AttemptId, outputs: u32) {
        let (places, inputs) = (Arc::clone(&self.parts.places), self.parts.inputs.clone());
        self.parts.runtime.spawn_blocking(move || {
            let result = places.promote(attempt, outputs);
            // If the thread has ended, so has the job, or this process is about to.
            let _gone = inputs.send(Input::Promoted(attempt, result));
        });
    }

    fn want(&self, want: sched_job::Want) {
        let Some(unit) = self.parts.units.get(&want.unit.0) else { return };
        let preferences = want
            .preferred
            .iter()
            .map(|(node, count)| proto::Preference { place: node.as_str().to_owned(), count: *count });
        let want = proto::Want {
            unit: want.unit.0,
            resources: Some(proto::Resources { amounts: unit.resources.clone().into_iter().collect() }),
            priority: 0,
            total: want.total,
            preferences: preferences.collect(),
        };
        self.parts.desired.send_modify(|desired| {
            desired.wants.insert(want.unit, want);
        });
    }

    /// The master shows it to people that ask it; it need not know at once.
    fn say_how_far(&self) {
        let (instances, done) = self.teller.counts();
        let why = self.teller.why();
        self.parts.desired.send_if_modified(|desired| {
            let changed =
                desired.instances != instances || desired.instances_done != done || desired.why != why;
            if changed {
                desired.instances = instances;
                desired.instances_done = done;
                why.clone_into(&mut desired.why);
            }
            // Not worth a message of its own: it goes with the next one.
            false
        });
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
