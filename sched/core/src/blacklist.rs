//! Nodes that are left alone: what jobs say of them, and how often they failed themselves.
//!
//! One job says only where it does not want to be. Several different jobs that say the same of a node within a window
//! put it on the cluster's list; so do its own failures. Everything decays, and only a share of the nodes may be on
//! the list, so that a few bad jobs cannot empty the cluster.

use crate::event::Effect;
use crate::ids::{JobId, Slot};
use crate::node::FAILURES_MAX;
use crate::scheduler::Scheduler;
use crate::work::Timer;

/// Jobs whose opinion of one node is remembered; more than any sensible threshold.
const VOTES_MAX: usize = 64;

impl Scheduler {
    /// A job avoids this node. It counts once, however often it says so.
    pub(crate) fn vote(&mut self, job: JobId, slot: Slot) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(slot) else { return };
        if node.votes.len() < VOTES_MAX || node.votes.contains_key(&job) {
            node.votes.insert(job, now);
        }
        self.consider_blacklisting(slot);
    }

    /// The node was lost, or could not start a worker.
    pub(crate) fn node_failed(&mut self, slot: Slot) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(slot) else { return };
        if node.failures.len() == FAILURES_MAX {
            node.failures.pop_front();
        }
        node.failures.push_back(now);
        self.consider_blacklisting(slot);
    }

    fn consider_blacklisting(&mut self, slot: Slot) {
        let (now, rules) = (self.now, &self.config.blacklist);
        let most = self.nodes.len() * rules.share_max_percent / 100;
        let is_full = self.nodes.blacklisted >= most;
        let Some(node) = self.nodes.get_mut(slot) else { return };
        node.votes.retain(|_, at| now.since(*at) < rules.window_ms);
        node.failures.retain(|at| now.since(*at) < rules.window_ms);
        let (jobs, failures) = (node.votes.len(), node.failures.len());
        let is_bad = jobs >= rules.jobs_min || failures >= rules.failures_min;
        if !is_bad || is_full || node.blacklisted_until.is_some() {
            return;
        }
        let until = now.after(rules.hold_ms);
        let id = node.id;
        self.nodes.blacklisted += 1;
        self.set(slot, |node| node.blacklisted_until = Some(until));
        self.timers.arm(until, Timer::Blacklist(slot));
        self.effects.push(Effect::NodeBlacklisted { node: id, until, jobs, failures });
    }

    /// A node has been on the list long enough; it starts with a clean sheet.
    pub(crate) fn forgive(&mut self, slot: Slot) {
        let now = self.now;
        let Some(node) = self.nodes.get(slot) else { return };
        if node.blacklisted_until.is_none_or(|until| until > now) {
            return;
        }
        let id = node.id;
        self.nodes.blacklisted -= 1;
        self.set(slot, |node| {
            node.blacklisted_until = None;
            node.votes.clear();
            node.failures.clear();
        });
        self.effects.push(Effect::NodeForgiven(id));
    }
}
