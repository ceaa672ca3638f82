//! Requests of workers as the job understands them.

use sched_api::proto;
use sched_job::{AttemptId, Event, Finished, NodeName, Outcome, TaskId, UnitId, WorkerId};
use tokio::sync::oneshot;

use super::Driver;

impl Driver {
    pub(super) fn pull(
        &mut self,
        request: Box<proto::PullRequest>,
        answer: oneshot::Sender<()>,
        answered: &mut Vec<oneshot::Sender<()>>,
    ) {
        let worker = WorkerId(request.grant);
        let Some(granted) = self.granted.get(&worker) else {
            if self.grants_complete {
                // Its grant was taken back: it is to end, whatever it has.
                self.parts.mail.put(worker, |news| news.exit = true);
                answered.push(answer);
            } else {
                self.early.push((request, answer));
            }
            return;
        };
        let (unit, node) = (UnitId(granted.unit), NodeName::new(&granted.node));
        let finished: Vec<Finished> = request.finished.iter().filter_map(report).collect();
        let holds: Vec<AttemptId> = request.holds.iter().map(attempt).collect();
        if self.parts.job.knows(worker) {
            for report in finished {
                self.handle(Event::Finished { worker, report });
            }
        } else if holds.is_empty() && finished.is_empty() {
            self.handle(Event::WorkerJoined { worker, unit, node });
        } else {
            self.handle(Event::Adopted { worker, unit, node, running: holds.clone(), finished });
        }
        for progress in &request.progress {
            if let Some(id) = &progress.attempt {
                self.handle(Event::Progress { worker, attempt: attempt(id), done_ppm: progress.ppm });
            }
        }
        self.handle(Event::Holds { worker, attempts: holds });
        self.handle(Event::Pull { worker, room: request.room });
        answered.push(answer);
    }
}

pub(crate) fn attempt(id: &proto::AttemptId) -> AttemptId {
    AttemptId { task: TaskId(id.task), instance: id.instance, attempt: id.attempt }
}

fn report(finished: &proto::Finished) -> Option<Finished> {
    let id = finished.attempt.as_ref()?;
    let ran_us = finished.ended_unix_us.saturating_sub(finished.started_unix_us);
    Some(Finished {
        attempt: attempt(id),
        outcome: outcome(finished),
        ran_ms: ran_us / 1_000,
        message: finished.message.clone(),
    })
}

fn outcome(finished: &proto::Finished) -> Outcome {
    match finished.outcome() {
        proto::Outcome::Ok => Outcome::Ok { outputs: finished.outputs, bytes: finished.bytes_out },
        proto::Outcome::Exit => Outcome::Exit(finished.code),
        proto::Outcome::Signal => Outcome::Signal(finished.code),
        proto::Outcome::Timeout => Outcome::Timeout,
        proto::Outcome::LostInput => Outcome::LostInput {
            task: TaskId(finished.lost_task),
            instance: u32::try_from(finished.code).unwrap_or(u32::MAX),
        },
        proto::Outcome::NoSuchProgram => Outcome::NoSuchProgram,
        proto::Outcome::OutOfMemory => Outcome::OutOfMemory,
        proto::Outcome::Cancelled => Outcome::Cancelled,
        // What a newer worker says is taken for trouble of its machine: another one may be older.
        proto::Outcome::Machine | proto::Outcome::Unspecified => Outcome::Machine,
    }
}
