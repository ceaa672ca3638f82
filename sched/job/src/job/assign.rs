//! What a worker is given: slow instances' backups first, then those that wait with a history, then what prefers its node, then any.

use super::{Job, backup::ATTEMPTS_AT_A_TIME, finish::Gone};
use crate::effect::Effect;
use crate::ids::{Time, WorkerId};
use crate::nodes::NodeIx;
use crate::record::Outputs;
use crate::stage::{Attempt, Phase};
use crate::worker::Held;

/// Waiting instances with a history that are looked at for one worker: those before may all avoid its node.
const LOOKED_AT: usize = 64;

impl Job {
    pub(super) fn pull(&mut self, now: Time, id: WorkerId, room: u32) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.joined) else {
            // Nobody's: its grant was given back, or its job master never heard of it.
            self.out.effect(Effect::Release { worker: id });
            return;
        };
        worker.room = room;
        if room > 0 {
            self.hungry.insert(id);
            self.feed(now, id);
        } else {
            self.hungry.remove(&id);
        }
    }

    /// Gives the worker what it has room for and what there is.
    pub(super) fn feed(&mut self, now: Time, id: WorkerId) {
        if !self.gives_out() {
            return;
        }
        let Some((unit, node)) = self.workers.get(&id).map(|worker| (worker.unit, worker.node)) else {
            return;
        };
        if self.nodes.is_avoided_by_job(node) {
            return;
        }
        let mut attempts = Vec::new();
        for at in 0..self.stages.len() {
            let stage = &self.stages[at];
            let has_work = stage.waiting() > 0 || !stage.backups_due.is_empty();
            if !has_work || stage.spec.unit != unit || !stage.may_hold(id) {
                continue;
            }
            if !self.is_ready(at) || self.nodes.is_avoided(node, at) {
                continue;
            }
            for _ in 0..self.batch(at, id) {
                let Some((instance, is_backup)) = self.pick(at, node, now) else { break };
                match self.stages[at].next_number(instance, self.generation) {
                    Some(number) => {
                        self.start(now, id, node, Start { stage: at, instance, number, is_backup });
                        attempts.extend(self.stages[at].ids(instance, number, self.stages[at].all_members()));
                    }
                    None => self.give_up(now, at, instance, "it was begun too often"),
                }
            }
        }
        if !attempts.is_empty() {
            self.out.effect(Effect::Assign { worker: id, attempts });
        }
        if self.workers.get(&id).is_some_and(|worker| worker.room == 0) {
            self.hungry.remove(&id);
        }
    }

    /// How many more instances of the stage the worker gets: as many as it runs in a short time, so that none waits long behind
    /// another, and at most half its share, so that all workers end at about the same time.
    fn batch(&self, at: usize, id: WorkerId) -> usize {
        let Some(worker) = self.workers.get(&id) else { return 0 };
        let stage = &self.stages[at];
        let quick = match stage.durations.median_ms() {
            Some(median_ms) => (self.settings.batch_target_ms / median_ms.max(1)).max(1),
            // Nothing is known yet.
            None => 1,
        };
        let joined: u32 =
            self.fleet.range((worker.unit, NodeIx::MIN)..=(worker.unit, NodeIx::MAX)).map(|(_, n)| n).sum();
        let share = stage.waiting().div_ceil(2 * joined.max(1)).max(1);
        let most = quick.min(u64::from(share)).min(u64::from(self.settings.batch_max)) as usize;
        most.saturating_sub(worker.held.len()).min(worker.room as usize)
    }

    /// The instance that suits the node best, and whether this is a second attempt. It is in its stage's map then.
    fn pick(&mut self, at: usize, node: NodeIx, now: Time) -> Option<(u32, bool)> {
        let stage = &self.stages[at];
        let backup = stage.backups_due.iter().take(LOOKED_AT).find(|instance| {
            let live = stage.live.get(instance);
            live.is_some_and(|live| {
                let is_elsewhere = live.attempts.iter().all(|attempt| attempt.node != node);
                let has_room = (1..ATTEMPTS_AT_A_TIME).contains(&live.attempts.len());
                has_room && is_elsewhere && !live.avoid.contains(&node)
            })
        });
        if let Some(instance) = backup {
            return Some((*instance, true));
        }
        if let Some(instance) = self.pick_due(at, node, now) {
            return Some((instance, false));
        }
        let stage = &mut self.stages[at];
        let local = stage.locality.as_mut().and_then(|locality| locality.first(node, &stage.fresh));
        let instance = local.or_else(|| stage.fresh.first())?;
        stage.entry(instance);
        Some((instance, false))
    }

    fn pick_due(&self, at: usize, node: NodeIx, now: Time) -> Option<u32> {
        let stage = &self.stages[at];
        let mut suitable = stage.due.iter().take(LOOKED_AT).filter(|instance| {
            let Some(live) = stage.live.get(instance) else { return false };
            !live.avoid.contains(&node)
                || now.since_ms(live.waits_since) >= self.settings.avoid_patience_ms
                || !self.has_another_node(at, &live.avoid)
        });
        match &stage.locality {
            None => suitable.next().copied(),
            Some(locality) => {
                let mut suitable = suitable.copied();
                let first = suitable.next()?;
                let near = |instance: &u32| locality.prefers(*instance, node);
                if near(&first) { Some(first) } else { Some(suitable.find(near).unwrap_or(first)) }
            }
        }
    }

    /// Whether some worker could run the stage on a node that is none of these.
    fn has_another_node(&self, at: usize, avoid: &[NodeIx]) -> bool {
        let unit = self.stages[at].spec.unit;
        let mut nodes =
            self.fleet.range((unit, NodeIx::MIN)..=(unit, NodeIx::MAX)).map(|((_, node), _)| *node);
        nodes.any(|node| !avoid.contains(&node) && !self.nodes.is_avoided(node, at))
    }

    fn start(&mut self, now: Time, id: WorkerId, node: NodeIx, start: Start) {
        let Start { stage: at, instance, number, is_backup } = start;
        let stage = &mut self.stages[at];
        if is_backup {
            stage.backups_due.remove(&instance);
            stage.backups_running += 1;
            stage.backups_started += 1;
        } else {
            stage.set_phase(instance, Phase::Running);
        }
        let left = stage.all_members();
        let members = stage.spec.members.len();
        stage.hold(id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let is_first = worker.held.is_empty();
        worker.held.push_back(Held { stage: at, instance, number, left, cancelled: None });
        worker.room = worker.room.saturating_sub(1);
        if let Some(live) = stage.live.get_mut(&instance) {
            live.attempts.push(Attempt {
                number,
                worker: id,
                node,
                started: is_first.then_some(now),
                done_ppm: 0,
                ok: 0,
                outputs: Outputs::of_gang(members),
                bytes: 0,
                ran_ms: 0,
                is_backup,
            });
        }
    }

    /// An instance that can not be given out any more.
    fn give_up(&mut self, now: Time, at: usize, instance: u32, text: &str) {
        self.record_gone(now, at, instance, &Gone::Lost { text: text.to_owned() }, true);
    }
}

struct Start {
    stage: usize,
    instance: u32,
    number: u32,
    is_backup: bool,
}
