//! Answers of Fuxi's master as the job understands them.

use std::collections::BTreeMap;

use sched_api::proto;
use sched_job::{Event, LossReason, NodeName, UnitId, WorkerId};
use tokio::sync::oneshot;

use super::Driver;

impl Driver {
    pub(super) fn master_said(&mut self, reply: &proto::JobReply, answered: &mut Vec<oneshot::Sender<()>>) {
        let granted: BTreeMap<WorkerId, proto::Granted> =
            reply.granted.iter().map(|granted| (WorkerId(granted.grant), granted.clone())).collect();
        // A master that has just begun does not know all grants yet: none is gone because it does not name it.
        if !reply.recovering {
            self.gone(&granted, &reply.ended);
        }
        for (worker, new) in &granted {
            if !self.granted.contains_key(worker) {
                let (unit, node) = (UnitId(new.unit), NodeName::new(&new.node));
                self.handle(Event::Granted { worker: *worker, unit, node });
                self.granted.insert(*worker, new.clone());
            }
        }
        if !reply.recovering && !self.grants_complete {
            self.grants_complete = true;
            self.handle(Event::GrantsComplete);
        }
        for (request, answer) in std::mem::take(&mut self.early) {
            self.pull(request, answer, answered);
        }
        if reply.kill && !self.kill_told {
            self.kill_told = true;
            self.handle(Event::Kill { by: "its owner".to_owned() });
        }
        if reply.pause != self.paused {
            self.paused = reply.pause;
            self.handle(if reply.pause { Event::Pause } else { Event::Resume });
        }
        self.teller.waits(&reply.why);
        let holds: Vec<_> = self.granted.values().cloned().collect();
        self.parts.desired.send_if_modified(|desired| {
            desired.releases.retain(|grant| granted.contains_key(&WorkerId(*grant)));
            let changed = desired.holds != holds;
            desired.holds = holds;
            // Ended grants are told until the master hears that they are known.
            changed && !reply.ended.is_empty()
        });
    }

    /// Grants that are no more.
    fn gone(&mut self, granted: &BTreeMap<WorkerId, proto::Granted>, ended: &[proto::Ended]) {
        let gone: Vec<WorkerId> =
            self.granted.keys().filter(|worker| !granted.contains_key(worker)).copied().collect();
        for worker in gone {
            self.granted.remove(&worker);
            // An exit code of -1: the master took it back, or the machine is out of reach. Nothing that ran there failed.
            let how = ended.iter().find(|ended| ended.grant == worker.0);
            self.handle(match how {
                Some(ended) if ended.code >= 0 => {
                    Event::WorkerLost { worker, reason: LossReason::Died(ended.how.clone()) }
                }
                Some(_) | None => Event::Revoked { worker },
            });
            self.parts.mail.remove(worker);
        }
    }
}
