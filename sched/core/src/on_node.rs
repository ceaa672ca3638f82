//! Nodes come, fall silent, are lost, shrink and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::EventError;
use crate::event::{NodeReport, Reason};
use crate::ids::{GrantId, NodeId, Slot};
use crate::node::Node;
use crate::resources::Resources;
use crate::scheduler::Scheduler;
use crate::work::Look;

impl Scheduler {
    pub(crate) fn node_up(&mut self, report: NodeReport) -> Result<(), EventError> {
        if !report.capacity.is_sane() {
            return Err(EventError::Amount { subject: format!("node {}", report.name) });
        }
        let slot = match self.nodes.slot(report.node) {
            Some(slot) => {
                self.nodes.relocate(slot, report.machine, report.rack);
                slot
            }
            None if self.nodes.len() >= self.config.limits.nodes_max => {
                return Err(EventError::TooMany { what: "nodes", max: self.config.limits.nodes_max });
            }
            None => self.nodes.insert(Node {
                id: report.node,
                name: report.name.clone(),
                machine: report.machine,
                rack: report.rack,
                capacity: report.capacity,
                used: Resources::ZERO,
                dying: Resources::ZERO,
                grants: BTreeSet::new(),
                by_priority: BTreeMap::new(),
                silent: false,
                lost: false,
                draining: false,
                blacklisted_until: None,
                votes: BTreeMap::new(),
                failures: VecDeque::new(),
                reservations: Vec::new(),
                withdrawn: BTreeSet::new(),
            }),
        };
        if let Some(node) = self.nodes.get_mut(slot) {
            node.name = report.name;
            node.capacity = report.capacity;
            node.silent = false;
            node.lost = false;
        }
        self.queues.set_total(self.nodes.total());
        self.reconcile(slot, report.running);
        self.shrink(slot);
        self.refresh(slot);
        self.work.push(Look::Node(slot));
        self.heard_from(report.node);
        Ok(())
    }

    pub(crate) fn node_silent(&mut self, id: NodeId, silent: bool) -> Result<(), EventError> {
        let slot = self.known(id)?;
        self.set(slot, |node| node.silent = silent);
        Ok(())
    }

    pub(crate) fn node_draining(&mut self, id: NodeId, draining: bool) -> Result<(), EventError> {
        let slot = self.known(id)?;
        self.set(slot, |node| node.draining = draining);
        Ok(())
    }

    pub(crate) fn node_capacity(&mut self, id: NodeId, capacity: Resources) -> Result<(), EventError> {
        let slot = self.known(id)?;
        if !capacity.is_sane() {
            return Err(EventError::Amount { subject: format!("node {id}") });
        }
        self.set(slot, |node| node.capacity = capacity);
        self.queues.set_total(self.nodes.total());
        self.shrink(slot);
        Ok(())
    }

    /// Its grants are gone for their jobs, and their room is not counted any more: if it comes back it says what it
    /// still runs, and is told to stop that.
    pub(crate) fn node_lost(&mut self, id: NodeId) -> Result<(), EventError> {
        let slot = self.known(id)?;
        self.heard_from(id);
        if self.nodes.get(slot).is_some_and(|node| node.lost) {
            return Ok(());
        }
        self.withdraw_all(slot);
        self.set(slot, |node| node.lost = true);
        self.queues.set_total(self.nodes.total());
        self.node_failed(slot);
        Ok(())
    }

    pub(crate) fn node_removed(&mut self, id: NodeId) -> Result<(), EventError> {
        let slot = self.known(id)?;
        self.heard_from(id);
        self.withdraw_all(slot);
        if self.nodes.get(slot).is_some_and(|node| node.blacklisted_until.is_some()) {
            self.nodes.blacklisted -= 1;
        }
        for job in self.jobs.values_mut() {
            job.avoid.remove(&slot);
        }
        self.nodes.remove(slot);
        self.queues.set_total(self.nodes.total());
        Ok(())
    }

    fn known(&self, id: NodeId) -> Result<Slot, EventError> {
        self.nodes.slot(id).ok_or(EventError::UnknownNode(id))
    }

    /// Changes a node, and has it looked at if it may give more now.
    pub(crate) fn set(&mut self, slot: Slot, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        change(node);
        self.refresh(slot);
        self.work.push(Look::Node(slot));
    }

    fn withdraw_all(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get(slot) else { return };
        let reservations: Vec<u64> = node.reservations.iter().map(|kept| kept.id).collect();
        let grants: Vec<GrantId> = node.grants.iter().copied().collect();
        for id in reservations {
            self.drop_reservation(slot, id);
        }
        // First all are marked and then all are removed, so that no unit looks for a place in between.
        for grant in &grants {
            self.revoke(*grant, Reason::NodeLost);
        }
        for grant in &grants {
            self.finish(*grant);
        }
        if let Some(node) = self.nodes.get_mut(slot) {
            node.withdrawn.extend(grants);
        }
    }

    /// Takes back what does not fit any more: lowest priority first, then what started last.
    fn shrink(&mut self, slot: Slot) {
        loop {
            let Some(node) = self.nodes.get(slot) else { return };
            let Some(over) = node.used.minus(&node.dying).exceeds(&node.capacity) else { return };
            let running = node.grants.iter().filter_map(|id| self.grants.get(id).map(|grant| (*id, grant)));
            let victim = running
                .filter(|(_, grant)| grant.dying.is_none() && grant.resources.get(over) > 0)
                .min_by_key(|(id, grant)| (grant.priority, std::cmp::Reverse((grant.since, *id))));
            let Some((victim, _)) = victim else { return };
            self.revoke(victim, Reason::NodeShrank);
        }
    }
}
